"""What a row says about itself: prices that contradict each other, prices that are no numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import DEPTH_LEVELS, Flag, Rows
from marketfeed.engine.validation.columns import Doubt, Places, price_columns, price_number

__all__ = ["check_content"]

_LEVELS: Final = range(DEPTH_LEVELS - 1)
_NEVER_ABOVE: Final[dict[Flag, list[tuple[int, int]]]] = {
    Flag.OHLC_INCONSISTENT: [
        (price_number("low"), price_number("high")),
        (price_number("open"), price_number("high")),
        (price_number("last_price"), price_number("high")),
        (price_number("low"), price_number("open")),
        (price_number("low"), price_number("last_price")),
    ],
    Flag.OUTSIDE_CIRCUIT: [
        (price_number("last_price"), price_number("upper_circuit")),
        (price_number("lower_circuit"), price_number("last_price")),
    ],
    Flag.CROSSED_DEPTH: [(price_number("bid_price"), price_number("ask_price"))],
    Flag.UNSORTED_DEPTH: [
        *((price_number("bid_price", level + 1), price_number("bid_price", level)) for level in _LEVELS),
        *((price_number("ask_price", level), price_number("ask_price", level + 1)) for level in _LEVELS),
    ],
}
"""Pairs of prices of which the first may not be the greater one. NaN is absent and never greater."""

_PAIRS: Final = [pair for pairs in _NEVER_ABOVE.values() for pair in pairs]
_BORDERS: Final = np.cumsum([0, *map(len, _NEVER_ABOVE.values())])
_LEFT: Final = np.array([left for left, _ in _PAIRS], np.intp)
_RIGHT: Final = np.array([right for _, right in _PAIRS], np.intp)


def check_content(rows: Rows) -> list[Doubt]:
    """Doubts that need nothing but the row; ``rows`` must be contiguous."""
    doubts: list[Doubt] = []
    prices = price_columns(rows)
    left, right = prices.take(_LEFT, axis=0), prices.take(_RIGHT, axis=0)
    above = left > right
    if np.count_nonzero(above):
        doubts += _contradictions(left, right, np.flatnonzero(above))
    infinite = np.isinf(prices)
    if np.count_nonzero(infinite):
        doubts.append((Flag.NOT_FINITE, np.flatnonzero(np.logical_or.reduce(infinite))))
    return doubts


def _contradictions(left: NDArray[np.float64], right: NDArray[np.float64], cells: Places) -> list[Doubt]:
    """Only prices that are there contradict each other: 0 is an empty level of the book, a day before its
    first trade, a circuit that does not exist. ``cells``: where the left price is above the right one."""
    there = (left.ravel()[cells] != 0) & (right.ravel()[cells] != 0)
    if not np.count_nonzero(there):
        return []
    cells = cells[there]
    size = left.shape[1]
    borders = cells.searchsorted(_BORDERS * size).tolist()
    doubts: list[Doubt] = []
    for reason, (start, end) in zip(_NEVER_ABOVE, pairwise(borders), strict=True):
        if start < end:
            found = cells[start:end] % size
            doubts.append((reason, found if end - start == 1 else np.unique(found)))
    return doubts
