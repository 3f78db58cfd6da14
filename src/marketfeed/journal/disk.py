"""A journal on disk, opened for writing. The rules it keeps stand in the reference page "The journal"."""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path
from typing import Final

import attrs
import numpy as np

from marketfeed.clock import Clock
from marketfeed.dtypes import Rows
from marketfeed.errors import JournalError
from marketfeed.journal.attached import FileJournal, refuse_windows
from marketfeed.journal.base import Sync
from marketfeed.journal.control import ControlPage
from marketfeed.journal.cursorfiles import positions, sync_cursors
from marketfeed.journal.files import force_folder
from marketfeed.journal.layout import (
    CONTROL,
    CURSORS,
    FEWEST_ROWS_PER_SEGMENT,
    ROWS_PER_SEGMENT,
    Geometry,
    segment_name,
)
from marketfeed.journal.locks import FileLock
from marketfeed.journal.monotonic import Monotonic
from marketfeed.journal.recovery import Recovery, last_received_ns, recover
from marketfeed.journal.retention import Bounds, kept_from, refuses
from marketfeed.journal.segments import SegmentWriter
from marketfeed.journal.upkeep import Upkeep

__all__ = ["DiskJournal", "open_for_writing"]

PERIOD_S: Final[dict[str, float]] = {"os": 0.5, "100ms": 0.1, "batch": 0.5}


def open_for_writing(
    folder: Path,
    dtype: np.dtype[np.void],
    feed: str,
    vendor: str,
    bounds: Bounds,
    *,
    rows_per_segment: int | None,
    sync: Sync,
) -> DiskJournal:
    """See :meth:`Journal.create`."""
    refuse_windows()
    if sync not in PERIOD_S:
        raise JournalError(f"sync is {sync!r}; use one of {', '.join(PERIOD_S)}")
    (folder / CURSORS).mkdir(parents=True, exist_ok=True)
    if not (folder / CONTROL).exists():
        count = rows_per_segment or _rows_per_segment(dtype, bounds)
        ControlPage.make(folder, Geometry(dtype, count), feed, vendor)
        force_folder(folder)
    lock = _locked(folder)
    try:
        for draft in folder.glob(f"{CONTROL}.*.new"):
            draft.unlink(missing_ok=True)  # left by a kill
        page = ControlPage(folder, writable=True)
        if page.geometry.dtype != dtype:
            raise JournalError(f"{folder} holds rows of another layout; use a new folder")
        return DiskJournal(folder, page, lock, bounds, sync)
    except BaseException:
        lock.release()
        raise


