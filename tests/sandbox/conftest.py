"""A tiny broker of our own, so that the server is tested without any vendor's plugin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import websocket

from marketfeed.brokers import (
    Encoded,
    HttpReply,
    HttpRequest,
    Pace,
    Reaction,
    SandboxConnection,
    SandboxWorld,
)
from marketfeed.dtypes import Rows
from marketfeed.enums import Mode
from marketfeed.sandbox import Sandbox


class ParrotConnection:
    """``+1 2`` subscribes lines, ``-1`` unsubscribes, ``bye`` closes; ticks are JSON lists of [line, price]."""

    def __init__(self, count: int) -> None:
        self.modes = np.zeros(count, np.uint8)

    def opened(self) -> Sequence[str]:
        return ["hello"]

    def received(self, data: str | bytes) -> Reaction:
        text = str(data)
        if text == "bye":
            return Reaction(close=4000)
        lines = np.array(text[1:].split(), np.int64)
        self.modes[lines] = Mode.FULL if text[0] == "+" else 0
        return Reaction([f"ok {text}"], lines if text[0] == "+" else lines[:0])

    def encode(self, rows: Rows, *, snapshot: bool) -> Sequence[Encoded]:
        pairs = [[int(row["instrument"]), float(row["last_price"])] for row in rows]
        return [Encoded(json.dumps({"snapshot": snapshot, "ticks": pairs}), len(rows))]

    def heartbeat(self) -> bytes:
        return b"beat"


class ParrotBroker:
    """Answers every request with what was asked."""

    def __init__(self, world: SandboxWorld) -> None:
        self.world = world
        self.expired = False

    def settings(self, http_url: str, ws_url: str) -> Mapping[str, Any]:
        return {"rest_url": http_url, "stream_url": ws_url}

    def token(self, line: int) -> str:
        return f"T{line}"

    def pace(self, request: HttpRequest) -> Pace | None:
        return Pace("all", 3, 1.0, HttpReply(status=429, body=b"slow down")) if request.path == "/paced" else None

    def http(self, request: HttpRequest) -> HttpReply:
        body = json.dumps({"path": request.path, "query": request.query, "body": request.body.decode()})
        return HttpReply(body=body.encode(), headers={"X-Parrot": "yes"})

    def upgrade(self, request: HttpRequest, live: int) -> HttpReply | SandboxConnection:
        if self.expired:
            return HttpReply(status=403, body=b"expired")
        if live >= 3:
            return HttpReply(status=429, body=b"three at most")
        return ParrotConnection(len(self.world.market.instruments))

    def order_message(self, order: Mapping[str, Any]) -> str:
        return json.dumps({"order": dict(order)})

    def expire(self) -> None:
        self.expired = True


@contextmanager
def parrot(**options: Any) -> Iterator[Sandbox]:
    """A sandbox that plays the parrot, without ticks unless asked for."""
    with Sandbox("parrot", broker=ParrotBroker, **{"ticks_per_second": 0.0, "instruments": 30, **options}) as box:
        yield box


class Client:
    """A WebSocket client that reads JSON ticks and everything else as it comes."""

    def __init__(self, box: Sandbox) -> None:
        url = box.url.replace("http", "ws")
        self.socket = websocket.create_connection(url, timeout=10, suppress_origin=True)

    def send(self, text: str) -> None:
        self.socket.send(text)

    def read(self) -> Any:
        """The next message: ticks as a dict, other text and bytes as they are."""
        data = self.socket.recv()
        return json.loads(data) if isinstance(data, str) and data.startswith("{") else data

    def ticks(self, count: int) -> list[list[float]]:
        """At least ``count`` ticks, heartbeats and answers left out."""
        found: list[list[float]] = []
        while len(found) < count:
            message = self.read()
            if isinstance(message, dict) and "ticks" in message:
                found += message["ticks"]
        return found

    def close(self) -> None:
        self.socket.shutdown()  # close() leaves the socket open when its farewell cannot be sent


@pytest.fixture
def connect() -> Iterator[Callable[[Sandbox], Client]]:
    """Opens clients and closes them after the test."""
    with ExitStack() as stack:

        def make(box: Sandbox) -> Client:
            client = Client(box)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def play() -> Callable[..., Any]:
    return parrot
