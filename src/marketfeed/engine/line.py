"""An open line to a broker: read in chunks by one thread, written by any.

websocket-client does the sending; reading is our own (:mod:`marketfeed.engine.frames`).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence

import websocket

from marketfeed.contract import Handshake
from marketfeed.engine.frames import FrameReader, Message
from marketfeed.engine.sockets import kind_of, open_socket
from marketfeed.errors import LineLost

__all__ = ["Line", "open_line"]

_CHUNK_BYTES = 64 * 1024
READ_S = 0.25
"""How long one read waits: how often an idle line is looked at."""


class Line:
    """One connection. ``receive`` belongs to its reader thread; ``send`` and ``wake`` to any."""

    def __init__(self, opened: websocket.WebSocket, max_message_bytes: int) -> None:
        assert opened.sock is not None  # it just connected
        self._socket = opened
        self._raw = opened.sock
        self._reader = FrameReader(max_message_bytes)
        self._given_up = False
        opened.settimeout(READ_S)

    def receive(self) -> tuple[Sequence[Message], int]:
        """What came within :data:`READ_S`: whole messages, and the number of bytes (0 = nothing).

        Raises ``LineLost`` when the other side is gone or breaks the protocol.
        """
        if self._reader.broken is not None:  # what came before it was given by the call before
            raise self._reader.broken
        if self._given_up:
            raise LineLost("a message could not be sent whole")
        try:
            chunk = self._raw.recv(_CHUNK_BYTES)
        except (TimeoutError, ssl.SSLWantReadError):
            return (), 0
        except OSError as error:
            raise LineLost(f"the connection broke: {kind_of(error)}") from None
        if not chunk:
            raise LineLost("the broker closed the connection without a word")
        return self._reader.feed(chunk), len(chunk)

    def send(self, messages: Sequence[str | bytes]) -> None:
        """Send messages in order. Raises ``LineLost``."""
        with self._sending():
            for message in messages:
                if isinstance(message, str):
                    self._socket.send(message)
                else:
                    self._socket.send_binary(message)

    def ping(self) -> None:
        """Send a protocol ping. Raises ``LineLost``."""
        with self._sending():
            self._socket.ping()

    def pong(self, payload: bytes) -> None:
        """Answer a ping. Raises ``LineLost``."""
        with self._sending():
            self._socket.pong(payload)

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except (OSError, websocket.WebSocketException) as error:
            raise LineLost(f"cannot send: {kind_of(error)}") from None

    def wake(self) -> None:
        """End a :meth:`receive` that waits; it raises ``LineLost``. Any thread.

        Under TLS it returns after :data:`READ_S`: shutting the socket down there would break the
        encryption, for what is still to be read and for the goodbye.
        """
        if not isinstance(self._raw, ssl.SSLSocket):
            with contextlib.suppress(OSError):  # it is closing already
                self._raw.shutdown(socket.SHUT_RD)

    def give_up(self) -> None:
        """A message did not leave whole: the next :meth:`receive`, or the one that waits, raises ``LineLost``."""
        self._given_up = True
        self.wake()

    def close(self, *, goodbye: bool) -> None:
        """Let the socket go, after a close frame if wished; does not wait for the other side's."""
        if goodbye:
            with contextlib.suppress(LineLost), self._sending():
                self._socket.send_close()
        self._raw.close()


def open_line(handshake: Handshake, *, proxy: str | None = None, max_message_bytes: int = 16 * 2**20) -> Line:
    """Connect and upgrade. Raises as :func:`marketfeed.engine.sockets.open_socket`."""
    return Line(open_socket(handshake, proxy=proxy), max_message_bytes)
