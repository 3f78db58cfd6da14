"""The ``check`` column: every row proves itself and its place.

``check`` = sum of the row's 32-bit words, each times an odd constant, plus (row number + 1) times
another, modulo 2**32. The number makes zeroed, stale and moved rows fail. It guards against
accidents (a torn page, a flipped bit), not against intent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import Rows
from marketfeed.errors import JournalError

__all__ = ["RowCheck"]

_NUMBER: Final = 0x9E3779B1
_MASK: Final = 0xFFFFFFFF


class RowCheck:
    """Fills and tests the ``check`` column of one dtype; ``JournalError`` if the dtype has none."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        fields: Mapping[str, Any] = dtype.fields or {}
        if "check" not in fields or fields["check"][0] != np.dtype("u4") or dtype.itemsize % 8:
            raise JournalError("rows of a journal need a uint32 field 'check' and a size divisible by 8")
        self._words = dtype.itemsize // 4
        self._place = fields["check"][1] // 4
        self._weights = _weights(self._words)
        self._weights[self._place] = 0
        self._ramp = _ramp(4096)

    def fill(self, rows: Rows, first_row: int) -> None:
        """Write the check of ``rows``, which are about to stand at ``first_row``; they must be writeable."""
        words = rows.view("u4").reshape(-1, self._words)
        words[:, self._place] = self._sums(words, first_row)

    def fits(self, rows: Rows, first_row: int) -> NDArray[np.bool_]:
        """Which rows are whole and stand where they belong, shape ``(n,)``."""
        words = rows.view("u4").reshape(-1, self._words)
        found: NDArray[np.bool_] = words[:, self._place] == self._sums(words, first_row)
        return found

    def leading(self, rows: Rows, first_row: int) -> int:
        """How many rows fit before the first one that does not."""
        fits = self.fits(rows, first_row)
        return len(fits) if fits.all() else int(fits.argmin())

    def _sums(self, words: NDArray[Any], first_row: int) -> NDArray[Any]:
        count = len(words)
        if count > len(self._ramp):
            self._ramp = _ramp(2 * count)
        sums: NDArray[Any] = np.einsum("ij,j->i", words, self._weights)
        sums += self._ramp[:count]
        sums += np.uint32((first_row + 1) * _NUMBER & _MASK)
        return sums


def _ramp(count: int) -> NDArray[Any]:
    return np.arange(count, dtype="u4") * np.uint32(_NUMBER)


def _weights(count: int) -> NDArray[Any]:
    # Part of the format: a fixed sequence (splitmix64), independent of any library's generator.
    state, weights = 0, []
    for _ in range(count):
        state = state + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        weights.append((mixed ^ mixed >> 31) & _MASK | 1)
    return np.array(weights, "u4")
