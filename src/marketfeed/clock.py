"""Time, as something that is handed in: nothing else in the package asks the host for it.

Inside, time is an integer of UTC nanoseconds since 1970. For people it is India time, a fixed
+05:30 (India has no daylight saving), never the host's zone.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, date, datetime, timedelta, timezone

__all__ = ["IST", "NS", "Clock", "ManualClock", "OffsetClock", "ist_text", "to_ns"]

IST = timezone(timedelta(hours=5, minutes=30), "IST")
"""India Standard Time as a fixed offset; needs no zone database."""
NS = 1_000_000_000
"""Nanoseconds in a second."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """The host's clock. Subclasses shift it or stand still."""

    def wall_ns(self) -> int:
        """Now, UTC nanoseconds since 1970. May step when the host's clock is set."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never steps back. For timeouts and periods."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        """Block until ``event`` is set (True) or ``timeout_s`` of this clock went by (False)."""
        return event.wait(timeout_s)


class OffsetClock(Clock):
    """The host's clock shifted by a fixed amount, such as a sandbox's trading day."""

    def __init__(self, offset_ns: int) -> None:
        self.offset_ns = offset_ns

    @classmethod
    def starting_at(cls, wall_ns: int) -> OffsetClock:
        """A clock that shows ``wall_ns`` now and runs on from there."""
        return cls(wall_ns - time.time_ns())

    def wall_ns(self) -> int:
        return time.time_ns() + self.offset_ns


class ManualClock(Clock):
    """A clock for tests: it moves only by :meth:`advance`; a wait ends when it moves far enough."""

    def __init__(self, wall_ns: int = 0) -> None:
        self._wall_ns = wall_ns
        self._elapsed_ns = 0
        self._moved = threading.Condition()

    def wall_ns(self) -> int:
        return self._wall_ns

    def monotonic(self) -> float:
        return self._elapsed_ns / NS

    def advance(self, seconds: float) -> None:
        """Move both hands forward and wake whoever waits."""
        with self._moved:
            step = round(seconds * NS)
            self._wall_ns += step
            self._elapsed_ns += step
            self._moved.notify_all()

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        end = None if timeout_s is None else self.monotonic() + timeout_s
        with self._moved:
            while not event.is_set():
                if end is not None and self.monotonic() >= end:
                    return False
                self._moved.wait(0.01)  # an Event cannot notify our condition, so look again
        return True


def to_ns(moment: datetime | date | str | int) -> int:
    """UTC nanoseconds of a moment given in any form that people use.

    An ``int`` is already nanoseconds. A date is 00:00 India time of that day. A datetime or ISO
    text without a zone is India time. Raises ``ValueError`` for text that is not ISO 8601.
    """
    if isinstance(moment, int):
        return moment
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=IST)
    # Integer arithmetic: a float of seconds would lose the microseconds.
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def ist_text(ns: int) -> str:
    """India time for people, to the millisecond: ``2026-11-20 10:00:00.250``."""
    moment = _EPOCH + timedelta(microseconds=ns // 1000)
    return moment.astimezone(IST).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
