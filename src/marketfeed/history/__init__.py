"""Candles of the past, from the broker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

import numpy as np

from marketfeed.batches import CandleBatch, Origin
from marketfeed.client import BrokerClient, Wanted, vendor_config
from marketfeed.clock import Clock, to_ns
from marketfeed.config import Config
from marketfeed.contract import CandleRequest
from marketfeed.dtypes import CANDLE, Rows
from marketfeed.enums import Interval
from marketfeed.errors import ConfigError, LineLost, Problem, RateLimited
from marketfeed.history.windows import mark_partial, merge, windows
from marketfeed.plugins import Plugins
from marketfeed.tokens import TokenKeeper

__all__ = ["Historical"]

Moment = datetime | date | str | int
_TRIES: Final = 4
"""Attempts at one window before a ``LineLost`` or ``RateLimited`` is the caller's."""


class Historical(BrokerClient):
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
        super().__init__(vendor_config(vendor, settings, config, plugins, environ), clock, tokens)

    def candles(
        self,
        instruments: Wanted,
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
        wanted = self._find(instruments)
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

    def _interval(self, given: str | Interval) -> tuple[Interval, int]:
        """The interval, and how many days one request may span."""
        offered = self._account.plugin.info.candle_days
        for one, days in offered.items():
            if one == given:
                return one, days
        choices = ", ".join(offered) or "none at all"
        raise ConfigError([Problem("interval", f"{self._vendor.type} has no {str(given)!r} candles; choose {choices}")])

    def _fetch(self, request: CandleRequest) -> Rows:
        """One window; waits and tries again when that may help."""
        plugin, settings = self._account.plugin, self._vendor.settings
        return self._account.ask(
            lambda session: plugin.fetch_candles(settings, session, self._http, request).rows,
            tries=_TRIES,
            again=(RateLimited, LineLost),
        )
