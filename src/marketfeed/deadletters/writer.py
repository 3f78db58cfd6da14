"""Letters to segment files, bounded by bytes; used by one thread at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

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
    """Appends letters to segments of its own; a segment is never written by a second run."""

    def __init__(self, folder: Path, max_bytes: int, hidden: Callable[[], Iterable[str]]) -> None:
        self._store = LetterFolder(folder)
        self._max_bytes = max_bytes
        self._segment_bytes = max(1, min(max_bytes // _SEGMENTS, _MOST_SEGMENT))
        self._most_raw = min(_MOST_RAW, max(self._segment_bytes // 2, 1))
        self._hidden = hidden
        self._fd: int | None = None
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
            self._fd, _ = self._store.make_segment()
            self._written = 0
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
        segments = list(self._store.segments().values())
        if self._fd is not None:
            segments = segments[:-1]  # the last one is being written
        for path in segments:
            if self.size + coming <= self._max_bytes:
                return
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
        self._others = (self._others or 0) + self._written
        self._written = 0
        self.close()

    def close(self) -> None:
        """Force the segment to the disk and let it go; the next letter begins another one."""
        fd, self._fd = self._fd, None
        if fd is not None:
            try:
                os.fsync(fd)
            except OSError as error:
                self.trouble = str(error)
            finally:
                os.close(fd)
            self._others = (self._others or 0) + self._written
            self._written = 0
