"""The merged state of one scrip in one family: the numbers that are known, in the order of a row of ``TICK``.

FlatTrade sends a snapshot and then only what changed. A dict that holds every field in the row's order is updated
with a message and packed into a row in one go, so neither costs a step of Python for each field.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Iterable
from typing import Any, Final

from marketfeed.clock import NS
from marketfeed.dtypes import Flag
from marketfeed.enums import Mode
from marketfeed_flattrade.messages import ORDERS, PRICES, QUANTITIES

__all__ = ["ScripState"]

_ABSENT: Final[dict[str, float]] = {
    **dict.fromkeys(QUANTITIES, 0),
    **dict.fromkeys(PRICES, math.nan),
    **dict.fromkeys(ORDERS, 0),
}
_pack: Final = struct.Struct("=3q 5q16x10q 18d 10i iI8x").pack
"""A row of ``TICK``: three times, quantities (the range of open interest is not told), prices, orders, instrument and
flags; the journal fills the rest."""
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


class ScripState:
    """What is known of one scrip in one family since the socket opened.

    ``has_snapshot`` says whether a snapshot began it; ``instrument`` is -1 while nobody knows the scrip.
    """

    __slots__ = (
        *("_clock", "_fed", "_flags", "_known", "_mode", "_times", "_values"),
        *("has_snapshot", "instrument"),
    )

    def __init__(self, mode: Mode, instrument: int) -> None:
        self.instrument = instrument
        self.has_snapshot = False
        self._mode = self._flags = int(mode)
        self._known: set[str] = set()
        self._values = dict(_ABSENT)
        self._fed, self._clock, self._times = 0.0, "", (0, 0, 0)

    @property
    def known(self) -> dict[str, float]:
        """The merged numbers by field of the protocol, without the times."""
        return {field: self._values[field] for field in self._known}

    def apply(self, message: dict[str, Any], snapshot: bool) -> None:
        """Take the fields of a message, which is used up; a snapshot makes void what was known."""
        fed, clock = message.pop("ft", None), message.pop("ltt", None)
        if snapshot:
            self.has_snapshot = True
            self._values = _ABSENT.copy()
            fed, clock = fed or 0.0, clock or ""
            if self._known != message.keys():
                self._know(set(message))
        elif not self._known.issuperset(message):
            self._know(self._known.union(message))
        self._values.update(message)
        if clock is not None:
            self._clock = clock
            self._times = _times(self._fed if fed is None else fed, clock)
        elif fed is not None:
            self._times = _times(fed, self._clock)
        if fed is not None:
            self._fed = fed

    def forget(self, fields: Iterable[str]) -> None:
        """Make fields absent."""
        known = self._known.intersection(fields)
        self._values.update((field, _ABSENT[field]) for field in known)
        self._know(self._known - known)
        nothing = {"ft": 0.0, "ltt": ""}
        self.apply({field: nothing[field] for field in fields if field in nothing}, snapshot=False)

    def row(self, received_ns: int) -> bytes:
        """The row as of now."""
        exchange_ns, trade_ns, time_flags = self._times
        values = self._values.values()
        return _pack(exchange_ns, received_ns, trade_ns, *values, self.instrument, self._flags | time_flags)

    def _know(self, known: set[str]) -> None:
        """These fields are known; sets the flags."""
        self._known = known
        self._flags = self._mode
        for bit, fields in _GROUPS:
            if not known.isdisjoint(fields):
                self._flags |= bit
        if known >= _TOTALS:
            self._flags |= Flag.QUANTITIES.value


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
