"""One sink's thread: read from the journal, write, flush, move the cursor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.batches import TickBatch
from marketfeed.clock import Clock
from marketfeed.contract import Sink
from marketfeed.dtypes import Rows
from marketfeed.engine.behind import Lag, WhenBehind, newest_of_each, take_until
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.logs import Log
from marketfeed.engine.metrics import Histogram
from marketfeed.engine.retry import Backoff
from marketfeed.errors import Overrun, SinkError
from marketfeed.journal import Reader

__all__ = ["Delivery", "DeliveryState"]


_IDLE_S = 0.5


class DeliveryState(StrEnum):
    """Where a sink stands; also the label in ``/health``."""

    OPENING = "opening"
    DELIVERING = "delivering"
    RETRYING = "retrying"
    FAILED = "failed"
    DONE = "done"


class _GivingUp(Exception):
    """The feed stops and this sink does not get further."""


@attrs.define
class Delivery:
    """Moves rows from a journal reader into a sink until it is told where to end.

    ``committed = start + delivered + skipped + dead_lettered``, kept by the reader's cursor, which moves
    only after ``flush`` returned: at least once for every sink, exactly once for one that stores its
    position.
    """

    name: str
    sink: Sink
    open_reader: Callable[[], Reader]
    """Gives the reader at its cursor. Called before the sink is opened, so that a sink which opens late
    misses nothing, not even over a restart."""
    clock: Clock
    deadletters: DeadLetters
    log: Log
    emit: Callable[[str, Mapping[str, Any]], None]
    batch_rows: int = 4096
    batch_timeout_s: float = 0.0
    flush_every_s: float = 1.0
    on_startup_error: str = "fail"
    lag: Lag = attrs.field(factory=Lag)
    """How far behind it may fall, and what follows."""
    missed: Callable[[str, int, int, int, str], None] = lambda sink, first_row, end_row, rows, why: None
    """Told when ``rows`` of the rows ``[first_row, end_row)`` were passed over, and why."""
    letters: str = "refused"
    """The kind of its dead letters: ``refused``, or ``callback`` for a function of the host program."""
    locate: Callable[[Reader], None] = lambda reader: None
    """Puts the reader where a sink that stores its position wants it; called once the sink is open."""
    state: DeliveryState = DeliveryState.OPENING
    error: str = ""
    retries: int = 0
    journal_to_sink: Histogram = attrs.field(factory=Histogram)
    opened: threading.Event = attrs.field(factory=threading.Event)
    """Set when ``open`` was tried; then ``startup_error`` says how it went."""
    startup_error: Exception | None = None
    reader: Reader | None = None
    backoff: Backoff = attrs.field(factory=lambda: Backoff(0.2, 10.0))
    _stopping: threading.Event = attrs.field(factory=threading.Event)
    _abandon: threading.Event = attrs.field(factory=threading.Event)
    _unflushed: int = 0
    _refused: int = 0
    _skipped: int = 0
    _flush_due_s: float = 0.0

    def run(self) -> None:
        """The thread's loop."""
        try:
            if self._open():
                assert self.reader is not None
                self._deliver(self.reader)
                self.state = DeliveryState.DONE
        except _GivingUp:
            self.log.warning("sink stopped before it had everything", sink=self.name, error=self.error)
        except BaseException as error:  # also a SystemExit, which would end the thread in silence
            self._fail(error)
        finally:
            self.opened.set()
            self._close()

    def stop(self) -> None:
        """Deliver what the journal holds now, then end. Returns at once."""
        self._stopping.set()
        if self.reader is not None:
            self.reader.wake()

    def abandon(self) -> None:
        """End as soon as the sink returns; what is left stays in the journal for the next run."""
        self._abandon.set()
        self.stop()

    def _open(self) -> bool:
        try:
            reader = self.reader = self.open_reader()
        except Exception as error:  # such as a cursor in use: trying again is not worth it
            return self._cannot_start(error)
        for step in (self.sink.open, lambda: self.locate(reader)):
            if not self._start(step):
                return False
        if self.state is DeliveryState.RETRYING:
            self._recovered()
        self.state = DeliveryState.DELIVERING
        self.opened.set()
        return True

    def _start(self, step: Callable[[], None]) -> bool:
        while True:
            try:
                step()
                return True
            except Exception as error:
                retryable = not isinstance(error, SinkError) or error.retryable
                if self.on_startup_error != "retry" or not retryable:
                    return self._cannot_start(error)
                self.opened.set()  # the feed may start: this sink catches up later
                self._again(error)

    def _cannot_start(self, error: Exception) -> bool:
        self.startup_error = None if self.on_startup_error == "disable" else error
        self._fail(error)
        return False

    def _deliver(self, reader: Reader) -> None:
        self._flush_due_s = self.clock.monotonic() + self.flush_every_s
        wait_s = 0.0
        while not self._abandon.is_set():
            if self.lag.exceeded(reader):
                self._catch_up(reader)
            batch = self._take(reader, wait_s)
            if reader.overrun is not None:
                self._overrun(reader.overrun)
            rows = len(batch)
            if rows:
                self._write(batch)
                self._unflushed += rows
                self.journal_to_sink.observe((self.clock.wall_ns() - int(batch.rows["received_ns"][0])) / 1e9)
                if self.batch_timeout_s and rows < self.batch_rows:
                    self.clock.wait(self._stopping, self.batch_timeout_s)  # let a small batch find company
            elif self._stopping.is_set():
                break
            if self._unflushed and self.clock.monotonic() >= self._flush_due_s:
                self._flush(reader)
            wait_s = 0.0 if rows else self._idle_s()
        self._flush(reader)

    def _catch_up(self, reader: Reader) -> None:
        """Too far behind: apply the policy to everything that waits now."""
        self._flush(reader)
        first, end = reader.next_row, reader.next_row + reader.waiting
        batches = take_until(reader, end)
        taken = kept = 0
        if self.lag.policy is WhenBehind.LATEST:
            sizes: list[int] = []
            newest = newest_of_each(_counted(batches, sizes))
            taken = sum(sizes)
            if newest is not None:
                kept = len(newest)
                self._write(newest)
        else:
            taken = sum(map(len, batches))
        self._skipped += taken - kept
        self._unflushed += taken
        self.log.warning("sink is too far behind", sink=self.name, policy=self.lag.policy.value, skipped=taken - kept)
        missing = reader.next_row - first - kept
        self.missed(self.name, first, reader.next_row, missing, f"too far behind, when_behind is {self.lag.policy}")
        self._flush(reader)

    def _overrun(self, gap: Overrun) -> None:
        """The journal no longer has rows that this sink did not get; the reader counts them as skipped."""
        self.log.warning("sink is too far behind for the journal", sink=self.name, skipped=gap.missed)
        self.missed(self.name, gap.next_row - gap.missed, gap.next_row, gap.missed, "the journal kept them no longer")

    def _take(self, reader: Reader, wait_s: float) -> TickBatch:
        try:
            return reader.take(self.batch_rows, wait_s)
        except Overrun as gap:  # an observer gets it raised; the reader goes on behind the rows
            self._overrun(gap)
            return reader.take(self.batch_rows, 0.0)

    def _idle_s(self) -> float:
        """How long to wait for rows: not beyond the next flush."""
        if self._stopping.is_set():
            return 0.0
        return max(0.0, self._flush_due_s - self.clock.monotonic()) if self._unflushed else _IDLE_S

    def _write(self, batch: TickBatch) -> None:
        while True:
            try:
                self.sink.write(batch)
                break
            except SinkError as error:
                if error.rejected:
                    self._refuse(batch, error)
                    break
                if not error.retryable:
                    raise
                self._again(error)
        if self.state is DeliveryState.RETRYING:
            self._recovered()

    def _refuse(self, batch: TickBatch, error: SinkError) -> None:
        """The sink took all rows but these; they go to the dead letters."""
        rejected = sorted({row for row in error.rejected if 0 <= row < len(batch)})  # a plugin may say anything
        if rejected:
            self._put_aside(batch.rows[rejected], batch.seq[rejected], error)

    def _put_aside(self, rows: Rows, seq: NDArray[np.int64], error: SinkError) -> None:
        self._refused += len(rows)
        reason, text = type(error.__cause__ or error).__name__, str(error)
        self.deadletters.put_rows(self.letters, reason, self.name, rows, seq=seq, error=text)

    def _flush(self, reader: Reader) -> None:
        while self._unflushed:
            if self._refused:
                self.deadletters.settle()  # before a sink stores a position behind rows that it did not get
            try:
                self.sink.flush()
            except SinkError as error:
                if error.refused is not None and len(error.refused):
                    self._put_aside(error.refused.rows, error.refused.seq, error)
                    continue
                if not error.retryable:
                    raise
                self._again(error)
                continue
            if self._refused:
                self.deadletters.settle()  # or a kill now would leave neither a letter nor a row to come again
            reader.commit(skipped=self._skipped, dead_lettered=self._refused)
            self._unflushed = self._refused = self._skipped = 0
            if self.state is DeliveryState.RETRYING:
                self._recovered()
        self._flush_due_s = self.clock.monotonic() + self.flush_every_s

    def _again(self, error: Exception) -> None:
        """Wait before the next try; raises ``_GivingUp`` when the feed does not wait any longer."""
        self.retries += 1
        text = self.deadletters.shown(str(error))  # a library may quote the password
        if self.state is not DeliveryState.RETRYING:
            self.log.warning("sink fails; trying again", sink=self.name, error=text)
        self.state, self.error = DeliveryState.RETRYING, text
        if self.clock.wait(self._abandon, self.backoff.next_s()):
            raise _GivingUp

    def _recovered(self) -> None:
        self.log.info("sink works again", sink=self.name)
        self.state, self.error = DeliveryState.DELIVERING, ""
        self.backoff.reset()

    def _fail(self, error: BaseException) -> None:
        self.state, self.error = DeliveryState.FAILED, self.deadletters.shown(str(error) or repr(error))
        self.log.error("sink failed", sink=self.name, error=self.error)
        self.emit("sink_failed", {"sink": self.name, "error": self.error})

    def _close(self) -> None:
        try:
            self.sink.close()
        except Exception as error:
            self.log.error("sink did not close", sink=self.name, error=self.deadletters.shown(str(error)))
        if self.reader is not None:
            self.reader.close()


def _counted(batches: Iterable[TickBatch], sizes: list[int]) -> Iterator[TickBatch]:
    for batch in batches:
        sizes.append(len(batch))
        yield batch
