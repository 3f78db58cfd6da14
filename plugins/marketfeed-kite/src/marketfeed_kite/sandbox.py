"""Kite Connect's side of the protocol, for the sandbox: REST and ticker, byte for byte.

Written from the documentation and from what the official SDK sends and accepts, on purpose without
the code of this plugin's parser: each checks the other. Where nothing is documented, the comment
says "guess".
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketfeed.brokers import (
    NO_LINES,
    Encoded,
    HttpReply,
    HttpRequest,
    Lines,
    Pace,
    Reaction,
    SandboxConnection,
    SandboxWorld,
)
from marketfeed.clock import NS, ist_text
from marketfeed.dtypes import Rows
from marketfeed.enums import Mode
from marketfeed_kite._sandbox_damage import DAMAGES
from marketfeed_kite._sandbox_json import (
    DUMP_HEADER,
    ORDER,
    candles_of,
    dump_row,
    moment,
    person,
    quote_of,
    refused,
    success,
)
from marketfeed_kite._sandbox_login import Login
from marketfeed_kite._sandbox_packets import PacketLayout, kite_token

__all__ = ["KiteBroker", "KiteTicker"]

INSTRUMENTS_PER_CONNECTION = 3000
CONNECTIONS = 3
_INTERVALS = {  # seconds of a bar, most days in one request (staff answer)
    "minute": (60, 60),
    "3minute": (180, 100),
    "5minute": (300, 100),
    "10minute": (600, 100),
    "15minute": (900, 200),
    "30minute": (1800, 200),
    "60minute": (3600, 400),
    "day": (86_400, 2000),
}
_TOO_MANY = "Can't subscribe to more than 3000 instruments."  # the documentation gives the limit, not the words


class KiteBroker:
    """Implements :class:`marketfeed.brokers.SandboxBroker` for Kite Connect v3."""

    def __init__(self, world: SandboxWorld) -> None:
        self.world = world
        self.tokens = np.array([kite_token(one) for one in world.market.instruments], np.uint32)
        self.lines = {int(token): line for line, token in enumerate(self.tokens)}
        self.keys = {one.key: line for line, one in enumerate(world.market.instruments)}
        self.layout = PacketLayout.of(world.market.instruments, self.tokens)
        self.login = Login(world)
        self._routes = {
            ("GET", "/user/profile"): self._profile,
            ("GET", "/quote"): self._quote,
            ("GET", "/quote/ohlc"): self._ohlc,
            ("GET", "/quote/ltp"): self._ltp,
        }

    def settings(self, http_url: str, ws_url: str) -> Mapping[str, Any]:
        account = self.world.credentials
        settings = {
            "login_url": http_url,
            "rest_url": http_url,
            "stream_url": ws_url,
            "api_key": account.api_key,
            "api_secret": account.api_secret,
            "user_id": account.user_id,
        }
        return settings | ({"access_token": account.access_token} if account.access_token else {})

    def token(self, line: int) -> str:
        return str(self.tokens[line])

    # --- HTTP ---------------------------------------------------------------------------------

    def pace(self, request: HttpRequest) -> Pace | None:
        """1 a second for quotes, 3 for history, 10 for each of orders and the rest (documentation)."""
        path = request.path
        if path.startswith(("/connect/", "/api/")):
            return None  # the login pages live on another host
        key, calls = "other", 10
        if path.startswith("/quote"):
            key, calls = "quote", 1
        elif path.startswith("/instruments/historical/"):
            key, calls = "historical", 3
        elif path.startswith("/orders"):
            key = "orders"
        return Pace(key, calls, 1.0, refused(429, "NetworkException", "Too many requests"))

    def http(self, request: HttpRequest) -> HttpReply:
        path = request.path
        if path.startswith(("/connect/", "/api/", "/session/")):
            return self.login.http(request)
        if request.method == "GET" and path.startswith("/instruments") and "/historical/" not in path:
            return self._instruments(path.removeprefix("/instruments").strip("/"))  # no login needed (staff answer)
        if not self.login.may(request.headers.get("authorization", "")):
            return refused(403, "TokenException", "Incorrect `api_key` or `access_token`.")
        if request.method == "GET" and path.startswith("/instruments/historical/"):
            return self._historical(request)
        route = self._routes.get((request.method, path))
        return route(request) if route else refused(404, "GeneralException", "Route not found")

    def _profile(self, _: HttpRequest) -> HttpReply:
        return success(person(self.world.credentials) | {"meta": {"demat_consent": "physical"}})

    def _instruments(self, exchange: str) -> HttpReply:
        rows = [
            dump_row(one, int(self.tokens[line]))
            for line, one in enumerate(self.world.market.instruments)
            if not exchange or one.exchange == exchange
        ]
        text = "\r\n".join([DUMP_HEADER, *rows, ""])
        packed = gzip.compress(text.encode(), compresslevel=1, mtime=0)
        return HttpReply(body=packed, content_type="text/csv", headers={"Content-Encoding": "gzip"})

    def _asked(self, request: HttpRequest) -> dict[str, int]:
        """Lines by the name they were asked for: ``EXCHANGE:SYMBOL`` or a numeric token."""
        names = [value for name, value in request.query if name == "i"]
        found = {}
        for name in names:
            line = self.lines.get(int(name)) if name.isdecimal() else self.keys.get(name)
            if line is not None:  # unknown names are simply absent
                found[name] = line
        return found

    def _quotes(self, request: HttpRequest, most: int) -> tuple[dict[str, dict[str, Any]], HttpReply | None]:
        count = sum(name == "i" for name, _ in request.query)
        if count > most:
            text = f"Too many tokens requested. Max permitted is {most}."
            return {}, refused(400, "InputException", text)
        asked = self._asked(request)
        rows = self.world.market.snapshot(np.array(list(asked.values()), np.int64))
        quotes = {}
        for (name, line), row in zip(asked.items(), rows, strict=True):
            quotes[name] = quote_of(row, int(self.tokens[line]))
        return quotes, None

    def _quote(self, request: HttpRequest) -> HttpReply:
        quotes, refusal = self._quotes(request, 500)
        return refusal or success(quotes)

    def _ohlc(self, request: HttpRequest) -> HttpReply:
        return self._part(request, ("instrument_token", "last_price", "ohlc"))

    def _ltp(self, request: HttpRequest) -> HttpReply:
        return self._part(request, ("instrument_token", "last_price"))

    def _part(self, request: HttpRequest, names: Sequence[str]) -> HttpReply:
        quotes, refusal = self._quotes(request, 1000)
        return refusal or success({key: {name: quote[name] for name in names} for key, quote in quotes.items()})

    def _historical(self, request: HttpRequest) -> HttpReply:
        token, _, word = request.path.removeprefix("/instruments/historical/").partition("/")
        query = dict(request.query)
        line = self.lines.get(int(token)) if token.isdecimal() else None
        if line is None:
            return refused(400, "InputException", "invalid token")
        if word not in _INTERVALS:
            return refused(400, "InputException", "invalid interval")
        try:
            first, last = (moment(query.get(name, "")) for name in ("from", "to"))
        except ValueError:
            return refused(400, "InputException", "invalid from or to date")
        seconds, days = _INTERVALS[word]
        if last < first:
            return refused(400, "InputException", "from date should be before to date")
        if last - first > days * 86_400:
            return refused(400, "InputException", f"interval exceeds max limit: {days} days")
        rows = self.world.market.candles(line, seconds, first * NS, last * NS + 1)  # both ends are included
        return success({"candles": candles_of(rows, with_interest=query.get("oi") == "1")})

    # --- WebSocket ----------------------------------------------------------------------------

    def upgrade(self, request: HttpRequest, live: int) -> HttpReply | SandboxConnection:
        query = dict(request.query)
        if not {"api_key", "access_token"} <= set(query):
            return refused(400, "InputException", "Missing `api_key` or `access_token`.")
        if not self.login.knows(query["api_key"], query["access_token"]):
            return refused(403, "TokenException", "Incorrect `api_key` or `access_token`.")
        limit = CONNECTIONS if self.world.connection_limit is None else self.world.connection_limit
        if limit and live >= limit:
            return refused(429, "NetworkException", "Too many requests")
        return KiteTicker(self)

    def order_message(self, order: Mapping[str, Any]) -> str:
        """A postback, as it comes over the WebSocket too."""
        now = ist_text(self.world.now_ns())[:19]
        account = self.world.credentials
        update = ORDER | {name: now for name in ORDER if name.endswith("timestamp")}
        update |= {"user_id": account.user_id, "placed_by": account.user_id, **order}
        # The documented proof of origin: SHA-256 of order id, time and the app's secret.
        text = f"{update['order_id']}{update['order_timestamp']}{account.api_secret}"
        update["checksum"] = hashlib.sha256(text.encode()).hexdigest()
        return json.dumps({"type": "order", "data": update}, separators=(",", ":"))

    def expire(self) -> None:
        self.login.expire()

    # --- faults -------------------------------------------------------------------------------

    @property
    def damages(self) -> Sequence[str]:
        return tuple(DAMAGES)

    def damaged(self, data: str | bytes, how: str) -> str | bytes:
        return DAMAGES[how](data) if isinstance(data, bytes) else data

    def refusal(self, status: int) -> HttpReply | None:
        """The documented error for a status; words for 429 and 403 are those that people quote."""
        words = {
            400: ("InputException", "Missing `api_key` or `access_token`."),
            403: ("TokenException", "Incorrect `api_key` or `access_token`."),
            429: ("NetworkException", "Too many requests"),
            500: ("GeneralException", "Something went wrong"),
            502: ("DataException", "Gateway error"),
            503: ("NetworkException", "Service unavailable"),
        }
        return refused(status, *words[status]) if status in words else None


class KiteTicker:
    """One WebSocket. Implements :class:`marketfeed.brokers.SandboxConnection`."""

    def __init__(self, broker: KiteBroker) -> None:
        self._broker = broker
        self.modes: NDArray[np.uint8] = np.zeros(len(broker.tokens), np.uint8)

    def opened(self) -> Sequence[str | bytes]:
        return ()

    def received(self, data: str | bytes) -> Reaction:
        """``subscribe``, ``unsubscribe``, ``mode``; there is no acknowledgement. Nonsense is ignored (guess)."""
        try:
            message = json.loads(data)
            action, value = message["a"], message["v"]
            if action == "subscribe":
                return self._subscribe(self._known(value))
            if action == "unsubscribe":
                self.modes[self._known(value)] = 0
            elif action == "mode":
                return self._change(Mode.of(value[0]), self._known(value[1]))
        except (ValueError, KeyError, TypeError, IndexError):
            pass
        return Reaction()

    def encode(self, rows: Rows, *, snapshot: bool) -> Sequence[Encoded]:
        """One frame: the number of packets, then each packet behind its length."""
        del snapshot  # looks like any other frame
        frame = self._broker.layout.frame(rows, self.modes[rows["instrument"]])
        return [Encoded(frame, len(rows))]

    def heartbeat(self) -> bytes:
        return b"\x00"  # one byte; its value is not specified

    def _known(self, tokens: Sequence[int]) -> Lines:
        lines = self._broker.lines
        return np.array(list(dict.fromkeys(lines[int(one)] for one in tokens if int(one) in lines)), np.int64)

    def _subscribe(self, lines: Lines) -> Reaction:
        """New instruments come in quote mode; known ones keep theirs (guess)."""
        new = lines[self.modes[lines] == 0]
        room = INSTRUMENTS_PER_CONNECTION - int(np.count_nonzero(self.modes))
        taken = new[: max(room, 0)]
        self.modes[taken] = Mode.QUOTE
        texts = [json.dumps({"type": "error", "data": _TOO_MANY})] if len(taken) < len(new) else []
        return Reaction(texts, taken)

    def _change(self, mode: Mode, lines: Lines) -> Reaction:
        """Instruments that are not subscribed stay so (guess); the others are sent anew at once (guess)."""
        mine = lines[self.modes[lines] > 0]
        self.modes[mine] = mode
        return Reaction((), mine if len(mine) else NO_LINES)
