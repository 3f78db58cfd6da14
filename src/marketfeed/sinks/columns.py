"""Columns of a batch as Python values, with what is absent; shared by the JSON and CSV writers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, Final, Generic, TypeVar

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.dtypes import FLAG_GROUPS, MODE_MASK, PRICE_FIELDS, REASON_MASK, TICK_BLOCKS, Flag, Rows
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument

__all__ = [
    "BLOCK_ROWS",
    "FIELDS",
    "GROUP_OF",
    "Column",
    "Mask",
    "Names",
    "Present",
    "both",
    "choose",
    "instrument_at",
    "mode_word",
    "pick",
    "reason_words",
    "seconds",
]

Batch = TickBatch | CandleBatch
Made = TypeVar("Made")
Column = Iterable[Any]
Mask = bool | NDArray[np.bool_]
"""True or False for all rows alike, or one answer a row, shape (n,)."""

BLOCK_ROWS: Final = 128
"""Rows that a sink encodes and writes at a time. The scratch memory of more rows goes back to the system after
every block, and each page of it costs a fault: measured 1.2 us a row here, 2.0 at 256 rows."""
FIELDS = (
    *("last_price", "last_quantity", "average_price", "volume", "buy_quantity", "sell_quantity"),
    *("open", "high", "low", "close", "open_interest", "oi_day_high", "oi_day_low", "lower_circuit", "upper_circuit"),
)
"""The plain fields of a tick in the order of the documents."""
GROUP_OF = {field: int(flag) for flag, fields in FLAG_GROUPS.items() for field in fields}
"""The group bit that speaks for a field; prices and times without one speak for themselves. Plain integers,
as ``&`` of an ``IntFlag`` takes a microsecond."""
_NAMELESS = Instrument(exchange="", symbol="", token="")
_REASONS = {int(flag): flag.name.lower() for flag in Flag if flag & REASON_MASK and flag.name}
_MODES = {mode.value: mode.word for mode in Mode}


def mode_word(flags: int) -> str:
    """``ltp``, ``quote``, ``full``; empty if unknown."""
    return _MODES.get(flags & MODE_MASK, "")


def reason_words(flags: int) -> tuple[str, ...]:
    """Why validation doubts a row, as words: ``("crossed_depth", "repeat")``."""
    return tuple(word for flag, word in _REASONS.items() if flags & flag) if flags & REASON_MASK else ()


def instrument_at(known: Sequence[Instrument], number: int) -> Instrument:
    """The instrument with that number; one without names for a number that nobody gave out (-1)."""
    return known[number] if 0 <= number < len(known) else _NAMELESS


class Names(Generic[Made]):
    """What a writer makes of vendor, exchange, symbol and token, made once for each instrument."""

    def __init__(self, make: Callable[[str, str, str, str], Made]) -> None:
        self._make = make
        self._known: Sequence[Instrument] | None = None
        self._vendor = ""
        self._made: dict[int, Made] = {}

    def of(self, batch: Batch) -> list[Made]:
        """What was made of each row's instrument, in row order."""
        origin = batch.origin
        if self._known is not origin.instruments or self._vendor != origin.vendor:
            self._known, self._vendor, self._made = origin.instruments, origin.vendor, {}
        numbers, made = batch.rows["instrument"].tolist(), self._made
        try:
            return [made[number] for number in numbers]
        except KeyError:
            for number in set(numbers) - made.keys():
                one = instrument_at(origin.instruments, number)
                made[number] = self._make(origin.vendor or one.vendor, one.exchange, one.symbol, one.token)
            return [made[number] for number in numbers]


class Present:
    """Which fields the rows hold. Each answer is True or False for all rows alike, or a mask of shape (n,)."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._flags = rows["flags"]
        first = int(self._flags[0])
        self._same = first if bool((self._flags == first).all()) else None
        prices = rows.view("f8").reshape(len(rows), -1)[:, TICK_BLOCKS["float64"]]
        self.finite = bool(np.isfinite(prices).all())
        """Every price of every row is a number."""
        self.exchange_time = self.time("exchange_ns")

    def group(self, flag: int) -> Mask:
        """Whether the bit is set."""
        if self._same is not None:
            return bool(self._same & flag)
        mask: NDArray[np.bool_] = (self._flags & np.uint32(flag)) != 0
        return mask

    def field(self, name: str, level: int | None = None) -> Mask:
        """Whether a field is there: its group's bit is set and, for a price, it is a finite number."""
        flag = GROUP_OF.get(name)
        group = True if flag is None else self.group(flag)
        if group is False or self.finite or name not in PRICE_FIELDS:
            return group
        column = self.rows[name]
        return both(group, np.isfinite(column if level is None else column[:, level]))

    def time(self, name: str) -> Mask:
        """Whether a time is known: its group's bit, if it has one, is set, and it is not 0."""
        group = self.group(GROUP_OF[name]) if name in GROUP_OF else True
        return both(group, self.rows[name] != 0)

    def per_flags(self, make: Callable[[int], Any]) -> Column:
        """What ``make`` says to the flags of each row, asked once for each combination."""
        if self._same is not None:
            return repeat(make(self._same))
        flags = self._flags.tolist()
        made = {one: make(one) for one in set(flags)}
        return [made[one] for one in flags]


def both(group: Mask, mask: NDArray[np.bool_]) -> Mask:
    """Where both hold."""
    if group is False:
        return False
    return mask if group is True else group & mask


def pick(column: NDArray[Any], present: Mask, absent: Any = UNSET) -> Column:
    """The column as Python values, ``absent`` where it is not present."""
    if present is False:
        return repeat(absent)
    values: list[Any] = column.tolist()
    if present is True or bool(present.all()):
        return values
    return [value if there else absent for value, there in zip(values, present.tolist(), strict=True)]


def choose(mask: Mask, yes: Any, no: Any, count: int) -> Column:
    """``yes`` where the mask holds, else ``no``."""
    if isinstance(mask, bool):
        return repeat(yes if mask else no, count)
    return [yes if one else no for one in mask.tolist()]


def seconds(rows: Rows, exchange_time: Mask) -> list[float]:
    """Exchange time, or else received time, in seconds cut to the microsecond."""
    ns = np.where(exchange_time, rows["exchange_ns"], rows["received_ns"])
    values: list[float] = (ns // 1000 / 1e6).tolist()
    return values
