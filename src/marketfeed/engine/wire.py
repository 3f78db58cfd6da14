"""One connection: a thread that opens the line, speaks the protocol and hands frames over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from marketfeed.calendars import ALWAYS, MarketCalendar
from marketfeed.clock import NS, Clock
from marketfeed.contract import DATA, Emit, Frame, KeepAlive, LoginOnSocket, Send, Step, Stream, Subscription
from marketfeed.engine import frames as ws
from marketfeed.engine.endings import Refusals, cause_of, error_of_close
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.line import Line, open_line
from marketfeed.engine.logs import Log
from marketfeed.engine.sockets import text_of
from marketfeed.engine.supervisor import (
    OPEN,
    Answered,
    Checked,
    Close,
    Connect,
    LoggedIn,
    Login,
    Lost,
    Market,
    Next,
    Opened,
    Resubscribe,
    Started,
    State,
    StopAsked,
    Supervisor,
    Wait,
    Woke,
)
from marketfeed.errors import LineLost, MarketFeedError, TakenOver
from marketfeed.instruments import Instrument

__all__ = ["LineListener", "Nobody", "Wire", "WireCounts"]

_CHECK_S = 0.25
"""How often an open line is judged."""
_PING_IDLE_S = 2.0
"""A line without a byte for this long is pinged, so that one without a sign for 5 s is surely dead."""
_DEFAULT_KEEPALIVE = KeepAlive()


@attrs.define
class WireCounts:
    """What one connection did since the feed started. Written by its own thread only."""

    connects: int = 0
    messages: int = 0
    bytes: int = 0
    frames: int = 0
    """Data messages handed to the parser."""
    stumbles: int = 0
    """Messages at which the vendor's stream raised."""
    resubscribes: int = 0
    """Subscriptions repeated because nothing came."""
    last_received_ns: int = 0
    transitions: dict[str, int] = attrs.field(factory=dict)
    """How often each state was entered."""


class LineListener(Protocol):
    """Who wants to know from when to when a connection gave no data."""

    def lost(self, connection: int, since_ns: int, cause: str, why: str) -> None:
        """Nothing can be trusted since ``since_ns``, the receipt of the last data (UTC), or else the first
        handshake. ``cause`` is ``outage``, ``taken_over`` or ``mute``. May be told again before the line resumes."""

    def resumed(self, connection: int, at_ns: int) -> None:
        """Data come, again or for the first time; the first ones were received at ``at_ns`` (UTC)."""

    def subscribed(self, connection: int, wanted: Subscription) -> None:
        """The connection carries these instruments from now on."""


class Nobody:
    """Listens to nothing."""

    def lost(self, connection: int, since_ns: int, cause: str, why: str) -> None: ...
    def resumed(self, connection: int, at_ns: int) -> None: ...
    def subscribed(self, connection: int, wanted: Subscription) -> None: ...


