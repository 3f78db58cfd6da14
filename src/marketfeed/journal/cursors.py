"""How far each consumer has come. One commit changes position and counts together or not at all.

On disk a cursor is 192 bytes: a selector word at 0 that counts commits, and two slots at 64 and 128.
A commit fills the slot that is not selected, then stores the selector: a kill in between leaves the
old state. A slot carries its own checksum, for power cuts.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["Counts", "Cursor", "CursorState", "MemoryCursor", "pack", "unpack"]

SIZE: Final = 192
SLOTS: Final = (64, 128)
_SLOT = struct.Struct("<qqqqqqI")
SLOT_BYTES: Final = _SLOT.size


class CursorState(NamedTuple):
    """What a cursor stores."""

    start: int
    """The row at which the cursor was made."""
    position: int
    """The next row that this consumer has not finished."""
    skipped: int = 0
    dead_lettered: int = 0
    updated_ns: int = 0
    epoch: int = 0
    """The journal's epoch at the commit: a position of an older one is clamped to the cut."""

    @property
    def counts(self) -> Counts:
        delivered = self.position - self.start - self.skipped - self.dead_lettered
        return Counts(self.start, self.position, delivered, self.skipped, self.dead_lettered)

    def clamped(self, row: int) -> CursorState:
        """The same state, not beyond ``row``."""
        if self.position <= row:
            return self
        return self._replace(start=min(self.start, row), position=row)


class Counts(NamedTuple):
    """Rows of one consumer: ``position = start + delivered + skipped + dead_lettered``."""

    start: int
    position: int
    delivered: int
    skipped: int
    """Rows that were removed before this consumer read them, or that it was told to pass over."""
    dead_lettered: int


class Cursor:
    """Where a reader keeps its state. This one keeps it nowhere: an observer's."""

    state: CursorState | None = None
    """The stored state; None when the cursor is new."""
    damaged = False
    """There was a state and it cannot be read."""

    def commit(self, state: CursorState) -> None:
        self.state = state

    def sync(self) -> None:
        """Return when the state would survive a power cut."""

    def close(self) -> None:
        """Let it go, so that another reader may open it."""


class MemoryCursor(Cursor):
    """A cursor that lives as long as its journal."""

    def __init__(
        self, state: CursorState | None, keep: Callable[[CursorState], None], free: Callable[[], None]
    ) -> None:
        self.state = state
        self._keep = keep
        self._free = free

    def commit(self, state: CursorState) -> None:
        self.state = state
        self._keep(state)

    def close(self) -> None:
        self._free()


def pack(state: CursorState) -> bytes:
    """The bytes of a slot."""
    body = struct.pack("<qqqqqq", *state)
    return body + struct.pack("<I", zlib.crc32(body))


def unpack(page: bytes) -> CursorState | None:
    """The state in the 192 bytes of a cursor: the selected slot, or the other one if that is damaged.

    None when nothing was ever committed or both slots are damaged.
    """
    commits = int.from_bytes(page[:8], "little")
    if not commits:
        return None
    for number in (commits, commits - 1):
        start = SLOTS[number & 1]
        body, check = page[start : start + SLOT_BYTES - 4], page[start + SLOT_BYTES - 4 : start + SLOT_BYTES]
        if len(check) == 4 and zlib.crc32(body) == int.from_bytes(check, "little"):
            return CursorState(*struct.unpack("<qqqqqq", body))
    return None
