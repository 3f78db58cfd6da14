"""Which instrument of one vendor is which of another.

Instruments are the same when their exchange says so: by its number, within one exchange. Names alone prove
nothing (a share that is renamed keeps its number, and one series is not another). Indices have no common
number; a table (:func:`marketfeed.symbols.indices`) names theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum

import attrs

from marketfeed.enums import Kind
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.symbols import index_named

__all__ = [
    "Change",
    "Doubt",
    "DoubtKind",
    "Mapping",
    "diff_tables",
    "exchange_token",
    "kite_token",
    "map_tables",
    "partner",
]

_KITE_CODES = {"NSE": 1, "NFO": 2, "CDS": 3, "BSE": 4, "BFO": 5, "BCD": 6, "MCX": 7, "INDEX": 9}
"""Last byte of Kite's tokens. 1, 2, 4, 5, 9: no exception in 117,000 rows of its dumps; the others: official SDK."""


_FIELDS = attrs.fields(Instrument)


class DoubtKind(StrEnum):
    """Why somebody should look at a pair."""

    RENAMED = "renamed"
    """The same number under another name. Paired."""
    LOT_SIZE = "lot size"
    """Paired."""
    TICK_SIZE = "tick size"
    """Paired. Masters of different days differ, too."""
    CONTRACT = "contract"
    """The same number, but another kind, series, expiry or strike: numbers are used again. Not paired."""
    TOKEN = "token"
    """The same name, but another number. Not paired."""
    INDEX = "index"
    """The same name, but the table of indices does not know these numbers. Not paired."""


@attrs.frozen
class Doubt:
    """Something about two instruments that a person should know."""

    kind: DoubtKind
    a: Instrument
    b: Instrument

    def __str__(self) -> str:
        a, b = self.a, self.b
        match self.kind:
            case DoubtKind.RENAMED:
                return f"{a.key} is called {b.key} by {b.vendor} (exchange token {a.exchange_token})"
            case DoubtKind.LOT_SIZE:
                return f"{a.key}: lot size {a.lot_size} at {a.vendor}, {b.lot_size} at {b.vendor}"
            case DoubtKind.TICK_SIZE:
                return f"{a.key}: tick size {a.tick_size:g} at {a.vendor}, {b.tick_size:g} at {b.vendor}"
            case DoubtKind.CONTRACT:
                return (
                    f"{a.key} and {b.key} have the exchange token {a.exchange_token}, but are not the same; not mapped"
                )
        why = "the table of indices does not have both" if self.kind is DoubtKind.INDEX else "different numbers"
        return (
            f"{a.key}: exchange token {a.exchange_token} at {a.vendor}, {b.exchange_token} at {b.vendor}; "
            f"not mapped ({why})"
        )


@attrs.frozen(kw_only=True)
class Mapping:
    """What two tables have in common. Every instrument is in exactly one pair or list."""

    pairs: tuple[tuple[Instrument, Instrument], ...]
    only_a: tuple[Instrument, ...]
    only_b: tuple[Instrument, ...]
    doubts: tuple[Doubt, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[Instrument, Instrument]]:
        return iter(self.pairs)

    def counts(self) -> Counter[DoubtKind]:
        """How many doubts of each kind."""
        return Counter(one.kind for one in self.doubts)


def map_tables(a: InstrumentTable, b: InstrumentTable) -> Mapping:
    """Pair the instruments of two vendors; the order is that of ``a``."""
    pairs, only_a, doubts = [], [], []
    taken: set[int] = set()
    for one in a:
        other, doubt = partner(one, b)
        if doubt is not None:
            doubts.append(doubt)
        if other is None or id(other) in taken:
            only_a.append(one)
            continue
        taken.add(id(other))
        pairs.append((one, other))
        doubts += _differences(one, other)
    only_b = tuple(one for one in b if id(one) not in taken)
    return Mapping(pairs=tuple(pairs), only_a=tuple(only_a), only_b=only_b, doubts=tuple(doubts))


