"""One output file that only ever grows by whole blocks, and errors of the disk as ``SinkError``."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from marketfeed.errors import SinkError

__all__ = ["Output", "sink_errors"]


@contextlib.contextmanager
def sink_errors(what: str, *, retryable: bool = True) -> Iterator[None]:
    """Raise ``SinkError`` for an ``OSError``. A full disk may have room again, so it is always retryable."""
    try:
        yield
    except OSError as error:
        retryable = retryable or error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise SinkError(f"{what}: {error.strerror or error}", retryable=retryable) from error


class Output:
    """An append-only file. ``length`` counts whole blocks only; raises ``OSError``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._fd = os.open(path, flags, 0o666)
        self.length = os.fstat(self._fd).st_size
        self._torn = False

    def append(self, block: bytes) -> None:
        """All of the block or, with ``OSError``, nothing of it."""
        if self._torn:
            self.cut(self.length)
        done = os.write(self._fd, block)
        if done < len(block):
            done = self._rest(block, done)
        self.length += done

    def cut(self, length: int) -> None:
        """Forget what lies behind ``length``."""
        os.ftruncate(self._fd, length)
        self.length = length
        self._torn = False

    def whole_lines(self, start: int) -> int:
        """Length up to the end of the last whole line, at least ``start``."""
        os.lseek(self._fd, start, os.SEEK_SET)
        tail = os.read(self._fd, max(self.length - start, 0))
        return start + tail.rfind(b"\n") + 1

    def end_line(self) -> None:
        """Give somebody else's last line its end, so that the next row starts a line of its own."""
        if self.length:
            os.lseek(self._fd, self.length - 1, os.SEEK_SET)
            if os.read(self._fd, 1) != b"\n":
                self.append(b"\n")

    def sync(self) -> None:
        """Return when the bytes are on the disk."""
        os.fsync(self._fd)

    def sync_folder(self) -> None:
        """Return when the file's name is on the disk."""
        if sys.platform != "win32":  # Windows cannot open a folder
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        os.close(self._fd)

    def _rest(self, block: bytes, done: int) -> int:
        view = memoryview(block)
        try:
            while done < len(block):
                done += os.write(self._fd, view[done:])
        except OSError:
            self._torn = True
            with contextlib.suppress(OSError):  # if even that fails, the next append tries again
                self.cut(self.length)
            raise
        return done
