"""The sandbox's server: HTTP and WebSocket of one broker on one loopback port.

Paths are the vendor's own. Only ``/sandbox/...`` is ours, for whoever runs the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from aiohttp import WSMsgType, web

from marketfeed.brokers import HttpReply, HttpRequest, Pace, SandboxBroker
from marketfeed.clock import Clock, ist_text
from marketfeed.enums import Mode
from marketfeed.sandbox.drive import Driver
from marketfeed.sandbox.hub import Hub, Outgoing, Peer
from marketfeed.sandbox.log import EventLog
from marketfeed.sandbox.world import World

__all__ = ["Server"]

HOST = "127.0.0.1"
_SECRET_WORDS = ("key", "token", "secret", "checksum", "password", "sess", "totp", "code")
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
        self.port = 0
        self._pace = _PaceKeeper()
        self._runner: web.AppRunner | None = None
        self._driving: asyncio.Task[None] | None = None

    async def start(self, port: int = 0) -> None:
        """Listen; afterwards :attr:`port` is the port. Raises ``OSError`` when it is taken."""
        application = web.Application(client_max_size=16 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, port)
        await site.start()
        self.port = self._runner.addresses[0][1]
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
        flushing = asyncio.create_task(self._keep_flushing())
        try:
            await self.driver.run()
        finally:
            flushing.cancel()

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            self.log.flush()

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
            return await self._control(asked)
        if asked.headers.get("upgrade", "").lower() == "websocket":
            return await self._websocket(request, asked)
        self.hub.counts["requests"] += 1
        pace = self.broker.pace(asked) if self.world.options.rate_limits else None
        if pace is not None and not self._pace.allows(pace, time.monotonic()):
            self.hub.counts["requests_over_limit"] += 1
            return _response(pace.refusal)
        return _response(self.broker.http(asked))

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
        accepted = self.broker.upgrade(asked, len(self.hub.peers))
        self._log_request(asked, accepted.status if isinstance(accepted, HttpReply) else 101, began)
        if isinstance(accepted, HttpReply):
            self.hub.counts["connections_refused"] += 1
            return _response(accepted)
        socket = web.WebSocketResponse(compress=False)
        peer = self.hub.join(accepted, socket)  # before the next upgrade can count the connections
        sending: asyncio.Task[None] | None = None
        try:
            await socket.prepare(request)
            peer.transport = request.transport
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
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            self.log.event("received", connection=peer.number, at_ns=self.clock.wall_ns(), size=len(message.data))
            await self._react(peer, message.data)

    async def _react(self, peer: Peer, data: str | bytes) -> None:
        reaction = peer.broker_side.received(data)
        self.hub.subscriptions_changed()
        for text in reaction.messages:
            self.hub.send(peer, Outgoing(peer.number, text, "reply"))
        lines = reaction.snapshot
        if self.world.replay is not None:
            lines = self.world.replay.shown(lines)
        if len(lines):
            self.hub.deliver(peer, self.world.market.snapshot(lines), "snapshot")
        if reaction.close is not None:
            await peer.socket.close(code=reaction.close)

    # --- control ------------------------------------------------------------------------------

    async def _control(self, asked: HttpRequest) -> web.Response:
        action = getattr(self, f"_{asked.method.lower()}_{asked.path.removeprefix('/sandbox/')}", None)
        if action is None:
            return web.json_response({"error": f"no {asked.method} {asked.path} here"}, status=404)
        try:
            return web.json_response(action(asked))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)

    def _get_clock(self, _: HttpRequest) -> dict[str, Any]:
        now = self.world.now_ns()
        return {"now_ns": now, "offset_ns": self.world.clock.offset_ns, "india_time": ist_text(now)}

    def _get_state(self, _: HttpRequest) -> dict[str, Any]:
        replay = self.world.replay
        return {
            "seed": self.world.options.seed,
            "instruments": len(self.world.market.instruments),
            "ticks_per_second": self.driver.ticks_per_second,
            "connections": [_described(peer) for peer in self.hub.peers.values()],
            "filters": len(self.hub.filters),
            "replay": None
            if replay is None
            else {"rows": len(replay), "sent": replay.sent, "begun": self.driver.replay_begun},
        }

    def _get_stats(self, _: HttpRequest) -> dict[str, int]:
        self.log.flush()
        return dict(self.hub.counts)

    def _post_order(self, asked: HttpRequest) -> dict[str, int]:
        import msgspec

        order = msgspec.json.decode(asked.body, type=dict[str, Any]) if asked.body else {}
        return {"sent": self.push_order(order)}

    def _post_drop(self, _: HttpRequest) -> dict[str, int]:
        return {"dropped": self.hub.drop()}

    def _post_expire(self, _: HttpRequest) -> dict[str, bool]:
        self.broker.expire()
        self.log.event("expired", at_ns=self.clock.wall_ns())
        return {"expired": True}

    def _post_replay(self, _: HttpRequest) -> dict[str, bool]:
        if self.world.replay is None:
            raise ValueError("this sandbox has no recording")
        self.driver.replay_begun = True
        return {"begun": True}

    def _post_rate(self, asked: HttpRequest) -> dict[str, float]:
        rate = float(dict(asked.query).get("ticks_per_second", "nan"))
        if not 0 <= rate < float("inf"):
            raise ValueError("give ?ticks_per_second=NUMBER, 0 or more")
        self.driver.ticks_per_second = rate
        return {"ticks_per_second": rate}

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
        times = self._times.setdefault(pace.key, deque())
        while times and times[0] <= now - pace.per_s * _GRACE:
            times.popleft()
        if len(times) >= pace.calls:
            return False
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


def _response(reply: HttpReply) -> web.Response:
    headers = {"Content-Type": reply.content_type, **reply.headers}
    return web.Response(status=reply.status, body=reply.body, headers=headers)


def _described(peer: Peer) -> dict[str, Any]:
    modes = Counter(peer.broker_side.modes.tolist())
    subscribed = {mode.word: modes[mode.value] for mode in Mode}
    return {"number": peer.number, "subscribed": subscribed, "ticks": peer.ticks, "backlog_bytes": peer.backlog}


def _without_secrets(raw_query: str) -> str:
    """The query with every value that may be a secret replaced."""

    def shown(name: str, value: str) -> str:
        return "***" if any(word in name.lower() for word in _SECRET_WORDS) else value

    return urlencode([(name, shown(name, value)) for name, value in parse_qsl(raw_query, keep_blank_values=True)])
