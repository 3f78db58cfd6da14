"""Quotes of one broker: the present price, asked for once, without a feed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from marketfeed.batches import Origin, TickBatch
from marketfeed.clock import Clock
from marketfeed.config import Config
from marketfeed.contract import QuoteKind
from marketfeed.dtypes import TICK, Rows
from marketfeed.engine.account import Account
from marketfeed.engine.choosing import choose
from marketfeed.engine.logs import get_log
from marketfeed.errors import ConfigError, Problem
from marketfeed.history import vendor_config
from marketfeed.http import HttpSession
from marketfeed.instruments import Instrument
from marketfeed.plugins import Plugins
from marketfeed.tokens import FileTokenStore, TokenKeeper

__all__ = ["Quotes"]

_TRIES: Final = 4
"""Attempts at one call before a ``RateLimited`` is the caller's."""
Wanted = str | Instrument | Iterable[str | Instrument]


class Quotes:
    """The present state of instruments at one broker.

    ::

        batch = Quotes("kite").ltp(["NSE:RELIANCE", "NSE:NIFTY 50"])
        prices = {tick.symbol: tick.last_price for tick in batch}

    The arguments are those of :class:`~marketfeed.history.Historical`. A call takes any number of names,
    globs and other selections; it is split and paced as the broker demands (Kite: one request a second). Each
    method returns one row per instrument that the broker knows, in the order asked for; ``received_ns`` is when
    the last answer was there. Prices outside market hours are the last ones. For prices all day use a feed.

    Raises :class:`~marketfeed.errors.ConfigError` for unknown instruments, ``AuthError``, ``RequestRejected``,
    ``LineLost`` or ``RateLimited``, and ``PluginError`` when the vendor offers no quotes.
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
        self._vendor = vendor_config(vendor, settings, config, plugins or Plugins.discover(), environ)
        self._clock = clock or Clock()
        plugin, options = self._vendor.plugin, self._vendor.settings
        self._http = HttpSession(plugin.info.name, plugin.info.rate_limits, proxy=options.proxy, clock=self._clock)
        log = get_log(vendor=vendor)
        self._account = Account(plugin, options, tokens or FileTokenStore(), self._http, self._clock, log)

    def ltp(self, instruments: Wanted) -> TickBatch:
        """Last prices."""
        return self._ask(instruments, "ltp")

    def ohlc(self, instruments: Wanted) -> TickBatch:
        """Last prices with open, high, low and the close of the day before."""
        return self._ask(instruments, "ohlc")

    def quote(self, instruments: Wanted) -> TickBatch:
        """Everything the broker tells: also depth, volume, open interest, circuit limits, times."""
        return self._ask(instruments, "quote")

    def close(self) -> None:
        """Close the connections; a call that waits ends with an error."""
        self._account.closed.set()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, instruments: Wanted, kind: QuoteKind) -> TickBatch:
        wanted = self._resolve([instruments] if isinstance(instruments, str | Instrument) else list(instruments))
        rows = self._fetch(wanted, kind) if wanted else np.empty(0, TICK)
        rows["received_ns"] = self._clock.wall_ns()
        return TickBatch(rows, Origin(tuple(wanted), feed="", vendor=self._vendor.name))

    def _resolve(self, given: list[str | Instrument]) -> list[Instrument]:
        """Instruments as they are, names looked up in today's master; without repeats."""
        table = self._account.instruments() if any(isinstance(one, str) for one in given) else None
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

    def _fetch(self, wanted: list[Instrument], kind: QuoteKind) -> Rows:
        """Rows from the broker; waits where it asks for that, as when another program uses the same account."""
        plugin, settings = self._account.plugin, self._vendor.settings
        return self._account.ask(
            lambda session: plugin.quotes(settings, session, self._http, wanted, kind), tries=_TRIES
        )
