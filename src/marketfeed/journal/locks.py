"""Advisory locks on files that die with the process, and with nothing else.

A lock lives on a file descriptor of its own: ``mmap`` keeps a copy of the one it is given, which
would hold the lock beyond closing. A child made by ``fork`` gives its copy up at once, or it would
hold the lock after its parent's death.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

__all__ = ["FileLock"]

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()
_watching_forks = False


class FileLock:
    """An exclusive lock on ``path``, which must exist; ``BlockingIOError`` when somebody holds it."""

    def __init__(self, path: Path) -> None:
        self._fd: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._close()
            raise
        _watch_forks()
        _held.add(self)

    @property
    def held(self) -> bool:
        """False after :meth:`release` and in a child made by ``fork``."""
        return self._fd is not None

    def release(self) -> None:
        """Let the lock go. Twice is the same as once."""
        self._close()

    def _close(self) -> None:
        # Closing is enough, and in a forked child it is all that is right: LOCK_UN there would
        # take the lock from the parent.
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        self._close()


def _watch_forks() -> None:
    global _watching_forks
    if not _watching_forks:
        _watching_forks = True
        os.register_at_fork(after_in_child=_give_up)


def _give_up() -> None:
    for lock in list(_held):
        lock.release()
