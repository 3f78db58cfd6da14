"""Cursors as files: ``cursors/<name>``, mapped and locked by the reader that uses it."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from pathlib import Path
from typing import NamedTuple

from marketfeed.errors import JournalError
from marketfeed.journal.cursors import SIZE, SLOT_BYTES, SLOTS, Cursor, CursorState, pack, unpack
from marketfeed.journal.files import force_folder, write_whole
from marketfeed.journal.layout import CURSORS
from marketfeed.journal.locks import FileLock

__all__ = ["CursorFile", "StoredCursor", "remove_cursor", "stored_cursors"]


_TRIES = 5
_TRY_S = 0.01


class CursorFile(Cursor):
    """One reader's hold on a cursor; ``JournalError`` when another reader has it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        self._folder = folder / CURSORS
        path = folder / CURSORS / name
        path.parent.mkdir(exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock = _lock(path, name)
            if os.fstat(fd).st_size < SIZE:
                # Real zeros before mapping: a full disk is an error here and not a signal later.
                write_whole(fd, bytes(SIZE), 0)
            self._map = mmap.mmap(fd, SIZE)
            self._fd = fd
        except BaseException:
            os.close(fd)
            raise
        self._selector = memoryview(self._map).cast("Q")
        self.state = unpack(self._map[:SIZE])
        self.damaged = self.state is None and self._selector[0] != 0

    def commit(self, state: CursorState) -> None:
        if not self._lock.held:
            raise JournalError(f"cursor {self._name!r} belongs to another process; open a reader of your own")
        commits = self._selector[0] + 1
        slot = SLOTS[commits & 1]
        self._map[slot : slot + SLOT_BYTES] = pack(state)
        self._selector[0] = commits
        self.state = state

    def sync(self) -> None:
        os.fsync(self._fd)
        force_folder(self._folder)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._lock.release()


class StoredCursor(NamedTuple):
    """A cursor as anyone may see it."""

    name: str
    state: CursorState
    in_use: bool
    """Some reader holds it at this moment."""


def stored_cursors(folder: Path) -> list[StoredCursor]:
    """All cursors of the journal in ``folder``, by name. One whose file is damaged is left out."""
    paths = sorted((folder / CURSORS).iterdir()) if (folder / CURSORS).is_dir() else []
    found = []
    for path in paths:
        state = read_state(path)
        if state is not None:
            found.append(StoredCursor(path.name, state, _in_use(path)))
    return found


def positions(folder: Path) -> list[int]:
    """Where each cursor stands, for retention."""
    paths = list((folder / CURSORS).iterdir()) if (folder / CURSORS).is_dir() else []
    states = [read_state(path) for path in paths]
    return [state.position for state in states if state is not None]


def sync_cursors(folder: Path) -> None:
    """Return when every cursor is on the disk."""
    for path in (folder / CURSORS).iterdir():
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            os.fsync(file.fileno())


def read_state(path: Path) -> CursorState | None:
    """The state of a cursor that another process may be committing."""
    for _ in range(100):
        try:
            page = path.read_bytes()
            again = path.read_bytes()
        except FileNotFoundError:
            return None
        if page[:8] == again[:8]:  # the selected slot does not change before the selector does
            return unpack(page)
    return unpack(page)


def remove_cursor(folder: Path, name: str) -> None:
    """Delete a cursor, so that it holds back no rows; ``JournalError`` if it is unknown or in use."""
    path = folder / CURSORS / name
    if not path.is_file():
        known = ", ".join(one.name for one in stored_cursors(folder)) or "none"
        raise JournalError(f"there is no cursor {name!r} in {folder}; there are: {known}")
    lock = _lock(path, name)
    try:
        path.unlink()
    finally:
        lock.release()


def _lock(path: Path, name: str) -> FileLock:
    for tries_left in reversed(range(_TRIES)):
        try:
            return FileLock(path)
        except BlockingIOError:
            if tries_left:
                time.sleep(_TRY_S)  # somebody may only be looking who holds it
    raise JournalError(f"cursor {name!r} is in use by another reader; each reader needs a name of its own")


def _in_use(path: Path) -> bool:
    try:
        FileLock(path).release()
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
