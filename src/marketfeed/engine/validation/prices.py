"""Last prices: a spike against the instrument's own recent range, and prices that are none.

The recent range is the last price of each of the last eight seconds that had one (a second of
2**30 ns, by the time of receipt). A spike lies further from their median than the settings allow, three
times their spread (without the outermost two) and one rupee. So one wild price widens nothing, and a
price that stays for two seconds is a new level.

Almost every row is done with two comparisons: as long as most of the eight lie in a band no wider
than the allowed distance, so does their median, and no price in the band can be a spike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import Flag
from marketfeed.engine.validation.columns import Columns, Doubt, Places
from marketfeed.enums import Exchange, Kind
from marketfeed.instruments import Instrument

__all__ = ["PriceCheck"]

Floats = NDArray[np.float64]

_SLOTS: Final = 8
_SECOND_BITS: Final = 30
_ENOUGH: Final = 3
"""Fewer recent prices judge nobody."""
_RUPEES: Final = 1.0
"""Moves up to this are never spikes: an option at 0.05 doubles with every tick."""
_SPREADS: Final = 3.0
_MAY_BE_NEGATIVE: Final = frozenset({Exchange.MCX, Exchange.NCO})
_GROUPS: Final = np.uint32(
    Flag.QUANTITIES | Flag.OHLC | Flag.DEPTH | Flag.OPEN_INTEREST | Flag.CIRCUITS | Flag.VOLUME | Flag.OI_RANGE
)


class PriceCheck:
    """Keeps eight prices and a band per instrument."""

    def __init__(self, spike_percent: float, instruments: Sequence[Instrument], few: int) -> None:
        self._few = few
        self._share = spike_percent / 100
        self._instruments = instruments
        self._bands: Floats = np.zeros((2, 0))
        """Lower and upper end, shape ``(2, instruments)``; infinity upside down where there is no band."""
        self._recent: Floats = np.zeros(0)
        """Eight slots for each instrument, 0 = empty."""
        self._marks: NDArray[np.bool_] = np.zeros(0, bool)
        self._commodities: NDArray[np.bool_] = np.zeros(0, bool)
        self._looked_at = 0
        """How many instruments were asked whether they are commodity futures."""

    def grow(self, size: int) -> None:
        """Make room for instruments below ``size``."""
        old = len(self._marks)
        bands, recent = np.empty((2, size)), np.zeros(size * _SLOTS)
        bands[0], bands[1] = np.inf, -np.inf
        bands[:, :old], recent[: old * _SLOTS] = self._bands, self._recent
        commodities = np.zeros(size, bool)
        commodities[:old] = self._commodities
        self._bands, self._recent, self._commodities = bands, recent, commodities
        self._marks = np.zeros(size, bool)

    def check(self, columns: Columns) -> list[Doubt]:
        """Doubts about these rows; afterwards they are part of the past."""
        prices = columns.last_price
        low, high = self._bands.take(columns.numbers, axis=1)
        inside = prices >= low
        inside &= prices <= high
        slots = (columns.received_ns >> _SECOND_BITS) & (_SLOTS - 1)
        slots += columns.numbers * _SLOTS
        if np.count_nonzero(inside) == len(prices):
            self._recent[slots] = prices
            return []
        return self._strays(columns, slots, np.flatnonzero(~inside))

    def _strays(self, columns: Columns, slots: Places, outside: Places) -> list[Doubt]:
        """All rows of the instruments with a price outside their band, in their order; the others as usual."""
        numbers, prices = columns.numbers, columns.last_price
        strayed = numbers[outside]
        table = self._recent.reshape(-1, _SLOTS)
        before = table[strayed]
        self._recent[slots] = prices
        table[strayed] = before
        self._marks[strayed] = True
        marked = self._marks[numbers]
        self._marks[strayed] = False
        odd, doubts = self._none(columns, outside)
        marked[odd] = False
        places = np.flatnonzero(marked)
        judge = self._judge_few if len(places) <= self._few else self._judge
        spikes = judge(numbers[places], slots[places], prices[places])
        if len(spikes):
            doubts.append((Flag.PRICE_SPIKE, places[spikes]))
        return doubts

    # --- prices that are none ---------------------------------------------------------------------

    def _none(self, columns: Columns, places: Places) -> tuple[Places, list[Doubt]]:
        """Those places whose price cannot be compared, and the doubts about them."""
        prices = columns.last_price[places]
        odd = ~((prices > 0) & (prices < np.inf))
        if not np.count_nonzero(odd):
            return places[:0], []
        places, prices = places[odd], prices[odd]
        wrong = prices <= 0
        usual = self._may_be_negative(columns.numbers[places])
        traded = (columns.volume[places] > 0) | (columns.at("high", places) > 0)
        silent = columns.at("flags", places) & _GROUPS == 0
        missing = np.isnan(prices) & (traded | silent)
        wrong &= ((prices < 0) | traded) & ~usual
        doubts = [(Flag.NOT_FINITE, places[missing]), (Flag.NOT_POSITIVE, places[wrong])]
        comparable = usual & (prices < 0) & np.isfinite(prices)
        return places[~comparable], [(reason, found) for reason, found in doubts if len(found)]

    def _may_be_negative(self, numbers: Places) -> NDArray[np.bool_]:
        """Futures of a commodity exchange: crude oil settled below zero in April 2020."""
        for number in range(self._looked_at, min(len(self._instruments), len(self._commodities))):
            one = self._instruments[number]
            self._commodities[number] = one.kind == Kind.FUTURE and one.exchange in _MAY_BE_NEGATIVE
            self._looked_at = number + 1
        return self._commodities[numbers]

    # --- spikes -----------------------------------------------------------------------------------

    def _judge(self, numbers: Places, slots: Places, prices: Floats) -> Places:
        """Which of these rows are spikes; afterwards they are part of the past. Whole instruments, in their order."""
        spikes = self._far(self._before(numbers, slots, prices), prices)
        self._recent[slots] = prices
        self._draw_bands(numbers)
        return np.flatnonzero(spikes)

    def _judge_few(self, numbers: Places, slots: Places, prices: Floats) -> Places:
        """The same row by row, which is three times faster for one or two of them."""
        found, strayed = [], set()
        for place, (number, slot, price) in enumerate(
            zip(numbers.tolist(), slots.tolist(), prices.tolist(), strict=True)
        ):
            seen = self._recent[number * _SLOTS : (number + 1) * _SLOTS]
            ranked = sorted(value for value in seen.tolist() if value)
            count = len(ranked)
            if count >= _ENOUGH:
                middle, spread = ranked[(count - 1) // 2], ranked[count - 2] - ranked[1]
                if abs(price - middle) > max(self._share * abs(middle), _RUPEES, _SPREADS * spread):
                    found.append(place)
            self._recent[slot] = price
            low, high = self._bands[:, number].tolist()
            now = [value for value in seen.tolist() if value]
            if 2 * sum(low <= value <= high for value in now) <= len(now):
                strayed.add(number)
        if strayed:
            self._draw_bands(np.array(sorted(strayed)))
        return np.array(found, np.intp)

    def _before(self, numbers: Places, slots: Places, prices: Floats) -> Floats:
        """The recent prices as each row found them, shape ``(n, 8)``; earlier rows of the batch included."""
        recent = self._recent.reshape(-1, _SLOTS)[numbers]
        count = len(numbers)
        if count == 1 or not np.count_nonzero(numbers[1:] == numbers[:-1]):
            return recent
        row = np.arange(count)
        writer = np.where((slots % _SLOTS)[:, None] == np.arange(_SLOTS), row[:, None], -1)
        last = np.full((count, _SLOTS), -1)
        last[1:] = np.maximum.accumulate(writer, axis=0)[:-1]
        begin = numbers.searchsorted(numbers)
        return np.where(last >= begin[:, None], prices[last], recent)

    def _far(self, recent: Floats, prices: Floats) -> NDArray[np.bool_]:
        far = np.zeros(len(prices), bool)
        count = np.add.reduce(recent != 0, axis=1)
        places = np.flatnonzero(count >= _ENOUGH)
        if len(places):
            count = count[places]
            ranked, row = _ranked(recent[places]), np.arange(len(places))
            middle = ranked[row, (count - 1) // 2]
            spread = ranked[row, count - 2] - ranked[row, 1]
            allowed = np.maximum(np.maximum(self._share * np.abs(middle), _RUPEES), _SPREADS * spread)
            far[places] = np.abs(prices[places] - middle) > allowed
        return far

    def _draw_bands(self, numbers: Places) -> None:
        """Keep a band that still holds most of the recent prices; else draw one around their median."""
        recent = self._recent.reshape(-1, _SLOTS)[numbers]
        count = np.add.reduce(recent != 0, axis=1)
        keep = _holds(self._bands[:, numbers], recent, count)
        if np.count_nonzero(keep) == len(numbers):
            return
        numbers, recent, count = numbers[~keep], recent[~keep], count[~keep]
        middle = _ranked(recent)[np.arange(len(numbers)), (count - 1) // 2]
        width = np.maximum(self._share * middle / (1 + self._share / 2), _RUPEES) * 0.999  # of the lower end
        low = np.maximum(middle - width / 2, np.nextafter(0, 1))
        bands = np.array([low, low + width])
        good = (middle > 0) & _holds(bands, recent, count)
        bands[0, ~good], bands[1, ~good] = np.inf, -np.inf
        self._bands[:, numbers] = bands


def _ranked(recent: Floats) -> Floats:
    """Each row ascending, empty slots last."""
    return np.sort(np.where(recent == 0, np.inf, recent), axis=1)


def _holds(bands: Floats, recent: Floats, count: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Where more than half of the recent prices lie within the band."""
    within = (recent >= bands[0][:, None]) & (recent <= bands[1][:, None]) & (recent != 0)
    found: NDArray[np.bool_] = 2 * np.add.reduce(within, axis=1) > count
    return found
