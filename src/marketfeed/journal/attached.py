"""A journal on disk as a reader sees it, in any process."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Final

from marketfeed.batches import Origin
from marketfeed.clock import NS, Clock
from marketfeed.dtypes import Rows
from marketfeed.errors import JournalError
from marketfeed.journal.base import Journal
from marketfeed.journal.catalog import FileCatalog
from marketfeed.journal.control import ControlPage
from marketfeed.journal.cursorfiles import CursorFile, StoredCursor, stored_cursors
from marketfeed.journal.cursors import Cursor
from marketfeed.journal.layout import INSTRUMENTS
from marketfeed.journal.reader import Block
from marketfeed.journal.recovery import read_epochs
from marketfeed.journal.rowcheck import RowCheck
from marketfeed.journal.segments import SegmentMaps

__all__ = ["FileJournal", "attach", "refuse_windows"]

DEAD_AFTER_S: Final = 5.0
_STORES_IN_ORDER: Final = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def refuse_windows() -> None:
    """Raise ``JournalError`` where the system cannot do what a journal on disk needs."""
    if sys.platform == "win32":
        raise JournalError("a journal on disk needs Linux or macOS; on Windows use Journal.memory()")


def attach(folder: Path) -> FileJournal:
    """See :meth:`Journal.attach`."""
    refuse_windows()
    return FileJournal(folder, ControlPage(folder, writable=False), writable=False)


class FileJournal(Journal):
    """What the writer and everybody who is attached share."""

    _rings = False

    def __init__(self, folder: Path, page: ControlPage, *, writable: bool) -> None:
        catalog = FileCatalog(folder / INSTRUMENTS, writable=writable)
        about = page.description
        super().__init__(page.geometry.dtype, catalog, about.feed, about.vendor)
        self.folder = folder
        self.page = page
        self._maps = SegmentMaps(folder, page.geometry)
        self._check = RowCheck(self.dtype)
        self._verify_reads = not _STORES_IN_ORDER
        self._clock = Clock()
        self._beat: tuple[int, float] | None = None
        """A heartbeat that is not of the last seconds, and when it was seen first (monotonic seconds)."""

    @property
    def id(self) -> str:
        return self.page.id

    @property
    def epoch(self) -> int:
        return self.page.epoch

    @property
    def committed(self) -> int:
        return self.page.committed

    @property
    def synced(self) -> int:
        """Rows below this one are known to be on the disk."""
        return self.page.synced

    @property
    def oldest(self) -> int:
        return self.page.oldest

    @property
    def run_start(self) -> int:
        return self.page.run_start

    @property
    def writer_alive(self) -> bool:
        page = self.page
        if page.pid == 0:
            return False
        beat_ns, now_s = page.heartbeat_ns, self._clock.monotonic()
        age_s = (self._clock.wall_ns() - beat_ns) / NS
        if 0 <= age_s < DEAD_AFTER_S:
            return True
        # The host's clock was set, or nothing beats any more: what counts then is whether the heart still moves.
        if self._beat is None:
            self._beat = beat_ns, now_s if age_s < 0 else now_s - DEAD_AFTER_S
        elif self._beat[0] != beat_ns:
            self._beat = beat_ns, now_s
        return now_s - self._beat[1] < DEAD_AFTER_S

    @property
    def origin(self) -> Origin:
        origin = super().origin
        if not origin.journal.endswith(f".{self.page.epoch}"):
            self._origin = None  # a writer recovered the journal while we were attached
            origin = super().origin
        return origin

    def cursors(self) -> list[StoredCursor]:
        """All cursors, by name; those nobody holds any more still hold rows back."""
        return stored_cursors(self.folder)

    def block(self, row: int) -> Block | None:
        if row < self.page.oldest:
            return None
        return self._maps.block(row)

    def cut_since(self, epoch: int) -> int:
        cuts = [one.first_row for one in read_epochs(self.folder) if one.epoch > epoch]
        return min([*cuts, self.page.committed])

    def whole(self, rows: Rows, first_row: int) -> int:
        # Elsewhere than on x86 the count may be seen before the rows: what does not fit is not there yet.
        return self._check.leading(rows, first_row) if self._verify_reads else len(rows)

    def _open_cursor(self, name: str) -> Cursor:
        return CursorFile(self.folder, name)

    def close(self) -> None:
        super().close()
        self.instruments.close()
