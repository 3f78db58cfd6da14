"""What a row says about itself: prices that contradict each other, prices that are no numbers."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import DEPTH_LEVELS, TICK_BLOCKS, Flag
from marketfeed.engine.validation.columns import Columns, Doubt, word

__all__ = ["check_content"]

_LEVELS: Final = range(DEPTH_LEVELS - 1)
_NEVER_ABOVE: Final[dict[Flag, list[tuple[int, int]]]] = {
    Flag.OHLC_INCONSISTENT: [
        (word("low"), word("high")),
        (word("open"), word("high")),
        (word("last_price"), word("high")),
        (word("low"), word("open")),
        (word("low"), word("last_price")),
    ],
    Flag.OUTSIDE_CIRCUIT: [
        (word("last_price"), word("upper_circuit")),
        (word("lower_circuit"), word("last_price")),
    ],
    Flag.CROSSED_DEPTH: [(word("bid_price"), word("ask_price"))],
    Flag.UNSORTED_DEPTH: [
        *((word("bid_price", level + 1), word("bid_price", level)) for level in _LEVELS),
        *((word("ask_price", level), word("ask_price", level + 1)) for level in _LEVELS),
    ],
}
"""Pairs of prices of which the first may not be the greater one. NaN is absent and never greater."""

_PAIRS: Final = [pair for pairs in _NEVER_ABOVE.values() for pair in pairs]
_LEFT: Final = np.array([left for left, _ in _PAIRS], np.intp)
_RIGHT: Final = np.array([right for _, right in _PAIRS], np.intp)
_PRICES: Final = TICK_BLOCKS["float64"]


def check_content(columns: Columns) -> list[Doubt]:
    """Doubts that need nothing but the row."""
    doubts: list[Doubt] = []
    left, right = columns.floats.take(_LEFT, axis=0), columns.floats.take(_RIGHT, axis=0)
    above = left > right
    if np.count_nonzero(above):
        doubts += _contradictions(left, right, above)
    infinite = np.isinf(columns.floats[_PRICES])
    if np.count_nonzero(infinite):
        doubts.append((Flag.NOT_FINITE, np.flatnonzero(infinite.any(axis=0))))
    return doubts


def _contradictions(left: NDArray[np.float64], right: NDArray[np.float64], above: NDArray[np.bool_]) -> list[Doubt]:
    """Only prices that are there contradict each other: 0 is an empty level of the book, a day before its
    first trade, a circuit that does not exist."""
    above &= left != 0
    above &= right != 0
    doubts: list[Doubt] = []
    begin = 0
    for reason, pairs in _NEVER_ABOVE.items():
        found = above[begin : begin + len(pairs)]
        begin += len(pairs)
        if np.count_nonzero(found):
            doubts.append((reason, np.flatnonzero(found.any(axis=0))))
    return doubts
