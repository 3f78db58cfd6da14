"""The merged state of one scrip in one family, kept as text and as a ready row of ``TICK``.

FlatTrade sends a snapshot and then only what changed. The text is kept as it came, so that nothing is lost;
the row is changed in place, field by field, so that a delta costs what it holds.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
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

_LAST, _BUYS, _SELLS = 1 << 13, 1 << 14, 1 << 15
_ALL_QUANTITIES: Final = _LAST | _BUYS | _SELLS
"""Bits beside those of ``Flag``: a whole number that is absent would read as 0, so the group of quantities is
announced only when all three are known."""
_GROUPS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("o", "h", "l", "c"), int(Flag.OHLC)),
    **dict.fromkeys(("lc", "uc"), int(Flag.CIRCUITS)),
    **{one: int(Flag.DEPTH) for one in _DEPTH if one[1] == "p"},
    "v": int(Flag.VOLUME),
    "oi": int(Flag.OPEN_INTEREST),
    "ltq": _LAST,
    "tbq": _BUYS,
    "tsq": _SELLS,
}
"""Field -> the bit that it sets. In groups of prices one known field is enough: the others show as NaN."""

_IST_S: Final = 19_800
_DAY_S: Final = 86_400
_AHEAD_S: Final = 300
"""A last trade later than the feed time by more than this was yesterday's."""
_NEVER_S: Final = 19_800
"""``05:30:00`` is 1970 in India time: never traded."""
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)", re.ASCII)
_MAX_FEED_S: Final = 2.0**63 / NS
_FED, _TRADED = int(Flag.EXCHANGE_TIME), int(Flag.TRADE_TIME)
_TIMES: Final = _FED | _TRADED
_EMPTY: Final = empty_ticks(1).tobytes()
_FLOAT, _INT64, _INT32 = range(3)


def _place(column: str, level: int) -> tuple[int, int]:
    """Kind of a column, and its place in the row counted in items of that kind."""
    fields: Mapping[str, Any] = TICK.fields or {}
    dtype, offset = fields[column][:2]
    kind = {"f8": _FLOAT, "i8": _INT64, "i4": _INT32, "u4": _INT32}[dtype.base.str[1:]]
    return kind, int(offset) // dtype.base.itemsize + level


_FIELDS: Final[Mapping[str, tuple[int, int, int]]] = {
    field: (*_place(*column), _GROUPS.get(field, 0)) for field, column in _COLUMNS.items()
}
"""Field -> kind, place, bit."""
_find: Final = _FIELDS.get
_EXCHANGE_NS, _RECEIVED_NS, _LAST_TRADE_NS = (
    _place(name, 0)[1] for name in ("exchange_ns", "received_ns", "last_trade_ns")
)
_INSTRUMENT, _FLAGS = (_place(name, 0)[1] for name in ("instrument", "flags"))


class ScripState:
    """What is known of one scrip in one family since the socket opened.

    ``fields`` is the merged text without ``t``; ``has_snapshot`` says whether a snapshot began it.
    """

    __slots__ = ("_flags", "_floats", "_int32s", "_int64s", "_mode", "fields", "has_snapshot", "instrument", "row")

    def __init__(self, mode: Mode, instrument: int) -> None:
        self.instrument = instrument
        self._mode = int(mode)
        self.row = bytearray(_EMPTY)
        view = memoryview(self.row)
        self._floats, self._int64s, self._int32s = view.cast("d"), view.cast("q"), view.cast("i")
        self.clear()
        self.has_snapshot = False

    def clear(self) -> None:
        """A snapshot begins: what was known is void."""
        self.has_snapshot = True
        self.fields: dict[str, Any] = {}
        self.row[:] = _EMPTY
        self._flags = self._int32s[_FLAGS] = self._mode

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Overlay the fields of a message. What is no number (``NA``, empty, absurd) makes its field absent."""
        self.fields.update(changes)
        flags = self._flags
        floats, int64s = self._floats, self._int64s
        for field, text in changes.items():
            entry = _find(field)
            if entry is None:
                continue
            kind, place, bit = entry
            try:
                value = float(text)
                if kind == _FLOAT:
                    if value - value:  # infinite or NaN
                        raise ValueError
                    floats[place] = value
                elif kind == _INT64:
                    int64s[place] = int(value)
                else:
                    self._int32s[place] = int(value)
                flags |= bit
            except (TypeError, ValueError, OverflowError):
                flags = self._forget(field, flags)
        if "ft" in changes or "ltt" in changes:
            flags = self._timed(flags)
        if flags != self._flags:
            self._flags = flags
            if flags & _ALL_QUANTITIES == _ALL_QUANTITIES:
                flags |= Flag.QUANTITIES.value
            self._int32s[_FLAGS] = flags & ~_ALL_QUANTITIES

    def _forget(self, field: str, flags: int) -> int:
        """Make a field absent; the flags without its bit, unless other prices of its group are known."""
        kind, place, bit = _FIELDS[field]
        if kind != _FLOAT:
            (self._int64s if kind == _INT64 else self._int32s)[place] = 0
            return flags & ~bit
        self._floats[place] = math.nan
        group = [_FIELDS[one][1] for one in _GROUPS if _GROUPS[one] == bit]
        return flags if any(self._floats[one] == self._floats[one] for one in group) else flags & ~bit

    def _timed(self, flags: int) -> int:
        """Set both times; the flags with the two bits of the times."""
        fields = self.fields
        try:
            fed = float(fields["ft"])
            feed_s = int(fed) if 0 < fed < _MAX_FEED_S else 0
        except (KeyError, TypeError, ValueError, OverflowError):
            feed_s = 0
        clock = fields.get("ltt")
        trade_s = _trade_s(clock, feed_s) if feed_s and isinstance(clock, str) else 0
        self._int64s[_EXCHANGE_NS] = feed_s * NS
        self._int64s[_LAST_TRADE_NS] = trade_s * NS
        flags &= ~_TIMES
        if feed_s:
            flags |= _FED
        return flags | _TRADED if trade_s else flags

    def stamp(self, received_ns: int) -> bytearray:
        """The row as of now. The next message changes it in place, so copy it."""
        self._int64s[_RECEIVED_NS] = received_ns
        self._int32s[_INSTRUMENT] = self.instrument
        return self.row


def _trade_s(clock: str, feed_s: int) -> int:
    """Epoch seconds of ``HH:MM:SS`` India time on the feed time's date, or the day before; 0 if unknown."""
    of_day = _seconds_of_day(clock)
    if of_day is None:
        return 0
    trade_s = feed_s - (feed_s + _IST_S) % _DAY_S + of_day
    return max(trade_s - _DAY_S if trade_s > feed_s + _AHEAD_S else trade_s, 0)


@functools.lru_cache(maxsize=1024)  # the scrips of a busy feed traded within the same few seconds
def _seconds_of_day(clock: str) -> int | None:
    hit = _CLOCK.fullmatch(clock)
    if not hit:
        return None
    hours, minutes, seconds = map(int, hit.groups())
    of_day = hours * 3600 + minutes * 60 + seconds
    return None if of_day == _NEVER_S else of_day
