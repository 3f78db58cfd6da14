"""The merged state of one scrip in one family, kept as text and as a ready row of ``TICK``.

FlatTrade sends a snapshot and then only what changed. The text is kept as it came, so that nothing is lost;
the row is changed in place, field by field, so that a delta costs what it holds.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from marketfeed.clock import NS
from marketfeed.dtypes import TICK, Flag, empty_ticks
from marketfeed.enums import Mode

__all__ = ["ScripState"]

_DEPTH: Final = [f"{side}{part}{level}" for side in "bs" for part in "pqo" for level in range(1, 6)]
_SHORT: Final = {"b": "bid", "s": "ask", "p": "price", "q": "quantity", "o": "orders"}
_COLUMNS: Final[Mapping[str, tuple[str, int]]] = {
    **{
        field: (name, 0)
        for field, name in {
            "lp": "last_price",
            "ap": "average_price",
            "o": "open",
            "h": "high",
            "l": "low",
            "c": "close",
            "lc": "lower_circuit",
            "uc": "upper_circuit",
            "oi": "open_interest",
            "v": "volume",
            "ltq": "last_quantity",
            "tbq": "buy_quantity",
            "tsq": "sell_quantity",
        }.items()
    },
    **{field: (f"{_SHORT[field[0]]}_{_SHORT[field[1]]}", int(field[2]) - 1) for field in _DEPTH},
}
"""Field of the protocol -> column of the row and level."""

_ANY: Final = {
    Flag.OHLC: ("o", "h", "l", "c"),
    Flag.CIRCUITS: ("lc", "uc"),
    Flag.DEPTH: tuple(one for one in _DEPTH if one[1] == "p"),
}
"""Groups whose absent members show as NaN: one known field is enough for the bit."""
_ALL: Final = {
    Flag.QUANTITIES: ("ltq", "tbq", "tsq"),
    Flag.OPEN_INTEREST: ("oi",),
    Flag.VOLUME: ("v",),
}
"""Groups of whole numbers, where an absent one would read as 0: all must be known."""

_IST_S: Final = 19_800
_DAY_S: Final = 86_400
_AHEAD_S: Final = 300
"""A last trade later than the feed time by more than this was yesterday's."""
_NEVER_S: Final = 19_800
"""``05:30:00`` is 1970 in India time: never traded."""
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)", re.ASCII)
_EMPTY: Final = empty_ticks(1).tobytes()
_FLOAT, _INT64, _INT32 = range(3)
_LIMITS: Final = (math.inf, 2.0**63, 2.0**31)


def _place(column: str, level: int) -> tuple[int, int]:
    """Kind of a column, and its place in the row counted in items of that kind."""
    fields: Mapping[str, Any] = TICK.fields or {}
    dtype, offset = fields[column][:2]
    kind = {"f8": _FLOAT, "i8": _INT64, "i4": _INT32, "u4": _INT32}[dtype.base.str[1:]]
    return kind, int(offset) // dtype.base.itemsize + level


_FIELDS: Final[Mapping[str, tuple[int, int, int]]] = {
    field: (*_place(*column), 1 << number) for number, (field, column) in enumerate(_COLUMNS.items())
}
"""Field -> kind, place, bit in the set of known fields."""
_EXCHANGE_NS, _RECEIVED_NS, _LAST_TRADE_NS = (
    _place(name, 0)[1] for name in ("exchange_ns", "received_ns", "last_trade_ns")
)
_INSTRUMENT, _FLAGS = (_place(name, 0)[1] for name in ("instrument", "flags"))


def _bits(fields: Iterable[str]) -> int:
    return sum(_FIELDS[one][2] for one in fields)


_ANY_BITS: Final = [(int(flag), _bits(fields)) for flag, fields in _ANY.items()]
_ALL_BITS: Final = [(int(flag), _bits(fields)) for flag, fields in _ALL.items()]


@functools.lru_cache(maxsize=4096)
def _groups(known: int) -> int:
    """The group bits of a set of known fields."""
    return sum(flag for flag, bits in _ANY_BITS if known & bits) + sum(
        flag for flag, bits in _ALL_BITS if known & bits == bits
    )


class ScripState:
    """What is known of one scrip in one family since the socket opened.

    ``fields`` is the merged text without ``t``; ``has_snapshot`` says whether a snapshot began it.
    """

    __slots__ = ("_floats", "_int32s", "_int64s", "_known", "_mode", "fields", "has_snapshot", "instrument", "row")

    def __init__(self, mode: Mode, instrument: int) -> None:
        self.instrument = instrument
        self._mode = int(mode)
        self.clear()
        self.has_snapshot = False

    def clear(self) -> None:
        """A snapshot begins: what was known is void."""
        self.has_snapshot = True
        self.fields: dict[str, Any] = {}
        self.row = bytearray(_EMPTY)
        view = memoryview(self.row)
        self._floats, self._int64s, self._int32s = view.cast("d"), view.cast("q"), view.cast("i")
        self._known = 0

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Overlay the fields of a message. What is no number (``NA``, empty, absurd) makes its field absent."""
        self.fields.update(changes)
        known = self._known
        wholes = (self._int64s, self._int32s)
        for field, text in changes.items():
            entry = _FIELDS.get(field)
            if entry is None:
                continue
            kind, place, bit = entry
            value = _number(text)
            usable = -_LIMITS[kind] < value < _LIMITS[kind]  # false for NaN
            known = known | bit if usable else known & ~bit
            if kind == _FLOAT:
                self._floats[place] = value if usable else math.nan
            else:
                wholes[kind - 1][place] = int(value) if usable else 0
        self._known = known
        if "ft" in changes or "ltt" in changes:
            self._set_times()
        self._set_flags()

    def stamp(self, received_ns: int) -> bytearray:
        """The row as of now. The next message changes it in place, so copy it."""
        self._int64s[_RECEIVED_NS] = received_ns
        self._int32s[_INSTRUMENT] = self.instrument
        return self.row

    def _set_times(self) -> None:
        fed = _number(self.fields.get("ft"))
        feed_s = int(fed) if 0 < fed < 2.0**63 / NS else 0
        self._int64s[_EXCHANGE_NS] = feed_s * NS
        self._int64s[_LAST_TRADE_NS] = _trade_s(self.fields.get("ltt"), feed_s) * NS

    def _set_flags(self) -> None:
        flags = self._mode | _groups(self._known)
        if self._int64s[_EXCHANGE_NS]:
            flags |= Flag.EXCHANGE_TIME.value
        if self._int64s[_LAST_TRADE_NS]:
            flags |= Flag.TRADE_TIME.value
        self._int32s[_FLAGS] = flags


def _number(text: Any) -> float:
    """The number that a field says, NaN where it says none."""
    try:
        return float(text)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _trade_s(clock: Any, feed_s: int) -> int:
    """Epoch seconds of ``HH:MM:SS`` India time on the feed time's date, or the day before; 0 if unknown."""
    hit = _CLOCK.fullmatch(clock) if isinstance(clock, str) else None
    if not hit or not feed_s:
        return 0
    hours, minutes, seconds = map(int, hit.groups())
    of_day = hours * 3600 + minutes * 60 + seconds
    if of_day == _NEVER_S:
        return 0
    midnight = (feed_s + _IST_S) // _DAY_S * _DAY_S - _IST_S
    trade_s = midnight + of_day
    return max(trade_s - _DAY_S if trade_s > feed_s + _AHEAD_S else trade_s, 0)
