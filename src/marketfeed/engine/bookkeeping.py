"""What a feed writes down about itself while it runs, and its watch over the host's clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from marketfeed.clock import NS, Clock
from marketfeed.engine.logs import Log
from marketfeed.engine.parsing import ParseCounts, ParseLoop
from marketfeed.runs import RunBook, Tally, Totals

__all__ = ["Bookkeeper", "ClockWatch", "tally_of"]

_ROUND_S = 1.0
_CHECKPOINT_ROUNDS = 5
_LOOKS = 200
_STEP_S = 1.0


def tally_of(counts: ParseCounts) -> Tally:
    """The counts as they stand; between two batches they add up."""
    return Tally(
        parsed=counts.parsed,
        appended=counts.appended,
        dropped=counts.dropped,
        dead_lettered=counts.dead_lettered,
        lost=counts.lost,
        bad_packets=counts.bad_packets,
    )


@attrs.define
class ClockWatch:
    """Tells a clock that was set from one that runs: wall time against monotonic time."""

    clock: Clock
    _drift_ns: int | None = None

    def stepped_s(self) -> float:
        """Seconds that the clock was set forward (or back, below zero) since the last look; 0 if it was not."""
        drift_ns = self.clock.wall_ns() - round(self.clock.monotonic() * NS)
        before, self._drift_ns = self._drift_ns, drift_ns
        step_s = 0.0 if before is None else (drift_ns - before) / NS
        return step_s if abs(step_s) >= _STEP_S else 0.0


@attrs.define
class Bookkeeper:
    """Looks once a second, and writes the run's counts down every five; on a thread of its own."""

    parse: ParseLoop
    book: RunBook | None
    """None for a journal in memory, whose rows end with the process."""
    first_row: int
    clock: Clock
    log: Log
    emit: Callable[[str, None, Mapping[str, Any]], None]
    trouble: str = ""
    """Why the books cannot be written; empty while they can."""
    _begun: bool = False
    _written: Tally | None = None
    _stopping: threading.Event = attrs.field(factory=threading.Event)
    _closed: Totals | None = None
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def begin(self) -> None:
        """Open the run in the books, before its first row."""
        book = self.book
        if book is not None:
            self._begun = self._write(lambda: book.begin(self.first_row, self.clock.wall_ns()))

    def run(self) -> None:
        """The thread's loop."""
        watch = ClockWatch(self.clock)
        watch.stepped_s()
        rounds = 0
        while not self.clock.wait(self._stopping, _ROUND_S):
            rounds += 1
            step_s = watch.stepped_s()
            if step_s:
                self.log.warning("the host's clock was set", seconds=round(step_s, 3))
                self.emit("clock_stepped", None, {"seconds": round(step_s, 3)})
            if rounds % _CHECKPOINT_ROUNDS == 0:
                self.checkpoint()

    def checkpoint(self) -> None:
        """Write the counts down, unless nothing has changed or a batch stays on its way, as on a full disk."""
        tally = self.settled()
        with self._lock:
            book = self.book
            if book is None or tally is None or tally == self._written or self._closed is not None:
                return
            if not self._begun:
                self.begin()
            if self._begun and self._write(lambda: book.checkpoint(tally, self.clock.wall_ns())):
                self._written = tally

    def settled(self) -> Tally | None:
        """The counts between two batches; None if there is no such moment."""
        for _ in range(_LOOKS):
            first, again = tally_of(self.parse.counts), tally_of(self.parse.counts)
            if first == again and first.holds:
                return first
            self._stopping.wait(0.0005)
        return None

    def totals(self) -> Totals | None:
        """The sums over all runs on this journal; None for one in memory, or when no batch has come to rest."""
        if self.book is None or not self._begun:
            return None
        tally = self.settled()
        return self._closed or (self.book.totals(tally) if tally is not None else None)

    def close(self) -> None:
        """The parse thread has ended: the run is over. Twice is the same as once."""
        self._stopping.set()
        book, tally = self.book, tally_of(self.parse.counts)
        with self._lock:
            if book is None or self._closed is not None or not tally.holds:
                return
            if not self._begun:
                self.begin()
            if not self._begun:
                return
            self._closed = book.totals(tally)
            self._write(lambda: book.end(tally, self.clock.wall_ns()))

    def _write(self, step: Callable[[], object]) -> bool:
        try:
            step()
        except OSError as error:  # the feed does not end for its books: the journal has the rows
            if not self.trouble:
                self.log.error("the books of the run cannot be written", error=str(error))
            self.trouble = str(error)
            return False
        self.trouble = ""
        return True
