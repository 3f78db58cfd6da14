"""The broker's side, for tests and for trying things without an account."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from marketfeed.brokers import Encoded, HttpReply, HttpRequest, Reaction
from marketfeed.enums import Mode

_FIELDS = ("exchange", "symbol", "name", "strike", "lot_size", "tick_size", "exchange_token")


class MyvendorBroker:
    """See ``marketfeed.brokers.SandboxBroker``."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.good = {world.credentials.access_token} - {None}

    def settings(self, http_url: str, ws_url: str) -> Mapping[str, Any]:
        account = self.world.credentials
        urls = {"login_url": http_url, "rest_url": http_url, "stream_url": ws_url}
        keys = {"api_key": account.api_key, "api_secret": account.api_secret}
        return {**urls, **keys, **({"access_token": account.access_token} if account.access_token else {})}

    def token(self, line: int) -> str:
        return str(1000 + line)

    def pace(self, request: HttpRequest) -> None:
        return None

    def http(self, request: HttpRequest) -> HttpReply:
        if request.path == "/instruments":
            return HttpReply(
                body=json.dumps([self._listed(line) for line in range(len(self.world.market.instruments))]).encode()
            )
        account = self.world.credentials
        if request.path == "/login" and json.loads(request.body) == {
            "key": account.api_key,
            "secret": account.api_secret,
        }:
            self.good.add(token := self.world.new_token())
            return HttpReply(body=json.dumps({"token": token}).encode())
        return HttpReply(status=403)

    def _listed(self, line: int) -> dict[str, Any]:
        one = self.world.market.instruments[line]
        told = {name: getattr(one, name) for name in _FIELDS}
        return {**told, "kind": one.kind, "expiry": one.expiry and one.expiry.isoformat(), "token": self.token(line)}

    def upgrade(self, request: HttpRequest, live: int) -> Any:
        return Socket(self) if dict(request.query).get("token") in self.good else HttpReply(status=403)

    def order_message(self, order: Mapping[str, Any]) -> str:
        return json.dumps({"order": dict(order)})

    def expire(self) -> None:
        self.good.clear()


class Socket:
    """See ``marketfeed.brokers.SandboxConnection``."""

    def __init__(self, broker: MyvendorBroker) -> None:
        self.broker = broker
        self.modes = np.zeros(len(broker.world.market.instruments), np.uint8)

    def opened(self) -> Sequence[str]:
        return ()

    def received(self, data: str | bytes) -> Reaction:
        message = json.loads(data)
        self.modes[[int(token) - 1000 for token in message.get("unsubscribe", ())]] = 0
        new = np.array([int(token) - 1000 for token in message.get("subscribe", ())], np.int64)
        self.modes[new] = Mode.QUOTE
        return Reaction((), new)

    def encode(self, rows: Any, *, snapshot: bool) -> Iterator[Encoded]:
        columns = (rows[name].tolist() for name in ("instrument", "last_price", "volume", "exchange_ns"))
        ticks = [(self.broker.token(line), *rest) for line, *rest in zip(*columns, strict=True)]
        yield Encoded(json.dumps({"ticks": ticks}, separators=(",", ":")), len(rows))

    def heartbeat(self) -> str:
        return "{}"
