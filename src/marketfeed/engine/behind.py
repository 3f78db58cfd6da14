"""What a sink that lags too far gets: everything, late; nothing of the past; or the newest of each instrument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

import attrs
import numpy as np

from marketfeed.batches import TickBatch
from marketfeed.journal import Reader

__all__ = ["Lag", "WhenBehind", "newest_of_each", "take_until"]

_BLOCK_ROWS = 1 << 16


class WhenBehind(StrEnum):
    """The policy of one sink."""

    WAIT = "wait"
    """It gets every row, however late."""
    SKIP = "skip"
    """Beyond the limit it goes on with what comes next; the rows between are counted as skipped."""
    LATEST = "latest"
    """Beyond the limit it gets the newest row of each instrument, in order; the others are skipped."""


@attrs.frozen
class Lag:
    """How far behind a sink may fall before its policy holds; either limit may be absent."""

    policy: WhenBehind = WhenBehind.WAIT
    rows: int | None = None
    seconds: float | None = None
    """Between the receipt of the next row it would get and of the newest one."""

    def exceeded(self, reader: Reader) -> bool:
        """Whether the rows that wait for the reader are too many or too old."""
        if self.policy is WhenBehind.WAIT:
            return False
        if self.rows is not None and reader.waiting > self.rows:
            return True
        return self.seconds is not None and reader.waiting_seconds > self.seconds


def take_until(reader: Reader, row: int) -> Iterator[TickBatch]:
    """All batches up to ``row`` (excluded), without copying them."""
    while reader.next_row < row:
        batch = reader.take(min(_BLOCK_ROWS, row - reader.next_row))
        if not len(batch):
            return
        yield batch


def newest_of_each(batches: Iterable[TickBatch]) -> TickBatch | None:
    """The last row of each instrument, in row order, as one batch; None without batches. Needs memory for one batch
    and one row of each instrument, however many batches there are."""
    found: TickBatch | None = None
    for batch in batches:
        found = _newest(batch) if found is None else _newest(_joined(found, batch))
    return found


def _joined(older: TickBatch, newer: TickBatch) -> TickBatch:
    rows = np.frombuffer(older.rows.tobytes() + newer.rows.tobytes(), newer.rows.dtype)
    return TickBatch(rows, newer.origin, np.concatenate([older.seq, newer.seq]))


def _newest(batch: TickBatch) -> TickBatch:
    numbers = batch.rows["instrument"]
    _, from_end = np.unique(numbers[::-1], return_index=True)
    places = np.sort(len(numbers) - 1 - from_end)
    rows = np.frombuffer(batch.rows[places].tobytes(), batch.rows.dtype)
    return TickBatch(rows, batch.origin, batch.seq[places])
