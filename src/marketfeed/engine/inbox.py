"""The hand-over from reader threads to the parse thread: frames in the order they came, bounded."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import NamedTuple

from marketfeed.clock import Clock
from marketfeed.contract import Frame

__all__ = ["Delivered", "Inbox"]


class Delivered(NamedTuple):
    """What one reader handed over at once. ``frames`` None: a new socket, so a new parser."""

    connection: int
    frames: Sequence[Frame] | None


class Inbox:
    """Many producers, one consumer.

    Policy when full: the producer waits. Its socket then fills and the broker sees a slow reader;
    nothing is dropped here. The bound is bytes per connection, so one cannot starve another.
    """

    def __init__(self, connections: int, clock: Clock, max_bytes: int = 32 * 2**20) -> None:
        self._queue: queue.SimpleQueue[Delivered | None] = queue.SimpleQueue()
        self._clock = clock
        self._max_bytes = max_bytes
        # Per connection, each list element has one writer: the producer, the consumer. No lock needed.
        self._put_bytes = [0] * connections
        self._taken_bytes = [0] * connections
        self._open_wide = False
        self.waits = 0
        """How often a reader had to wait for the parser."""

    def put(self, connection: int, frames: Sequence[Frame]) -> None:
        """Hand over frames; wait while this connection already has ``max_bytes`` waiting."""
        size = sum([len(frame.data) for frame in frames])
        while self.waiting_bytes(connection) > self._max_bytes and not self._open_wide:
            self.waits += 1
            _pause(0.001)
        self._put_bytes[connection] += size
        self._queue.put(Delivered(connection, frames))

    def renewed(self, connection: int) -> None:
        """Say that the next frames of a connection come from a new socket."""
        self._queue.put(Delivered(connection, None))

    def waiting_bytes(self, connection: int) -> int:
        """Bytes of that connection put and not taken yet."""
        return self._put_bytes[connection] - self._taken_bytes[connection]

    def open_wide(self) -> None:
        """The readers are ending: let each hand over its last frames without waiting for room."""
        self._open_wide = True

    def close(self) -> None:
        """No more will come: :meth:`take` returns what is left, then None."""
        self._open_wide = True
        self._queue.put(None)

    def take(self) -> list[Delivered] | None:
        """Wait for frames, then take all that are there; None after :meth:`close` once all is taken."""
        first = self._queue.get()
        if first is None:
            return None
        items = [first]
        for _ in range(self._queue.qsize()):
            item = self._queue.get_nowait()
            if item is None:
                self._queue.put(None)  # for the next call
                break
            items.append(item)
        for connection, frames in items:
            if frames:
                self._taken_bytes[connection] += sum([len(frame.data) for frame in frames])
        return items


def _pause(seconds: float) -> None:
    import time

    time.sleep(seconds)
