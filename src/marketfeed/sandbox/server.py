"""The sandbox's server: HTTP and WebSocket of one broker on one loopback port.

Paths are the vendor's own. Only ``/sandbox/...`` is ours, for whoever runs the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from aiohttp import WSMsgType, web

from marketfeed.brokers import HttpReply, HttpRequest, Pace, Reaction, SandboxBroker, SandboxPatience
from marketfeed.clock import Clock
from marketfeed.sandbox.control import Control
from marketfeed.sandbox.drive import Driver
from marketfeed.sandbox.faults.base import Fault, Stage
from marketfeed.sandbox.faults.director import Director, Injected
from marketfeed.sandbox.hub import Hub, Outgoing, Peer
from marketfeed.sandbox.log import EventLog
from marketfeed.sandbox.tls import CertificateBox
from marketfeed.sandbox.world import World

__all__ = ["Server"]

HOST = "127.0.0.1"
_SECRET_WORDS = ("key", "token", "secret", "checksum", "password", "sess", "totp", "code")
REAP_S = 0.05
_LONGEST_URL = 128 * 1024  # bytes; a quote of 1,000 instruments names them all in its query
_GRACE = 0.95
"""Of a pace's window: requests sent exactly at the limit arrive a little unevenly."""


class Server:
    """One broker on one port. All methods run on one event loop."""

    def __init__(self, world: World, broker: SandboxBroker, log: EventLog) -> None:
        self.world = world
        self.broker = broker
        self.log = log
        self.clock = Clock()
        options = world.options
        self.hub = Hub(log, self.clock, len(world.market.instruments), options.packets_per_frame)
        self.driver = Driver(world, self.hub)
        self.certificates = CertificateBox(options.tls) if options.tls is not None else None
        stage = Stage(self.hub, broker, world.market.instruments, options.seed, self.certificates)
        self.faults = Director(stage, options.planned(), self.clock.monotonic, world.now_ns)
        self.hub.spoiler = self.faults
        self.hub.filters.append(self.faults.alter)
        self.control = Control(self)
        self._fault_added = asyncio.Event()
        self.port = 0
        self._pace = _PaceKeeper()
        self._runner: web.AppRunner | None = None
        self._driving: asyncio.Task[None] | None = None

    async def start(self, port: int = 0) -> None:
        """Listen; afterwards :attr:`port` is the port. Raises ``OSError`` when it is taken."""
        application = web.Application(client_max_size=16 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2, max_line_size=_LONGEST_URL)
        await self._runner.setup()
        context = self.certificates.context if self.certificates is not None else None
        site = web.TCPSite(self._runner, HOST, port, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.faults.begin()
        self._driving = asyncio.create_task(self._drive())

    async def stop(self) -> None:
        self.hub.drop()
        if self._driving is not None:
            self._driving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._driving
        if self._runner is not None:
            await self._runner.cleanup()
        self.log.close()

    async def _drive(self) -> None:
        others = [asyncio.create_task(work) for work in (self._keep_flushing(), self._keep_faulting())]
        try:
            await self.driver.run()
        finally:
            for task in others:
                task.cancel()

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            self.log.flush()
            for peer in list(self.hub.peers.values()):
                side = peer.broker_side
                code = side.overdue() if isinstance(side, SandboxPatience) and not peer.over else None
                if code is not None:
                    self.hub.close(peer, code)

    async def _keep_faulting(self) -> None:
        """Start and end faults on time."""
        while True:
            self.faults.tick()
            self.hub.reap()
            frozen = any(peer.frozen for peer in self.hub.peers.values())
            waits = [wait for wait in (self.faults.next_due(), REAP_S if frozen else None) if wait is not None]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._fault_added.wait(), min(waits) if waits else None)
            self._fault_added.clear()

    def fault(self, fault: Fault) -> Injected:
        """Let a fault act from now on. Raises ``ValueError`` when it cannot act here."""
        record = self.faults.start(fault)
        self._fault_added.set()
        return record

    # --- requests -----------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        began = time.monotonic()
        asked = await _read(request)
        status = 500  # what aiohttp answers if this raises
        try:
            response = await self._answer(request, asked)
            status = response.status
            return response
        finally:
            if request.headers.get("upgrade", "").lower() != "websocket":
                self._log_request(asked, status, began)

    async def _answer(self, request: web.Request, asked: HttpRequest) -> web.StreamResponse:
        if asked.path.startswith("/sandbox/"):
            return self.control.answer(asked)
        if asked.headers.get("upgrade", "").lower() == "websocket":
            return await self._websocket(request, asked)
        self.hub.counts["requests"] += 1
        gate = self.faults.request(asked)
        await asyncio.sleep(gate.delay_s)
        reply = gate.reply or self._reply(asked)
        return _response(reply) if gate.keep == 1 else await _cut_short(request, reply, gate.keep)

    def _reply(self, asked: HttpRequest) -> HttpReply:
        pace = self.broker.pace(asked) if self.world.options.rate_limits else None
        if pace is not None and not self._pace.allows(pace, time.monotonic()):
            self.hub.counts["requests_over_limit"] += 1
            return pace.refusal
        return self.broker.http(asked)

    def _log_request(self, asked: HttpRequest, status: int, began: float) -> None:
        self.log.request(
            at_ns=self.clock.wall_ns(),
            method=asked.method,
            path=asked.path,
            query=_without_secrets(asked.raw_query),
            status=status,
            seconds=round(time.monotonic() - began, 6),
        )

    async def _websocket(self, request: web.Request, asked: HttpRequest) -> web.StreamResponse:
        began = time.monotonic()
        self.hub.reap()
        accepted = self.faults.upgrade(asked) or self.broker.upgrade(asked, len(self.hub.peers))
        self._log_request(asked, accepted.status if isinstance(accepted, HttpReply) else 101, began)
        if isinstance(accepted, HttpReply):
            self.hub.counts["connections_refused"] += 1
            return _response(accepted)
        socket = web.WebSocketResponse(compress=False, autoping=False)
        peer = self.hub.join(accepted, socket)  # before the next upgrade can count the connections
        sending: asyncio.Task[None] | None = None
        try:
            await socket.prepare(request)
            peer.transport = request.transport
            self.faults.joined(peer)
            sending = asyncio.create_task(self.hub.keep_sending(peer))
            await self._converse(peer)
        finally:
            self.hub.leave(peer)
            if sending is not None:
                sending.cancel()
        return socket

    async def _converse(self, peer: Peer) -> None:
        for text in peer.broker_side.opened():
            self.hub.send(peer, Outgoing(peer.number, text, "reply"))
        async for message in peer.socket:
            if message.type == WSMsgType.PING and self.faults.pongs(peer) and not peer.over:
                await peer.socket.pong(message.data)
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and not self.faults.ignores(peer):
                size = len(message.data)
                self.log.event("received", connection=peer.number, at_ns=self.clock.wall_ns(), size=size)
                self._obey(peer, message.data)

    def _obey(self, peer: Peer, data: str | bytes) -> None:
        """React to a client's message, at once or when a fault lets it."""
        loop = asyncio.get_running_loop()
        delay = self.faults.command_delay_s(peer) if peer.commands else 0.0
        peer.commands += 1
        due = max(peer.busy_until, loop.time()) + delay
        if due <= loop.time():
            self._react(peer, data)
        else:
            peer.busy_until = due  # a later message does not overtake it
            loop.call_at(due, self._react, peer, data)

    def _react(self, peer: Peer, data: str | bytes) -> None:
        if peer.over:
            return
        reaction = peer.broker_side.received(data)
        self.hub.subscriptions_changed()
        if len(self.hub.subscribed):
            self.faults.subscribed()
            self._fault_added.set()
        for text in reaction.messages:
            self.hub.send(peer, Outgoing(peer.number, text, "reply"))
        lines = reaction.snapshot
        recorded = self.world.replay or self.world.captured
        if recorded is not None:
            lines = recorded.shown(lines)
        self.faults.reacted(peer, reaction)
        if len(lines):
            self.hub.deliver(peer, self.world.market.snapshot(lines), "snapshot")
        self._close(peer, reaction)

    def _close(self, peer: Peer, reaction: Reaction) -> None:
        for other in list(self.hub.peers.values()):
            if any(other.broker_side is one for one in reaction.evict):
                self.hub.close(other, 1000)
        if reaction.close is not None:
            self.hub.close(peer, reaction.close)

    def push_order(self, order: dict[str, Any]) -> int:
        """Send an order update to every client; returns how many."""
        text = self.broker.order_message(order)
        for peer in self.hub.peers.values():
            self.hub.send(peer, Outgoing(peer.number, text, "order"))
        return len(self.hub.peers)


