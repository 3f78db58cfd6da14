"""Letters to segment files, bounded by bytes; used by one thread at a time."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from marketfeed.deadletters.folder import LEDGER, LetterFolder
from marketfeed.deadletters.ledger import Ledger
from marketfeed.deadletters.letter import DeadLetter
from marketfeed.deadletters.records import pack
from marketfeed.redaction import hide

__all__ = ["LetterWriter"]

_SEGMENTS: Final = 8
"""A store holds about so many segments: what goes at once is an eighth of it."""
_MOST_SEGMENT: Final = 32_000_000
_MOST_RAW: Final = 4_000_000

_log = logging.getLogger("marketfeed.deadletters")


class LetterWriter:
    """Appends letters to segments of its own; a segment is never written by a second run.

    Several processes may write one store, such as a feed and a sink's own process: each locks the segment it
    writes, so that none removes what another is still writing. Every further one may exceed ``max_bytes`` by a
    segment, an eighth of it.
    """

    def __init__(self, folder: Path, max_bytes: int, hidden: Callable[[], Iterable[str]]) -> None:
        self._store = LetterFolder(folder)
        self._max_bytes = max_bytes
        self._segment_bytes = max(1, min(max_bytes // _SEGMENTS, _MOST_SEGMENT))
        self._most_raw = min(_MOST_RAW, max(self._segment_bytes // 2, 1))
        self._hidden = hidden
        self._fd: int | None = None
        self._path: Path | None = None
        self._lock: AbstractContextManager[Any] | None = None
        self._written = 0
        """Bytes in the segment that is open."""
        self._others: int | None = None
        """Bytes in the other segments; None = not looked yet."""
        self.overflowed = 0
        self.trouble = ""

    @property
    def size(self) -> int:
        """Bytes of all segments, as far as this writer knows."""
        return (self._others or 0) + self._written

    def write(self, letters: Iterable[DeadLetter]) -> None:
        """Append letters. One that the disk refuses is counted, and the next one is tried again."""
        hidden = tuple(self._hidden())
        for letter in letters:
            try:
                self._append(pack(self._fitting(letter, hidden)))
            except OSError as error:
                self.overflowed += 1
                if not self.trouble:
                    _log.error("dead letters cannot be kept in %s, they are only counted: %s", self._store.path, error)
                self.trouble = str(error)
            else:
                if self.trouble:
                    _log.warning("dead letters are kept again in %s", self._store.path)
                self.trouble = ""

    def _fitting(self, letter: DeadLetter, hidden: Iterable[str]) -> DeadLetter:
        raw, cut = hide(letter.raw, hidden), letter.cut
        if len(raw) > self._most_raw:
            raw, cut = raw[: self._most_raw], len(raw)
        good = letter.good if not cut else b""
        return attrs.evolve(letter, raw=raw, good=good, cut=cut)

    def _append(self, record: bytes) -> None:
        if self._fd is not None and self._written and self._written + len(record) > self._segment_bytes:
            self._end_segment()
        if self._others is None:
            self._others = self._store.size
        self._make_room(len(record))
        if self._fd is None:
            self._fd, self._path = self._store.make_segment()
            self._written = 0
            with contextlib.suppress(BlockingIOError), ExitStack() as stack:  # somebody may be looking whose it is
                stack.enter_context(_held(self._path))
                self._lock = stack.pop_all()
        try:
            written = os.write(self._fd, record)
            if written < len(record):
                raise OSError(f"the disk took {written} of {len(record)} bytes")
        except OSError:
            os.ftruncate(self._fd, self._written)  # a reader passes over torn records; but why leave one
            raise
        self._written += len(record)

    def _make_room(self, coming: int) -> None:
        if self.size + coming <= self._max_bytes:
            return
        for path in self._store.segments().values():
            if self.size + coming <= self._max_bytes:
                return
            if path != self._path:
                with contextlib.suppress(BlockingIOError, FileNotFoundError), _held(path):
                    self._remove(path)

    def _remove(self, path: Path) -> None:
        done = Ledger(self._store.path / LEDGER).finished
        lost = sum(letter.identity not in done for letter in self._store.read(path))
        size = path.stat().st_size
        path.unlink()
        self._others = max(0, (self._others or 0) - size)
        self.overflowed += lost
        if lost:
            _log.error(
                "the dead letters in %s are as many as may be: the oldest %d went that nobody had replayed",
                self._store.path,
                lost,
            )

    def _end_segment(self) -> None:
        self.close()

    def close(self) -> None:
        """Force the segment to the disk and let it go; the next letter begins another one."""
        fd, self._fd = self._fd, None
        lock, self._lock, self._path = self._lock, None, None
        if fd is not None:
            try:
                os.fsync(fd)
            except OSError as error:
                self.trouble = str(error)
            finally:
                os.close(fd)
                if lock is not None:
                    lock.__exit__(None, None, None)
            self._written = 0
            self._others = self._store.size  # another process may write here, too


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the segment. ``BlockingIOError`` when another process does, ``FileNotFoundError`` when it is gone."""
    try:
        from marketfeed.journal.locks import FileLock
    except ImportError:  # Windows has no journal on disk, so no second process either
        yield
        return
    lock = FileLock(path)
    try:
        yield
    finally:
        lock.release()
