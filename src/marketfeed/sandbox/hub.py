"""The open connections of a sandbox: who gets which rows, and the one way out to the sockets.

Everything runs on the server's event loop. Each connection has a sender of its own, so a client
that reads slowly holds up nobody; when it falls too far behind it is disconnected, as brokers do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from marketfeed.brokers import Lines, SandboxConnection
from marketfeed.clock import Clock
from marketfeed.dtypes import Rows
from marketfeed.sandbox.log import EventLog, SentFrame

__all__ = ["Filter", "Hub", "Outgoing", "Peer"]

BACKLOG_BYTES = 32 * 1024 * 1024
"""A client that leaves more than this unread is disconnected."""
ROOM_BYTES = 1024 * 1024
"""A replay waits until no client has more than this to read."""


class Outgoing(NamedTuple):
    """One message on its way to one client."""

    connection: int
    data: str | bytes
    origin: str
    """``tick``, ``snapshot``, ``replay``, ``push``; ``reply``, ``heartbeat``, ``order``."""
    rows: Rows | None = None
    modes: NDArray[np.uint8] | None = None


Filter = Callable[[Outgoing], Iterable[Outgoing]]
"""Sees every message before it is sent and yields what is sent instead: the seam for faults."""


class Peer:
    """One client."""

    def __init__(self, number: int, broker_side: SandboxConnection, socket: web.WebSocketResponse) -> None:
        self.number = number
        self.broker_side = broker_side
        self.socket = socket
        self.transport: asyncio.BaseTransport | None = None
        self.backlog = 0
        self.ticks = 0
        self.last_sent = asyncio.get_running_loop().time()
        self.queue: asyncio.Queue[Outgoing] = asyncio.Queue()

    def abort(self) -> None:
        """Cut the TCP connection without a word."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()


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
        self._packets = packets_per_frame
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
        self.peers.pop(peer.number, None)
        self.log.event("disconnected", connection=peer.number, at_ns=self._clock.wall_ns(), ticks=peer.ticks)
        self.subscriptions_changed()
        if not self.peers:
            self.somebody.clear()

    def subscriptions_changed(self) -> None:
        """To be called after a client's message."""
        everybody = self._no_modes
        for peer in self.peers.values():
            everybody = np.maximum(everybody, peer.broker_side.modes)
        self.subscribed = np.flatnonzero(everybody)
        self.settled_since = asyncio.get_running_loop().time()

    def drop(self) -> int:
        """Cut every connection; returns how many."""
        for peer in list(self.peers.values()):
            peer.abort()
        return len(self.peers)

    # --- sending ------------------------------------------------------------------------------

    def broadcast(self, rows: Rows, origin: str) -> None:
        """Send each row to every client that is subscribed to its instrument."""
        for peer in list(self.peers.values()):
            wanted = peer.broker_side.modes[rows["instrument"]] > 0
            mine = rows if wanted.all() else rows[wanted]
            if len(mine):
                self.deliver(peer, mine, origin)

    def deliver(self, peer: Peer, rows: Rows, origin: str) -> None:
        """Encode rows for one client and send them, in order."""
        size = self._packets or max(len(rows), 1)
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            for message in self._encoded(peer, chunk, origin):
                self.send(peer, message)

    def _encoded(self, peer: Peer, rows: Rows, origin: str) -> Iterator[Outgoing]:
        modes = peer.broker_side.modes[rows["instrument"]]
        start = 0
        for encoded in peer.broker_side.encode(rows, snapshot=origin == "snapshot"):
            part = slice(start, start + encoded.rows)
            start = part.stop
            yield Outgoing(peer.number, encoded.data, origin, rows[part], modes[part])

    def send(self, peer: Peer, message: Outgoing) -> None:
        """Pass one message through the filters and queue what they leave."""
        messages: Iterable[Outgoing] = (message,)
        for each in self.filters:
            messages = [out for one in messages for out in each(one)]
        for one in messages:
            peer.backlog += len(one.data)
            peer.queue.put_nowait(one)
        if peer.backlog > BACKLOG_BYTES:
            self.counts["slow_readers"] += 1
            self.log.event("slow_reader", connection=peer.number, at_ns=self._clock.wall_ns())
            peer.abort()

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
                    self.counts["heartbeats"] += 1
                    self.send(peer, Outgoing(peer.number, text, "heartbeat"))

    async def keep_sending(self, peer: Peer) -> None:
        """Move a peer's messages from its queue to its socket until it goes away."""
        while True:
            message = await peer.queue.get()
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

    def _account(self, peer: Peer, message: Outgoing) -> None:
        self.counts["messages"] += 1
        rows, modes = message.rows, message.modes
        if rows is None or modes is None:
            return
        first = peer.ticks
        peer.ticks += len(rows)
        self.counts["ticks"] += len(rows)
        if self.log.wants("ticks"):
            sent = SentFrame(
                at_ns=self._clock.wall_ns(),
                connection=peer.number,
                first_seq=first,
                origin=message.origin,
                modes=modes,
                rows=rows,
            )
            self.log.frame(sent)
