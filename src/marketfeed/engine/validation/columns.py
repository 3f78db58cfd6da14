"""A batch as the checks want it: in columns, sorted by instrument, arrival order kept within one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import TICK, Flag, Rows

__all__ = ["WORDS", "Columns", "Doubt", "Places", "sorted_columns", "word"]

Places = NDArray[np.intp]
Doubt = tuple[Flag, Places]
"""A reason, and the sorted places of the rows that it is true of."""

WORDS: Final = TICK.itemsize // 8
_INT64: Final = np.dtype(np.int64)
_FLOAT64: Final = np.dtype(np.float64)


def word(field: str, level: int = 0) -> int:
    """Number of the 8-byte word at which a field of ``TICK`` (or one level of it) begins."""
    fields: Mapping[str, Any] = TICK.fields or {}
    return int(fields[field][1]) // 8 + level


def _weights() -> NDArray[np.int64]:
    """An odd number for each word that counts for a repeat: not when it came, nor the journal's own."""
    weights = np.random.default_rng(20_260_401).integers(-(2**62), 2**62, WORDS) * 2 + 1
    weights[word("received_ns")] = weights[word("check")] = 0  # check and spare share a word
    return weights


_WEIGHTS: Final = _weights()


class Columns(NamedTuple):
    """The rows of known instruments."""

    order: Places
    """Sorted place -> row of the batch."""
    numbers: Places
    """Instrument of each row, ascending."""
    words: NDArray[np.int64]
    """Column by word of ``TICK``, shape ``(45, n)``."""
    floats: NDArray[np.float64]
    """The same memory, for the prices."""
    digests: NDArray[np.int64]
    """Equal for rows that say the same; two different rows share one by chance of about 2**-64."""
    flags: NDArray[np.uint32]
    """In the order of the batch, not sorted."""

    def flags_at(self, places: Places) -> NDArray[np.uint32]:
        """Flags of the rows at these sorted places."""
        return self.flags[self.order[places]]


def sorted_columns(rows: Rows) -> tuple[Columns, Places]:
    """The known rows, and the batch's rows whose instrument is unknown (negative).

    ``rows`` must be contiguous and not empty.
    """
    words = np.ndarray((len(rows), WORDS), _INT64, rows)
    order = rows["instrument"].argsort(kind="stable")
    numbers = rows["instrument"].take(order).astype(np.intp)
    unknown = order[:0]
    if numbers[0] < 0:
        count = int(numbers.searchsorted(0))
        unknown, order, numbers = order[:count], order[count:], numbers[count:]
    columns = words.take(order, axis=0).T.copy()
    digests = words.dot(_WEIGHTS).take(order)
    return Columns(order, numbers, columns, columns.view(_FLOAT64), digests, rows["flags"]), unknown
