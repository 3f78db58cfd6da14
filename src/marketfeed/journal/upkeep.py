"""The writer's second thread: forces rows to the disk, shows a heartbeat, removes old segments."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

__all__ = ["Upkeep"]

_log = logging.getLogger("marketfeed.journal")


class Upkeep:
    """Calls ``work`` every ``period_s`` seconds and whenever asked, on a thread of its own.

    An ``OSError`` is logged once per kind and does not end the thread.
    """

    def __init__(self, work: Callable[[], None], period_s: float, name: str) -> None:
        self._work = work
        self._period_s = period_s
        self._wanted = threading.Event()
        self._stopping = False
        self._told: set[int | None] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Do the work soon. Any thread; costs next to nothing."""
        self._wanted.set()

    def stop(self) -> None:
        """Return when the thread has ended."""
        self._stopping = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._wanted.wait(self._period_s)
            self._wanted.clear()
            try:
                self._work()
            except OSError as error:
                if error.errno not in self._told:
                    self._told.add(error.errno)
                    _log.error("upkeep of the journal failed: %s", error)
