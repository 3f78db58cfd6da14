"""Faults of the line: it ends, or it stays open and something is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs
import numpy as np

from marketfeed.brokers import Lines
from marketfeed.dtypes import Rows
from marketfeed.sandbox.faults.base import Fault, Stage, choice, number, param, share, text, whole
from marketfeed.sandbox.noise import identity, mix, uniform

if TYPE_CHECKING:
    from marketfeed.sandbox.peer import Outgoing, Peer

__all__ = ["Close", "Deaf", "Drop", "HalfOpen", "HeartbeatsOnly", "LateMode", "Mute", "NoPong", "Silent", "Throttle"]


@attrs.define(eq=False, kw_only=True)
class Drop(Fault):
    """Cut the TCP connection without a closing handshake. Frames that the kernel had not taken yet are
    marked in the log as not intact."""

    kind: ClassVar[str] = "drop"
    momentary: ClassVar[bool] = True
    who: ClassVar[str | None] = "open"
    how: str = param("fin", choice("fin", "rst"), "fin = an orderly end of TCP, rst = a reset")

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        for peer in peers:
            stage.hub.cut(peer, reset=self.how == "rst")


@attrs.define(eq=False, kw_only=True)
class Close(Fault):
    """Close the WebSocket with a code. Frames queued before are sent, later ones are not."""

    kind: ClassVar[str] = "close"
    momentary: ClassVar[bool] = True
    who: ClassVar[str | None] = "open"
    code: int = param(1001, whole, "the closing code")
    reason: str = param("", text, "the text beside it")

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        for peer in peers:
            stage.hub.close(peer, self.code, self.reason)


@attrs.define(eq=False, kw_only=True)
class HalfOpen(Fault):
    """The connection stays, but nothing is read or written any more: no data, no pongs, no FIN. At its end
    the connection is reset. Nothing counts as sent."""

    kind: ClassVar[str] = "half-open"
    who: ClassVar[str | None] = "open"

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        for peer in peers:
            peer.freeze()

    def end(self, stage: Stage, peers: Sequence[Peer]) -> None:
        for peer in peers:
            if peer.frozen:
                stage.hub.cut(peer, reset=True)

    def swallows(self, message: Outgoing) -> bool:
        return True

    def ignores(self, peer: Peer) -> bool:
        return True

    def pongs(self, peer: Peer) -> bool:
        return False


@attrs.define(eq=False, kw_only=True)
class Mute(Fault):
    """The socket is open and pings are answered, but no message comes. Nothing counts as sent."""

    kind: ClassVar[str] = "mute"
    who: ClassVar[str | None] = "open"

    def swallows(self, message: Outgoing) -> bool:
        return True


@attrs.define(eq=False, kw_only=True)
class HeartbeatsOnly(Fault):
    """Heartbeats and pongs come, nothing else. No tick counts as sent."""

    kind: ClassVar[str] = "heartbeats-only"
    who: ClassVar[str | None] = "open"

    def swallows(self, message: Outgoing) -> bool:
        return message.origin != "heartbeat"


@attrs.define(eq=False, kw_only=True)
class Silent(Fault):
    """Subscriptions are accepted, but some instruments do not tick. Their ticks do not count as sent."""

    kind: ClassVar[str] = "silent"
    instruments: str = param("", text, "EXCHANGE:SYMBOL or the vendor's tokens, with commas between; absent = share")
    share: float = param(0.5, share, "part of all instruments, picked by the sandbox's seed")
    _out: Lines = attrs.field(init=False, factory=lambda: np.empty(0, np.int64))

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        lines = np.arange(len(stage.instruments))
        if not self.instruments:
            chance = uniform(mix(stage.seed, identity("silent"), lines))
            self._out = np.argsort(chance)[: round(self.share * len(lines))]
            return
        names = {stage.broker.token(line): line for line in lines.tolist()}
        names |= {one.key: line for line, one in enumerate(stage.instruments)}
        wanted = [name.strip() for name in self.instruments.split(",") if name.strip()]
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise ValueError(f"fault 'silent': the sandbox has no instrument {', '.join(unknown)}")
        self._out = np.array([names[name] for name in wanted], np.int64)

    def edit(self, peer: Peer, rows: Rows) -> Rows:
        out = np.isin(rows["instrument"], self._out)
        return rows[~out] if out.any() else rows


@attrs.define(eq=False, kw_only=True)
class NoPong(Fault):
    """Everything flows, but pings are not answered."""

    kind: ClassVar[str] = "no-pong"
    who: ClassVar[str | None] = "open"

    def pongs(self, peer: Peer) -> bool:
        return False


@attrs.define(eq=False, kw_only=True)
class Deaf(Fault):
    """The client's messages are thrown away unread: subscriptions do nothing. Ticks and pongs flow."""

    kind: ClassVar[str] = "deaf"

    def ignores(self, peer: Peer) -> bool:
        return True


@attrs.define(eq=False, kw_only=True)
class LateMode(Fault):
    """A client's second and later messages of a connection are obeyed late, one after the other: between a
    subscription and its mode come ticks in the vendor's default mode."""

    kind: ClassVar[str] = "late-mode"
    delay_s: float = param(1.0, number, "how long each message after the first waits")

    def command_delay_s(self, peer: Peer) -> float:
        return self.delay_s


@attrs.define(eq=False, kw_only=True)
class Throttle(Fault):
    """The line is slow: frames wait in the sandbox, and count as sent when they leave it."""

    kind: ClassVar[str] = "throttle"
    bytes_per_second: float = param(1000.0, number, "of the whole line; 0 = nothing gets through")

    def pause_s(self, size: int) -> float:
        return size / self.bytes_per_second if self.bytes_per_second else 3600.0
