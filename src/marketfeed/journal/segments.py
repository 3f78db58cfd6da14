"""Segment files: rows go in by ``pwrite``, and come out through one shared mapping per process."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import Rows
from marketfeed.errors import JournalError
from marketfeed.journal.files import force, force_folder, write_whole
from marketfeed.journal.layout import PAGE, Geometry, npy_header, segment_name
from marketfeed.journal.reader import Block

__all__ = ["SegmentMaps", "SegmentWriter"]


_WIPED_ROWS: Final = 1024


class SegmentWriter:
    """Writes rows into segment files. Never truncates or reuses a file: somebody may have mapped it.

    ``write`` and ``wipe`` belong to the appending thread, ``release`` to another one, ``sync`` to either.
    """

    def __init__(self, folder: Path, geometry: Geometry) -> None:
        self._folder = folder
        self._geometry = geometry
        self._header = npy_header(geometry)
        self._fds: dict[int, int] = {}
        self._fd = -1
        self._first = self._end = 0
        self._new_names = False
        self._closing = threading.Lock()
        """Held while files are forced, and while they are closed: not both at once."""

    def holds(self, first_row: int, stop: int) -> bool:
        """Whether the open segment has room for these rows."""
        return self._first <= first_row and stop <= self._end

    def write(self, first_row: int, data: memoryview) -> None:
        """Put whole rows at ``first_row``. Nobody sees them before they are published. ``OSError`` if not."""
        geometry = self._geometry
        row, done = first_row, 0
        while done < len(data):
            if not self._first <= row < self._end:
                self._enter(geometry.first_of(row))
            stop = done + (self._end - row) * geometry.row_size
            piece = data if not done and stop >= len(data) else data[done:stop]
            offset = PAGE + (row - self._first) * geometry.row_size
            if os.pwrite(self._fd, piece, offset) != len(piece):
                write_whole(self._fd, piece, offset)
            done += len(piece)
            row += len(piece) // geometry.row_size

    def _enter(self, first_row: int) -> None:
        fd = self._fds.get(first_row)
        if fd is None:
            self._fds[first_row] = fd = self._open(first_row)
        self._fd, self._first = fd, first_row
        self._end = first_row + self._geometry.rows_per_segment

    def _open(self, first_row: int) -> int:
        path = self._folder / segment_name(first_row)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # Also for a file that a kill left half made, or that a power cut shortened.
            if os.fstat(fd).st_size < self._geometry.segment_bytes:
                os.ftruncate(fd, self._geometry.segment_bytes)
            if os.pread(fd, PAGE, 0) != self._header:
                write_whole(fd, self._header, 0)
            self._new_names = True
        except OSError:
            os.close(fd)
            raise
        return fd

    def sync(self) -> None:
        """Return when everything written so far is on the disk; raises ``OSError``."""
        new_names, self._new_names = self._new_names, False
        try:
            with self._closing:
                for fd in list(self._fds.values()):
                    force(fd)
            if new_names:
                force_folder(self._folder)
        except OSError:
            self._new_names = True
            raise

    def release(self, committed: int, *, forced: bool) -> None:
        """Close the files of segments that are full and published; ``forced``: they are on the disk already."""
        with self._closing:
            for first_row, fd in list(self._fds.items()):
                if first_row + self._geometry.rows_per_segment <= committed and first_row != self._first:
                    if not forced:
                        force(fd)
                    del self._fds[first_row]
                    os.close(fd)

    def wipe(self, first_row: int, stop: int) -> None:
        """Zero rows ``[first_row, stop)`` that were written and never published, as far as their files exist, so that
        nobody takes them for rows later. Raises ``OSError``."""
        geometry, row = self._geometry, first_row
        while row < stop:
            first = geometry.first_of(row)
            end = min(stop, first + geometry.rows_per_segment)
            if (path := self._folder / segment_name(first)).exists():
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    for at in range(row, end, _WIPED_ROWS):
                        self._zero(fd, PAGE + (at - first) * geometry.row_size, min(_WIPED_ROWS, end - at))
                finally:
                    os.close(fd)
            row = end

    def _zero(self, fd: int, offset: int, rows: int) -> None:
        data = os.pread(fd, rows * self._geometry.row_size, offset)
        if any(data):  # zeros in a hole of the file would need room on a disk that may be full
            write_whole(fd, bytes(len(data)), offset)

    def close(self) -> None:
        """Close every file."""
        self._first = self._end = 0
        while self._fds:
            os.close(self._fds.popitem()[1])


_maps: weakref.WeakValueDictionary[tuple[int, int], NDArray[Any]] = weakref.WeakValueDictionary()
_maps_lock = threading.Lock()


class SegmentMaps:
    """Mapped segments, one mapping per process and file however many readers there are.

    A mapping goes when its last reader and its last batch are gone.
    """

    def __init__(self, folder: Path, geometry: Geometry) -> None:
        self._folder = folder
        self._geometry = geometry

    def block(self, row: int) -> Block | None:
        """The segment that holds ``row``, read-only; None when its file is gone."""
        first_row = self._geometry.first_of(row)
        path = self._folder / segment_name(first_row)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return Block(first_row, self._mapped(fd, path))
        finally:
            os.close(fd)

    def _mapped(self, fd: int, path: Path) -> Rows:
        status = os.fstat(fd)
        # Not the name: after a recovery another file may carry it. The mapping keeps its file's number taken.
        key = (status.st_dev, status.st_ino)
        with _maps_lock:
            rows = _maps.get(key)
            if rows is None:
                if status.st_size < self._geometry.segment_bytes:
                    raise JournalError(f"{path} is shorter than a segment; it was damaged")
                mapping = mmap.mmap(fd, self._geometry.segment_bytes, access=mmap.ACCESS_READ)
                count = self._geometry.rows_per_segment
                rows = np.frombuffer(mapping, self._geometry.dtype, count=count, offset=PAGE)
                _maps[key] = rows
            return rows
