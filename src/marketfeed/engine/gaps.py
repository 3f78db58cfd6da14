"""The ledger of gaps: whoever loses something says so here, and it is written down.

Readers, sinks and the parse thread only queue what happened; a thread of its own finds the rows around a
gap and appends to the file (:mod:`marketfeed.gaps`), so that no tick waits for the disk. In virtual time,
:meth:`GapLedger.settle` does the same on the caller's thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

import attrs

from marketfeed.calendars import MarketCalendar
from marketfeed.clock import ist_text
from marketfeed.engine.gapwriter import GapWriter, Numbers
from marketfeed.gaps import Cause, Gap, Joined, Run, Stopped, Subscribed
from marketfeed.instruments import Instrument
from marketfeed.redaction import clean

__all__ = ["GapLedger"]

_LOOK_S = 0.005
_STREAK_S = 5.0
"""Rows missed within this time of earlier ones belong to the same gap."""


@attrs.define
class _Streak:
    """Rows that were missed again and again, one gap as long as it goes on."""

    gap: int
    row_before: int | None
    row_after: int | None
    end_ns: int
    rows: int
    due_s: float
    """When it has been over for long enough to be closed."""


@attrs.define
class GapLedger:
    """Gaps of one feed. Any thread may report one; nobody waits but :meth:`begin`, before the first tick.

    A connection has at most one open gap: what befalls it meanwhile is added to that one's causes. A gap
    is closed by data, and stays open when the feed stops: the next run goes on with it.
    """

    writer: GapWriter
    row_patience_s: float = 1.0
    """How long the first row after a gap may be on its way to the journal."""
    bug: str = ""
    """The latest error of the ledger's own; what it cost is in the log."""
    _open: dict[int, int] = attrs.field(factory=dict)
    """Connection -> its open gap."""
    _streaks: dict[str, _Streak] = attrs.field(factory=dict)
    """Sink (or '' for rows that did not reach the journal) -> what it misses now."""
    _running: bool = False
    _queue: queue.SimpleQueue[Callable[[], None] | None] = attrs.field(factory=queue.SimpleQueue)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    """Held by whoever writes: the thread, and :meth:`begin`."""

    # --- telling --------------------------------------------------------------------------------

    @property
    def all(self) -> Sequence[Gap]:
        """Every gap, oldest first, also of earlier runs."""
        return self.writer.all

    def is_open(self, connection: int) -> bool:
        """Whether that connection gives no data now although it did, or should."""
        return connection in self._open

    def status(self) -> dict[str, Any]:
        """For ``/health``."""
        writer = self.writer
        error = writer.error or self.bug or None
        return {"opened": sum(writer.opened.values()), "open": len(self._open), "error": error}

    # --- what happens ---------------------------------------------------------------------------

    def begin(self, parts: Sequence[Collection[Instrument]], calendar: MarketCalendar) -> None:
        """A run begins with these instruments per connection, which has received nothing yet.

        What the run before may have missed since its last row becomes a gap, and is on the disk when
        this returns: the rows to come would hide it.
        """
        numbers = [tuple(self.writer.journal.instruments.register(part)) for part in parts]
        with self._lock:
            self.writer.calendar = calendar
            self._begin(dict(enumerate(numbers)))

    def subscribed(self, connection: int, wanted: Collection[Instrument]) -> None:
        """The connection carries these instruments from now on."""
        self._queue.put(partial(self._subscribed, connection, tuple(wanted)))

    def lost(self, connection: int, since_ns: int, cause: str, why: str) -> None:
        """See :class:`~marketfeed.engine.wire.LineListener`."""
        self._queue.put(partial(self._lost, connection, since_ns, cause, clean(why)))

    def resumed(self, connection: int, at_ns: int) -> None:
        """See :class:`~marketfeed.engine.wire.LineListener`."""
        self._queue.put(partial(self._resumed, connection, at_ns))

    def skipped(self, sink: str, first_row: int, end_row: int, rows: int, why: str) -> None:
        """A sink does not get ``rows`` of the rows from ``first_row`` up to ``end_row``, excluded."""
        self._queue.put(partial(self._skipped, sink, first_row, end_row, rows, clean(why)))

    def dropped(self, since_ns: int, until_ns: int, rows: int, why: str) -> None:
        """So many rows, received from ``since_ns`` up to ``until_ns``, will never be in the journal."""
        self._queue.put(partial(self._dropped, since_ns, until_ns, rows, clean(why)))

    def close(self) -> None:
        """The feed was stopped in order: write down what is waiting, and that. Returns at once."""
        self._queue.put(None)

    # --- the thread -----------------------------------------------------------------------------

    def run(self) -> None:
        """The thread's loop."""
        while True:
            try:
                task = self._queue.get(timeout=self._wait_s())
            except queue.Empty:
                task = self._idle
            if task is None:
                break
            self._do(task)
            self._do(self._idle)
        self._do(self._end)

    def settle(self) -> None:
        """Do what is waiting, on this thread; for use without :meth:`run`."""
        while True:
            try:
                task = self._queue.get_nowait()
            except queue.Empty:
                break
            self._do(task or self._end)
        self._do(self._idle)

    def _do(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # a bug here must not cost the feed
            self.bug = repr(error)
            self.writer.log.error("the ledger of gaps stumbled", error=repr(error))

    def _wait_s(self) -> float | None:
        if not self._streaks:
            return None
        return max(0.01, min(one.due_s for one in self._streaks.values()) - self.writer.clock.monotonic())

    def _idle(self) -> None:
        now_s = self.writer.clock.monotonic()
        with self._lock:
            for key in [key for key, one in self._streaks.items() if one.due_s <= now_s]:
                self._end_streak(key)

    def _end(self) -> None:
        with self._lock:
            for key in list(self._streaks):
                self._end_streak(key)
            if self._running:
                self._running = False
                self.writer.put(Stopped(self.writer.clock.wall_ns()))
            self.writer.close()

    # --- runs -----------------------------------------------------------------------------------

    def _begin(self, wanted: dict[int, Numbers]) -> None:
        book = self.writer.book
        first_time = book.run is None
        known = None if first_time or not self._same_journal(book.run) else set().union(*book.wanted.values())
        last_ns, left_open = self._last_ns(), [one for one in book.gaps.values() if one.is_open]
        if first_time:
            cause, why = Cause.RESTART, "there is no ledger of the run before"
        elif book.stopped_ns is not None:
            cause, why = Cause.RESTART, f"the run before was stopped at {ist_text(book.stopped_ns)}"
        else:
            cause, why = Cause.CRASH, "the run before ended without a word"
        self.writer.put(Run(self.writer.clock.wall_ns(), self.writer.journal.name))
        self._running = True
        for connection, mine in wanted.items():
            self._subscribe(connection, mine)
            missed = mine if known is None else tuple(one for one in mine if one in known)
            if same := self._continued(connection, missed, left_open):
                left_open.remove(same)
                earlier = min(same.start_ns, last_ns) if last_ns else same.start_ns
                self.writer.put(Joined(same.number, self.writer.clock.wall_ns(), cause, why, earlier))
                self._open[connection] = same.number
            elif missed and last_ns:
                self._open[connection] = self.writer.open_gap(
                    last_ns, cause, why, missed, connection=connection, row_before=self.writer.journal.committed - 1
                )
        for gap in left_open:  # its instruments are in the gap of the restart from here on, or wanted no more
            self.writer.close_gap(
                gap, max(gap.start_ns, last_ns or self.writer.clock.wall_ns()), None, why=f"{gap.why}; {why}"
            )

    def _continued(self, connection: int, missed: Numbers, left_open: Iterable[Gap]) -> Gap | None:
        """The gap of the run before that is this connection's still."""
        for gap in left_open:
            if gap.connection == connection and set(gap.instruments) == set(missed) and self._same_journal(gap):
                return gap
        return None

    def _same_journal(self, one: Gap | Run | None) -> bool:
        return one is not None and one.journal.partition(".")[0] == self.writer.journal.id

    def _last_ns(self) -> int:
        """Receipt of the newest row; 0 if there never was one."""
        newest = self.writer.journal.committed - 1
        if newest < 0:
            return 0
        run = self.writer.book.run
        return self.writer.received_ns(newest) or self.writer.book.stopped_ns or (run.at_ns if run else 0)

    def _subscribe(self, connection: int, numbers: Numbers) -> None:
        if self.writer.book.wanted.get(connection) != numbers:
            self.writer.put(Subscribed(self.writer.clock.wall_ns(), connection, self.writer.set_of(numbers)))

    def _subscribed(self, connection: int, wanted: Collection[Instrument]) -> None:
        numbers = tuple(self.writer.journal.instruments.register(wanted))
        with self._lock:
            self._subscribe(connection, numbers)

    # --- lines ----------------------------------------------------------------------------------

    def _lost(self, connection: int, since_ns: int, cause: str, why: str) -> None:
        with self._lock:
            number = self._open.get(connection)
            if number is not None:
                if cause not in self.writer.book.gaps[number].causes:
                    self.writer.put(Joined(number, self.writer.clock.wall_ns(), cause, why))
            elif instruments := self.writer.book.wanted.get(connection):
                self._open[connection] = self.writer.open_gap(
                    since_ns,
                    cause,
                    why,
                    instruments,
                    connection=connection,
                    row_before=self.writer.last_row_at(since_ns),
                )

    def _resumed(self, connection: int, at_ns: int) -> None:
        if connection not in self._open:
            return
        row_after = self._awaited_row(at_ns)
        with self._lock:
            gap = self.writer.book.gaps[self._open.pop(connection)]
            self.writer.close_gap(gap, max(at_ns, gap.start_ns), row_after)

    def _awaited_row(self, at_ns: int) -> int | None:
        """The first row received at or after ``at_ns``: it is being parsed at this moment."""
        end_s = self.writer.clock.monotonic() + self.row_patience_s
        while (row := self.writer.journal.row_at(at_ns)) >= self.writer.journal.committed:
            if self.writer.clock.monotonic() >= end_s:
                return None
            self.writer.clock.wait(threading.Event(), _LOOK_S)
        return row

    # --- rows -----------------------------------------------------------------------------------

    def _skipped(self, sink: str, first_row: int, end_row: int, rows: int, why: str) -> None:
        start_ns = self.writer.received_ns(first_row - 1) or self.writer.received_ns(first_row)
        end_ns = self.writer.received_ns(end_row) or self.writer.clock.wall_ns()
        with self._lock:
            self._miss(Cause.SKIPPED, sink, start_ns, end_ns, why, (first_row - 1, end_row, rows))

    def _dropped(self, since_ns: int, until_ns: int, rows: int, why: str) -> None:
        row_before = self.writer.last_row_at(since_ns - 1)
        start_ns = self.writer.received_ns(row_before) if row_before is not None else 0
        with self._lock:
            self._miss(Cause.DROPPED, None, start_ns or since_ns, until_ns, why, (row_before, None, rows))

    def _miss(
        self,
        cause: Cause,
        sink: str | None,
        start_ns: int,
        end_ns: int,
        why: str,
        rows: tuple[int | None, int | None, int],
    ) -> None:
        """``rows``: the last one before, the first one after, and how many are missing."""
        due_s = self.writer.clock.monotonic() + _STREAK_S
        before, after, missing = rows
        before = None if before is None or before < 0 else before
        streak = self._streaks.get(sink or "")
        if streak is not None:
            streak.row_after, streak.end_ns, streak.due_s = after, end_ns, due_s
            streak.rows += missing
            return
        instruments = tuple(one for mine in self.writer.book.wanted.values() for one in mine)
        gap = self.writer.open_gap(start_ns, cause, why, instruments, sink=sink, row_before=before)
        self._streaks[sink or ""] = _Streak(gap, before, after, end_ns, missing, due_s)

    def _end_streak(self, key: str) -> None:
        streak = self._streaks.pop(key)
        gap = self.writer.book.gaps[streak.gap]
        after = streak.row_after
        if gap.sink is None:
            row = self.writer.journal.row_at(streak.end_ns + 1)
            after = row if row < self.writer.journal.committed else None
        self.writer.close_gap(gap, streak.end_ns, after, row_before=streak.row_before, rows=streak.rows)
