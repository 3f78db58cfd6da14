"""The instruments of one broker, for people: search, option chains, nearest futures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from marketfeed import chains, identity
from marketfeed.client import BrokerClient, vendor_config
from marketfeed.clock import Clock
from marketfeed.config import Config
from marketfeed.engine.choosing import india_day
from marketfeed.enums import Exchange, Kind
from marketfeed.errors import ConfigError, Problem, SessionExpired
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.masters import load_instruments, master_day, previous_instruments
from marketfeed.plugins import Plugins
from marketfeed.tokens import TokenKeeper

__all__ = ["Instruments"]

_CONTRACTS = (Exchange.NFO, Exchange.BFO, Exchange.MCX, Exchange.CDS, Exchange.BCD, Exchange.NCO)
"""Where an underlying is looked for when no exchange is named, in this order."""


class Instruments(BrokerClient):
    """The instrument master of one broker, of today.

    ::

        book = Instruments("kite")
        book.search("NIFTY", expiry="2026-11-24", type="CE")
        book.future("NIFTY", 1)
        book.chain("NIFTY").around(24_000, 5)

    Loaded on first use, from the disk if today's is there, else from the broker; logs in only where the
    broker asks for it (mStock), so Kite and FlatTrade need no credentials here. ``vendor``, ``settings`` and
    ``config`` are those of :class:`~marketfeed.history.Historical`; ``folder`` is another cache folder.
    Days are dates or ISO text. Raises :class:`~marketfeed.errors.ConfigError` and what the broker says.
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
        folder: Path | None = None,
    ) -> None:
        self._missing: ConfigError | None = None
        """What the credentials lack; nothing for a broker that asks for none."""
        try:
            chosen = vendor_config(vendor, settings, config, plugins, environ)
        except ConfigError as error:
            chosen = vendor_config(vendor, settings, config, plugins, environ, placeholder="not given")
            self._missing = error
        super().__init__(chosen, clock, tokens, folder)
        self._folder = folder
        self._table: InstrumentTable | None = None
        self._loaded: date | None = None

    @property
    def vendor(self) -> str:
        """Name of the vendor plugin."""
        return self._vendor.plugin.info.name

    @property
    def table(self) -> InstrumentTable:
        """The whole master of today; a new one once a new day's is due."""
        day = master_day(self._clock.wall_ns())
        if self._table is None or day != self._loaded:
            self._table, self._loaded = self._load(refresh=False), day
        return self._table

    def sync(self) -> InstrumentTable:
        """Fetch today's master again, also where it is on disk."""
        self._table, self._loaded = self._load(refresh=True), master_day(self._clock.wall_ns())
        return self._table

    def previous(self) -> tuple[date, InstrumentTable] | None:
        """The newest master on disk that is older than today's, and its day."""
        day = master_day(self._clock.wall_ns())
        return previous_instruments(self._vendor.plugin, self._vendor.settings, day, self._folder)

    def _load(self, *, refresh: bool) -> InstrumentTable:
        account = self._account
        plugin, settings = account.plugin, account.settings
        try:
            return load_instruments(plugin, settings, None, self._http, self._clock, self._folder, refresh=refresh)
        except SessionExpired:  # this broker wants to know who asks
            if self._missing is not None:
                raise self._missing from None
            return account.instruments(refresh=refresh)

    # --- looking up ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self.table)

    def __contains__(self, key: object) -> bool:
        return key in self.table

    def __getitem__(self, key: str) -> Instrument:
        """The instrument ``EXCHANGE:SYMBOL``; ``KeyError`` says what is near."""
        return self.table[key]

    def get(self, key: str) -> Instrument | None:
        """The instrument ``EXCHANGE:SYMBOL``, or None."""
        return self.table.get(key)

    def search(
        self,
        text: str = "",
        *,
        exchange: str | None = None,
        type: str | None = None,  # noqa: A002 - the word that people look for
        expiry: date | str | None = None,
        strike: float | None = None,
        limit: int | None = None,
    ) -> list[Instrument]:
        """Instruments whose symbol or name holds ``text`` (or match it as a glob), the best first.

        ``type`` is ``EQ``, ``INDEX``, ``FUT``, ``CE`` or ``PE``. Raises ``ValueError`` for another one, and
        for an expiry that is no date.
        """
        kind = None if type is None else Kind(type.upper())
        found = self.table.find(text, exchange=exchange, kind=kind, expiry=_day(expiry), strike=strike)
        return found if limit is None else found[:limit]

    def expiries(self, name: str, exchange: str | None = None) -> list[date]:
        """Days on which options on an underlying expire, the nearest first."""
        return chains.expiries(self.table, self._market(name, exchange), name, self._today)

    def chain(self, name: str, expiry: date | str | None = None, exchange: str | None = None) -> chains.OptionChain:
        """The options on an underlying that expire on a day, by default the nearest one.

        Raises ``ConfigError`` when there is no such expiry.
        """
        market = self._market(name, exchange)
        days = chains.expiries(self.table, market, name, self._today)
        day = _day(expiry) or next(iter(days), None)
        chain = chains.option_chain(self.table, market, name, day) if day is not None else None
        if chain is None or not chain.options:
            listed = ", ".join(map(str, days[:6])) or "none"
            raise self._error(f"{market} lists no options on {name} for {day or 'any day'}; expiries are {listed}")
        return chain

    def future(self, name: str, number: int = 1, exchange: str | None = None) -> Instrument:
        """The nearest future on an underlying (2 is the one after it); on its last day it still counts.

        Raises ``ConfigError`` when there is none.
        """
        market = self._market(name, exchange)
        listed = chains.futures(self.table, market, name, self._today)
        if not 1 <= number <= len(listed):
            raise self._error(f"{market} lists {len(listed) or 'no'} futures on {name}; number {number} is not there")
        return listed[number - 1]

    def select(self, selection: str | Iterable[str]) -> list[Instrument]:
        """What a feed would subscribe for ``instruments = [...]``. Raises ``ConfigError`` as it does."""
        return self._find(selection, self.table)

    def map(self, other: Instruments) -> identity.Mapping:
        """Which instrument here is which one there, and what gives reason to doubt."""
        return identity.map_tables(self.table, other.table)

    @property
    def _today(self) -> date:
        return india_day(self._clock.wall_ns())

    def _market(self, name: str, exchange: str | None) -> str:
        if exchange is not None:
            return exchange
        listed = {one.exchange for one in self.table.contracts(name)}
        found = next((one for one in _CONTRACTS if one in listed), None)
        if found is None:
            raise self._error(f"there are no futures or options on {name!r}")
        return found.value

    def _error(self, text: str) -> ConfigError:
        return ConfigError([Problem("instruments", f"{text} (vendor {self.vendor})")])


def _day(given: date | str | None) -> date | None:
    return date.fromisoformat(given) if isinstance(given, str) else given