def partner(one: Instrument, table: InstrumentTable) -> tuple[Instrument | None, Doubt | None]:
    """The same instrument in another vendor's table, or None; and why one that looks like it is not it."""
    namesake = table.get(one.key)
    if one.kind == Kind.INDEX:
        if namesake is None or namesake.kind != Kind.INDEX:
            return None, None
        return (namesake, None) if _same_index(one, namesake) else (None, Doubt(DoubtKind.INDEX, one, namesake))
    other = table.by_exchange_token(one.exchange, one.exchange_token)
    if other is None:
        wrong = namesake is not None and namesake.exchange_token != one.exchange_token
        return None, Doubt(DoubtKind.TOKEN, one, namesake) if wrong and namesake is not None else None
    if not _same_contract(one, other):
        return None, Doubt(DoubtKind.CONTRACT, one, other)
    return other, None


def _same_index(a: Instrument, b: Instrument) -> bool:
    if a.exchange_token == b.exchange_token:
        return True
    known = index_named(a.exchange, a.symbol)
    return known is not None and all(known.tokens.get(one.vendor) == one.exchange_token for one in (a, b))


def _same_contract(a: Instrument, b: Instrument) -> bool:
    if (a.kind, a.expiry) != (b.kind, b.expiry) or abs(a.strike - b.strike) > 1e-6:
        return False
    # Only NSE's series tell securities apart by number; the groups of BSE move, and Kite does not list them.
    return a.exchange != "NSE" or not a.series or not b.series or a.series == b.series


def _differences(a: Instrument, b: Instrument) -> Iterator[Doubt]:
    if a.symbol != b.symbol:
        yield Doubt(DoubtKind.RENAMED, a, b)
    if a.kind == Kind.INDEX:
        return  # nobody trades it
    if a.lot_size and b.lot_size and a.lot_size != b.lot_size:
        yield Doubt(DoubtKind.LOT_SIZE, a, b)
    if a.tick_size and b.tick_size and abs(a.tick_size - b.tick_size) > 1e-9:
        yield Doubt(DoubtKind.TICK_SIZE, a, b)


# --- two days of one vendor ------------------------------------------------------------------------


@attrs.frozen
class Change:
    """What became of one instrument from one master to the next."""

    kind: str
    """``new``, ``gone``, ``renamed`` or ``changed``"""
    old: Instrument | None
    new: Instrument | None

    @property
    def fields(self) -> dict[str, tuple[object, object]]:
        """Attributes that differ: name -> (old, new)."""
        if self.old is None or self.new is None:
            return {}
        pairs = {field.name: (getattr(self.old, field.name), getattr(self.new, field.name)) for field in _FIELDS}
        return {name: (was, now) for name, (was, now) in pairs.items() if was != now}


def diff_tables(old: InstrumentTable, new: InstrumentTable) -> list[Change]:
    """What differs: first what is gone, renamed or changed, in the order of ``old``, then what is new.

    Renamed is what has another name and the same number of the exchange, kind, expiry and strike.
    """
    changes = []
    renamed: set[str] = set()
    for was in old:
        now = new.get(was.key)
        if now is not None:
            if now != was and old.get(was.key) is was:
                changes.append(Change("changed", was, now))
            continue
        heir = new.by_exchange_token(was.exchange, was.exchange_token)
        if was.kind != Kind.INDEX and heir is not None and heir.key not in old and _same_contract(was, heir):
            renamed.add(heir.key)
            changes.append(Change("renamed", was, heir))
        else:
            changes.append(Change("gone", was, None))
    return changes + [Change("new", None, one) for one in new if one.key not in old and one.key not in renamed]


# --- tokens as people write them in lists ---------------------------------------------------------


def exchange_token(vendor: str, token: str) -> str:
    """The exchange's number in a vendor's token: ``2885`` of Kite's ``738561``, of ``NSE|2885`` and ``1:2885``.

    Empty for what holds no number.
    """
    digits = token.rpartition("|")[2].rpartition(":")[2].strip()
    if not (digits.isascii() and digits.isdecimal()):
        return ""
    return str(int(digits) >> 8) if vendor == "kite" else str(int(digits))


def kite_token(exchange: str, number: str, *, index: bool = False) -> str:
    """Kite's token for a number of the exchange; empty for an exchange whose code is not known."""
    code = _KITE_CODES.get("INDEX" if index else exchange)
    return "" if code is None or not number.isdecimal() else str(int(number) * 256 + code)
