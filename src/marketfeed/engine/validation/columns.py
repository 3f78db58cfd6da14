"""A batch as the checks want it: the few columns that they compare, sorted by instrument and arrival."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import TICK, TICK_BLOCKS, Flag, Rows

__all__ = ["Columns", "Doubt", "Places", "price_columns", "price_number", "sorted_columns"]

Places = NDArray[np.intp]
Doubt = tuple[Flag, Places]
"""A reason, and where it is true: rows of the batch, or sorted places where :class:`Columns` are checked."""

_WORDS: Final = TICK.itemsize // 8
_INT64: Final = np.dtype(np.int64)
_FLOAT64: Final = np.dtype(np.float64)
_PRICES: Final = TICK_BLOCKS["float64"]


def _word(field: str) -> int:
    """Number of the 8-byte word at which a field of ``TICK`` begins."""
    fields: Mapping[str, Any] = TICK.fields or {}
    return int(fields[field][1]) // 8


def _weights() -> NDArray[np.int64]:
    """An odd number for each word that counts for a repeat: not when it came, nor the journal's own."""
    weights = np.random.default_rng(20_260_401).integers(-(2**61), 2**61, _WORDS) * 2 + 1
    weights[_word("received_ns")] = weights[_word("check")] = 0  # check and spare share a word
    return weights


_WEIGHTS: Final = _weights()


class Columns(NamedTuple):
    """The rows of known instruments: by instrument, and as they came within one."""

    rows: Rows
    """The whole batch, not sorted."""
    order: Places
    """Sorted place -> row of the batch."""
    numbers: Places
    """``instrument``, ascending."""
    exchange_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    volume: NDArray[np.int64]
    last_price: NDArray[np.float64]
    digests: NDArray[np.int64]
    """Equal for rows that say the same; two different rows share one by chance of about 2**-60."""

    def at(self, field: str, places: Places) -> NDArray[Any]:
        """Another field of the rows at these sorted places."""
        column: NDArray[Any] = self.rows[field][self.order[places]]
        return column


def sorted_columns(rows: Rows) -> tuple[Columns, Places]:
    """The known rows, and the batch's rows whose instrument is unknown (negative).

    ``rows`` must be contiguous and not empty.
    """
    order = rows["instrument"].argsort(kind="stable")
    numbers = rows["instrument"].take(order).astype(np.intp)
    unknown = order[:0]
    if numbers[0] < 0:
        count = int(numbers.searchsorted(0))
        unknown, order, numbers = order[:count], order[count:], numbers[count:]
    digests = np.ndarray((len(rows), _WORDS), _INT64, rows).dot(_WEIGHTS)
    columns = Columns(
        rows,
        order,
        numbers,
        rows["exchange_ns"].take(order),
        rows["received_ns"].take(order),
        rows["volume"].take(order),
        rows["last_price"].take(order),
        digests.take(order),
    )
    return columns, unknown


def price_columns(rows: Rows) -> NDArray[np.float64]:
    """All prices of contiguous rows by column, shape ``(18, n)``, not sorted; see :func:`price_number`."""
    return np.ndarray((len(rows), _WORDS), _FLOAT64, rows)[:, _PRICES].T.copy()


def price_number(field: str, level: int = 0) -> int:
    """Line of :func:`price_columns` that holds a field, or one level of it."""
    return _word(field) - int(_PRICES.start) + level
