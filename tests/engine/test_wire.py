"""One connection against a real WebSocket server that does what it is told: odd messages, silence, the end.

How a line is opened, and refused, is in ``test_sockets.py``.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import pytest

from marketfeed.clock import Clock
from marketfeed.contract import DATA, IGNORE, Emit, Frame, Handshake, KeepAlive, Send, Step, Stream, Subscription
from marketfeed.engine import line as module
from marketfeed.engine.endings import Refusals
from marketfeed.engine.frames import BINARY, CLOSE, PING, PONG, TEXT
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.logs import get_log
from marketfeed.engine.retry import Backoff
from marketfeed.engine.supervisor import OPEN, Market, State, Supervisor
from marketfeed.engine.wire import Wire
from marketfeed.enums import Mode
from marketfeed.errors import AuthError, LineLost, SessionExpired, TakenOver, VendorError
from marketfeed.instruments import Instrument

WANTED = Subscription.of([Instrument(exchange="NSE", symbol="INFY", token="1")], Mode.FULL)
PATIENCE_S = 10.0


# --- the server -----------------------------------------------------------------------------------


class Line:
    """One accepted connection, seen from the server."""

    def __init__(self, peer: socket.socket, request: str) -> None:
        self.peer = peer
        self.request = request
        self._rest = b""

    def send(self, opcode: int, payload: bytes, *, final: bool = True) -> None:
        size = len(payload)
        length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        self.peer.sendall(bytes([(0x80 if final else 0) | opcode]) + length + payload)

    def read(self) -> tuple[int, bytes]:
        """The client's next frame, unmasked; ``EOFError`` when it is gone."""
        first, second = self._take(2)
        size = second & 0x7F
        size = int.from_bytes(self._take(2), "big") if size == 126 else size
        mask, payload = self._take(4), self._take(size)
        return first & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))

    def until(self, opcode: int) -> bytes:
        """What the client sends with that opcode, whatever comes before it."""
        while True:
            found, payload = self.read()
            if found == opcode:
                return payload

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            chunk = self.peer.recv(4096)
            if not chunk:
                raise EOFError
            self._rest += chunk
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


Script = Callable[[Line], None]