def _rows_per_segment(dtype: np.dtype[np.void], bounds: Bounds) -> int:
    # Fewer than usual where the bounds are narrow, for they are kept by whole segments.
    narrowest = min(bounds.keep_bytes or 2**63, bounds.max_bytes or 2**63)
    return max(FEWEST_ROWS_PER_SEGMENT, min(ROWS_PER_SEGMENT, narrowest // (4 * dtype.itemsize)))


def _locked(folder: Path) -> FileLock:
    try:
        return FileLock(folder / CONTROL)
    except BlockingIOError:
        pid = ControlPage(folder, writable=False).pid
        raise JournalError(f"{folder} is being written by process {pid}; a journal has one writer") from None


class DiskJournal(FileJournal):
    """The writer of a journal on disk; made by :meth:`Journal.create`."""

    _rings = True

    def __init__(self, folder: Path, page: ControlPage, lock: FileLock, bounds: Bounds, sync: Sync) -> None:
        self.recovery: Recovery = recover(folder, page, Clock().wall_ns())
        """What opening found."""
        super().__init__(folder, page, writable=True)
        self.bounds = _settled(bounds, folder, page)
        self.sync_failed = False
        """The disk refused to confirm rows: none after it is promised to survive a power cut."""
        self._writer_lock = lock
        self._retaining = threading.Lock()
        self._mode = sync
        self._next = self._page_synced = page.committed
        self._page_synced_at = self._clock.monotonic()
        self._monotonic = Monotonic(self.dtype, last_received_ns(folder, page))
        self._segments = SegmentWriter(folder, page.geometry)
        self._spoiled = 0
        """Rows below this may have been written by an ``append`` that failed, and were never published."""
        page.begin_run(self._clock.wall_ns())
        page.sync()  # or after a power cut nobody would know that this run was under way
        self._upkeep = Upkeep(self._work, PERIOD_S[sync], "journal-upkeep")

    # --- writing --------------------------------------------------------------------------

    def append(self, rows: Rows) -> int:
        rows = self._own(rows)
        count = len(rows)
        if not self._writer_lock.held:
            raise JournalError("this journal is closed, or was opened by the process that forked this one")
        if not count:
            return self._next
        first, stop = self._next, self._next + count
        if not self._segments.holds(first, stop):
            self._make_room(stop)
        last_ns = self._monotonic.raised(rows)
        self._check.fill(rows, first)
        self._write(first, stop, rows)
        self._next, self._monotonic.last_ns = stop, last_ns
        self.page.publish(stop)  # last: whoever sees the count finds the rows
        self._ring()
        return stop

    def _write(self, first: int, stop: int, rows: Rows) -> None:
        try:
            self._segments.write(first, rows.view("u1").data)
            if stop < self._spoiled:  # what a longer one left behind, which would look like rows behind these
                self._segments.wipe(stop, self._spoiled)
            if self._mode == "batch":
                self._force(stop)
        except OSError:
            self._spoiled = max(self._spoiled, stop)
            raise
        self._spoiled = 0

    def _make_room(self, stop: int) -> None:
        """A new segment is about to begin, for rows up to ``stop``."""
        self._upkeep.ask()
        page, geometry = self.page, self.page.geometry
        end = geometry.first_of(stop - 1) + geometry.rows_per_segment
        if not refuses(page.oldest, end, geometry, self.bounds):
            return
        self.retain(coming=end - self._next)
        if refuses(page.oldest, end, geometry, self.bounds):
            laggard = min(self.cursors(), key=lambda one: one.state.position, default=None)
            who = f"cursor {laggard.name!r} stands at row {laggard.state.position}" if laggard else "no cursor lags"
            raise JournalError(f"the journal in {self.folder} holds max_bytes already and may not drop rows; {who}")

    # --- upkeep ---------------------------------------------------------------------------

    def _work(self) -> None:
        self.page.beat(self._clock.wall_ns())
        committed = self.page.committed
        if self._mode == "100ms" and committed != self.page.synced:
            self._force(committed)
        if committed - self._page_synced > 0 and self._clock.monotonic() - self._page_synced_at > 1:
            self._page_synced, self._page_synced_at = committed, self._clock.monotonic()
            self.page.sync()
        self._segments.release(committed, forced=self._mode != "os")
        self.retain()

    def _force(self, row: int) -> None:
        if self.sync_failed:
            return  # the system may have dropped the pages that failed: a later success proves nothing
        try:
            self._segments.sync()
        except OSError:
            self.sync_failed = True
            raise
        self.page.set_synced(row)

    def retain(self, coming: int = 0) -> None:
        """Remove segments as the bounds say, with room for ``coming`` rows; the second thread does it all the time."""
        page, bounds, geometry = self.page, self.bounds, self.page.geometry
        with self._retaining:
            oldest, committed = page.oldest, page.committed
            if kept_from(oldest, committed, (), geometry, bounds, coming) == oldest:
                return  # not even if every cursor had passed: no need to look at them
            kept = kept_from(oldest, committed, positions(self.folder), geometry, bounds, coming)
            if kept == oldest:
                return
            sync_cursors(self.folder)  # or a power cut could send one back to rows that are gone
            page.set_oldest(kept)  # before the files go: a reader that misses one then finds out why
            for first in range(geometry.first_of(oldest), kept, geometry.rows_per_segment):
                (self.folder / segment_name(first)).unlink(missing_ok=True)

    # --- end ------------------------------------------------------------------------------

    def close(self) -> None:
        if self._closed or not self._writer_lock.held:
            return
        super().close()
        self._upkeep.stop()
        try:
            if self._spoiled:
                with contextlib.suppress(OSError):  # whoever opens it next does the same
                    self._segments.wipe(self._next, self._spoiled)
            self._force(self._next)
        finally:
            self._segments.close()
            if not self.sync_failed:
                self.page.end_run()
                self.page.sync()
            self.page.beat(0)
            self._writer_lock.release()


def _settled(bounds: Bounds, folder: Path, page: ControlPage) -> Bounds:
    """The same bounds with a number for ``max_bytes``; ``JournalError`` if that is too narrow to work."""
    geometry = page.geometry
    if bounds.max_bytes is None:
        kept = (page.committed - page.oldest) * geometry.row_size
        half = (shutil.disk_usage(folder).free + kept) // 2
        return attrs.evolve(bounds, max_bytes=max(half, 2 * geometry.segment_bytes))
    if bounds.max_bytes < 2 * geometry.rows_per_segment * geometry.row_size:
        raise JournalError(
            f"max_bytes is {bounds.max_bytes}, less than two segments of {geometry.rows_per_segment} rows;"
            " raise it, or begin a new journal with a smaller rows_per_segment"
        )
    return bounds
