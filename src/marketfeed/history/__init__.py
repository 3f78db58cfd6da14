"""Candles of the past, from the broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from marketfeed import config as configuration
from marketfeed.batches import CandleBatch, Origin
from marketfeed.clock import Clock, to_ns
from marketfeed.config import Config, VendorConfig
from marketfeed.contract import CandleRequest
from marketfeed.dtypes import CANDLE, Rows
from marketfeed.engine.account import Account
from marketfeed.engine.choosing import choose
from marketfeed.engine.logs import get_log
from marketfeed.enums import Interval
from marketfeed.errors import ConfigError, LineLost, Problem, RateLimited
from marketfeed.history.windows import mark_partial, merge, windows
from marketfeed.http import HttpSession
from marketfeed.instruments import Instrument
from marketfeed.plugins import Plugins
from marketfeed.tokens import FileTokenStore, TokenKeeper

__all__ = ["Historical", "vendor_config"]

Moment = datetime | date | str | int
_TRIES: Final = 4
"""Attempts at one window before a ``LineLost`` or ``RateLimited`` is the caller's."""


class Historical:
    """Candles of one account at one broker.

    ::

        bars = Historical("kite").candles(["NSE:RELIANCE", "NSE:INFY"], "1m", start="2025-01-01", end="2025-04-01")
        frame = bars.to_pandas()

    ``vendor`` is an installed vendor, or with ``config`` the name of one of its ``[vendors.NAME]`` tables.
    ``settings`` are the options of that table; credentials may also come from the vendor's environment
    variables. Logs in on first use and keeps the session; ``close`` (or ``with``) lets the connections go.
    Raises :class:`~marketfeed.errors.ConfigError` with every problem at once.
    """

    def __init__(
        self,
        vendor: str,
        *,
        settings: Mapping[str, Any] | None = None,
        config: Config | None = None,
        clock: Clock | None = None,
        tokens: TokenKeeper | None = None,
        plugins: Plugins | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        plugins = plugins or Plugins.discover()
        self._vendor = vendor_config(vendor, settings, config, plugins, environ)
        self._clock = clock or Clock()
        plugin = self._vendor.plugin
        self._http = HttpSession(
            plugin.info.name, plugin.info.rate_limits, proxy=self._vendor.settings.proxy, clock=self._clock
        )
        self._account = Account(
            plugin, self._vendor.settings, tokens or FileTokenStore(), self._http, self._clock, get_log(vendor=vendor)
        )

    def candles(
        self,
        instruments: str | Instrument | Iterable[str | Instrument],
        interval: str | Interval,
        start: Moment,
        end: Moment | None = None,
        open_interest: bool = False,
    ) -> CandleBatch:
        """Candles whose start lies in ``[start, end)``: ``end="2025-04-01"`` leaves that day out.

        Moments are dates, ISO text or datetimes (India time where they name no zone), or UTC
        nanoseconds; ``end`` None is now. Names, globs and other selections are looked up in today's master.
        The span is fetched in as many requests as the broker needs, at its pace. Rows are in the
        order of ``instruments``, oldest first within each, one per start; a bar that is still running has
        :attr:`~marketfeed.dtypes.CandleFlag.PARTIAL` set. ``open_interest`` is -1 where it was not
        asked for or there is none.

        Raises ``ConfigError`` for unknown instruments or intervals, ``RequestRejected``, ``AuthError``,
        and ``LineLost`` or ``RateLimited`` when the broker did not answer after four tries.
        """
        interval, days = self._interval(interval)
        start_ns, end_ns = to_ns(start), self._clock.wall_ns() if end is None else to_ns(end)
        wanted = self._resolve([instruments] if isinstance(instruments, str | Instrument) else list(instruments))
        parts = [np.empty(0, CANDLE)]
        for number, instrument in enumerate(wanted):
            rows = merge(
                [
                    self._fetch(
                        CandleRequest(
                            instrument=instrument,
                            interval=interval,
                            start_ns=begin,
                            end_ns=until,
                            open_interest=open_interest,
                        )
                    )
                    for begin, until in windows(start_ns, end_ns, days)
                ]
            )
            rows["instrument"] = number
            parts.append(rows)
        rows = np.frombuffer(bytearray(b"".join(part.tobytes() for part in parts)), CANDLE)
        mark_partial(rows, self._clock.wall_ns())
        return CandleBatch(rows, Origin(tuple(wanted), feed="", vendor=self._vendor.name))

    def close(self) -> None:
        """Close the connections; a call that waits ends with ``LineLost``."""
        self._account.closed.set()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _interval(self, given: str | Interval) -> tuple[Interval, int]:
        """The interval, and how many days one request may span."""
        offered = self._account.plugin.info.candle_days
        for one, days in offered.items():
            if one == given:
                return one, days
        choices = ", ".join(offered) or "none at all"
        raise ConfigError([Problem("interval", f"{self._vendor.type} has no {str(given)!r} candles; choose {choices}")])

    def _resolve(self, given: list[str | Instrument]) -> list[Instrument]:
        """Instruments as they are, names looked up; without repeats."""
        names = [one for one in given if isinstance(one, str)]
        table = self._account.instruments() if names else None
        found: dict[Instrument, None] = {}
        problems: list[str] = []
        for one in given:
            if isinstance(one, Instrument):
                found[one] = None
            elif table is not None:
                chosen = choose(self._account, [one], table)
                found.update(dict.fromkeys(chosen.instruments))
                problems += chosen.problems
        if problems:
            raise ConfigError([Problem("instruments", f"{text} (vendor {self._vendor.type})") for text in problems])
        return list(found)

    def _fetch(self, request: CandleRequest) -> Rows:
        """One window; waits and tries again when that may help."""
        plugin, settings = self._account.plugin, self._vendor.settings
        return self._account.ask(
            lambda session: plugin.fetch_candles(settings, session, self._http, request).rows,
            tries=_TRIES,
            again=(RateLimited, LineLost),
        )


def vendor_config(
    name: str,
    settings: Mapping[str, Any] | None,
    config: Config | None,
    plugins: Plugins,
    environ: Mapping[str, str] | None,
) -> VendorConfig:
    """The account: a table of the configuration, or one made of ``settings`` and the environment."""
    if config is None:
        # A configuration is of feeds; this one is never started.
        feed = {"vendor": name, "instruments": ["*"]}
        tables = {"feeds": {"history": feed}, "vendors": {name: dict(settings or {})}}
        return configuration.build(tables, plugins, environ).vendors[name]
    if name not in config.vendors:
        known = ", ".join(config.vendors) or "no vendor"
        raise ConfigError([Problem("vendors", f"there is no [vendors.{name}]; the configuration has {known}")])
    return config.vendors[name]