class Server:
    """Runs one script for each connection, in order; the last one again for all that follow."""

    def __init__(self, *scripts: Script | int) -> None:
        self.scripts = list(scripts)
        self.requests: list[str] = []
        self.broken: list[BaseException] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/?token=hush"

    def _run(self) -> None:
        number = 0
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            peer.settimeout(PATIENCE_S)
            self._peers.append(peer)
            script = self.scripts[min(number, len(self.scripts) - 1)]
            number += 1
            try:
                self._serve(peer, script)
            except (OSError, EOFError):
                pass  # the client left, which the test sees from the other side
            except BaseException as error:
                self.broken.append(error)
            finally:
                peer.close()

    def _serve(self, peer: socket.socket, script: Script | int) -> None:
        request = _head(peer)
        self.requests.append(request)
        if isinstance(script, int):
            peer.sendall(f"HTTP/1.1 {script} No\r\nContent-Length: 0\r\n\r\n".encode())
            return
        key = next(line.split(": ")[1] for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        peer.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: ticks\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        script(Line(peer, request))

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        assert self.broken == []


def _head(peer: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = peer.recv(1)
        if not chunk:
            raise EOFError
        data += chunk
    return data.decode()


@contextmanager
def serving(*scripts: Script | int) -> Iterator[Server]:
    server = Server(*scripts)
    try:
        yield server
    finally:
        server.close()


def stay(line: Line) -> None:
    """Answer pings until the client leaves."""
    while True:
        opcode, payload = line.read()
        if opcode == PING:
            line.send(PONG, payload)
        if opcode == CLOSE:
            return


def sending(*messages: tuple[int, bytes]) -> Script:
    def script(line: Line) -> None:
        for opcode, payload in messages:
            line.send(opcode, payload)
        stay(line)

    return script


# --- the client -----------------------------------------------------------------------------------


@attrs.define
class Talk(Stream):
    """A protocol of words: ``hb`` is a heartbeat, ``ask`` wants an answer, ``order`` is an event, the rest is data."""

    url: str
    heard: list[str | bytes] = attrs.field(factory=list)
    alive: KeepAlive | None = None
    errors: Mapping[str | bytes, Exception] = attrs.field(factory=dict)

    def handshake(self) -> Handshake:
        return Handshake(url=self.url, headers={"X-Kite-Version": "3"}, subprotocols=("ticks",))

    def opened(self, wanted: Subscription) -> Sequence[str | bytes]:
        return [f"subscribe {len(wanted)}", b"\x01"]

    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str | bytes]:
        return []

    def received(self, data: str | bytes) -> Step:
        self.heard.append(data)
        if data in self.errors:
            raise self.errors[data]
        steps: dict[str | bytes, Step] = {"hb": IGNORE, "ask": Send(["one", b"two"]), "order": Emit("order", {"id": 1})}
        return steps.get(data, DATA)

    def keepalive(self) -> KeepAlive | None:
        return self.alive


@attrs.define
class Running:
    """A wire on a thread, with what it told and what it handed over."""

    wire: Wire
    talk: Talk
    thread: threading.Thread
    collector: threading.Thread
    events: list[tuple[str, Mapping[str, Any]]]
    items: list[Frame | None]
    """Data messages; None is a new socket."""
    changed: threading.Condition

    def frames(self, count: int) -> list[Frame]:
        """The first ``count`` data messages."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.data) >= count, PATIENCE_S), self.items
        return self.data[:count]

    @property
    def data(self) -> list[Frame]:
        return [item for item in self.items if item is not None]

    def wait_for(self, kind: str, times: int = 1) -> Mapping[str, Any]:
        """The data of the event of that kind."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(kind)) >= times, PATIENCE_S), (kind, self.events)
        return self.of(kind)[times - 1]

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [data for one, data in self.events if one == kind]

    def end(self) -> None:
        """Stop, and wait until everything was handed over."""
        self.wire.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        self.wire.inbox.close()
        self.collector.join(PATIENCE_S)


@contextmanager
def connected(
    server: Server,
    *,
    renew: Callable[[], Stream] | None = None,
    meaning: Callable[[Exception], Exception] = lambda error: error,
    clock: Clock | None = None,
    max_message_bytes: int = 2**20,
    talk: type[Talk] = Talk,
    **options: Any,
) -> Iterator[Running]:
    stream = talk(server.url, **options)
    inbox = Inbox(1, Clock())
    events: list[tuple[str, Mapping[str, Any]]] = []
    items: list[Frame | None] = []
    changed = threading.Condition()

    def emit(kind: str, connection: int, data: Mapping[str, Any]) -> None:
        with changed:
            events.append((kind, data))
            changed.notify_all()

    def collect() -> None:
        while (taken := inbox.take()) is not None:
            with changed:
                for item in taken:
                    items.extend(item.frames or [None])
                changed.notify_all()

    wire = Wire(
        number=0,
        stream=stream,
        wanted=WANTED,
        inbox=inbox,
        clock=clock or Clock(),
        log=get_log(),
        emit=emit,
        renew=renew or (lambda: stream),
        meaning=meaning,
        max_message_bytes=max_message_bytes,
        supervisor=Supervisor(Backoff(0.01, 0.02)),
    )
    thread = threading.Thread(target=wire.run, daemon=True)
    collector = threading.Thread(target=collect, daemon=True)
    running = Running(wire, stream, thread, collector, events, items, changed)
    thread.start()
    collector.start()
    try:
        yield running
    finally:
        running.end()


# --- opening --------------------------------------------------------------------------------------


def test_the_handshake_carries_headers_and_subprotocols_and_no_origin() -> None:
    with serving(stay) as server, connected(server) as running:
        running.wait_for("connected")
    head = server.requests[0].lower()
    assert "x-kite-version: 3" in head
    assert "sec-websocket-protocol: ticks" in head
    assert "origin" not in head


def test_a_broker_that_refuses_again_and_again_in_market_hours_is_told_at_every_third_time() -> None:
    with serving(502, 502, 503, 502, 502, 502, stay) as server, connected(server) as running:
        running.wait_for("connected")
    told = running.of("refused")
    assert [one["attempts"] for one in told] == [3, 6]
    assert "3 connections in a row with HTTP 503 in market hours" in told[0]["reason"]


def test_refusals_out_of_hours_and_other_failures_are_not_told() -> None:
    refusals = Refusals()
    gateway, night = LineLost("no", http_status=502), Market(None, 3600.0)
    assert [refusals.note(gateway, night) for _ in range(9)] == [None] * 9
    assert refusals.note(gateway, OPEN) is refusals.note(gateway, OPEN) is None
    assert refusals.note(LineLost("cable cut"), OPEN) is None
    assert refusals.note(gateway, OPEN) is refusals.note(gateway, OPEN) is None
    assert refusals.note(gateway, OPEN) is not None


@attrs.define
class Guarded(Talk):
    """Logs in on the socket: ``welcome`` is the answer; code 1000 means that somebody else is there."""

    login_within_s: float = 0.3
    answered: bool = False

    def opened(self, wanted: Subscription) -> Sequence[str | bytes]:
        self.answered = False
        return ["login"]

    def received(self, data: str | bytes) -> Step:
        self.answered = self.answered or data == "welcome"
        return IGNORE if data == "welcome" else super().received(data)

    def logged_in(self) -> bool:
        return self.answered

    def closed(self, code: int, reason: str) -> VendorError | None:
        return TakenOver("somebody else is there", 0.05) if code == 1000 else None


def test_a_login_that_is_not_answered_is_a_failed_attempt() -> None:
    answering = sending((TEXT, b"welcome"), (BINARY, b"tick"))
    with serving(stay, stay, answering) as server, connected(server, talk=Guarded) as running:
        running.frames(1)
        assert len(server.requests) >= 3
        assert running.wire.counts.connects == 1
    lines = [one["why"] for one in running.of("line") if one["now"] == "backing_off"]
    assert set(lines) == {"the broker did not answer the login on the socket within 0.3 s"}
    assert [kind for kind, _ in running.events if kind in ("connected", "disconnected")] == ["connected"]


def test_a_connection_that_was_taken_over_says_so() -> None:
    def evict(line: Line) -> None:
        line.send(TEXT, b"welcome")
        line.send(CLOSE, b"\x03\xe8")
        stay(line)  # a server that left with something unread would reset the connection

    with serving(evict, sending((TEXT, b"welcome"))) as server, connected(server, talk=Guarded) as running:
        running.wait_for("connected", 2)
    assert running.of("taken_over") == [{"reason": "somebody else is there"}]
    assert running.of("disconnected") == [{"reason": "somebody else is there"}]


# --- talking --------------------------------------------------------------------------------------


def test_the_subscription_goes_out_first_and_answers_when_asked() -> None:
    heard: list[tuple[int, bytes]] = []

    def script(line: Line) -> None:
        heard.extend([line.read(), line.read()])
        line.send(TEXT, b"ask")
        heard.extend([line.read(), line.read()])
        line.send(TEXT, b"order")
        stay(line)

    with serving(script) as server, connected(server) as running:
        assert running.wait_for("order") == {"id": 1}
    assert heard == [(TEXT, b"subscribe 1"), (BINARY, b"\x01"), (TEXT, b"one"), (BINARY, b"two")]


def test_data_reaches_the_inbox_as_bytes_and_text_the_stream_as_text() -> None:
    messages = [(BINARY, b"\x00\x01"), (TEXT, "₹".encode()), (TEXT, b"hb"), (TEXT, b"bad \xff"), (BINARY, b"")]
    with serving(sending(*messages)) as server, connected(server) as running:
        before = Clock().wall_ns()
        frames = running.frames(4)
    assert [frame.data for frame in frames] == [b"\x00\x01", "₹".encode(), b"bad \xff", b""]
    assert running.talk.heard == [b"\x00\x01", "₹", "hb", "bad �", b""]
    assert all(before - PATIENCE_S * 1e9 < frame.received_ns <= Clock().wall_ns() for frame in frames)
    assert running.wire.counts.frames == 4
    assert running.wire.counts.messages == 5


def test_a_message_in_fragments_is_one_message_also_with_a_ping_between() -> None:
    pongs: list[bytes] = []

    def script(line: Line) -> None:
        line.send(BINARY, b"one ", final=False)
        line.send(PING, b"there?")
        line.send(0, b"two ", final=False)
        line.send(0, b"three")
        pongs.append(line.until(PONG))
        stay(line)

    with serving(script) as server, connected(server) as running:
        assert [frame.data for frame in running.frames(1)] == [b"one two three"]
    assert pongs == [b"there?"]


def test_a_bug_of_the_stream_costs_its_message_and_not_the_line() -> None:
    messages = [(BINARY, b"one"), (BINARY, b"bug"), (BINARY, b"two")]
    with (
        serving(sending(*messages)) as server,
        connected(server, errors={b"bug": ZeroDivisionError()}) as running,
    ):
        assert [frame.data for frame in running.frames(2)] == [b"one", b"two"]
    assert running.wire.counts.stumbles == 1
    assert running.of("disconnected") == []


# --- losing the line ------------------------------------------------------------------------------


def test_a_close_of_the_broker_is_told_with_its_code_and_followed_by_a_reconnect() -> None:
    def leave(line: Line) -> None:
        line.send(BINARY, b"last")
        line.send(CLOSE, (1008).to_bytes(2, "big") + b"too slow")
        line.until(CLOSE)

    with serving(leave, sending((BINARY, b"first"))) as server, connected(server) as running:
        assert [frame.data for frame in running.frames(2)] == [b"last", b"first"]
        running.wait_for("connected", 2)
    assert running.of("disconnected") == [{"reason": "closed by the broker with code 1008 (too slow)"}]
    assert running.wire.counts.connects == 2


def test_a_cut_line_is_noticed_and_a_new_socket_means_a_new_parser() -> None:
    def cut(line: Line) -> None:
        line.until(BINARY)  # the end of the subscription: unread bytes would turn the end into a reset
        line.send(BINARY, b"old")

    with serving(cut, sending((BINARY, b"new"))) as server, connected(server) as running:
        running.frames(2)
    assert [item and item.data for item in running.items] == [None, b"old", None, b"new"]
    assert len(running.of("disconnected")) == 1


def test_a_message_over_the_limit_ends_the_line_before_it_is_read() -> None:
    def huge(line: Line) -> None:
        line.send(BINARY, b"small")
        line.peer.sendall(b"\x82\x7f" + (2**40).to_bytes(8, "big"))
        stay(line)

    with serving(huge, stay) as server, connected(server, max_message_bytes=1000) as running:
        assert [frame.data for frame in running.frames(1)] == [b"small"]
        assert "over the limit of 1000" in running.wait_for("disconnected")["reason"]


def test_a_keep_alive_is_a_ping_or_the_vendors_own_words() -> None:
    heard: list[bytes] = []

    def pinged(line: Line) -> None:
        heard.append(line.until(PING))
        line.send(TEXT, b"order")
        stay(line)

    def told(line: Line) -> None:
        while (word := line.until(TEXT)) != b"are you there":
            pass
        heard.append(word)
        line.send(TEXT, b"order")
        stay(line)

    with serving(pinged) as server, connected(server, alive=KeepAlive(0.01, 10.0)) as running:
        running.wait_for("order")
    with serving(told) as server, connected(server, alive=KeepAlive(0.01, 10.0, "are you there")) as running:
        running.wait_for("order")
    assert heard == [b"", b"are you there"]


class Hasty(Clock):
    """Ten of its seconds are one of the host's."""

    def monotonic(self) -> float:
        return super().monotonic() * 10


def test_a_peer_that_says_nothing_is_dead_and_one_that_only_answers_pings_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "READ_S", 0.01)

    def mute(line: Line) -> None:
        while True:
            line.read()

    with serving(mute, stay) as server, connected(server, clock=Hasty()) as running:
        assert "no sign of life" in running.wait_for("disconnected")["reason"]
        running.wait_for("connected", 2)
        running.thread.join(1.2)  # more than twice the time after which it would be dead
        assert len(running.of("disconnected")) == 1


