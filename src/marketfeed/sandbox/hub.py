"""The open connections of a sandbox: who gets which rows, and the one way out to the sockets.

Everything runs on the server's event loop. Each connection has a sender of its own, so a client
that reads slowly holds up nobody; when it falls too far behind it is disconnected, as brokers do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from aiohttp import web

from marketfeed.brokers import Lines, SandboxConnection, SandboxMemory
from marketfeed.clock import Clock
from marketfeed.dtypes import MODE_MASK, Rows
from marketfeed.sandbox.log import EventLog, SentFrame
from marketfeed.sandbox.peer import Outgoing, Peer

__all__ = ["Filter", "Hub", "Outgoing", "Peer", "Spoiler"]

BACKLOG_BYTES = 32 * 1024 * 1024
"""A client that leaves more than this unread is disconnected."""
ROOM_BYTES = 1024 * 1024
"""A replay waits until no client has more than this to read."""
CLOSE_S = 5.0
"""How long a client may take to answer a closing frame."""


Filter = Callable[[Outgoing], Iterable[Outgoing]]
"""Sees every message before it is sent and yields what is sent instead: the seam for faults."""


class Spoiler(Protocol):
    """Who may spoil what passes: the director of faults, or nobody."""

    def edit(self, peer: Peer, rows: Rows) -> tuple[Rows, tuple[str, ...]]:
        """Rows before they are encoded, and the faults that changed them."""

    def swallows(self, message: Outgoing) -> bool:
        """True: the message is not sent, and not in the log."""

    def pause_s(self, message: Outgoing) -> float:
        """How long the sender waits before a message."""

    def left(self, peer: Peer) -> None:
        """A connection is gone."""


class Hub:
    """All peers, the filters, the counts and the log."""

    def __init__(self, log: EventLog, clock: Clock, lines: int, packets_per_frame: int | None = None) -> None:
        self.log = log
        self.filters: list[Filter] = []
        self.peers: dict[int, Peer] = {}
        self.counts: Counter[str] = Counter()
        self.subscribed: Lines = np.empty(0, np.int64)
        """Lines that anybody is subscribed to, ascending."""
        self.settled_since = 0.0
        """Loop time of the last change of anybody's subscriptions."""
        self.somebody = asyncio.Event()
        self._clock = clock
        self._no_modes = np.zeros(lines, np.uint8)
        self.packets = packets_per_frame
        self.spoiler: Spoiler | None = None
        self._accepted = 0

    # --- coming and going ---------------------------------------------------------------------

    def join(self, broker_side: SandboxConnection, socket: web.WebSocketResponse) -> Peer:
        self._accepted += 1
        peer = Peer(self._accepted, broker_side, socket)
        self.peers[peer.number] = peer
        self.counts["connections"] += 1
        self.somebody.set()
        self.log.event("connected", connection=peer.number, at_ns=self._clock.wall_ns())
        return peer

    def leave(self, peer: Peer) -> None:
        peer.over = True
        self.peers.pop(peer.number, None)
        self.log.event("disconnected", connection=peer.number, at_ns=self._clock.wall_ns(), ticks=peer.ticks)
        self.subscriptions_changed()
        if not self.peers:
            self.somebody.clear()
        if self.spoiler is not None:
            self.spoiler.left(peer)

    def subscriptions_changed(self) -> None:
        """To be called after a client's message."""
        everybody = self._no_modes
        for peer in self.peers.values():
            everybody = np.maximum(everybody, peer.broker_side.modes)
        self.subscribed = np.flatnonzero(everybody)
        self.settled_since = asyncio.get_running_loop().time()

    def drop(self) -> int:
        """Cut every connection; returns how many."""
        peers = list(self.peers.values())
        for peer in peers:
            self.cut(peer)
        return len(peers)

    def cut(self, peer: Peer, *, reset: bool = False) -> None:
        """Cut a connection; the log learns which ticks had not left yet."""
        lost = None if peer.over else peer.first_lost()
        peer.abort(reset=reset)
        if lost is not None:
            self.log.lose(peer.number, lost, self._clock.wall_ns())

    def close(self, peer: Peer, code: int, reason: str = "") -> None:
        """Begin to close a connection with a code; nothing more is sent."""
        if peer.closing is None:
            peer.over = True
            peer.closing = asyncio.create_task(_close(peer, code, reason))

    def reap(self) -> None:
        """Let go of frozen connections whose clients have closed them."""
        for peer in list(self.peers.values()):
            if peer.frozen and peer.gone():
                peer.abort()
                self.leave(peer)

    # --- sending ------------------------------------------------------------------------------

    def broadcast(self, rows: Rows, origin: str) -> None:
        """Send each row to every client that is subscribed to its instrument."""
        for peer in list(self.peers.values()):
            wanted = peer.broker_side.modes[rows["instrument"]] > 0
            mine = rows if wanted.all() else rows[wanted]
            if len(mine):
                self.deliver(peer, mine, origin)

    def relay(self, data: str | bytes, rows: Rows) -> None:
        """Send a captured message as it is to each client that wants all of it; to others the rows that they want,
        encoded. A message without rows goes to whoever is subscribed to anything."""
        lines, modes = rows["instrument"], (rows["flags"] & MODE_MASK).astype(np.uint8)
        for peer in list(self.peers.values()):
            mine = peer.broker_side.modes
            if not mine.any():
                continue
            wanted = rows if (mine[lines] >= modes).all() else rows[mine[lines] > 0]
            edited, faults = self._edited(peer, wanted)
            if edited is rows:
                self.send(peer, Outgoing(peer.number, data, "replay", rows, modes))
                continue
            limited = mine.copy()
            limited[lines] = np.minimum(mine[lines], modes)  # a capture in quote mode has no depth to send
            peer.broker_side.modes = limited
            self._deliver(peer, edited, faults, "replay")
            peer.broker_side.modes = mine

    def deliver(self, peer: Peer, rows: Rows, origin: str) -> None:
        """Encode rows for one client and send them, in order."""
        self._deliver(peer, *self._edited(peer, rows), origin=origin)

    def _edited(self, peer: Peer, rows: Rows) -> tuple[Rows, tuple[str, ...]]:
        return (rows, ()) if self.spoiler is None else self.spoiler.edit(peer, rows)

    def _deliver(self, peer: Peer, rows: Rows, faults: tuple[str, ...], origin: str) -> None:
        size = self.packets or max(len(rows), 1)
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            for message in self._encoded(peer, chunk, origin, faults):
                self.send(peer, message)

    def _encoded(self, peer: Peer, rows: Rows, origin: str, faults: tuple[str, ...]) -> Iterator[Outgoing]:
        modes = peer.broker_side.modes[rows["instrument"]]
        start = 0
        for encoded in peer.broker_side.encode(rows, snapshot=origin == "snapshot"):
            part = slice(start, start + encoded.rows)
            start = part.stop
            yield Outgoing(peer.number, encoded.data, origin, rows[part], modes[part], faults=faults)

    def send(self, peer: Peer, message: Outgoing) -> None:
        """Pass one message through the filters and queue what they leave."""
        messages: Sequence[Outgoing] = (message,)
        for each in self.filters:
            messages = [out for one in messages for out in each(one)]
        if len(messages) != 1 or messages[0] is not message:
            self._forget(peer)
        for one in messages:
            self.queue(peer, one)

    def queue(self, peer: Peer, message: Outgoing) -> None:
        """Queue a message as it is. A client that reads too slowly is disconnected."""
        if self._swallowed(message):
            self._forget(peer)
            return
        peer.backlog += len(message.data)
        peer.queue.put_nowait(message)
        if peer.backlog > BACKLOG_BYTES and not peer.over:
            self.counts["slow_readers"] += 1
            self.log.event("slow_reader", connection=peer.number, at_ns=self._clock.wall_ns())
            self.cut(peer)

    async def room(self) -> None:
        """Wait until every client has read nearly all that was sent."""
        while any(peer.backlog > ROOM_BYTES for peer in self.peers.values()):
            await asyncio.sleep(0.002)

    def heartbeats(self, now: float, idle_s: float) -> None:
        """Send a heartbeat to every client that got nothing for ``idle_s``."""
        for peer in self.peers.values():
            if now - peer.last_sent >= idle_s and not peer.backlog:
                peer.last_sent = now
                text = peer.broker_side.heartbeat()
                if text is not None:
                    self.send(peer, Outgoing(peer.number, text, "heartbeat"))

    async def keep_sending(self, peer: Peer) -> None:
        """Move a peer's messages from its queue to its socket until it goes away."""
        while True:
            message = await peer.queue.get()
            await self._pause(message)
            if peer.over:
                return
            if self._swallowed(message):  # by a fault that began while it waited
                self._forget(peer)
                peer.backlog -= len(message.data)
                continue
            self._account(peer, message)
            try:
                if isinstance(message.data, str):
                    await peer.socket.send_str(message.data)
                else:
                    await peer.socket.send_bytes(message.data)
            except ConnectionError:
                return
            peer.backlog -= len(message.data)
            peer.last_sent = asyncio.get_running_loop().time()

    def _forget(self, peer: Peer) -> None:
        """A message was held back or changed: a broker that sends differences begins anew."""
        if isinstance(peer.broker_side, SandboxMemory):
            peer.broker_side.forget()

    def _swallowed(self, message: Outgoing) -> bool:
        gone = self.spoiler is not None and self.spoiler.swallows(message)
        self.counts["swallowed"] += gone
        return gone

    async def _pause(self, message: Outgoing) -> None:
        """Wait as long as a slow line takes; when it is made fast again, stop waiting."""
        waited = 0.0
        while self.spoiler is not None and (rest := self.spoiler.pause_s(message) - waited) > 0:
            await asyncio.sleep(min(rest, 0.05))
            waited += 0.05

    def _account(self, peer: Peer, message: Outgoing) -> None:
        self.counts["messages"] += 1
        self.counts["heartbeats"] += message.origin == "heartbeat"
        rows, modes = message.rows, message.modes
        first = peer.ticks
        peer.tail.append((len(message.data), first))
        if rows is None or modes is None:
            return
        if message.intact:
            peer.ticks += len(rows)
        self.counts["ticks" if message.intact else "ticks_damaged"] += len(rows)
        if self.log.wants("ticks"):
            sent = SentFrame(
                at_ns=self._clock.wall_ns(),
                connection=peer.number,
                first_seq=first,
                origin=message.origin,
                modes=modes,
                rows=rows,
                intact=message.intact,
                faults=message.faults,
            )
            self.log.frame(sent)


async def _close(peer: Peer, code: int, reason: str) -> None:
    """A client that does not answer is cut after a while."""
    try:
        await asyncio.wait_for(peer.socket.close(code=code, message=reason.encode()), CLOSE_S)
    except (TimeoutError, ConnectionError):
        peer.abort()
