"""Quotes of one broker: the present price, asked for once, without a feed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from marketfeed.batches import Origin, TickBatch
from marketfeed.client import BrokerClient, Wanted, vendor_config
from marketfeed.clock import Clock
from marketfeed.config import Config
from marketfeed.contract import QuoteKind
from marketfeed.dtypes import TICK, Rows
from marketfeed.instruments import Instrument
from marketfeed.plugins import Plugins
from marketfeed.tokens import TokenKeeper

__all__ = ["Quotes"]

_TRIES: Final = 4
"""Attempts at one call before a ``RateLimited`` is the caller's."""


class Quotes(BrokerClient):
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
        super().__init__(vendor_config(vendor, settings, config, plugins, environ), clock, tokens)

    def ltp(self, instruments: Wanted) -> TickBatch:
        """Last prices."""
        return self._ask(instruments, "ltp")

    def ohlc(self, instruments: Wanted) -> TickBatch:
        """Last prices with open, high, low and the close of the day before."""
        return self._ask(instruments, "ohlc")

    def quote(self, instruments: Wanted) -> TickBatch:
        """Everything the broker tells: also depth, volume, open interest, circuit limits, times."""
        return self._ask(instruments, "quote")

    def _ask(self, instruments: Wanted, kind: QuoteKind) -> TickBatch:
        wanted = self._find(instruments)
        rows = self._fetch(wanted, kind) if wanted else np.empty(0, TICK)
        rows["received_ns"] = self._clock.wall_ns()
        return TickBatch(rows, Origin(tuple(wanted), feed="", vendor=self._vendor.name))

    def _fetch(self, wanted: list[Instrument], kind: QuoteKind) -> Rows:
        """Rows from the broker; waits where it asks for that, as when another program uses the same account."""
        plugin, settings = self._account.plugin, self._vendor.settings
        return self._account.ask(
            lambda session: plugin.quotes(settings, session, self._http, wanted, kind), tries=_TRIES
        )
