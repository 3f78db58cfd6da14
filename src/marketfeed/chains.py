"""Futures and option chains of one underlying, cut out of a table of instruments."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cached_property
from types import MappingProxyType

import attrs

from marketfeed.enums import Exchange, Kind
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.symbols import index_of

__all__ = ["OptionChain", "expiries", "futures", "option_chain", "underlying"]

_CASH = {Exchange.NFO: Exchange.NSE, Exchange.BFO: Exchange.BSE}


@attrs.frozen(kw_only=True, slots=False)
class OptionChain:
    """The options on one underlying that expire on one day, by strike, the call of each before its put."""

    exchange: str
    name: str
    expiry: date
    options: tuple[Instrument, ...] = attrs.field(repr=lambda options: f"<{len(options)} options>")

    def __len__(self) -> int:
        return len(self.options)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self.options)

    @cached_property
    def strikes(self) -> tuple[float, ...]:
        """All strikes, rising, in rupees."""
        return tuple(sorted({one.strike for one in self.options}))

    @cached_property
    def calls(self) -> Mapping[float, Instrument]:
        """Strike -> call."""
        return MappingProxyType({one.strike: one for one in self.options if one.kind == Kind.CALL})

    @cached_property
    def puts(self) -> Mapping[float, Instrument]:
        """Strike -> put."""
        return MappingProxyType({one.strike: one for one in self.options if one.kind == Kind.PUT})

    def at_the_money(self, price: float) -> float:
        """The strike nearest to a price of the underlying; the lower one of two that are equally near."""
        return min(self.strikes, key=lambda strike: (abs(strike - price), strike))

    def around(self, price: float, strikes: int) -> tuple[Instrument, ...]:
        """The options at the money and at so many strikes below and above, fewer where the chain ends."""
        middle = bisect_left(self.strikes, self.at_the_money(price))
        wanted = set(self.strikes[max(0, middle - strikes) : middle + strikes + 1])
        return tuple(one for one in self.options if one.strike in wanted)


def futures(table: InstrumentTable, exchange: str, name: str, today: date) -> list[Instrument]:
    """Futures on an underlying that have not expired on ``today`` (India), the nearest first."""
    found = [one for one in table.contracts(name, exchange) if one.kind == Kind.FUTURE]
    return sorted((one for one in found if _day(one) >= today), key=_day)


def expiries(table: InstrumentTable, exchange: str, name: str, today: date) -> list[date]:
    """Days on which options on an underlying expire, the nearest first, ``today`` included."""
    return sorted({day for one in _options(table, exchange, name) if (day := _day(one)) >= today})


def option_chain(table: InstrumentTable, exchange: str, name: str, expiry: date) -> OptionChain:
    """The options of one day of expiry; an empty chain where there is none."""
    found = [one for one in _options(table, exchange, name) if one.expiry == expiry]
    options = tuple(sorted(found, key=lambda one: (one.strike, one.kind)))
    return OptionChain(exchange=exchange, name=name, expiry=expiry, options=options)


def underlying(table: InstrumentTable, exchange: str, name: str, today: date) -> Instrument | None:
    """What an option is on: an index or a share of the cash exchange, else the nearest future."""
    cash = _CASH.get(Exchange(exchange))
    if cash is not None:
        index = index_of(name, cash)
        found = table.get(f"{cash}:{index.symbol if index else name}")
        if found is not None:
            return found
    return next(iter(futures(table, exchange, name, today)), None)


def _options(table: InstrumentTable, exchange: str, name: str) -> list[Instrument]:
    return [one for one in table.contracts(name, exchange) if one.kind in (Kind.CALL, Kind.PUT)]


def _day(one: Instrument) -> date:
    return one.expiry or date.max
