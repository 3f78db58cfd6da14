"""Writing files so that what was written is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["force", "force_folder", "write_whole"]


def force(fd: int) -> None:
    """Return when the file's data is on the disk."""
    if sys.platform == "darwin":
        os.fsync(fd)
    else:
        # Not mmap.flush: that holds the interpreter's lock for as long as the disk takes.
        os.fdatasync(fd)


def force_folder(folder: Path) -> None:
    """Return when the names of new files are on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(fd: int, data: memoryview | bytes, offset: int) -> None:
    """``os.pwrite`` until everything is written; ``OSError`` when it cannot be."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        more = os.pwrite(fd, data[written:], offset + written)
        if not more:
            raise OSError(f"the disk took {written} of {len(data)} bytes")
        written += more