@attrs.define
class Wire:
    """Keeps one connection of a feed alive until it is stopped or cannot go on."""

    number: int
    stream: Stream
    wanted: Subscription
    inbox: Inbox
    clock: Clock
    log: Log
    emit: Callable[[str, int, Mapping[str, Any]], None]
    """Called as ``emit(kind, connection, data)``."""
    renew: Callable[[], Stream]
    """Logs in again and gives a stream of the new session."""
    newer: Callable[[], Stream | None] = lambda: None
    """Asked before each connect: a stream of the session that somebody else has obtained meanwhile, if so."""
    meaning: Callable[[Exception], Exception] = lambda error: error
    """What the loss of a line means at this broker, while somebody needs the line."""
    proxy: str | None = None
    calendar: MarketCalendar = ALWAYS
    listener: LineListener = attrs.field(factory=Nobody)
    max_message_bytes: int = 16 * 2**20
    supervisor: Supervisor = attrs.field(factory=Supervisor)
    counts: WireCounts = attrs.field(factory=WireCounts)
    error: Exception | None = None
    """Why the wire gave up; None while it runs or after a clean stop."""
    _stopping: threading.Event = attrs.field(factory=threading.Event)
    _line: Line | None = None
    _awaited: LoginOnSocket | None = None
    """Whose login on the open socket is not answered yet."""
    _up: bool = False
    """``connected`` was told, ``disconnected`` not yet."""
    _refusals: Refusals = attrs.field(factory=Refusals)
    _subscribing: threading.Lock = attrs.field(factory=threading.Lock)
    """Held while ``wanted`` and what the broker knows of it change together."""
    _last_data_ns: int = 0
    _opened_ns: int = 0
    """When the first socket was open."""
    _silent: bool = True
    """The next data are the first ones since the start, or since ``listener.lost`` was told."""

    def __attrs_post_init__(self) -> None:
        self.supervisor.changed = self._changed

    def run(self) -> None:
        """The thread's loop: do what the supervisor says until it says close."""
        step: Next = self._tell(Started())
        while not isinstance(step, Close):
            step = self._do(step)
        self.error = step.error
        if step.error is not None:
            self.log.error("connection given up", connection=self.number, error=text_of(step.error))
            self.emit("failed", self.number, {"error": text_of(step.error)})

    def stop(self) -> None:
        """Ask the thread to end; returns at once. Frames already read are handed over."""
        self._stopping.set()
        line = self._line
        if line is not None:
            line.wake()

    def change(self, add: Subscription, remove: Iterable[Instrument] = ()) -> None:
        """Subscribe, unsubscribe or change the mode of some instruments; the others do not notice.

        Any thread. On a line that is down it holds from the next connect on.
        """
        gone = Subscription({one: self.wanted[one] for one in remove if one in self.wanted})
        with self._subscribing:
            self.wanted = self.wanted + add - gone
            if self._line is not None:
                self._say(self._line, self.stream.changed(add, gone))

    def _say(self, line: Line, messages: Sequence[str | bytes]) -> None:
        try:
            line.send(messages)
        except LineLost as error:  # no matter for the caller: the next connect brings what is wanted
            self.log.warning("a change was not sent, the line is broken", connection=self.number, error=str(error))
            line.give_up()

    def rename(self, old: Instrument, new: Instrument) -> None:
        """The same token under a new entry of the master: nothing to tell the broker."""
        with self._subscribing:
            self.wanted = self.wanted + Subscription.of([new], self.wanted[old]) - [old]

    # --- steps ----------------------------------------------------------------------------------

    def _tell(self, what: Any) -> Next:
        step = self.supervisor.handle(what, self.clock.monotonic())
        assert step is not None  # only Opened and Checked may have no next step
        return step

    def _do(self, step: Next) -> Next:
        if self._stopping.is_set():
            return self._tell(StopAsked())
        match step:
            case Connect():
                return self._connect()
            case Wait(seconds):
                stopped = self.clock.wait(self._stopping, seconds)
                return self._tell(StopAsked() if stopped else Woke())
            case Login():
                return self._login()
        raise AssertionError(f"{step} has no meaning without an open line")

    def _login(self) -> Next:
        try:
            self.stream = self.renew()
        except Exception as error:
            self.log.warning("the login failed", connection=self.number, error=text_of(error))
            return self._tell(Lost(error, self._market()))
        return self._tell(LoggedIn())

    def _connect(self) -> Next:
        """Connect and read until the line is lost or the feed stops."""
        lost: Exception = LineLost("stopped")
        was_open = False
        try:
            if (newer := self.newer()) is not None:
                self.stream = newer
            handshake = self.stream.handshake()
            line = open_line(handshake, proxy=self.proxy, max_message_bytes=self.max_message_bytes)
            try:
                if not self._stopping.is_set():  # the stop may have come while connecting
                    self._begin(line)
                    was_open = True
                    self._converse(line)
            finally:
                with self._subscribing:
                    self._line = None
                line.close(goodbye=self._stopping.is_set())
        except Exception as error:  # one that the policy does not know, such as a vendor's bug, ends the wire
            lost = error if self._market().is_far else self.meaning(error)
        if self._stopping.is_set():
            return self._tell(StopAsked())
        if was_open:
            self._interrupted(cause_of(lost), text_of(lost))
        self._tell_why(lost)
        return self._tell(Lost(lost, self._market()))

    def _begin(self, line: Line) -> None:
        """A new socket: a new parser, and everything subscribed again."""
        self.inbox.renewed(self.number)
        with self._subscribing:
            line.send(self.stream.opened(self.wanted))
            self._line = line
        self._refusals.reset()
        self._opened_ns = self._opened_ns or self.clock.wall_ns()
        self._awaited = self.stream if isinstance(self.stream, LoginOnSocket) else None
        within_s = None if self._awaited is None else self._awaited.login_within_s
        self.supervisor.handle(Opened(within_s), self.clock.monotonic())
        if self._awaited is None:
            self._connected()

    def _connected(self) -> None:
        self._up = True
        self.counts.connects += 1
        self.emit("connected", self.number, {"instruments": len(self.wanted)})

    def _converse(self, line: Line) -> None:
        keepalive = self.stream.keepalive() or _DEFAULT_KEEPALIVE
        watchdog = self.supervisor.watchdog
        watchdog.dead_after_s, watchdog.pongs_prove = keepalive.dead_after_s, keepalive.pongs_prove
        heard = kept = pinged = checked = self.clock.monotonic()
        while not self._stopping.is_set():
            messages, size = line.receive()
            now = self.clock.monotonic()
            if size:
                heard = now
                watchdog.sign(now, pong=bool(messages) and all(one[0] == ws.PONG for one in messages))
                self._take(line, messages, size, now)
            if now - checked >= _CHECK_S:
                checked = now
                self._check(line, now)
                if keepalive.text is not None and now - kept >= keepalive.period_s:
                    kept = now
                    line.send([keepalive.text])
                if now - pinged >= (keepalive.period_s if now - heard < _PING_IDLE_S else _PING_IDLE_S):
                    pinged = now
                    line.ping()

    def _check(self, line: Line, now_s: float) -> None:
        # The moment of the last read: time spent waiting for a full inbox is no silence of the broker's.
        match self.supervisor.handle(Checked(self._market()), now_s):
            case Resubscribe():
                self.counts.resubscribes += 1
                with self._subscribing:
                    line.send(self.stream.changed(self.wanted, Subscription()))
            case Close(error):
                raise error or LineLost("closed")

    def _market(self) -> Market:
        if self.calendar is ALWAYS:
            return OPEN
        now_ns = self.clock.wall_ns()
        opens_ns = self.calendar.next_open(now_ns)
        if opens_ns <= now_ns:
            return Market((now_ns - opens_ns) / NS)
        return Market(None, (opens_ns - now_ns) / NS)

    # --- messages -------------------------------------------------------------------------------

    def _take(self, line: Line, messages: Sequence[ws.Message], size: int, now_s: float) -> None:
        """Stamp the messages of one chunk, answer the protocol, hand the data over."""
        received_ns = self.clock.wall_ns()
        counts = self.counts
        counts.bytes += size
        counts.messages += len(messages)
        received = self.stream.received
        frames: list[Frame] = []
        try:
            for opcode, data in messages:
                if opcode == ws.BINARY:
                    step = self._ask(received, data)
                elif opcode == ws.TEXT:
                    step = self._ask(received, data.decode("utf-8", "replace"))
                else:
                    self._control(line, opcode, data)
                    continue
                if step is DATA:
                    frames.append(Frame(data, received_ns, opcode == ws.TEXT))
                elif isinstance(step, Send):
                    line.send(step.messages)
                elif isinstance(step, Emit):
                    self.emit(step.kind, self.number, step.data)
        finally:  # also when the last message ended the line: what came before it is data
            if self._awaited is not None and self._awaited.logged_in():
                self._awaited = None
                self.supervisor.handle(Answered(), now_s)
                self._connected()
            if frames:
                self._hand_over(frames, received_ns, now_s)

    def _hand_over(self, frames: Sequence[Frame], received_ns: int, now_s: float) -> None:
        self.counts.frames += len(frames)
        self.counts.last_received_ns = self._last_data_ns = received_ns
        self.supervisor.watchdog.data(now_s)
        if self._silent:
            self._silent = False
            self.listener.resumed(self.number, received_ns)
        self.inbox.put(self.number, frames)

    def _ask(self, received: Callable[[str | bytes], Step], data: str | bytes) -> Step | None:
        try:
            return received(data)
        except MarketFeedError:
            raise
        except Exception as error:  # a vendor's bug at one message must not cost the line
            self.counts.stumbles += 1
            self.log.error("the stream stumbled over a message", connection=self.number, error=text_of(error))
            return None

    def _control(self, line: Line, opcode: int, data: bytes) -> None:
        if opcode == ws.PING:
            line.pong(data)
        elif opcode == ws.CLOSE:
            raise error_of_close(self.stream, data)

    # --- telling --------------------------------------------------------------------------------

    def _changed(self, old: State, new: State, why: str) -> None:
        """Each transition is an event, a log line and a number."""
        self.counts.transitions[new.value] = self.counts.transitions.get(new.value, 0) + 1
        usual = new in (State.CONNECTING, State.LIVE, State.QUIET, State.CLOSED, State.CLOSED_FOR_DAY)
        (self.log.info if usual else self.log.warning)(
            "line", connection=self.number, was=old.value, now=new.value, why=why
        )
        self.emit("line", self.number, {"was": old.value, "now": new.value, "why": why})
        if new is State.MUTE:
            self._interrupted("mute", why)

    def _tell_why(self, lost: Exception) -> None:
        """What a person should know of a lost line beyond its state."""
        if self._up:
            self._up = False
            self.emit("disconnected", self.number, {"reason": text_of(lost)})
        refused = self._refusals.note(lost, self._market())
        if isinstance(lost, TakenOver):
            self.log.error("connection taken over", connection=self.number, why=text_of(lost))
            self.emit("taken_over", self.number, {"reason": text_of(lost)})
        elif refused is not None:
            self.log.error("connections refused", connection=self.number, why=refused)
            self.emit("refused", self.number, {"reason": refused, "attempts": self._refusals.count})

    def _interrupted(self, cause: str, why: str) -> None:
        self._silent = True
        self.listener.lost(self.number, self._last_data_ns or self._opened_ns, cause, why)
