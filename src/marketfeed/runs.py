"""The books of a feed over its runs: what became of every tick since the journal was made.

::

    <journal folder>/<feed>/runs.jsonl      one line a run that is over, with the sums up to it
    <journal folder>/<feed>/run.json        the run that goes on, as of some seconds ago; replaced whole

A run that was killed leaves its ``run.json``. What it did after that is known by the journal alone: those
rows count as parsed and appended (``unseen``), and what was dropped or put aside in those seconds is not
known. A line that cannot be read, torn by a kill, is passed over; the rows tell that it is missing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Final

import msgspec

from marketfeed.clock import NS
from marketfeed.journal.files import force
from marketfeed.journal.layout import safe_name

__all__ = ["Run", "RunBook", "Tally", "Totals", "clock_shift_ns", "has_books", "read_totals", "runs_folder"]

DONE: Final = "runs.jsonl"
NOW: Final = "run.json"


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one run. ``parsed = appended + dropped + dead_lettered + lost``."""

    parsed: int = 0
    appended: int = 0
    dropped: int = 0
    dead_lettered: int = 0
    lost: int = 0
    bad_packets: int = 0

    @property
    def holds(self) -> bool:
        """The law of parsing; while a batch is on its way it does not."""
        return self.parsed == self.appended + self.dropped + self.dead_lettered + self.lost


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of all runs on one journal. ``parsed = appended + dropped + dead_lettered + lost`` and
    ``appended + others - cut = rows in the journal``."""

    runs: int = 0
    crashes: int = 0
    """Runs that ended without a word."""
    parsed: int = 0
    appended: int = 0
    dropped: int = 0
    dead_lettered: int = 0
    lost: int = 0
    bad_packets: int = 0
    unseen: int = 0
    """Of ``appended``: rows of the last seconds before a crash, counted by the journal alone."""
    others: int = 0
    """Rows that something else than a run appended, such as a replay of dead letters."""
    cut: int = 0
    """Rows that a power cut took from the journal."""

    @property
    def rows(self) -> int:
        """How many rows the journal must have been given, less those a power cut took."""
        return self.appended + self.others - self.cut

    @property
    def holds(self) -> bool:
        """The law of parsing, over all runs."""
        return self.parsed == self.appended + self.dropped + self.dead_lettered + self.lost

    def plus(self, tally: Tally, *, crashed: bool) -> Totals:
        """With one more run."""
        added = {name: getattr(self, name) + getattr(tally, name) for name in Tally.__struct_fields__}
        return msgspec.structs.replace(self, **added, runs=self.runs + 1, crashes=self.crashes + crashed)

    def up_to(self, row: int, *, crashed: bool) -> Totals:
        """With the rows that the journal has beyond the books, or lacks."""
        more = row - self.rows
        if more < 0:
            return msgspec.structs.replace(self, cut=self.cut - more)
        if not crashed:
            return msgspec.structs.replace(self, others=self.others + more)
        return msgspec.structs.replace(
            self, parsed=self.parsed + more, appended=self.appended + more, unseen=self.unseen + more
        )


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as far as it is written down. Times are UTC nanoseconds of the feed's clock."""

    run: str
    """Random name."""
    journal: str
    """Id of the journal, without its epoch."""
    started_ns: int
    at_ns: int
    """When this was written."""
    first_row: int
    end: str = "running"
    """``stopped``, ``crashed``, or ``running``."""
    counts: Tally = Tally()
    sums: Totals = Totals()
    """Of the runs before this one; in a line of a run that is over, this one included."""


def runs_folder(folder: Path | str, feed: str) -> Path:
    """Where the books of ``feed`` lie inside the folder of the journals."""
    return Path(folder) / safe_name(feed, "feed")


def read_totals(folder: Path, journal: str, committed: int, *, alive: bool = False) -> tuple[Totals, Run | None]:
    """The sums for the journal with id ``journal`` that holds rows below ``committed``, and the run that is
    not over, if there is one. Any process, also while the feed runs (``alive``): rows since its last checkpoint
    count as parsed and appended. Raises ``OSError``."""
    last, run, torn = _read(folder, journal)
    totals = _settled(last, run, torn, committed)
    if alive and run is not None:
        totals = msgspec.structs.replace(totals, crashes=run.sums.crashes, unseen=run.sums.unseen)
    return totals, run


