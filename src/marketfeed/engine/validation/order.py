"""Time, volume and repeats: a row against the earlier rows of its instrument."""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from marketfeed.clock import IST, NS
from marketfeed.dtypes import MODE_MASK, Flag
from marketfeed.engine.validation.columns import Columns, Doubt, Places
from marketfeed.enums import Mode

__all__ = ["OrderCheck"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Whole = TypeVar("Whole", int, NDArray[np.int64])

_VOLUME, _PROMISED, _MODE, _FULL = map(np.uint32, (Flag.VOLUME, Flag.EXCHANGE_TIME, MODE_MASK, Mode.FULL))
_VOLUME_BIT: Final = int(Flag.VOLUME)
_OFFSET_NS: Final = int(IST.utcoffset(None).total_seconds()) * NS
_DAY_NS: Final = 86_400 * NS
_VOLUME_BITS: Final = 45
"""Day and volume share one integer whose order is that of (day, volume); 2**45 shares are no day's volume."""
_VOLUME_MASK: Final = 2**_VOLUME_BITS - 1


class OrderCheck:
    """Keeps, per instrument: the newest exchange time, the highest volume of the day, the last row's digest.

    Rows whose time lies in the future count for neither time nor volume: one wrong stamp must not make
    all that follows look late.
    """

    def __init__(self, ahead_s: float, few: int) -> None:
        self._few = few
        self._ahead_ns = round(ahead_s * NS)
        self._state: Ints = np.zeros((4, 0), np.int64)
        """Newest time, volume, the time of the row that set the volume, digest; shape ``(4, instruments)``."""
        self._marks: Bools = np.zeros(0, bool)

    def grow(self, size: int) -> None:
        """Make room for instruments below ``size``."""
        state = np.zeros((4, size), np.int64)
        state[:, : self._state.shape[1]] = self._state
        self._state = state
        self._marks = np.zeros(size, bool)

    def check(self, columns: Columns) -> list[Doubt]:
        """Doubts about these rows; afterwards they are part of the past."""
        doubts: list[Doubt] = []
        numbers, time, received = columns.numbers, columns.exchange_ns, columns.received_ns
        count = len(numbers)
        now = np.empty((4, count), np.int64)
        now[0] = now[2] = time
        now[1], now[3] = columns.volume, columns.digests
        timed = time > 0
        if np.count_nonzero(timed) < count:
            np.copyto(now[2], received, where=~timed)
            doubts += _untimed(columns, timed)
        before = self._state.take(numbers, axis=1)
        same = numbers[1:] == numbers[:-1]
        if np.count_nonzero(same):
            np.copyto(before[:, 1:], now[:, :-1], where=same)
        repeats = now[3] == before[3]
        if np.count_nonzero(repeats):
            doubts.append((Flag.REPEAT, np.flatnonzero(repeats)))
        ahead = time - received > self._ahead_ns
        back = now[:3] < before[:3]
        # Where nothing steps back, the last row of each instrument is also the highest.
        for column, values in zip(self._state, now, strict=True):
            column[numbers] = values
        if np.count_nonzero(ahead):
            doubts.append((Flag.TIME_AHEAD, np.flatnonzero(ahead)))
            back |= ahead
        if np.count_nonzero(back):
            doubts += self._steps_back(columns, now, before, ahead, back)
        return doubts

    def _steps_back(self, columns: Columns, now: Ints, before: Ints, ahead: Bools, back: Bools) -> list[Doubt]:
        """Do it with all care for the instruments of the rows where something steps ``back``."""
        suspects = columns.numbers[np.logical_or.reduce(back)]
        self._marks[suspects] = True
        places = np.flatnonzero(self._marks[columns.numbers])
        self._marks[suspects] = False
        if len(places) <= self._few:
            return self._few_steps_back(columns, now, before, ahead, places)
        numbers, now, before = columns.numbers[places], now.take(places, axis=1), before.take(places, axis=1)
        counts = ~ahead[places]
        first = np.ones(len(places), bool)
        np.not_equal(numbers[1:], numbers[:-1], out=first[1:])
        time = columns.exchange_ns[places]
        newest, after = _running_max(np.where(counts, time, 0), before[0], first)
        self._state[0][numbers] = after
        doubts = [(Flag.TIME_BACK, places[(time > 0) & (time < newest)])]
        if np.count_nonzero(back[1:]):
            there = columns.at("flags", places) & _VOLUME != 0
            doubts.append((Flag.VOLUME_BACK, places[self._volumes_back(numbers, now, before, there, counts, first)]))
        return [(reason, found) for reason, found in doubts if len(found)]

    def _few_steps_back(self, columns: Columns, now: Ints, before: Ints, ahead: Bools, places: Places) -> list[Doubt]:
        """The same row by row, which is three times faster for one or two of them."""
        found: dict[Flag, list[int]] = {Flag.TIME_BACK: [], Flag.VOLUME_BACK: []}
        past, row = before.take(places, axis=1).T.tolist(), now.take(places, axis=1).T.tolist()
        flags, future = columns.at("flags", places).tolist(), ahead[places].tolist()
        state, last = self._state, -1
        for index, (place, number) in enumerate(zip(places.tolist(), columns.numbers[places].tolist(), strict=True)):
            if number != last:
                last, newest, highest = number, past[index][0], (_day(past[index][2]), past[index][1])
            time, volume, day = row[index][0], row[index][1], _day(row[index][2])
            if 0 < time < newest:
                found[Flag.TIME_BACK].append(place)
            elif not future[index]:
                newest = max(newest, time)
            if flags[index] & _VOLUME_BIT:
                if volume < 0 or (day == highest[0] and volume < highest[1]):
                    found[Flag.VOLUME_BACK].append(place)
                elif not future[index]:
                    highest = max(highest, (day, volume))
            state[0, number], state[1, number], state[2, number] = newest, highest[1], highest[0] * _DAY_NS - _OFFSET_NS
        return [(reason, np.array(back)) for reason, back in found.items() if back]

    def _volumes_back(
        self, numbers: Places, now: Ints, before: Ints, there: Bools, counts: Bools, first: Bools
    ) -> Bools:
        """``there``: the row has a volume; ``counts``: its time is to be trusted."""
        day, volume = _day(now[2]), now[1]
        counts &= there
        counts &= volume.view(np.uint64) <= _VOLUME_MASK  # a negative one is a huge one here
        keys = np.where(counts, (day << _VOLUME_BITS) + volume, 0)
        highest, after = _running_max(keys, (_day(before[2]) << _VOLUME_BITS) + (before[1] & _VOLUME_MASK), first)
        self._state[1][numbers] = after & _VOLUME_MASK
        self._state[2][numbers] = (after >> _VOLUME_BITS) * _DAY_NS - _OFFSET_NS
        lower = (volume < (highest & _VOLUME_MASK)) & (highest >> _VOLUME_BITS == day)
        found: Bools = np.logical_and(there, lower | (volume < 0))
        return found


def _untimed(columns: Columns, timed: Bools) -> list[Doubt]:
    """A row without exchange time is doubted where the message has one: by its flag, or in mode full."""
    places = np.flatnonzero(~timed)
    flags = columns.at("flags", places)
    places = places[(flags & _PROMISED != 0) | (flags & _MODE == _FULL)]
    return [(Flag.TIME_ZERO, places)] if len(places) else []


def _day(time_ns: Whole) -> Whole:
    """Days since 1970 in India."""
    return (time_ns + _OFFSET_NS) // _DAY_NS


def _running_max(values: Ints, start: Ints, first: Bools) -> tuple[Ints, Ints]:
    """The highest value of each instrument before each row, and with it.

    ``start`` counts before the ``first`` row of an instrument. Doubling steps instead of a loop over
    rows: ten of them cover an instrument that occurs a thousand times.
    """
    if np.count_nonzero(first) == len(first):
        return start, np.maximum(values, start)
    after = np.where(first, np.maximum(values, start), values)
    group = first.cumsum()
    step = 1
    while np.count_nonzero(joined := group[step:] == group[:-step]):
        np.maximum(after[step:], after[:-step], out=after[step:], where=joined)
        step *= 2
    before = start.copy()
    np.copyto(before[1:], after[:-1], where=~first[1:])
    return before, after
