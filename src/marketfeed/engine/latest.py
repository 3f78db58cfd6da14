"""The newest row of each instrument, kept beside the journal for ``feed.latest``."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketfeed.batches import Origin, Tick, TickBatch
from marketfeed.dtypes import TICK, Rows
from marketfeed.instruments import Instrument

__all__ = ["Latest"]

# Rows are moved as opaque items of their size: a structured assignment would copy field by field.
_WHOLE = np.dtype(f"V{TICK.itemsize}")


class Latest(Mapping[str, Tick]):
    """``latest["NSE:INFY"]`` is the newest tick of that instrument; a key appears with its first tick.

    Written by the parse thread, read by any. What is read is a copy that no longer changes.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._rows: NDArray[Any] = np.zeros(0, _WHOLE)
        self._seq: NDArray[np.int64] = np.zeros(0, np.int64)  # row number + 1; 0 = nothing yet
        self._lock = threading.Lock()  # a row and its number change, and are read, together

    def update(self, rows: Rows, first_row: int) -> None:
        """Take in appended rows; the last row of an instrument wins."""
        numbers = rows["instrument"]
        try:
            with self._lock:
                self._rows[numbers] = rows.view(_WHOLE)
                self._seq[numbers] = np.arange(first_row + 1, first_row + 1 + len(rows))
        except IndexError:
            self._grow(int(numbers.max()) + 1)
            self.update(rows, first_row)

    @property
    def newest(self) -> NDArray[np.int64]:
        """Row number + 1 of each instrument's newest row, 0 without one; shape ``(n,)``, still being written."""
        return self._seq

    @property
    def names(self) -> Sequence[Instrument]:
        """Number -> instrument."""
        return self._origin.instruments

    def _grow(self, need: int) -> None:
        size = max(64, 2 * len(self._seq), need)
        rows, seq = np.zeros(size, _WHOLE), np.zeros(size, np.int64)
        rows[: len(self._seq)] = self._rows
        seq[: len(self._seq)] = self._seq
        self._rows, self._seq = rows, seq

    def __getitem__(self, key: str) -> Tick:
        number = self._number(key)
        with self._lock:
            row, seq = self._rows[number : number + 1].copy(), int(self._seq[number]) - 1
        return TickBatch(row.view(TICK), self._origin, seq)[0]

    def _number(self, key: str) -> int:
        # From the end: an instrument whose master row changed has several numbers, the last is in use.
        known = self._origin.instruments
        for number in range(min(len(known), len(self._seq)) - 1, -1, -1):
            if self._seq[number] and known[number].key == key:
                return number
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        known = self._origin.instruments
        return iter(dict.fromkeys(known[number].key for number in np.flatnonzero(self._seq).tolist()))

    def __len__(self) -> int:
        return sum(1 for _ in self)
