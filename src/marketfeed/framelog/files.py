"""Writing capture files: one open file per connection, rotated by size and India day, bounded together."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO

import attrs

from marketfeed.clock import IST, NS
from marketfeed.framelog.format import (
    FRAMES,
    HEADER,
    INSTRUMENTS,
    FileHeader,
    Turn,
    encode_block,
    encode_frames,
    encode_header,
    encode_instruments,
)
from marketfeed.instruments import Instrument

__all__ = ["SUFFIX", "CaptureWriter", "Shelf"]

SUFFIX = ".mfc"
_NAME = re.compile(r"\d+-(\d{8}-\d{6}-\d{3}(?:-\d+)?)\.mfc")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Shelf:
    """The capture files of one feed's folder and their sizes; removes the oldest beyond ``keep_bytes``."""

    def __init__(self, folder: Path, keep_bytes: int, removed: Callable[[Path, int], None]) -> None:
        self.folder = folder
        self.keep_bytes = keep_bytes
        self._removed = removed
        self._open: set[Path] = set()
        self._sizes = {path: path.stat().st_size for path in folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name)}

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self._sizes.values())

    def create(self, connection: int, at_ns: int) -> tuple[Path, IO[bytes]]:
        """A new file ``<connection>-<India time of its first frame>.mfc``; never one that exists."""
        self.folder.mkdir(parents=True, exist_ok=True)
        moment = (_EPOCH + timedelta(microseconds=at_ns // 1000)).astimezone(IST)
        stem = f"{connection}-{moment:%Y%m%d-%H%M%S}-{moment.microsecond // 1000:03}"
        for extra in ("", *(f"-{number}" for number in range(2, 1000))):
            path = self.folder / f"{stem}{extra}{SUFFIX}"
            with contextlib.suppress(FileExistsError):
                file = path.open("xb", buffering=0)
                self._open.add(path)
                self._sizes[path] = 0
                return path, file
        raise FileExistsError(f"{stem}{SUFFIX} and its successors are taken")

    def grown(self, path: Path, size: int) -> None:
        """A file has that size now; make room if all files together have too much."""
        self._sizes[path] = size
        for oldest in sorted(self._sizes.keys() - self._open, key=lambda one: _NAME.sub(r"\1", one.name)):
            if self.total_bytes <= self.keep_bytes:
                break
            gone = self._sizes.pop(oldest)
            oldest.unlink(missing_ok=True)
            self._removed(oldest, gone)

    def closed(self, path: Path) -> None:
        """Nobody writes the file any more: from now on it may be removed. An empty one goes at once."""
        self._open.discard(path)
        if not self._sizes.get(path):
            self._sizes.pop(path, None)
            with contextlib.suppress(OSError):
                path.unlink()


@attrs.define
class CaptureWriter:
    """The files of one connection in one run, one after the other. One thread."""

    shelf: Shelf
    first: FileHeader
    """Header of the first file; later ones differ in ``id``, ``part`` and ``created_ns``."""
    rotate_bytes: int
    files: int = 0
    _file: IO[bytes] | None = None
    _path: Path = attrs.field(factory=Path)
    _size: int = 0
    _counted: int = 0
    _blocks: int = 0
    _day: date | None = None
    _known: Mapping[int, Instrument] = attrs.field(factory=dict)

    def write(self, turns: list[Turn], instruments: Mapping[int, Instrument]) -> int:
        """Append frames as one block, after instruments that the file does not have yet; returns the bytes written.

        ``instruments`` is a new object whenever some were added, and numbers keep their meaning.
        Raises ``OSError`` with nothing of the block in the file, or with the file given up.
        """
        at_ns = turns[0].frames[0].received_ns
        day = (_EPOCH + timedelta(seconds=at_ns // NS)).astimezone(IST).date()
        if self._file is None or self._size >= self.rotate_bytes or day != self._day:
            self.close()
            self._begin(at_ns, day)
        if instruments is not self._known:
            fresh = {number: one for number, one in instruments.items() if number not in self._known}
            if fresh:
                self._put(INSTRUMENTS, len(fresh), encode_instruments(fresh))
            self._known = instruments
        self._put(FRAMES, sum(len(turn.frames) for turn in turns), encode_frames(turns))
        before, self._counted = self._counted, self._size
        return self._size - before

    def _begin(self, at_ns: int, day: date) -> None:
        header = attrs.evolve(self.first, id=secrets.token_hex(16), part=self.files, created_ns=at_ns)
        self._path, self._file = self.shelf.create(self.first.connection, at_ns)
        self._size = self._counted = self._blocks = 0
        self._day, self._known = day, {}
        self.files += 1
        self._put(HEADER, 1, encode_header(header))

    def _put(self, kind: bytes, items: int, raw: bytes) -> None:
        assert self._file is not None
        try:
            block = memoryview(encode_block(kind, self._blocks, items, raw))
            done = 0
            while done < len(block):
                done += self._file.write(block[done:])
        except BaseException:
            self._give_up()
            raise
        self._size += len(block)
        self._blocks += 1
        self.shelf.grown(self._path, self._size)

    def _give_up(self) -> None:
        """A part of a block may be in the file: cut it off if the disk lets us, and go on in a new file."""
        assert self._file is not None
        with contextlib.suppress(OSError):
            self._file.truncate(self._size)
        self.close()

    def close(self) -> None:
        """Let the file go; its bytes are forced to the disk first, as far as it takes them."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            file.close()
        self.shelf.closed(self._path)
