"""The merged state of one scrip in one family, kept as a ready row of ``TICK``.

FlatTrade sends a snapshot and then only what changed. A snapshot is packed into the row in one go; a delta changes
the row in place, so it costs what it holds.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Iterable
from typing import Any, Final

from marketfeed.clock import NS
from marketfeed.dtypes import TICK_BLOCKS, Flag
from marketfeed.enums import Mode
from marketfeed_flattrade.messages import ORDERS, PRICES, QUANTITIES

__all__ = ["ScripState"]

_ABSENT: Final[dict[str, float]] = {
    **dict.fromkeys(QUANTITIES, 0),
    **dict.fromkeys(PRICES, math.nan),
    **dict.fromkeys(ORDERS, 0),
}
_ROW: Final = struct.Struct("=3q 5q16x10q 18d 10i iI8x")
"""``TICK``: three times, quantities (the range of open interest is not told), prices, orders, instrument and
flags; the journal fills the rest."""
_DOUBLE, _INT64, _INT32 = range(3)
_PLACES: Final[dict[str, tuple[int, int]]] = {
    field: (kind, start + number)
    for kind, start, fields in (
        (_INT64, 3, QUANTITIES[:5]),
        (_INT64, 10, QUANTITIES[5:]),
        (_DOUBLE, TICK_BLOCKS["float64"].start, PRICES),
        (_INT32, TICK_BLOCKS["int32"].start, ORDERS),
    )
    for number, field in enumerate(fields)
}
"""Field -> kind of its column, and its place in the row counted in items of that kind."""
_EXCHANGE_NS, _RECEIVED_NS, _TRADE_NS = range(3)
_INSTRUMENT: Final = TICK_BLOCKS["int32"].start + len(ORDERS)
_FLAGS: Final = _INSTRUMENT + 1
_GROUPS: Final = [
    (int(Flag.OHLC), frozenset("ohlc")),
    (int(Flag.CIRCUITS), frozenset(("lc", "uc"))),
    (int(Flag.DEPTH), frozenset(one for one in PRICES if one[0] in "bs")),
    (int(Flag.VOLUME), frozenset("v")),
    (int(Flag.OPEN_INTEREST), frozenset(("oi",))),
]
"""Bit -> the fields of which one is enough to set it: other prices of the group show as NaN."""
_TOTALS: Final = frozenset(("ltq", "tbq", "tsq"))
"""A whole number that is absent would read as 0, so this group is announced only when all three are known."""

_IST_S: Final = 19_800
_DAY_S: Final = 86_400
_AHEAD_S: Final = 300
"""A last trade later than the feed time by more than this was yesterday's."""
_NEVER_S: Final = 19_800
"""``05:30:00`` is 1970 in India time: never traded."""
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)", re.ASCII)
_MAX_FEED_S: Final = 2**63 // NS - _DAY_S
_FED, _TRADED = int(Flag.EXCHANGE_TIME), int(Flag.TRADE_TIME)
_TIMES: Final = _FED | _TRADED


class ScripState:
    """What is known of one scrip in one family since the socket opened.

    ``has_snapshot`` says whether a snapshot began it; ``instrument`` is -1 while nobody knows the scrip.
    """

    __slots__ = ("_clock", "_fed", "_flags", "_known", "_mode", "_row", "_views", "has_snapshot", "instrument")

    def __init__(self, mode: Mode, instrument: int) -> None:
        self.instrument = instrument
        self.has_snapshot = False
        self._mode = self._flags = int(mode)
        self._known: set[str] = set()
        self._fed, self._clock = 0.0, ""
        self._row = bytearray(_ROW.size)
        view = memoryview(self._row)
        self._views: tuple[Any, Any, Any] = (view.cast("d"), view.cast("q"), view.cast("i"))
        self._fill({})

    @property
    def known(self) -> dict[str, float]:
        """The merged numbers by field of the protocol, without the times."""
        return {field: self._views[kind][place] for field in self._known for kind, place in [_PLACES[field]]}

    def apply(self, message: dict[str, Any], snapshot: bool) -> None:
        """Take the fields of a message, which is used up; a snapshot makes void what was known."""
        fed, clock = message.pop("ft", None), message.pop("ltt", None)
        if snapshot:
            self.has_snapshot = True
            fed, clock = fed or 0.0, clock or ""
            if self._known != message.keys():
                self._know(set(message))
            self._fill(message)
        else:
            views = self._views
            for field, value in message.items():
                kind, place = _PLACES[field]
                views[kind][place] = value
            if not self._known.issuperset(message):
                self._know(self._known.union(message))
        if fed is not None or clock is not None:
            self._timed(fed, clock)

    def forget(self, fields: Iterable[str]) -> None:
        """Make fields absent."""
        known = self._known.intersection(fields)
        nothing = {"ft": 0.0, "ltt": "", **_ABSENT}
        self.apply({field: nothing[field] for field in (*known, "ft", "ltt") if field in fields}, snapshot=False)
        self._know(self._known - known)

    def row(self, received_ns: int) -> bytearray:
        """The row as of now. The next message changes it in place, so copy it."""
        _, int64s, int32s = self._views
        int64s[_RECEIVED_NS] = received_ns
        int32s[_INSTRUMENT] = self.instrument
        return self._row

    def _fill(self, fields: dict[str, Any]) -> None:
        """Only these fields are known, and no times."""
        _ROW.pack_into(self._row, 0, 0, 0, 0, *(_ABSENT | fields).values(), self.instrument, self._flags)

    def _know(self, known: set[str]) -> None:
        """These fields are known; sets the flags."""
        self._known = known
        flags = self._mode | self._flags & _TIMES
        for bit, fields in _GROUPS:
            if not known.isdisjoint(fields):
                flags |= bit
        if known >= _TOTALS:
            flags |= Flag.QUANTITIES.value
        self._flags = self._views[_INT32][_FLAGS] = flags

    def _timed(self, fed: float | None, clock: str | None) -> None:
        """Set both times and their flags; None leaves a part as it was."""
        if fed is not None:
            self._fed = fed
        if clock is not None:
            self._clock = clock
        _, int64s, int32s = self._views
        int64s[_EXCHANGE_NS], int64s[_TRADE_NS], bits = _times(self._fed, self._clock)
        if bits != self._flags & _TIMES:
            self._flags = int32s[_FLAGS] = self._flags & ~_TIMES | bits


@functools.lru_cache(maxsize=4096)  # in one second of a busy feed many scrips say the same
def _times(fed: float, clock: str) -> tuple[int, int, int]:
    """Nanoseconds of the feed and of the last trade (0 if unknown) and their flags."""
    feed_s = int(fed) if 0 < fed < _MAX_FEED_S else 0
    trade_s = _trade_s(clock, feed_s) if feed_s else 0
    return feed_s * NS, trade_s * NS, (_FED if feed_s else 0) | (_TRADED if trade_s else 0)


def _trade_s(clock: str, feed_s: int) -> int:
    """Epoch seconds of ``HH:MM:SS`` India time on the feed time's date, or the day before; 0 if unknown."""
    of_day = _seconds_of_day(clock)
    if of_day is None:
        return 0
    trade_s = feed_s - (feed_s + _IST_S) % _DAY_S + of_day
    return max(trade_s - _DAY_S if trade_s > feed_s + _AHEAD_S else trade_s, 0)


def _seconds_of_day(clock: str) -> int | None:
    hit = _CLOCK.fullmatch(clock)
    if not hit:
        return None
    hours, minutes, seconds = map(int, hit.groups())
    of_day = hours * 3600 + minutes * 60 + seconds
    return None if of_day == _NEVER_S else of_day
