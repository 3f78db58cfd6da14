"""Messages of one partition, and the batch whose rows they carry."""

from __future__ import annotations

from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.batches import CandleBatch, TickBatch

__all__ = ["Batch", "Chunk", "Headers", "MessageTooLarge", "RecordRefused", "Refused"]

Batch = TickBatch | CandleBatch
Headers = list[tuple[str, bytes]]


class MessageTooLarge(Exception):
    """A message that the broker, or ``max_message_bytes``, does not take. Its name is the dead letter's reason."""


class RecordRefused(Exception):
    """The broker refuses a message by itself for another reason, or it can no longer be put in order."""


@attrs.frozen(eq=False)
class Chunk:
    """Consecutive messages for one partition, oldest first. ``keys``, ``values`` and ``headers`` are parallel."""

    topic: str
    partition: int
    keys: list[bytes | None]
    values: list[bytes]
    headers: list[Headers]
    batch: Batch
    index: NDArray[np.intp]
    """Rows of ``batch``: the row of each message, or all rows of the one message that holds columns."""
    columns: bool = False
    letter: Exception | None = None
    """Of messages for the dead-letter topic: why their rows were refused."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def rows(self) -> int:
        """How many rows the messages carry."""
        return len(self.index)

    def part(self, start: int, stop: int) -> Chunk:
        """The messages ``[start, stop)``."""
        if (start, stop) == (0, len(self.values)):
            return self
        span = slice(start, stop)
        return attrs.evolve(
            self, keys=self.keys[span], values=self.values[span], headers=self.headers[span], index=self.index[span]
        )


class Refused(NamedTuple):
    """Rows of a batch that Kafka will never take."""

    batch: Batch
    places: NDArray[np.intp]
    error: Exception
