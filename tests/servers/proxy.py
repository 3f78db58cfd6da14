"""A TCP proxy on the loopback that fails on request as networks do: cut, refused, silent in either direction, slow."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Any

import attrs

_CHUNK = 1 << 20
_RESET = struct.pack("ii", 1, 0)


@attrs.define(eq=False)
class _Link:
    """One connection through the proxy: the two sockets, and whether it has been cut."""

    client: socket.socket
    server: socket.socket
    dead: bool = False
    #: that still carry something
    directions: int = 2

    def cut(self) -> None:
        """Close both ends at once; bytes on the way are lost."""
        self.dead = True
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
            sock.close()


@attrs.define
class _Lane:
    """One direction of all connections."""

    open: bool = True
    delay_s: float = 0.0
    #: bytes taken from the sender and not yet passed on
    waiting: int = 0


class Proxy:
    """Passes connections to 127.0.0.1:``target`` while its ``with`` block runs.

    ::

        with Proxy(target=9092) as proxy:
            connect(proxy.address)
            proxy.hold(answers=True)    # half-open: requests arrive, answers do not
            proxy.cut()                 # every connection breaks; new ones pass
            proxy.refuse()              # ... and new ones are refused, until proxy.accept()
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self._target = ("127.0.0.1", target)
        self._port = port
        self._changed = threading.Condition()
        self._requests, self._answers = _Lane(), _Lane()
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        #: connections so far
        self.connections = 0

    def __enter__(self) -> Proxy:
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        for thread in self._threads:
            thread.join()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def open_connections(self) -> int:
        with self._changed:
            return len(self._links)

    @property
    def held_requests(self) -> int:
        """Bytes that the client sent and the server has not got."""
        return self._requests.waiting

    @property
    def held_answers(self) -> int:
        """Bytes that the server sent and the client has not got."""
        return self._answers.waiting

    def accept(self) -> None:
        """Listen, at the same port as before. Nothing happens to a proxy that listens already."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        self._spawn(self._listen, self._listener)

    def refuse(self) -> None:
        """Refuse connections, and cut those that are."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> int:
        """Break all connections; bytes on the way are lost, and neither side knows which arrived. Returns how many."""
        with self._changed:
            links, self._links = self._links, []
            for link in links:
                link.cut()
            self._changed.notify_all()
        return len(links)

    def hold(self, *, requests: bool = False, answers: bool = False) -> None:
        """Half-open: connections stay and new ones are taken, but bytes of these directions do not pass any more."""
        self._set(self._requests, open=not requests)
        self._set(self._answers, open=not answers)

    def release(self) -> None:
        """Bytes pass again, those that waited first."""
        self.hold()

    def delay(self, seconds: float) -> None:
        """Every chunk, in both directions, this much later: a round trip takes at least twice as long."""
        self._set(self._requests, delay_s=seconds)
        self._set(self._answers, delay_s=seconds)

    def _set(self, lane: _Lane, **values: Any) -> None:
        with self._changed:
            for name, value in values.items():
                setattr(lane, name, value)
            self._changed.notify_all()

    def _spawn(self, work: Any, *arguments: Any) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=work, args=arguments, name=f"proxy-{self._port}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:  # the server is down: the client sees its connection close
                client.close()
                continue
            self._join(listener, _Link(client, server))

    def _join(self, listener: socket.socket, link: _Link) -> None:
        for sock in (link.client, link.server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            if self._listener is not listener:  # refused meanwhile
                link.cut()
                return
            self._links.append(link)
            self.connections += 1
            self._spawn(self._carry, link, link.client, link.server, self._requests)
            self._spawn(self._carry, link, link.server, link.client, self._answers)

    def _carry(self, link: _Link, source: socket.socket, target: socket.socket, lane: _Lane) -> None:
        """One direction of one connection, until its sender has finished or the connection breaks."""
        try:
            while chunk := source.recv(_CHUNK):
                if not self._let(link, lane, len(chunk)):
                    return
                target.sendall(chunk)
            if self._let(link, lane, 0):
                target.shutdown(socket.SHUT_WR)
        except OSError:
            link.cut()
        finally:
            self._finished(link)

    def _finished(self, link: _Link) -> None:
        with self._changed:
            link.directions -= 1
            if link.directions == 0:
                link.cut()
                if link in self._links:
                    self._links.remove(link)

    def _let(self, link: _Link, lane: _Lane, size: int) -> bool:
        """Wait until bytes may pass; False when the connection was cut meanwhile."""
        due = time.monotonic() + lane.delay_s
        with self._changed:
            lane.waiting += size
            while not link.dead and (not lane.open or time.monotonic() < due):
                self._changed.wait(None if not lane.open else max(0.0, due - time.monotonic()))
            lane.waiting -= size
            return not link.dead
