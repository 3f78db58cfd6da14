"""What every journal offers, whether on disk, attached or in memory."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

import numpy as np

from marketfeed.batches import Origin, TickBatch
from marketfeed.clock import NS
from marketfeed.dtypes import TICK, Rows
from marketfeed.errors import JournalError, Overrun
from marketfeed.journal.catalog import Catalog
from marketfeed.journal.cursors import Cursor, CursorState
from marketfeed.journal.layout import safe_name
from marketfeed.journal.reader import Block, Reader

if TYPE_CHECKING:
    from marketfeed.journal.attached import FileJournal
    from marketfeed.journal.disk import DiskJournal
    from marketfeed.journal.memory import MemoryJournal

__all__ = ["Journal", "Start", "Sync", "WhenFull"]

Start = Literal["run", "oldest", "newest"] | int
"""Where a new cursor begins: at the first row of the present run, the oldest or newest row, or a row."""
Sync = Literal["os", "100ms", "batch"]
"""When rows are forced to the disk: when the system likes, every 100 ms, or before they are published."""
WhenFull = Literal["skip", "stop"]
"""What happens to a consumer that lags behind ``max_bytes``: it loses rows, or the journal refuses new ones."""

MEMORY_BYTES: Final = 128 * 2**20
KEEP_BYTES: Final = 4 * 10**9

_log = logging.getLogger("marketfeed.journal")


class Journal(ABC):
    """An append-only list of rows with one writer and any number of readers.

    A row's number is its sequence number for ever. The published name is ``<id>.<epoch>``: the
    epoch rises when a power cut lost rows that somebody may have seen, so name and number together
    never mean two different rows.
    """

    dtype: np.dtype[np.void]
    instruments: Catalog
    """Number -> instrument, for the column ``instrument``; ``register`` adds."""

    def __init__(self, dtype: np.dtype[np.void], instruments: Catalog, feed: str, vendor: str) -> None:
        self.dtype = dtype
        self.instruments = instruments
        self.no_rows: Rows = np.zeros(0, dtype)
        self.no_rows.flags.writeable = False
        self._feed = feed
        self._vendor = vendor
        self._readers: tuple[Reader, ...] = ()
        self._lock = threading.Lock()
        self._origin: Origin | None = None
        self._closed = False

    # --- making one -----------------------------------------------------------------------

    @staticmethod
    def create(
        folder: Path | str,
        *,
        dtype: np.dtype[np.void] = TICK,
        feed: str = "main",
        vendor: str = "",
        rows_per_segment: int | None = None,
        sync: Sync = "100ms",
        keep_bytes: int = KEEP_BYTES,
        max_bytes: int | None = None,
        when_full: WhenFull = "skip",
    ) -> DiskJournal:
        """Open the journal in ``folder`` for writing, making or recovering it as needed.

        ``keep_bytes`` is for rows that every cursor has passed; ``max_bytes`` (default: half of the
        disk that is free now) bounds what waits for laggards, then ``when_full`` decides.
        ``rows_per_segment`` (default 65,536) counts for a new journal only. Raises ``JournalError``
        when another process writes it, when it holds other rows, and on Windows.
        """
        from marketfeed.journal.disk import open_for_writing
        from marketfeed.journal.retention import Bounds

        bounds = Bounds(keep_bytes=keep_bytes, max_bytes=max_bytes, when_full=when_full)
        try:
            return open_for_writing(
                Path(folder), dtype, feed, vendor, bounds, rows_per_segment=rows_per_segment, sync=sync
            )
        except OSError as error:
            raise JournalError(f"the journal in {folder} cannot be opened: {error}") from error

    @staticmethod
    def attach(folder: Path | str) -> FileJournal:
        """Read the journal in ``folder`` from any process, also while its writer runs.

        Keeping cursors can be opened too: they are files of their own. Raises ``JournalError``
        when there is none.
        """
        from marketfeed.journal.attached import attach

        try:
            return attach(Path(folder))
        except OSError as error:
            raise JournalError(f"the journal in {folder} cannot be read: {error}") from error

    @staticmethod
    def memory(
        *,
        dtype: np.dtype[np.void] = TICK,
        feed: str = "main",
        vendor: str = "",
        max_bytes: int = MEMORY_BYTES,
        identity: str | None = None,
    ) -> MemoryJournal:
        """A journal that lives in this process and keeps about the newest ``max_bytes`` of rows.

        A reader that falls further behind loses rows: they are counted as skipped and told, not
        prevented. ``identity`` (32 hexadecimal digits) names one whose rows come out the same each time.
        """
        from marketfeed.journal.memory import MemoryJournal

        return MemoryJournal(dtype=dtype, feed=feed, vendor=vendor, max_bytes=max_bytes, identity=identity)

    # --- what it is -----------------------------------------------------------------------

    @property
    @abstractmethod
    def id(self) -> str:
        """Random name of the journal, 32 hexadecimal digits."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """How often rows were lost to power cuts, counted from 1."""

    @property
    @abstractmethod
    def committed(self) -> int:
        """Number of the next row; every lower one (from ``oldest`` on) can be read."""

    @property
    @abstractmethod
    def oldest(self) -> int:
        """First row that is still kept."""

    @property
    @abstractmethod
    def run_start(self) -> int:
        """First row of the present run: ``committed`` when the writer opened the journal."""

    @property
    @abstractmethod
    def writer_alive(self) -> bool:
        """Whether somebody has the journal open for writing and showed it within the last 5 seconds."""

    @property
    def name(self) -> str:
        """The published name, ``<id>.<epoch>``."""
        return self.origin.journal

    @property
    def origin(self) -> Origin:
        """What batches of this journal carry."""
        origin = self._origin
        if origin is None:
            name = f"{self.id}.{self.epoch}"
            self._origin = origin = Origin(self.instruments, self._feed, self._vendor, name)
        return origin

    # --- writing --------------------------------------------------------------------------

    def append(self, rows: Rows) -> int:
        """Add rows and publish them; returns the number of the next row. One thread only.

        ``rows`` is a one-dimensional array of the journal's dtype. Fills ``check`` (on disk) and
        raises ``received_ns`` where it steps back, in place, if the array is writeable; otherwise
        in a copy. Raises ``OSError`` (disk full) with nothing published: the same rows may be
        appended again. Raises ``JournalError`` when this is not the journal's writer.
        """
        raise JournalError("this journal is attached read-only; only its writer appends")

    def _own(self, rows: Rows) -> Rows:
        """``rows`` as a contiguous array that may be written to."""
        if rows.dtype is not self.dtype and rows.dtype != self.dtype:
            raise JournalError("these rows have another layout than the journal's")
        flags = rows.flags
        return rows if flags.c_contiguous and flags.writeable else rows.copy()

    def _ring(self) -> None:
        for reader in self._readers:
            bell = reader.bell
            if bell.asleep:
                bell.ring()

    # --- reading --------------------------------------------------------------------------

    def reader(
        self, name: str = "", *, start: Start = "run", start_ns: int | None = None, keep: bool | None = None
    ) -> Reader:
        """A reader with the cursor ``name``; an observer without one when ``name`` is empty.

        A cursor that exists goes on where it was committed. A new one begins at ``start``, or at the
        first row received at or after ``start_ns`` (UTC). ``keep=False`` makes a named observer: its
        position is not stored and holds no rows back. Raises ``JournalError`` when another reader
        uses the cursor or the name cannot be a file name.
        """
        keep = bool(name) if keep is None else keep
        if keep:
            safe_name(name)
        cursor = self._open_cursor(name) if keep else Cursor()
        try:
            state = cursor.state
            if state is None:
                row = self._first_row(cursor, name, start, start_ns)
                state = CursorState(row, row, epoch=self.epoch)
                cursor.commit(state)
                cursor.sync()
            else:
                state = state.clamped(min(self.committed, self.cut_since(state.epoch)))
                state = state._replace(epoch=self.epoch)
        except BaseException:
            cursor.close()
            raise
        reader = Reader(self, name, cursor, state, keep=keep, rung=self._rings)
        with self._lock:
            self._readers = (*self._readers, reader)
        return reader

    def follow(
        self, *, max_rows: int = 4096, wait_s: float = 0.5, start: Start = "newest", forever: bool = False
    ) -> Iterator[TickBatch]:
        """Batches as they come, from the newest row on, as an observer: it holds nothing back.

        Ends when the writer has closed or died and everything was given; ``forever`` waits for the
        next writer instead. Rows that retention removed first are passed over, with a warning.
        """
        with self.reader("follow", start=start, keep=False) as reader:
            while True:
                try:
                    alive = self.writer_alive
                    batch = reader.take(max_rows, wait_s)
                except Overrun as gap:
                    _log.warning("%s", gap)
                    continue
                if len(batch):
                    yield batch
                elif not alive and not forever:
                    return

    def row_at(self, received_ns: int) -> int:
        """First kept row received at or after ``received_ns`` (UTC); ``committed`` if there is none."""
        if "received_ns" not in (self.dtype.names or ()):
            raise JournalError("rows of this journal have no received_ns to look for")
        low, end = self.oldest, self.committed
        while low < end:
            block = self.block(low)
            if block is None:
                low = max(low + 1, self.oldest)
                continue
            column = block.rows["received_ns"][low - block.first_row : end - block.first_row]
            place = int(column.searchsorted(received_ns))
            low += place
            if place < len(column):
                break
        return low

    def seconds_behind(self, row: int) -> float:
        """How much older than the newest row ``row`` was received, in seconds; 0 when it is not there yet."""
        newest, row = self.committed - 1, max(row, self.oldest)
        if row >= newest or "received_ns" not in (self.dtype.names or ()):
            return 0.0
        ends = [(self.block(one), one) for one in (row, newest)]
        times = [block.rows["received_ns"][one - block.first_row] for block, one in ends if block is not None]
        return float(times[1] - times[0]) / NS if len(times) == 2 else 0.0

    def locate(self, name: str, row: int) -> int | None:
        """Where a position stored under ``name`` stands today; None if it is another journal's.

        A position of an older epoch is clamped to the cut: rows beyond it were lost and numbered anew.
        """
        identity, _, epoch = name.partition(".")
        if identity != self.id or not epoch.isdecimal():
            return None
        return min(row, self.committed, self.cut_since(int(epoch)))

    def cut_since(self, epoch: int) -> int:
        """The lowest row at which an epoch later than ``epoch`` began; ``committed`` if there is none."""
        return self.committed

    def whole(self, rows: Rows, first_row: int) -> int:
        """How many of these rows have arrived in this process's memory."""
        return len(rows)

    def detach(self, reader: Reader) -> None:
        """Forget a reader that is closed; called by the reader."""
        with self._lock:
            self._readers = tuple(one for one in self._readers if one is not reader)

    @abstractmethod
    def block(self, row: int) -> Block | None:
        """The piece of memory that holds ``row``; None when retention has removed it."""

    _rings = True
    """Whether appends ring the bells of this object's readers; else they look every so often."""

    @abstractmethod
    def _open_cursor(self, name: str) -> Cursor: ...

    def _first_row(self, cursor: Cursor, name: str, start: Start, start_ns: int | None) -> int:
        if cursor.damaged:
            _log.warning("cursor %r is damaged: it begins again with the oldest row", name)
            return self.oldest  # rows twice rather than rows never
        return self._start_row(start) if start_ns is None else self.row_at(start_ns)

    def _start_row(self, start: Start) -> int:
        if isinstance(start, int):
            return max(self.oldest, min(start, self.committed))
        rows = {"run": self.run_start, "oldest": self.oldest, "newest": self.committed}
        if start not in rows:
            raise JournalError(f"start is {start!r}; use 'run', 'oldest', 'newest' or a row number")
        return max(self.oldest, rows[start])

    # --- end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop writing; readers may drain what is there. Twice is the same as once."""
        self._closed = True
        for reader in self._readers:
            reader.wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
