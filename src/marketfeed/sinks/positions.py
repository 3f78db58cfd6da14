"""The position file: where an output file stands, so that a restart writes no row twice and misses none.

``<output>.position`` holds two slots of 2,048 bytes, written in turn. A slot is one line of text,
``<crc32> <json>``, padded with spaces; its ``turn`` is the selector: the sound slot with the higher turn
counts. A kill at any moment spoils at most the slot that was being written, and the other one is whole.
The file is also the lock that keeps a second writer away; the operating system drops it when the
process dies, however it dies.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import zlib
from pathlib import Path

import attrs

from marketfeed.errors import SinkError

__all__ = ["Position", "PositionFile"]

SLOT_BYTES = 2048


@attrs.frozen
class Position:
    """All rows of ``journal`` before ``next_row`` lie in the output; its last file ends at ``length``."""

    journal: str
    next_row: int
    file: str
    """Name of the file being written, without its folder."""
    length: int
    """Bytes of that file that count; whatever lies behind was never committed."""

    def same_journal(self, journal: str) -> bool:
        """True for any epoch of the same journal: its rows behind the position come again."""
        return bool(self.journal) and self.journal.rpartition(".")[0] == journal.rpartition(".")[0]


class PositionFile:
    """Two slots on disk, locked while open. Raises ``SinkError`` if another writer holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._fd = os.open(path, flags, 0o666)
        try:
            _lock(self._fd, path)
            self.current, self._turn = self._read()
        except BaseException:
            os.close(self._fd)
            raise

    def store(self, position: Position, *, durable: bool = False) -> None:
        """Make ``position`` the one that counts. With ``durable`` it also survives a power cut."""
        turn = self._turn + 1
        text = json.dumps({"turn": turn, **attrs.asdict(position)}).encode()
        slot = b"%08x %s" % (zlib.crc32(text), text)
        if len(slot) >= SLOT_BYTES:
            raise SinkError(f"the name {position.file!r} is too long for {self.path}; shorten it", retryable=False)
        os.lseek(self._fd, turn % 2 * SLOT_BYTES, os.SEEK_SET)
        if os.write(self._fd, slot.ljust(SLOT_BYTES - 1) + b"\n") < SLOT_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(self._fd)
        self.current, self._turn = position, turn

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._fd)

    def _read(self) -> tuple[Position | None, int]:
        os.lseek(self._fd, 0, os.SEEK_SET)
        data = os.read(self._fd, 2 * SLOT_BYTES)
        slots = [slot for part in (0, 1) if (slot := _decode(data[part * SLOT_BYTES : (part + 1) * SLOT_BYTES]))]
        if slots:
            turn, position = max(slots, key=lambda slot: slot[0])
            return position, turn
        if data.strip():
            raise SinkError(
                f"{self.path} is damaged: neither of its two records can be read. Compare the end of the output "
                "with the journal, then delete the file; writing goes on at the journal's own cursor",
                retryable=False,
            )
        return None, 0


def _decode(slot: bytes) -> tuple[int, Position] | None:
    checksum, _, text = slot.rstrip().partition(b" ")
    if not text or b"%08x" % zlib.crc32(text) != checksum:
        return None
    fields = json.loads(text)
    return fields.pop("turn"), Position(**fields)


def _lock(fd: int, path: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(fd, 4 * SLOT_BYTES, os.SEEK_SET)  # behind the slots: Windows locks forbid reading, too
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        output = str(path).removesuffix(".position")
        raise SinkError(
            f"{output} is being written by another process or sink (it holds the lock of {path.name}); "
            "stop that one, or give this sink another path",
            retryable=False,
        ) from error
