"""One spelling of symbols for every vendor; Kite's is the reference.

``NSE:RELIANCE`` and ``NSE:CENTRALBK-BE`` for shares (series EQ has no tail), ``NSE:NIFTY 50`` for indices,
``NFO:NIFTY26NOVFUT``, ``NFO:NIFTY26NOV24000CE`` (monthly) and ``NFO:NIFTY26N1724000CE`` (weekly) for contracts.
Read in Kite's instrument dumps; where those show nothing (currency weeklies, commodity options), a guess is marked.
Pure: the vendors' plugins use it when they read a master.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from operator import attrgetter
from types import MappingProxyType
from typing import Final

import attrs

from marketfeed.enums import Exchange, Kind
from marketfeed.instruments import Instrument

__all__ = [
    "Index",
    "contract_symbol",
    "expiry_code",
    "index_named",
    "index_of",
    "indices",
    "month_ends",
    "respell_contracts",
    "series_of",
    "share_symbol",
    "strike_text",
    "underlying_of",
]

_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKLY_MONTHS: Final = "123456789OND"
_MONTHLY_ONLY: Final = (Exchange.MCX, Exchange.NCO)
"""Commodities have no weekly contracts; a future and the options on it may expire in different months."""
_CURRENCY: Final = (Exchange.CDS, Exchange.BCD)
_FIELDS: Final = tuple(field.name for field in attrs.fields(Instrument))
_values: Final = attrgetter(*_FIELDS)  # four times faster than attrs.evolve; masters have 100,000 contracts
Contract = tuple[str, str]
"""Exchange and name of the underlying."""


# --- shares -----------------------------------------------------------------------------------


def share_symbol(symbol: str, series: str) -> str:
    """``M&M`` for ``M&M-EQ`` or for ``M&M`` of series EQ, ``CENTRALBK-BE`` for either spelling of series BE.

    An empty ``series``, and the groups of BSE (``A``, ``XT``), which no symbol carries, change nothing: give
    ``series`` for NSE only.
    """
    if series in ("", "EQ"):
        return symbol.removesuffix("-EQ")
    return symbol if symbol.endswith(f"-{series}") else f"{symbol}-{series}"


def series_of(symbol: str) -> str:
    """``BE`` of ``CENTRALBK-BE``; names such as ``BAJAJ-AUTO`` have no two-letter tail and are ``EQ``."""
    tail = symbol.rpartition("-")[2] if "-" in symbol else ""
    return tail if len(tail) == 2 else "EQ"


# --- contracts --------------------------------------------------------------------------------


def strike_text(strike: float) -> str:
    """A strike as symbols spell it: ``24000``, ``83.25``."""
    return f"{strike:.4f}".rstrip("0").rstrip(".")


def expiry_code(expiry: date, *, weekly: bool) -> str:
    """``26NOV`` of a monthly contract, ``26N17`` of a weekly one (1 to 9, O, N, D for the months)."""
    year = f"{expiry.year % 100:02d}"
    if weekly:
        return f"{year}{_WEEKLY_MONTHS[expiry.month - 1]}{expiry.day:02d}"
    return year + _MONTHS[expiry.month - 1]


def contract_symbol(name: str, expiry: date, strike: float, kind: str, *, weekly: bool) -> str:
    """The symbol of a future (``kind`` FUT; ``strike`` does not matter) or an option (CE, PE)."""
    price = "" if kind == Kind.FUTURE else strike_text(strike)
    return f"{name}{expiry_code(expiry, weekly=weekly)}{price}{kind}"


def month_ends(contracts: Iterable[Instrument]) -> Mapping[Contract, frozenset[date]]:
    """The monthly expiries of each underlying: the last one listed in each month.

    Currencies: the last one that leaves two weekdays of the month, because weekly contracts may expire
    after the monthly one (seen in a master of 2023).
    """
    listed: dict[Contract, set[date]] = {}
    for one in contracts:
        if one.expiry is not None:
            listed.setdefault((one.exchange, one.name), set()).add(one.expiry)
    return {
        contract: frozenset(_last_of_months(days, currency=contract[0] in _CURRENCY))
        for contract, days in listed.items()
    }


def _last_of_months(days: Iterable[date], *, currency: bool) -> Iterable[date]:
    last: dict[tuple[int, int], date] = {}
    for day in sorted(days):
        if not currency or day <= _currency_expiry(day.year, day.month):
            last[day.year, day.month] = day
    return last.values()


def _currency_expiry(year: int, month: int) -> date:
    """Two weekdays before the last weekday of the month; a holiday moves it forward."""
    day = date(year + month // 12, month % 12 + 1, 1)
    for _ in range(3):
        day -= timedelta(days=1)
        while day.weekday() > 4:
            day -= timedelta(days=1)
    return day


def respell_contracts(instruments: Iterable[Instrument]) -> list[Instrument]:
    """The instruments with the symbols of their contracts spelled as above, in the same order.

    ``name`` must be the underlying's. A contract whose expiry or name is missing keeps its vendor's symbol,
    and so does one whose new symbol another contract has. Weekly currency contracts and options on
    commodities (by the month of their own expiry) are a guess.
    """
    found = list(instruments)
    ends = month_ends(found)
    taken: dict[tuple[str, str], tuple[object, ...]] = {}
    return [_respelled(one, ends, taken) for one in found]


def _respelled(
    one: Instrument, ends: Mapping[Contract, frozenset[date]], taken: dict[tuple[str, str], tuple[object, ...]]
) -> Instrument:
    if one.expiry is None or not one.name or one.kind not in (Kind.FUTURE, Kind.CALL, Kind.PUT):
        return one
    weekly = one.exchange not in _MONTHLY_ONLY and one.expiry not in ends[one.exchange, one.name]
    symbol = contract_symbol(one.name, one.expiry, one.strike, one.kind, weekly=weekly)
    identity = (one.token, one.expiry, one.strike, one.kind)
    if taken.setdefault((one.exchange, symbol), identity) != identity:
        return one
    if symbol == one.symbol:
        return one
    return Instrument(**{**dict(zip(_FIELDS, _values(one), strict=True)), "symbol": symbol})


def underlying_of(symbol: str, expiry: date | None) -> str:
    """``NIFTY`` of ``NIFTY26NOV24000CE`` and its expiry; empty where the symbol does not hold that expiry."""
    if expiry is None:
        return ""
    places = [symbol.find(expiry_code(expiry, weekly=weekly), 1) for weekly in (False, True)]
    return symbol[: min((place for place in places if place > 0), default=0)]


# --- indices ----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Index:
    """An index; its numbers have no common base, so a table names them."""

    exchange: str
    symbol: str
    underlying: str = ""
    """What its futures and options are called: ``NIFTY``."""
    aliases: tuple[str, ...] = ()
    """Other spellings, upper case."""
    tokens: Mapping[str, str] = attrs.field(factory=dict, converter=MappingProxyType, hash=False)
    """Vendor -> exchange token in its master."""


@cache
def indices() -> tuple[Index, ...]:
    """The table of indices, shipped with the package (``data/indices.json``)."""
    rows = json.loads(files("marketfeed.data").joinpath("indices.json").read_text("utf-8"))["indices"]
    return tuple(Index(**{**row, "aliases": tuple(row.get("aliases", ()))}) for row in rows)


@cache
def _by_name() -> Mapping[tuple[str, str], Index]:
    found = {(one.exchange, name.upper()): one for one in indices() for name in (one.underlying, *one.aliases) if name}
    return found | {(one.exchange, one.symbol): one for one in indices()}


def index_named(exchange: str, *names: str) -> Index | None:
    """The index that has one of the names, in any spelling that the table knows; None for others."""
    for name in names:
        if hit := _by_name().get((exchange, name.upper())):
            return hit
    return None


def index_of(underlying: str, exchange: str = Exchange.NSE) -> Index | None:
    """The index whose contracts are called so: ``NIFTY 50`` of ``NIFTY``."""
    return next((one for one in indices() if one.underlying == underlying and one.exchange == exchange), None)
