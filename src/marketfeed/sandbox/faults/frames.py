"""Faults of messages: damaged, repeated, out of order, too long, or out of the blue."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import attrs

from marketfeed.brokers import SandboxBroker, SandboxDamages
from marketfeed.sandbox.faults.base import Fault, Stage, flag, number, param, text, whole
from marketfeed.sandbox.peer import Outgoing, Peer

__all__ = ["Damage", "OutOfOrder", "Oversized", "Repeat", "Say"]

Damaged = Callable[[bytes, random.Random], bytes]


def _truncated(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(1, len(data))] if len(data) > 1 else b""


def _flipped(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(min(4, len(data))):
        changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(changed)


_HOW: Mapping[str, Damaged] = {
    "truncate": _truncated,
    "bad-count": lambda data, _: b"\xff\xff" + data[2:],
    "garbage": lambda data, dice: dice.randbytes(len(data)),
    "flip": _flipped,
    "empty": lambda data, _: b"",
    "trailing": lambda data, dice: data + dice.randbytes(3),
}
_PRINTABLE = (string.ascii_letters + string.digits + string.punctuation + " ").encode()


def _damaged(data: str | bytes, how: str, dice: random.Random) -> str | bytes:
    """A text stays text: other bytes would break the WebSocket, not the message."""
    if isinstance(data, bytes):
        return _HOW[how](data, dice)
    changed = _HOW[how](data.encode(), dice)
    return bytes(byte if byte in _PRINTABLE else _PRINTABLE[byte % len(_PRINTABLE)] for byte in changed).decode()


@attrs.define(eq=False, kw_only=True)
class _Ticks(Fault):
    """Messages with ticks: every n-th of them."""

    every: int = param(1, whole, "each n-th message with ticks")
    count: int | None = param(None, whole, "how many messages; absent = for as long as it acts")
    _passed: int = attrs.field(init=False, default=0)
    _changed: int = attrs.field(init=False, default=0)

    def alter(self, message: Outgoing) -> Iterable[Outgoing]:
        if message.rows is None or self.done:
            return (message,)
        self._passed += 1
        if (self._passed - 1) % max(self.every, 1):
            return (message,)
        self._changed += 1
        self.done = self.count is not None and self._changed >= self.count
        return self._change(message)

    def _change(self, message: Outgoing) -> Iterable[Outgoing]:
        raise NotImplementedError


@attrs.define(eq=False, kw_only=True)
class Damage(_Ticks):
    """Messages with ticks are damaged. They are in the log as not intact, with the rows that they held before,
    and do not count as sent; with ``extra`` the whole message follows and counts."""

    kind: ClassVar[str] = "damage"
    how: str = param("any", text, f"any (in turn), {', '.join(_HOW)}, or one of the vendor's own")
    extra: bool = param(False, flag, "send the damaged message before the whole one instead of in its place")
    _ways: tuple[str, ...] = attrs.field(init=False, default=())
    _broker: SandboxBroker | None = attrs.field(init=False, default=None)
    _dice: random.Random = attrs.field(init=False, factory=random.Random)

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        own = tuple(stage.broker.damages) if isinstance(stage.broker, SandboxDamages) else ()
        ways = (*_HOW, *own)
        if self.how not in ("any", *ways):
            raise ValueError(f"fault 'damage': how = {self.how!r} must be one of any, {', '.join(ways)}")
        self._ways = ways if self.how == "any" else (self.how,)
        self._broker, self._dice = stage.broker, random.Random(stage.seed)

    def _change(self, message: Outgoing) -> Iterable[Outgoing]:
        how = self._ways[(self._changed - 1) % len(self._ways)]
        if how not in _HOW and isinstance(self._broker, SandboxDamages):
            data = self._broker.damaged(message.data, how)
        else:
            data = _damaged(message.data, how, self._dice)
        broken = message._replace(data=data, intact=False, faults=(*message.faults, f"damage {how}"))
        return (broken, message) if self.extra else (broken,)


@attrs.define(eq=False, kw_only=True)
class Repeat(_Ticks):
    """Messages with ticks come again, at once. Each time counts as sent."""

    kind: ClassVar[str] = "repeat"
    times: int = param(1, whole, "how often, beyond the first time")

    def _change(self, message: Outgoing) -> Iterable[Outgoing]:
        again = message._replace(faults=(*message.faults, self.kind))
        return (message, *[again] * self.times)


@attrs.define(eq=False, kw_only=True)
class OutOfOrder(_Ticks):
    """A message with ticks waits until the next one has been sent. It counts as sent when it leaves; the one
    that waits at the end leaves then."""

    kind: ClassVar[str] = "out-of-order"
    _held: dict[int, Outgoing] = attrs.field(init=False, factory=dict)

    def alter(self, message: Outgoing) -> Iterable[Outgoing]:
        held = self._held.pop(message.connection, None) if message.rows is not None else None
        if held is None:
            messages = super().alter(message)
            self.done = self.done and not self._held  # not before the last one has come
            return messages
        self.done = self.count is not None and self._changed >= self.count
        return (message, held)

    def _change(self, message: Outgoing) -> Iterable[Outgoing]:
        self._held[message.connection] = message._replace(faults=(*message.faults, self.kind))
        return ()

    def end(self, stage: Stage, peers: Sequence[Peer]) -> None:
        for peer in peers:
            if peer.number in self._held:
                stage.hub.queue(peer, self._held.pop(peer.number))


@attrs.define(eq=False, kw_only=True)
class Oversized(Fault):
    """One message of zeros that is longer than clients like. No tick is in it."""

    kind: ClassVar[str] = "oversized"
    momentary: ClassVar[bool] = True
    who: ClassVar[str | None] = "open"
    megabytes: float = param(17.0, number, "its length, up to 30")

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        data = bytes(int(min(self.megabytes, 30.0) * 2**20))
        for peer in peers:
            stage.hub.queue(peer, Outgoing(peer.number, data, "fault"))


def _hex(value: Any) -> str:
    try:
        return bytes.fromhex(str(value)).hex()
    except ValueError:
        raise ValueError("must be hexadecimal digits") from None


@attrs.define(eq=False, kw_only=True)
class Say(Fault):
    """One message of your own making. It is not in the log of ticks, whatever it holds."""

    kind: ClassVar[str] = "say"
    momentary: ClassVar[bool] = True
    who: ClassVar[str | None] = "open"
    text: str = param("this is not JSON", text, "a text message")
    hex: str = param("", _hex, "a binary message instead")

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        data = bytes.fromhex(self.hex) if self.hex else self.text
        for peer in peers:
            stage.hub.queue(peer, Outgoing(peer.number, data, "fault"))
