"""WebSocket frames from bytes: a reader for what a server sends (RFC 6455), pure.

websocket-client does the handshake and the sending. Its reader costs about 10 us a frame and has no
size limit; this one costs about 1 us, takes many frames from one chunk and refuses what is too large
before buffering it.
"""

from __future__ import annotations

from typing import NamedTuple

from marketfeed.errors import LineLost

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "FrameReader", "Message"]

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CONTINUATION = 0x0


class Message(NamedTuple):
    """One whole message, fragments joined."""

    opcode: int
    data: bytes


class FrameReader:
    """Collects chunks of a server's byte stream and gives whole messages."""

    def __init__(self, max_message_bytes: int = 16 * 2**20) -> None:
        self._limit = max_message_bytes
        self._chunks: list[bytes] = []
        self._held = 0
        self._needed = 0
        """Bytes that must be held before looking again: joining at every chunk would be quadratic."""
        self._joined = bytearray()
        self._joined_opcode = 0
        """Opcode of the message whose fragments are being joined; 0 between messages."""
        self.broken: LineLost | None = None
        """What came after the messages that the latest ``feed`` gave; nothing more can be read then."""

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages completed by ``chunk``, in order.

        Raises ``LineLost`` for a message over the limit and for bytes that no server may send
        (reserved bits, masked frames, broken fragmentation). Where good messages stand before it,
        they are given and ``broken`` is set instead.
        """
        if self.broken is not None:
            raise self.broken
        if self._held:
            self._chunks.append(chunk)
            self._held += len(chunk)
            if self._held < self._needed:
                return []
            chunk = b"".join(self._chunks)
        messages: list[Message] = []
        try:
            self._cut(chunk, messages)
        except LineLost as error:
            self.broken = error
            if not messages:
                raise
        return messages

    def _cut(self, data: bytes, messages: list[Message]) -> None:
        at, end, needed = 0, len(data), 0
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            start = at + 2
            if size >= 126:
                if size > 127:
                    raise LineLost("the server sent a masked frame")
                wide = 2 if size == 126 else 8
                if end - start < wide:
                    break
                size = int.from_bytes(data[start : start + wide], "big")
                start += wide
            if size > self._limit:
                raise LineLost(f"a message of {size} bytes is over the limit of {self._limit}")
            if end - start < size:
                needed = start + size - at
                break
            at = start + size
            if 0x81 <= first <= 0x82 and not self._joined_opcode:  # a whole text or binary message: nearly always
                messages.append(Message(first & 0x0F, data[start:at]))
            else:
                self._odd(first, data[start:at], messages)
        self._held, self._needed = end - at, needed
        self._chunks = [data[at:]] if self._held else []

    def _odd(self, first: int, payload: bytes, messages: list[Message]) -> None:
        """Control frames and fragments."""
        opcode, final = first & 0x0F, first & 0x80
        if first & 0x70:
            raise LineLost("the server set a reserved bit")
        if opcode >= CLOSE:
            if opcode > PONG or not final or len(payload) > 125:
                raise LineLost(f"broken control frame (opcode {opcode})")
            messages.append(Message(opcode, payload))
            return
        if (opcode == _CONTINUATION) != bool(self._joined_opcode) or opcode > BINARY:
            raise LineLost(f"unexpected frame (opcode {opcode})")
        self._joined_opcode = opcode or self._joined_opcode
        self._joined += payload
        if len(self._joined) > self._limit:
            raise LineLost(f"a message in fragments is over the limit of {self._limit}")
        if final:
            messages.append(Message(self._joined_opcode, bytes(self._joined)))
            self._joined, self._joined_opcode = bytearray(), 0