def test_words_of_the_vendor_do_not_take_the_place_of_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_S", 0.01)
    hello = KeepAlive(30.0, 75.0, "are you there")
    with serving(stay) as server, connected(server, clock=Hasty(), alive=hello) as running:
        running.wait_for("connected")
        running.thread.join(1.2)  # twelve seconds in which the server says nothing by itself
        assert running.of("disconnected") == []


def test_where_the_broker_always_says_something_pongs_alone_keep_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_S", 0.01)
    with (
        serving(stay) as server,
        connected(server, clock=Hasty(), alive=KeepAlive(30.0, 10.0, pongs_prove=False)) as it,
    ):
        assert it.wait_for("disconnected")["reason"] == "no sign of life for 10 s"


def test_a_change_on_a_line_that_breaks_is_not_the_callers_error() -> None:
    more = Subscription.of([Instrument(exchange="NSE", symbol="TCS", token="2")], Mode.FULL)

    class Lost(Talk):
        def changed(self, add: Subscription, remove: Subscription) -> Sequence[str | bytes]:
            assert running.wire._line is not None
            running.wire._line._raw.shutdown(socket.SHUT_WR)
            return ["x"]

    with serving(stay) as server, connected(server, talk=Lost) as running:
        running.wait_for("connected")
        running.wire.change(more)
        running.wait_for("connected", 2)  # which brings what is wanted
        assert len(running.wire.wanted) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_that_passes_is_waited_out(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def wait(self: Clock, event: threading.Event, timeout_s: float | None) -> bool:
        asked.append(timeout_s or 0.0)
        return event.wait(0.01)

    monkeypatch.setattr(Clock, "wait", wait)
    with serving(status, status, stay) as server, connected(server) as running:
        running.wait_for("connected")
    assert all(seconds >= 5.0 if status == 429 else seconds <= 0.02 for seconds in asked)
    assert len(asked) == 2
    assert running.of("disconnected") == []  # it never was connected


# --- sessions -------------------------------------------------------------------------------------


def test_an_expired_session_is_renewed_once_and_then_given_up() -> None:
    renewed: list[int] = []

    with serving(403, stay) as server:
        fresh = Talk(server.url.replace("hush", "fresh"))

        def renew() -> Stream:
            renewed.append(1)
            return fresh

        with connected(server, renew=renew) as running:
            running.wait_for("connected")
    assert renewed == [1]
    assert "fresh" in server.requests[1]

    with serving(403) as server, connected(server) as running:
        assert "HTTP 403" in running.wait_for("failed")["error"]
        running.thread.join(PATIENCE_S)
        assert isinstance(running.wire.error, SessionExpired)
        assert running.wire.supervisor.state is State.FAILED
    assert len(server.requests) == 2


def test_a_session_that_somebody_else_renewed_is_used_from_the_next_connect_on() -> None:
    with serving(502, stay) as server, connected(server) as running:
        fresh = Talk(server.url.replace("hush", "fresh"))
        running.wire.newer = lambda: fresh
        running.wait_for("connected")
    assert "fresh" in server.requests[-1]


def test_a_refusal_that_means_a_dead_token_here_leads_to_a_login() -> None:
    def meaning(error: Exception) -> Exception:
        return SessionExpired("it has ended") if isinstance(error, LineLost) else error

    with serving(502, stay) as server:
        fresh = Talk(server.url.replace("hush", "fresh"))
        with connected(server, renew=lambda: fresh, meaning=meaning) as running:
            running.wait_for("connected")
    assert ["fresh" in one for one in server.requests] == [False, True]


def test_a_session_that_ends_within_the_stream_keeps_the_data_before_it() -> None:
    messages = [(BINARY, b"data"), (TEXT, b"expired"), (BINARY, b"late")]
    with (
        serving(sending(*messages), stay) as server,
        connected(server, errors={"expired": SessionExpired("the token died")}) as running,
    ):
        assert [frame.data for frame in running.frames(1)] == [b"data"]
        assert running.wait_for("disconnected") == {"reason": "the token died"}
        running.wait_for("connected", 2)


def test_a_refused_login_ends_the_wire_with_its_error() -> None:
    def renew() -> Stream:
        raise AuthError("log in again at ...")

    with serving(401) as server, connected(server, renew=renew) as running:
        assert running.wait_for("failed") == {"error": "log in again at ..."}
    assert isinstance(running.wire.error, AuthError)


# --- stopping -------------------------------------------------------------------------------------


def test_a_stop_wakes_a_blocked_reader_and_says_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_S", 1000.0)  # nothing but the stop can wake it
    goodbyes: list[bytes] = []

    def script(line: Line) -> None:
        goodbyes.append(line.until(CLOSE))

    with serving(script) as server, connected(server) as running:
        running.wait_for("connected")
        running.end()
    assert len(goodbyes) == 1
    assert running.wire.error is None
    assert running.wire.supervisor.state is State.CLOSED
    assert running.of("disconnected") == []


def test_a_stop_ends_a_wait_before_the_next_try() -> None:
    with serving(429) as server, connected(server) as running:  # asks for five seconds
        while not server.requests:
            running.thread.join(0.01)
        running.end()
    assert running.wire.supervisor.state is State.CLOSED


def test_what_was_read_before_the_stop_is_handed_over() -> None:
    with serving(sending(*[(BINARY, b"x")] * 500)) as server, connected(server) as running:
        running.frames(1)
        running.end()
    assert len(running.data) == running.wire.counts.frames
