"""One connection: a thread that opens the socket, speaks the protocol and hands frames over."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import attrs
import websocket

from marketfeed.clock import Clock
from marketfeed.contract import DATA, Emit, Frame, Handshake, KeepAlive, Send, Step, Stream, Subscription
from marketfeed.engine import frames as ws
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.logs import Log
from marketfeed.engine.supervisor import (
    Close,
    Connect,
    LoggedIn,
    Login,
    Lost,
    Next,
    Opened,
    Started,
    StopAsked,
    Supervisor,
    Wait,
    Woke,
)
from marketfeed.engine.supervisor import State as State
from marketfeed.errors import LineLost, MarketFeedError, RateLimited, SessionExpired

__all__ = ["Wire", "WireCounts", "open_socket"]

_CHUNK_BYTES = 64 * 1024
_TICK_S = 0.5
"""How often an idle reader looks at its keep-alive."""
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
    last_received_ns: int = 0


def open_socket(handshake: Handshake, *, proxy: str | None = None, timeout_s: float = 10.0) -> websocket.WebSocket:
    """Connect and upgrade, with verified TLS.

    Raises ``SessionExpired`` on 401 and 403, ``RateLimited`` on 429, ``LineLost`` on anything else. No
    message shows the URL, which may hold a token.
    """
    host = urlsplit(handshake.url).hostname
    options: dict[str, Any] = {}
    if proxy:
        parts = urlsplit(proxy)
        options = {"http_proxy_host": parts.hostname, "http_proxy_port": parts.port or 80, "proxy_type": "http"}
        if parts.username:
            options["http_proxy_auth"] = (parts.username, parts.password or "")
    if handshake.url.startswith("wss"):
        options["sslopt"] = {"context": ssl.create_default_context()}
    try:
        return websocket.create_connection(
            handshake.url,
            timeout=timeout_s,
            header=[f"{name}: {value}" for name, value in handshake.headers.items()],
            subprotocols=list(handshake.subprotocols) or None,
            suppress_origin=True,
            enable_multithread=True,
            **options,
        )
    except websocket.WebSocketBadStatusException as error:
        status = error.status_code
        if status in (401, 403):
            raise SessionExpired(
                f"{host} refused the connection with HTTP {status}: the token is not accepted"
            ) from None
        if status == 429:
            raise RateLimited(f"{host} has too many connections of this account (HTTP 429)", 5.0) from None
        raise LineLost(f"{host} refused the connection with HTTP {status}") from None
    except ssl.SSLError as error:
        raise LineLost(f"TLS with {host} failed: {error.reason or 'certificate not accepted'}") from None
    except (OSError, websocket.WebSocketException) as error:
        raise LineLost(f"cannot connect to {host}: {_kind(error)}") from None


def _kind(error: BaseException) -> str:
    """What went wrong, without the text of libraries that quote URLs."""
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


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
    proxy: str | None = None
    max_message_bytes: int = 16 * 2**20
    supervisor: Supervisor = attrs.field(factory=Supervisor)
    counts: WireCounts = attrs.field(factory=WireCounts)
    error: Exception | None = None
    """Why the wire gave up; None while it runs or after a clean stop."""
    _stopping: threading.Event = attrs.field(factory=threading.Event)
    _socket: websocket.WebSocket | None = None

    def run(self) -> None:
        """The thread's loop: do what the supervisor says until it says close."""
        step: Next = self._tell(Started())
        while not isinstance(step, Close):
            step = self._do(step)
        self.error = step.error
        if step.error is not None:
            self.log.error("connection given up", connection=self.number, error=str(step.error))
            self.emit("failed", self.number, {"error": str(step.error)})

    def stop(self) -> None:
        """Ask the thread to end; returns at once. Frames already read are handed over."""
        self._stopping.set()
        socket = self._socket
        if socket is not None and socket.sock is not None:
            try:
                socket.sock.shutdown(0)  # SHUT_RD: wakes the blocked reader, which then says goodbye
            except OSError:
                return  # it is closing already

    def _tell(self, what: Any) -> Next:
        step = self.supervisor.handle(what, self.clock.monotonic())
        assert step is not None  # only Opened has no next step
        return step

    def _do(self, step: Next) -> Next:
        if self._stopping.is_set():
            return self._tell(StopAsked())
        match step:
            case Connect():
                return self._line()
            case Wait(seconds):
                stopped = self.clock.wait(self._stopping, seconds)
                return self._tell(StopAsked() if stopped else Woke())
            case Login():
                return self._login()
        return step

    def _login(self) -> Next:
        try:
            self.stream = self.renew()
        except MarketFeedError as error:
            return self._tell(Lost(error))
        return self._tell(LoggedIn())

    def _line(self) -> Next:
        """Connect and read until the line is lost or the feed stops."""
        lost: Exception
        try:
            self._socket = open_socket(self.stream.handshake(), proxy=self.proxy)
            self._converse(self._socket)
            lost = LineLost("stopped")
        except MarketFeedError as error:
            lost = error
        except (OSError, websocket.WebSocketException) as error:
            lost = LineLost(_kind(error))
        finally:
            was_live = self.supervisor.state is State.LIVE
            self._hang_up()
        if self._stopping.is_set():
            return self._tell(StopAsked())
        step = self._tell(Lost(lost))
        self.log.warning("connection lost", connection=self.number, error=str(lost), next=self.supervisor.state.value)
        if was_live:
            self.emit("disconnected", self.number, {"reason": str(lost)})
        return step

    def _converse(self, socket: websocket.WebSocket) -> None:
        line = socket.sock
        assert line is not None  # it just connected
        socket.settimeout(_TICK_S)
        self.inbox.renewed(self.number)
        self._send(socket, self.stream.opened(self.wanted))
        self.counts.connects += 1
        self.supervisor.handle(Opened(), self.clock.monotonic())
        self.log.info("connected", connection=self.number, instruments=len(self.wanted))
        self.emit("connected", self.number, {"instruments": len(self.wanted)})
        keepalive = self.stream.keepalive() or _DEFAULT_KEEPALIVE
        reader = ws.FrameReader(self.max_message_bytes)
        heard = kept = self.clock.monotonic()
        while not self._stopping.is_set():
            try:
                chunk = line.recv(_CHUNK_BYTES)
            except (TimeoutError, ssl.SSLWantReadError):
                chunk = None
            now = self.clock.monotonic()
            if chunk:
                heard = now
                self._take(socket, reader.feed(chunk), len(chunk))
            elif chunk is not None and not self._stopping.is_set():
                raise LineLost("the broker closed the connection without a word")
            if now - heard > keepalive.dead_after_s:
                raise LineLost(f"nothing heard for {now - heard:.1f} s")
            if now - kept >= keepalive.period_s:
                kept = now
                self._keep_alive(socket, keepalive)

    def _take(self, socket: websocket.WebSocket, messages: Sequence[ws.Message], size: int) -> None:
        """Stamp the messages of one chunk, answer the protocol, hand the data over."""
        received_ns = self.clock.wall_ns()
        counts = self.counts
        counts.bytes += size
        counts.messages += len(messages)
        counts.last_received_ns = received_ns
        received = self.stream.received
        frames: list[Frame] = []
        try:
            for opcode, data in messages:
                if opcode == ws.BINARY:
                    step = self._ask(received, data)
                elif opcode == ws.TEXT:
                    step = self._ask(received, data.decode("utf-8", "replace"))
                else:
                    self._control(socket, opcode, data)
                    continue
                if step is DATA:
                    frames.append(Frame(data, received_ns))
                elif isinstance(step, Send):
                    self._send(socket, step.messages)
                elif isinstance(step, Emit):
                    self.emit(step.kind, self.number, step.data)
        finally:  # also when the last message ended the line: what came before it is data
            if frames:
                counts.frames += len(frames)
                self.inbox.put(self.number, frames)

    def _ask(self, received: Callable[[str | bytes], Step], data: str | bytes) -> Step | None:
        try:
            return received(data)
        except MarketFeedError:
            raise
        except Exception as error:  # a vendor's bug at one message must not cost the line
            self.counts.stumbles += 1
            self.log.error("the stream stumbled over a message", connection=self.number, error=repr(error))
            return None

    def _control(self, socket: websocket.WebSocket, opcode: int, data: bytes) -> None:
        if opcode == ws.PING:
            socket.pong(data)
        elif opcode == ws.CLOSE:
            code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
            reason = data[2:].decode("utf-8", "replace")
            raise LineLost(f"closed by the broker with code {code}" + (f" ({reason})" if reason else ""))

    def _keep_alive(self, socket: websocket.WebSocket, keepalive: KeepAlive) -> None:
        if keepalive.text is None:
            socket.ping()
        else:
            socket.send(keepalive.text)

    @staticmethod
    def _send(socket: websocket.WebSocket, messages: Sequence[str | bytes]) -> None:
        for message in messages:
            if isinstance(message, str):
                socket.send(message)
            else:
                socket.send_binary(message)

    def _hang_up(self) -> None:
        socket, self._socket = self._socket, None
        if socket is None:
            return
        try:
            if self._stopping.is_set() and socket.connected:
                socket.send_close()
        except (OSError, websocket.WebSocketException):
            self.log.debug("the goodbye did not get through", connection=self.number)
        if socket.sock is not None:
            socket.sock.close()  # without waiting for the other side's goodbye
