"""Writing the ledger of gaps: opens and closes gaps in a book, tells of them, appends to the file.

Not safe for threads: :class:`marketfeed.engine.gaps.GapLedger` sees to that.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from marketfeed.calendars import ALWAYS, MarketCalendar
from marketfeed.clock import Clock
from marketfeed.engine.logs import Log
from marketfeed.errors import MarketFeedError
from marketfeed.gaps import (
    Book,
    Cause,
    Closed,
    Gap,
    Happening,
    InstrumentSet,
    Opened,
    append_events,
    encode,
    open_for_appending,
    read_book,
)
from marketfeed.journal import Journal

__all__ = ["GapWriter", "Numbers"]

Numbers = tuple[int, ...]
"""Instruments by their numbers in the journal."""


@attrs.define
class GapWriter:
    """The one writer of a feed's ledger. ``path`` None keeps it in memory."""

    feed: str
    vendor: str
    journal: Journal
    clock: Clock
    log: Log
    emit: Callable[[str, int | None, Mapping[str, Any]], None]
    path: Path | None = None
    calendar: MarketCalendar = ALWAYS
    opened: Counter[str] = attrs.field(factory=Counter)
    """Gaps of this process by cause."""
    seconds: dict[str, float] = attrs.field(factory=dict)
    """Length of those that were closed in this process, by cause."""
    error: str = ""
    """Why the ledger is not on the disk as it should be; empty when it is."""
    book: Book = attrs.field(factory=Book)
    all: tuple[Gap, ...] = ()
    """Every gap, made anew with each change, so that anybody may look at any time."""
    _set_numbers: dict[Numbers, int] = attrs.field(factory=dict)
    _fd: int | None = None
    _unwritten: bytes = b""

    def __attrs_post_init__(self) -> None:
        if self.path is None:
            return
        try:
            self.book = read_book(self.path)
        except OSError as error:
            raise MarketFeedError(f"the ledger of gaps {self.path} cannot be read: {error}") from error
        self.all = tuple(self.book.gaps.values())
        self._set_numbers = {numbers: number for number, numbers in self.book.sets.items()}
        if self.book.damaged:
            self.log.warning("lines of the ledger of gaps cannot be read", lines=self.book.damaged, path=str(self.path))

    # --- gaps -----------------------------------------------------------------------------------

    def open_gap(
        self,
        start_ns: int,
        cause: str,
        why: str,
        instruments: Numbers,
        *,
        connection: int | None = None,
        sink: str | None = None,
        row_before: int | None = None,
    ) -> int:
        event = Opened(
            gap=max(self.book.gaps, default=0) + 1,
            at_ns=self.clock.wall_ns(),
            start_ns=start_ns,
            cause=str(cause),
            why=why,
            set=self.set_of(instruments),
            feed=self.feed,
            vendor=self.vendor,
            journal=self.journal.name,
            row_before=row_before,
            connection=connection,
            sink=sink,
        )
        self.put(event)
        self.opened[event.cause] += 1
        self._tell("opened", self.book.gaps[event.gap])
        return event.gap

    def close_gap(
        self,
        gap: Gap,
        end_ns: int,
        row_after: int | None,
        *,
        row_before: int | None = None,
        rows: int = 0,
        why: str = "",
    ) -> None:
        end_ns = max(end_ns, gap.start_ns)
        if gap.connection is not None and gap.cause in (Cause.OUTAGE, Cause.MUTE, Cause.TAKEN_OVER):
            row_before = self.last_row_at(gap.start_ns)  # once more: rows may have been on their way
        event = Closed(
            gap=gap.number,
            at_ns=self.clock.wall_ns(),
            end_ns=end_ns,
            in_session_s=round(self.calendar.open_seconds(gap.start_ns, end_ns), 9) if gap.start_ns else 0.0,
            row_before=gap.row_before if row_before is None else row_before,
            row_after=row_after,
            rows=rows,
            why=why,
        )
        self.put(event)
        closed = self.book.gaps[gap.number]
        self.seconds[closed.cause] = self.seconds.get(closed.cause, 0.0) + (closed.seconds or 0.0)
        self._tell("closed", closed)

    def _tell(self, state: str, gap: Gap) -> None:
        data = {"gap": gap.number, "state": state, "cause": gap.cause, "why": gap.why}
        data |= {"start_ns": gap.start_ns, "end_ns": gap.end_ns, "in_session_s": gap.in_session_s}
        data |= {"instruments": len(gap.instruments), "sink": gap.sink, "rows": gap.rows}
        tell = self.log.warning if gap.is_open else self.log.info
        tell(f"gap {state}", connection=gap.connection, **{key: data[key] for key in ("gap", "cause", "why", "sink")})
        self.emit("gap", gap.connection, data)

    def last_row_at(self, at_ns: int) -> int | None:
        """The last row received at or before ``at_ns``."""
        row = self.journal.row_at(at_ns + 1) - 1
        return row if row >= 0 else None

    def received_ns(self, row: int) -> int:
        """When a row was received; 0 if it is not there."""
        journal = self.journal
        block = journal.block(row) if journal.oldest <= row < journal.committed else None
        return 0 if block is None else int(block.rows["received_ns"][row - block.first_row])

    def set_of(self, numbers: Numbers) -> int:
        number = self._set_numbers.get(numbers)
        if number is None:
            number = self._set_numbers[numbers] = max(self.book.sets, default=0) + 1
            self.put(InstrumentSet(number, _runs(numbers)))
        return number

    # --- the file -------------------------------------------------------------------------------

    def put(self, *events: Happening) -> None:
        for event in events:
            self.book.apply(event)
        self.all = tuple(self.book.gaps.values())
        if self.path is not None:
            self._write(self.path, encode(events))

    def _write(self, path: Path, data: bytes) -> None:
        """What the disk does not take now is tried again with the next event."""
        self._unwritten += data
        problem: OSError | None = None
        try:
            if self._fd is None:
                self._fd = open_for_appending(path)
            done, problem = append_events(self._fd, self._unwritten)
            self._unwritten = self._unwritten[done:]
        except OSError as error:
            problem = error
        if problem is not None and not self.error:
            self.log.error("the ledger of gaps cannot be written; trying again", error=str(problem))
        self.error = str(problem) if problem else ""

    def close(self) -> None:
        """Let the file go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _runs(numbers: Numbers) -> tuple[tuple[int, int], ...]:
    """Numbers as ``(first, count)`` of each run of successive ones."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return tuple(runs)