class _PaceKeeper:
    """Counts the accepted requests of a window that slides."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def allows(self, pace: Pace, now: float) -> bool:
        windows = []
        limit: Pace | None = pace
        while limit is not None:
            times = self._times.setdefault(limit.key, deque())
            while times and times[0] <= now - limit.per_s * _GRACE:
                times.popleft()
            if len(times) >= limit.calls:
                return False
            windows.append(times)
            limit = limit.also
        for times in windows:
            times.append(now)
        return True


async def _read(request: web.Request) -> HttpRequest:
    path, _, query = request.raw_path.partition("?")
    return HttpRequest(
        method=request.method,
        path=unquote(path),
        raw_query=query,
        headers={name.lower(): value for name, value in request.headers.items()},
        cookies=dict(request.cookies),
        body=await request.read() if request.body_exists else b"",
    )


async def _cut_short(request: web.Request, reply: HttpReply, keep: float) -> web.StreamResponse:
    """A part of the body that was announced, then the end of the connection."""
    headers = {"Content-Type": reply.content_type, **reply.headers, "Content-Length": str(len(reply.body))}
    answer = web.StreamResponse(status=reply.status, headers=headers)
    await answer.prepare(request)
    await answer.write(reply.body[: int(len(reply.body) * keep)])
    if request.transport is not None:
        request.transport.close()
    return answer


def _response(reply: HttpReply) -> web.Response:
    headers = {"Content-Type": reply.content_type, **reply.headers}
    return web.Response(status=reply.status, body=reply.body, headers=headers)


def _without_secrets(raw_query: str) -> str:
    """The query with every value that may be a secret replaced."""

    def shown(name: str, value: str) -> str:
        return "***" if any(word in name.lower() for word in _SECRET_WORDS) else value

    return urlencode([(name, shown(name, value)) for name, value in parse_qsl(raw_query, keep_blank_values=True)])
