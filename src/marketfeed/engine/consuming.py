"""Whoever takes batches in the program itself: loops over a feed, plain or asynchronous, and callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import attrs

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.contract import Sink
from marketfeed.engine.pipeline import Pipeline
from marketfeed.errors import Overrun, SinkError
from marketfeed.journal import Reader

__all__ = ["CallbackSink", "Observer"]

_POLL_S = 0.5
"""How often a waiting loop looks whether the feed has ended."""


class Observer:
    """One loop's place in the journal. It holds no rows back: those that retention removes before the
    loop comes to them are counted, told and passed over, and the loop goes on."""

    def __init__(self, pipeline: Pipeline, name: str, max_rows: int) -> None:
        self._pipeline = pipeline
        self._name = name
        self._max_rows = max_rows
        self._ended = False

    def batches(self) -> Generator[TickBatch, None, None]:
        """For ``for``: ends with the feed, raises its error."""
        reader = self._open()
        try:
            while (batch := self._next(reader)) is not None:
                yield batch
                reader.commit()
        finally:
            reader.close()

    async def stream(self) -> AsyncIterator[TickBatch]:
        """For ``async for``. It waits on a thread of its own: many loops over a quiet feed would use up the
        event loop's pool, and with it the way to stop the feed."""
        loop = asyncio.get_running_loop()
        waiter = ThreadPoolExecutor(1, thread_name_prefix=f"marketfeed-{self._name}")
        reader = self._open()
        try:
            while (batch := await loop.run_in_executor(waiter, self._next, reader)) is not None:
                yield batch
                reader.commit()
        finally:
            self._ended = True
            reader.wake()
            waiter.submit(reader.close)  # after the take that a cancellation left behind
            waiter.shutdown(wait=False)

    def _open(self) -> Reader:
        first = self._pipeline.first_row
        reader = self._pipeline.journal.reader(self._name, start=first, keep=False)
        if reader.position > first:
            self._pipeline.overrun(Overrun(self._name, reader.position - first, reader.position))
        return reader

    def _next(self, reader: Reader) -> TickBatch | None:
        """The next batch with rows; None at the end."""
        while not self._ended:
            ending = self._pipeline.finished.is_set()
            batch = self._take(reader, 0.0 if ending else _POLL_S)
            if len(batch):
                return batch
            if ending:
                if self._pipeline.error is not None:
                    raise self._pipeline.error
                return None
        return None

    def _take(self, reader: Reader, wait_s: float) -> TickBatch:
        while True:
            try:
                return reader.take(self._max_rows, wait_s)
            except Overrun as gap:
                self._pipeline.overrun(gap)


@attrs.define
class CallbackSink(Sink):
    """A function as a sink: what it raises costs its batch, and ``raised`` is told."""

    function: Callable[[TickBatch], None]
    raised: Callable[[Exception], None]

    def write(self, batch: TickBatch | CandleBatch) -> None:
        assert isinstance(batch, TickBatch)
        try:
            self.function(batch)
        except Exception as error:
            self.raised(error)
            raise SinkError(f"callback raised {error!r}", rejected=range(len(batch))) from error
