"""A real connection thread (:class:`~marketfeed.engine.wire.Wire`) in virtual time: a day takes a second.

Only the socket is not real. Whoever waits, for a message or for a back-off, makes the clock move; nothing
runs beside it, so a trial gives the same every time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import pytest

from marketfeed.calendars import ALWAYS, MarketCalendar
from marketfeed.clock import NS, ManualClock
from marketfeed.contract import DATA, IGNORE, Emit, Frame, Handshake, KeepAlive, Step, Stream, Subscription
from marketfeed.engine import frames as ws
from marketfeed.engine.logs import get_log
from marketfeed.engine.wire import LineListener, Nobody, Wire
from marketfeed.enums import Mode
from marketfeed.errors import LineLost
from marketfeed.instruments import Instrument

__all__ = ["RememberingCalendar", "VirtualBroker", "VirtualClock", "make_wire"]

READ_S = 0.25
"""How long one read waits, as with a real socket."""
NIGHT_READ_S = 2.0
"""The same, far from any session: nothing is decided there that needs more."""
HEARTBEAT_S = 1.0
ROUND_TRIP_S = 0.02
WANTED = Subscription.of([Instrument(exchange="NSE", symbol="INFY", token="1")], Mode.FULL)
TICK, PONG = ws.Message(ws.BINARY, b"tick"), ws.Message(ws.PONG, b"")
HEARTBEAT, ORDER = ws.Message(ws.TEXT, b"hb"), ws.Message(ws.TEXT, b"order")
NEVER = float("inf")


class VirtualClock(ManualClock):
    """A wait makes the time pass; ``each_minute`` is called once for each minute of it."""

    def __init__(self, wall_ns: int = 0) -> None:
        super().__init__(wall_ns)
        self.each_minute: Callable[[], None] | None = None
        self._minute = 60.0

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        if self.each_minute is not None and self.monotonic() >= self._minute:
            self._minute = self.monotonic() + 60.0
            self.each_minute()

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        assert timeout_s is not None, "nobody else runs, so this would wait for ever"
        end = self.monotonic() + timeout_s
        while not event.is_set():
            left = end - self.monotonic()
            if left <= 1e-9:
                return False
            self.advance(min(left, 60.0))
        return True


@attrs.define
class RememberingCalendar:
    """A calendar that looks up each session once: a simulated week asks millions of times."""

    calendar: MarketCalendar
    _from_ns: int = 0
    _open_ns: int = 0
    _close_ns: int = 0

    def next_open(self, now_ns: int) -> int:
        if not self._from_ns <= now_ns < self._close_ns:
            self._from_ns, self._open_ns = now_ns, self.calendar.next_open(now_ns)
            self._close_ns = self._open_ns + 1
            while self.calendar.is_open(self._close_ns):
                self._close_ns += 60 * NS - 1 if self._close_ns % (60 * NS) else 60 * NS
        return self._open_ns


@attrs.define
class VirtualBroker:
    """The other side: ticks at given times, heartbeats, pongs, and a fault that says what passes."""

    clock: VirtualClock
    ticks: Iterator[float]
    """When ticks come (monotonic seconds, ascending), whoever listens."""
    ends_s: float
    """When the trial is over."""
    passes: Callable[[str, int, float], bool] = lambda what, line, now: True
    """Whether a ``tick``, ``heartbeat``, ``pong``, ``order`` or ``snapshot`` reaches that line (counted from 1)."""
    refuses: Callable[[], Exception | None] = lambda: None
    """Why a connection is refused, if it is."""
    cuts: Callable[[int, float], bool] = lambda line, now: False
    """Whether that line is cut at this moment."""
    read_s: Callable[[], float] = lambda: READ_S
    snapshots: bool = True
    """Whether each instrument is sent once when it is subscribed."""
    orders_s: float = NEVER
    """How often an order update comes: bytes, but no data."""
    heartbeats: bool = True
    coalesce_s: float = 0.0
    """Ticks within this time come in one read."""
    opened_s: list[float] = attrs.field(factory=list)
    asked_s: list[float] = attrs.field(factory=list)
    """When the subscription was repeated on an open line."""
    closed_s: list[float] = attrs.field(factory=list)
    received_s: list[float] = attrs.field(factory=list)
    """When ticks were read."""
    heard_s: dict[int, float] = attrs.field(factory=dict)
    """When each line brought its last byte."""
    stop: Callable[[], None] = lambda: None
    _pending: float = -1.0

    def open(self, handshake: Handshake, **options: Any) -> VirtualLine:
        """Stands in place of ``open_line``."""
        if self.clock.monotonic() >= self.ends_s:
            self.stop()
        error = self.refuses()
        if error is not None:
            self.clock.advance(ROUND_TRIP_S)
            raise error
        self.opened_s.append(self.clock.monotonic())
        return VirtualLine(self, len(self.opened_s))

    def next_tick(self) -> float:
        if self._pending < self.clock.monotonic():
            self._pending = next(self.ticks, NEVER)
        return self._pending

    def take_tick(self) -> None:
        self._pending = -1.0
        self._pending = next(self.ticks, NEVER)


@attrs.define
class VirtualLine:
    """Has the methods of :class:`marketfeed.engine.line.Line`."""

    broker: VirtualBroker
    number: int
    _beat_s: float = 0.0
    _order_s: float = 0.0
    _due: list[tuple[float, str]] = attrs.field(factory=list)
    """Pongs and snapshots on their way."""

    def __attrs_post_init__(self) -> None:
        now = self.broker.clock.monotonic()
        self._beat_s, self._order_s = now + HEARTBEAT_S, now + self.broker.orders_s

    def receive(self) -> tuple[Sequence[ws.Message], int]:
        broker = self.broker
        now = broker.clock.monotonic()
        if now >= broker.ends_s:
            broker.stop()
            return (), 0
        if broker.cuts(self.number, now):
            raise LineLost("the broker closed the connection without a word")
        end = now + broker.read_s()
        while (event := self._next(end)) is not None:
            at, what = event
            if broker.passes(what, self.number, at):
                broker.clock.advance(max(0.0, at - broker.clock.monotonic()) + broker.coalesce_s)
                return self._message(what)
        broker.clock.advance(max(0.0, end - broker.clock.monotonic()))
        return (), 0

    def _next(self, end: float) -> tuple[float, str] | None:
        """The next thing that the broker sends before ``end``; it is taken."""
        tick = self.broker.next_tick()
        beat = self._beat_s if self.broker.heartbeats else NEVER
        due = self._due[0][0] if self._due else NEVER
        first = min(tick, beat, due, self._order_s)
        if first > end:
            return None
        if first == due:
            return self._due.pop(0)
        if first == tick:
            self.broker.take_tick()
            return tick, "tick"
        if first == beat:
            self._beat_s = beat + max(HEARTBEAT_S, self.broker.read_s())
            return beat, "heartbeat"
        self._order_s += self.broker.orders_s
        return first, "order"

    def _message(self, what: str) -> tuple[Sequence[ws.Message], int]:
        broker = self.broker
        now = broker.heard_s[self.number] = broker.clock.monotonic()
        if what in ("tick", "snapshot"):
            while broker.next_tick() <= now:
                broker.take_tick()
            broker.received_s.append(now)
            return [TICK], 6
        return {"heartbeat": [HEARTBEAT], "order": [ORDER], "pong": [PONG]}[what], 2

    def send(self, messages: Sequence[str | bytes]) -> None:
        for message in messages:
            if message == "again":
                self.broker.asked_s.append(self.broker.clock.monotonic())
        if messages and self.broker.snapshots:
            self._soon("snapshot")

    def ping(self) -> None:
        self._soon("pong")

    def _soon(self, what: str) -> None:
        self._due.append((self.broker.clock.monotonic() + ROUND_TRIP_S, what))

    def pong(self, payload: bytes) -> None: ...

    def wake(self) -> None: ...

    def close(self, *, goodbye: bool) -> None:
        self.broker.closed_s.append(self.broker.clock.monotonic())


class Words(Stream):
    """A protocol of words: ``hb`` is a heartbeat, ``order`` an event, everything else data."""

    def handshake(self) -> Handshake:
        return Handshake(url="wss://virtual.invalid/")

    def opened(self, wanted: Subscription) -> Sequence[str | bytes]:
        return ["subscribe"]

    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str | bytes]:
        return ["again"]

    def received(self, data: str | bytes) -> Step:
        steps: Mapping[str | bytes, Step] = {"hb": IGNORE, "order": Emit("order", {})}
        return steps.get(data, DATA)

    def keepalive(self) -> KeepAlive | None:
        return None


class Bin:
    """Takes frames and forgets them."""

    def renewed(self, connection: int) -> None: ...

    def put(self, connection: int, frames: Iterable[Frame]) -> None: ...


def make_wire(
    broker: VirtualBroker,
    monkeypatch: pytest.MonkeyPatch,
    *,
    calendar: MarketCalendar | RememberingCalendar = ALWAYS,
    renew: Callable[[], Stream] = Words,
    listener: LineListener | None = None,
    emit: Callable[[str, int, Mapping[str, Any]], None] = lambda kind, connection, data: None,
) -> Wire:
    """A wire whose socket is the virtual broker; ``wire.run()`` plays the trial to its end."""
    monkeypatch.setattr("marketfeed.engine.wire.open_line", broker.open)
    hours: Any = calendar
    inbox: Any = Bin()
    wire = Wire(
        number=0,
        stream=Words(),
        wanted=WANTED,
        inbox=inbox,
        clock=broker.clock,
        log=get_log(),
        emit=emit,
        renew=renew,
        calendar=hours,
        listener=listener or Nobody(),
    )
    broker.stop = wire.stop
    return wire
