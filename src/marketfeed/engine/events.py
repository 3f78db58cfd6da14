"""Events: told to whoever listens, on one thread, never holding up the feed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from marketfeed.clock import Clock
from marketfeed.contract import Event
from marketfeed.engine.logs import Log

__all__ = ["Events"]


class Events:
    """A bounded queue with one thread behind it.

    Policy when full: the oldest event goes, counted in ``dropped``.
    """

    def __init__(self, feed: str, vendor: str, clock: Clock, log: Log, size: int = 1000) -> None:
        self._feed = feed
        self._vendor = vendor
        self._clock = clock
        self._log = log
        self._waiting: deque[Event] = deque()
        self._size = size
        self._changed = threading.Condition()
        self._closed = False
        self.listeners: list[Callable[[Event], None]] = []
        self.dropped = 0

    def put(self, kind: str, connection: int | None = None, data: Mapping[str, Any] | None = None) -> None:
        """Queue an event; returns at once."""
        event = Event(
            kind=kind,
            feed=self._feed,
            at_ns=self._clock.wall_ns(),
            vendor=self._vendor,
            connection=connection,
            data=data or {},
        )
        with self._changed:
            if len(self._waiting) >= self._size:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(event)
            self._changed.notify()

    def close(self) -> None:
        """Let the thread tell what is left, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def run(self) -> None:
        """The thread's loop."""
        while (event := self._next()) is not None:
            for listener in list(self.listeners):
                try:
                    listener(event)
                except Exception as error:
                    self._log.error("an event listener raised", kind=event.kind, error=repr(error))

    def _next(self) -> Event | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None
