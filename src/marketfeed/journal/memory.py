"""A journal in this process's memory: a chain of blocks, kept by reference.

Not a ring: a reader's batch keeps its block alive, and nothing is ever overwritten under a reader.
The bound drops whole blocks.
"""

from __future__ import annotations

import sys
import uuid
from typing import Final

import numpy as np

from marketfeed.dtypes import Rows
from marketfeed.errors import JournalError
from marketfeed.journal.base import Journal
from marketfeed.journal.catalog import Catalog
from marketfeed.journal.cursors import Cursor, CursorState, MemoryCursor
from marketfeed.journal.monotonic import Monotonic
from marketfeed.journal.reader import Block

__all__ = ["MemoryJournal"]

BLOCK_ROWS: Final = 16_384


class MemoryJournal(Journal):
    """See :meth:`Journal.memory`. ``check`` is left as it is: memory needs no proof."""

    def __init__(
        self, *, dtype: np.dtype[np.void], feed: str, vendor: str, max_bytes: int, identity: str | None = None
    ) -> None:
        super().__init__(dtype, Catalog(), feed, vendor)
        # At least four blocks, so that dropping one leaves most of the rows.
        self._block_rows = max(16, min(BLOCK_ROWS, max_bytes // (4 * dtype.itemsize)))
        self._most_blocks = max(2, max_bytes // (self._block_rows * dtype.itemsize))
        self._id = identity or uuid.uuid4().hex
        self._committed = 0
        self._oldest = 0
        self._blocks: dict[int, Block] = {}
        self._tail: memoryview = memoryview(b"")
        self._spare: Rows | None = None
        """A dropped block that nobody looks at: writing to fresh memory costs many times the copy."""
        self._monotonic = Monotonic(dtype)
        self._cursors: dict[str, CursorState] = {}
        self._busy: set[str] = set()

    @property
    def id(self) -> str:
        return self._id

    @property
    def epoch(self) -> int:
        return 1

    @property
    def committed(self) -> int:
        return self._committed

    @property
    def oldest(self) -> int:
        return self._oldest

    @property
    def run_start(self) -> int:
        return 0

    @property
    def writer_alive(self) -> bool:
        return not self._closed

    def append(self, rows: Rows) -> int:
        if self._closed:
            raise JournalError("this journal is closed")
        rows = self._own(rows)
        if not len(rows):
            return self._committed
        self._monotonic.last_ns = self._monotonic.raised(rows)
        data = rows.view("u1").data
        size, first, done = self.dtype.itemsize, self._committed, 0
        while done < len(data):
            offset = first % self._block_rows * size
            if not offset:
                self._grow(first)
            piece = data[done : done + len(self._tail) - offset]
            self._tail[offset : offset + len(piece)] = piece
            done += len(piece)
            first += len(piece) // size
        self._committed = first
        self._ring()
        return first

    def _grow(self, first_row: int) -> None:
        spare, self._spare = self._spare, None
        rows: Rows = np.empty(self._block_rows, self.dtype) if spare is None else spare
        self._tail = rows.view("u1").data
        shown = rows.view()
        shown.flags.writeable = False
        self._blocks[first_row] = Block(first_row, shown)
        if len(self._blocks) > self._most_blocks:
            # Raised first: a reader that finds the block gone then finds out why.
            dropped = self._oldest
            self._oldest = dropped + self._block_rows
            block = self._blocks.pop(dropped)
            if _is_ours_alone(block):
                self._spare = block.rows.base

    def block(self, row: int) -> Block | None:
        return self._blocks.get(row - row % self._block_rows)

    def _open_cursor(self, name: str) -> Cursor:
        with self._lock:
            if name in self._busy:
                raise JournalError(f"cursor {name!r} is in use by another reader of this process")
            self._busy.add(name)

        def keep(state: CursorState) -> None:
            self._cursors[name] = state

        return MemoryCursor(self._cursors.get(name), keep, lambda: self._busy.discard(name))


def _is_ours_alone(block: Block) -> bool:
    """Whether no reader and no batch holds a piece of a block that was just taken out.

    The references counted are those of this call and of its caller. Without a global interpreter lock
    they may change meanwhile, so the answer is no there, and from Python 3.14 on, which counts otherwise.
    """
    owner = block.rows.base
    locked = getattr(sys, "_is_gil_enabled", lambda: True)() and sys.version_info < (3, 14)
    return locked and sys.getrefcount(owner) == 3 and sys.getrefcount(block.rows) == 2 and sys.getrefcount(block) == 3
