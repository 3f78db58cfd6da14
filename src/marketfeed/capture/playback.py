"""The inbox and the clock of a replay: turns of captured frames, at the recorded pace or a multiple of it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping

from marketfeed.capture.files import PlayedTurn
from marketfeed.clock import NS, Clock
from marketfeed.engine.delivery import DeliveryState
from marketfeed.engine.inbox import Delivered, Inbox
from marketfeed.engine.pipeline import Pipeline
from marketfeed.framelog import CaptureError
from marketfeed.instruments import Instrument, TokenMap
from marketfeed.journal import Reader

__all__ = ["LONGEST_PAUSE_S", "MAX_SPEED", "CapturedTime", "Playback"]

MAX_SPEED = math.inf
"""As fast as the sinks take it."""
LONGEST_PAUSE_S = 600.0
"""A pause between frames takes this long at most, at the recorded speed: nobody waits for a night."""


class CapturedTime(Clock):
    """Wall time is that of the frames, so that everything that looks at it does so reproducibly."""

    def __init__(self, clock: Clock, now_ns: int) -> None:
        self._clock = clock
        self.now_ns = now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        return self._clock.wait(event, timeout_s)


class Playback(Inbox):
    """An inbox that is filled from files: one turn at a time, at the recorded pace, never ahead of the sinks."""

    def __init__(
        self, turns: Iterator[PlayedTurn], pipeline: Pipeline, tokens: TokenMap, time: CapturedTime, speed: float
    ) -> None:
        super().__init__(0, time)
        self.observers: list[Reader] = []
        self.most_rows = 0
        """The journal lives in memory: wait while a consumer is this far behind."""
        self.ended = threading.Event()
        """Everything was played and appended."""
        self._turns = turns
        self._pipeline = pipeline
        self._tokens = tokens
        self._time = time
        self._speed = speed
        self._stopping = threading.Event()
        self._sockets: dict[int, tuple[str, int]] = {}
        self._run = ""
        self._begun_s: float | None = None
        self._due_s = 0.0
        self._due_ns = 0

    def take(self) -> list[Delivered] | None:
        played = self._next() if self._goes_on() else None
        if played is None or not self._paced(played.frames[0].received_ns):
            if not (self._stopping.is_set() or self._pipeline.finished.is_set()):
                self.ended.set()
            return None
        if played.instruments:
            self._learn(played.instruments)
        self._time.now_ns = played.frames[-1].received_ns
        run = played.socket[0]
        if run != self._run:
            self._run = run
            self._pipeline.forget_rows()
        renewed = self._sockets.get(played.connection) != played.socket
        self._sockets[played.connection] = played.socket
        frames = Delivered(played.connection, played.frames)
        return [Delivered(played.connection, None), frames] if renewed else [frames]

    def close(self) -> None:
        self._stopping.set()

    def _next(self) -> PlayedTurn | None:
        try:
            return next(self._turns, None)
        except OSError as error:
            self._pipeline.fail(CaptureError(f"a capture file cannot be read on: {error}"))
            return None

    def _learn(self, instruments: Mapping[int, Instrument]) -> None:
        ordered = [instruments[number] for number in sorted(instruments)]
        numbers = self._pipeline.journal.instruments.register(ordered)
        self._tokens.add({one.token: number for one, number in zip(ordered, numbers, strict=True)})

    def _goes_on(self) -> bool:
        """Wait for the slowest consumer; False when the replay is to end."""
        while self._lag() > self.most_rows and not self._stopping.wait(0.001):
            pass
        return not (self._stopping.is_set() or self._pipeline.finished.is_set())

    def _lag(self) -> int:
        over = (DeliveryState.FAILED, DeliveryState.DONE)
        readers = [one.reader for one in self._pipeline.deliveries if one.state not in over]
        places = [reader.next_row for reader in (*readers, *self.observers) if reader is not None]
        committed = self._pipeline.journal.committed
        return committed - min(places, default=committed)

    def _paced(self, received_ns: int) -> bool:
        """Wait until a frame is due; False when the replay is to end."""
        if self._speed == MAX_SPEED:
            return True
        now_s = self._time.monotonic()
        if self._begun_s is None:
            self._begun_s, self._due_ns = now_s, received_ns
        step_s = (received_ns - self._due_ns) / NS
        self._due_s += min(max(step_s, 0.0), LONGEST_PAUSE_S) / self._speed
        self._due_ns = max(self._due_ns, received_ns)
        wait_s = self._begun_s + self._due_s - now_s
        return wait_s <= 0 or not self._time.wait(self._stopping, wait_s)