def has_books(folder: Path) -> bool:
    """Whether a feed has ever kept books in that folder."""
    return (folder / DONE).exists() or (folder / NOW).exists()


def clock_shift_ns(folder: Path, run: Run) -> int:
    """How far the clock of the run's feed is ahead of this host's: a sandbox has a day of its own. 0 below 5 s."""
    try:
        written_ns = (folder / NOW).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
    shift_ns = run.at_ns - written_ns
    return shift_ns if abs(shift_ns) > 5 * NS else 0


class RunBook:
    """Writes the books of one feed. One thread at a time. Raises ``OSError``."""

    def __init__(self, folder: Path, journal: str) -> None:
        self._folder = folder
        self._journal = journal
        self._run: Run | None = None
        self.before = Totals()
        """Sums of the runs before this one, once :meth:`begin` has read them."""

    def begin(self, first_row: int, now_ns: int) -> None:
        """A run begins with ``first_row``; one that crashed before is closed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        last, run, torn = _read(self._folder, self._journal)
        self.before = _settled(last, run, torn, first_row)
        if run is not None:
            self._add(msgspec.structs.replace(run, end="crashed", sums=self.before))
        name = secrets.token_hex(6)
        self._run = Run(
            run=name,
            journal=self._journal,
            started_ns=now_ns,
            at_ns=now_ns,
            first_row=first_row,
            sums=self.before,
        )
        self._keep(self._run)

    def checkpoint(self, counts: Tally, now_ns: int) -> None:
        """Write down how far the run has come."""
        if self._run is not None:
            self._keep(msgspec.structs.replace(self._run, counts=counts, at_ns=now_ns))

    def end(self, counts: Tally, now_ns: int) -> Totals:
        """The run is over; the sums with it. Twice is the same as once."""
        total = self.totals(counts)
        run, self._run = self._run, None
        if run is not None:
            self._add(msgspec.structs.replace(run, end="stopped", counts=counts, at_ns=now_ns, sums=total))
            (self._folder / NOW).unlink(missing_ok=True)
        return total

    def totals(self, counts: Tally) -> Totals:
        """The sums with the present run as it is."""
        return self.before.plus(counts, crashed=False)

    def _keep(self, run: Run) -> None:
        draft = self._folder / f"{NOW}.new"
        draft.write_bytes(msgspec.json.encode(run))
        draft.replace(self._folder / NOW)

    def _add(self, run: Run) -> None:
        fd = os.open(self._folder / DONE, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            data = b"\n" * torn + msgspec.json.encode(run) + b"\n"
            if os.write(fd, data) != len(data):
                raise OSError(f"{self._folder / DONE} took only a part of a line")
            force(fd)
        finally:
            os.close(fd)


def _read(folder: Path, journal: str) -> tuple[Totals, Run | None, bool]:
    """Sums of the runs that are over, the one that is not, and whether that one cannot be read."""
    last = max(enumerate(_lines(folder / DONE, journal)), default=(0, None), key=itemgetter(0))[1]
    sums = last.sums if last is not None else Totals()
    try:
        run = msgspec.json.decode((folder / NOW).read_bytes(), type=Run)
    except FileNotFoundError:
        return sums, None, False
    except (msgspec.DecodeError, msgspec.ValidationError):
        return sums, None, True
    over = last is not None and last.run == run.run  # a kill between the line and the removal
    return sums, None if over or run.journal != journal else run, False


def _lines(path: Path, journal: str) -> Iterator[Run]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            try:
                run = msgspec.json.decode(line, type=Run)
            except (msgspec.DecodeError, msgspec.ValidationError):
                continue
            if run.journal == journal:
                yield run


def _settled(last: Totals, run: Run | None, torn: bool, row: int) -> Totals:
    if run is None:
        return last.up_to(row, crashed=torn)
    return run.sums.plus(run.counts, crashed=True).up_to(row, crashed=True)
