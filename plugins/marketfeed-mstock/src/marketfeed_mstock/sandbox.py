"""mStock's side of the protocol, for the sandbox: login, REST and the socket of both dialects.

Written from the documentation and from what the official SDKs send and accept, on purpose without the
code of this plugin's parsers: each checks the other. Where nothing is documented, the comment says "guess".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote

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
from marketfeed.clock import IST, NS, ist_text
from marketfeed.dtypes import Rows
from marketfeed.enums import Mode
from marketfeed.errors import MarketFeedError
from marketfeed_mstock._sandbox_damage import DAMAGES, damaged
from marketfeed_mstock._sandbox_login import Login, good, refused
from marketfeed_mstock._sandbox_packets import Packets
from marketfeed_mstock._sandbox_rest import Rest
from marketfeed_mstock._sandbox_scrips import make_scrips

__all__ = ["MstockBroker", "MstockSocket"]

INSTRUMENTS_PER_CONNECTION = 1000
"""Guess: nothing found documents a limit."""
_CHOICES = {"dialect": ("a", "b"), "header": ("yes", "no"), "off_hours": ("refused", "open")}
_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head></html>"
_OPENING, _CLOSING = (9, 0), (15, 40)


class MstockBroker:
    """Implements :class:`marketfeed.brokers.SandboxBroker` for mStock, Type A and Type B at once or one of them."""

    option_names = (*_CHOICES, "login_s")

    def __init__(self, world: SandboxWorld) -> None:
        self.world = world
        options = {name: _choice(world.vendor_options, name) for name in _CHOICES}
        self.dialect = options["dialect"]
        self.header = options["header"] == "yes"
        self._refuses_off_hours = options["off_hours"] == "refused"
        self.login_ns = int(_number(world.vendor_options, "login_s", 10.0) * NS)
        self.scrips = make_scrips(world.market.instruments)
        self.packets = Packets.of(self.scrips)
        self.login = Login(world, self.dialect)
        self.order_dialect = self.dialect or "b"
        """Of order updates: that of the client who subscribed last."""
        self._rest = Rest(world, self.scrips)
        self.by_key = {one.key: line for line, one in enumerate(self.scrips) if one.number}
        self.by_token: dict[int, list[int]] = {}
        """Type A names no exchange, so a token may mean several lines."""
        for line, one in enumerate(self.scrips):
            if one.number:
                self.by_token.setdefault(int(one.token), []).append(line)

    def settings(self, http_url: str, ws_url: str) -> Mapping[str, Any]:
        account = self.world.credentials
        settings = {
            "login_url": http_url,
            "rest_url": http_url,
            "stream_url": ws_url,
            "api_key": self.login.api_key,
            "client_code": account.user_id,
            "password": account.password,
            "totp_secret": account.totp_secret,
        }
        dialect = {"dialect": self.dialect} if self.dialect else {}
        return settings | dialect | ({"access_token": account.access_token} if account.access_token else {})

    def token(self, line: int) -> str:
        return self.scrips[line].key

    # --- HTTP ---------------------------------------------------------------------------------

    def pace(self, request: HttpRequest) -> Pace | None:
        """1 a second, 1000 a minute and 5000 an hour for data, 20 a second for quotes (documentation). Whether history
        and today's candles are data together is not said: they are counted apart here, together in the plugin."""
        dialect, call = _split(request.path)
        word = "/".join(call.split("/")[:2])
        refusal = refused(dialect, 429, "GeneralException", "IA429", "Too many requests")  # words and status: guess
        if word == "instruments/quote":
            return Pace("quote", 20, 1.0, refusal)
        if word in ("instruments/historical", "instruments/intraday"):
            hour = Pace(f"{word} an hour", 5000, 3600.0, refusal)
            return Pace(word, 1, 1.0, refusal, Pace(f"{word} a minute", 1000, 60.0, refusal, hour))
        return None

    def http(self, request: HttpRequest) -> HttpReply:
        dialect, call = _split(request.path)
        if not dialect or dialect not in (self.dialect or "ab"):
            return HttpReply(status=404, body=b"<html>404 Not Found</html>", content_type="text/html")
        if request.headers.get("x-mirae-version") != "1":
            return refused(dialect, 400, "InputException", "IA400", "Please provide valid api version.")
        reply = self.login.http(dialect, call, request)
        if reply is not None:
            return reply
        token = self._authorized(dialect, request)
        if token is None:
            text = "Invalid request. Please try again."
            return refused(dialect, 401, "TokenException", "IA401", text)
        if call == "logout":
            self.login.logout(token)
            return good(dialect, "Success" if dialect == "a" else None)
        return self._rest.http(dialect, call, request)

    def _authorized(self, dialect: str, request: HttpRequest) -> str | None:
        """The token of a call that may be made: ``token KEY:TOKEN``, or ``Bearer TOKEN`` beside ``X-PrivateKey``."""
        kind, _, rest = request.headers.get("authorization", "").partition(" ")
        if dialect == "a":
            key, _, token = rest.rpartition(":")
        else:
            key, token = request.headers.get("x-privatekey", ""), rest
        right = kind == ("token" if dialect == "a" else "Bearer") and dialect in self.login.speaks(
            key, token, rest=True
        )
        return token if right else None

    # --- WebSocket ----------------------------------------------------------------------------

    def upgrade(self, request: HttpRequest, live: int) -> HttpReply | SandboxConnection:
        """A refusal shows up as 502 of a load balancer (third parties). A ``+`` in the query is no space."""
        pairs = (part.partition("=") for part in request.raw_query.split("&"))
        query = {name: unquote(value) for name, _, value in pairs}
        token = query.get("ACCESS_TOKEN", "")
        speaks = self.login.speaks(query.get("API_KEY", ""), token, rest=False)
        limit = self.world.connection_limit
        full = bool(limit) and live >= (limit or 0)
        if request.path != "/" or not speaks or full or (self._refuses_off_hours and not self._market_hours()):
            return HttpReply(status=502, body=_GATEWAY, content_type="text/html")
        return MstockSocket(self, token, speaks)

    def _market_hours(self) -> bool:
        now = datetime.fromtimestamp(self.world.now_ns() // NS, IST)
        return now.weekday() < 5 and _OPENING <= (now.hour, now.minute) < _CLOSING

    def order_message(self, order: Mapping[str, Any]) -> str:
        now = ist_text(self.world.now_ns())[:19]
        kind = str(order.get("kind", "order"))
        rest = {name: value for name, value in order.items() if name != "kind"}
        if self.order_dialect == "a":
            return _text(
                {"type": kind, "data": {"order_id": "1", "status": "COMPLETE", "order_timestamp": now, **rest}}
            )
        data = {"orderid": "1", "status": "complete", "updatetime": now, **rest}
        return _text({"order_status": kind, "orderData": data})

    def expire(self) -> None:
        self.login.expire()

    # --- faults -------------------------------------------------------------------------------

    @property
    def damages(self) -> Sequence[str]:
        return DAMAGES

    def damaged(self, data: str | bytes, how: str) -> str | bytes:
        return damaged(data, how) if isinstance(data, bytes) else data

    def refusal(self, status: int) -> HttpReply | None:
        dialect = self.dialect or "b"
        words = {
            400: ("InputException", "IA400", "Please provide valid api version."),
            401: ("TokenException", "IA401", "Invalid request. Please try again."),
            403: ("APIKeyException", "IA403", "API is suspended/expired for use."),
            429: ("GeneralException", "IA429", "Too many requests"),
        }
        return refused(dialect, status, *words[status]) if status in words else None


class MstockSocket:
    """One WebSocket. Implements :class:`marketfeed.brokers.SandboxConnection` and ``SandboxPatience``."""

    def __init__(self, broker: MstockBroker, token: str, speaks: str) -> None:
        self._broker = broker
        self._token = token
        self._speaks = speaks
        self._dialect = speaks if len(speaks) == 1 else ""
        self._open = False
        self._since_ns = broker.world.now_ns()
        self.modes: NDArray[np.uint8] = np.zeros(len(broker.scrips), np.uint8)

    def opened(self) -> Sequence[str | bytes]:
        return ()

    def overdue(self) -> int | None:
        """Without LOGIN a connection ends after ten seconds (older documentation); the code is a guess."""
        late = self._broker.world.now_ns() - self._since_ns > self._broker.login_ns
        return 1008 if late and not self._open else None

    def received(self, data: str | bytes) -> Reaction:
        """LOGIN first; then subscriptions in the dialect of the token. Nonsense is ignored (guess)."""
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        if text.startswith("LOGIN:"):
            return self._login(text.removeprefix("LOGIN:"))
        if not self._open:
            return Reaction()
        try:
            message = json.loads(text)
            dialect = "a" if "a" in message else "b"
            if dialect not in self._speaks:
                return Reaction()
            self._dialect = self._broker.order_dialect = dialect
            return self._ask_a(message) if dialect == "a" else self._ask_b(message)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return Reaction()

    def encode(self, rows: Rows, *, snapshot: bool) -> Iterator[Encoded]:
        """Type A: one frame of all packets. Type B: one packet a message."""
        del snapshot  # looks like any other message
        modes = self.modes[rows["instrument"]]
        if self._dialect == "a":
            yield Encoded(self._broker.packets.frame_a(rows, modes), len(rows))
            return
        for packet in self._broker.packets.messages_b(rows, modes, header=self._broker.header):
            yield Encoded(packet, 1)

    def heartbeat(self) -> bytes | None:
        """Type A: one byte (Kite's habit, read in the SDK). Nothing is stated for Type B."""
        return b"\x00" if self._dialect == "a" else None

    def _login(self, token: str) -> Reaction:
        """There is an answer (a third party waits for it); its words are a guess."""
        if token != self._token:
            return Reaction([_text({"type": "error", "data": "Invalid access token"})], close=1008)
        self._open = True
        return Reaction([_text({"type": "login", "data": "success"})])

    # --- Type A -------------------------------------------------------------------------------

    def _ask_a(self, message: Mapping[str, Any]) -> Reaction:
        action, value = message["a"], message["v"]
        if action == "subscribe" and isinstance(value, dict):  # the Node SDK's form
            reactions = [self._subscribe(self._known_a(tokens), Mode.of(word)) for word, tokens in value.items()]
            return Reaction((), np.concatenate([one.snapshot for one in reactions]))
        if action == "subscribe":
            return self._subscribe(self._known_a(value), Mode.QUOTE, keep=True)
        if action == "unsubscribe":
            self.modes[self._known_a(value)] = 0
        elif action == "mode":
            lines = self._known_a(value[1]) if len(value) > 1 else np.flatnonzero(self.modes)
            mine = lines[self.modes[lines] > 0]
            self.modes[mine] = Mode.of(value[0])
            return Reaction((), mine)
        return Reaction()

    def _known_a(self, tokens: Sequence[int]) -> Lines:
        by_token = self._broker.by_token
        return np.array(list(dict.fromkeys(line for one in tokens for line in by_token.get(int(one), ()))), np.int64)

    # --- Type B -------------------------------------------------------------------------------

    def _ask_b(self, message: Mapping[str, Any]) -> Reaction:
        """The mode of an unsubscription does not matter: the SDK always says 2."""
        action, parameters = message["action"], message["params"]
        by_key = self._broker.by_key
        keys = [f"{one['exchangeType']}:{token}" for one in parameters["tokenList"] for token in one["tokens"]]
        lines = np.array(list(dict.fromkeys(by_key[key] for key in keys if key in by_key)), np.int64)
        if action == 1:
            return self._subscribe(lines, Mode(parameters["mode"]))
        if action == 0:
            self.modes[lines] = 0
        return Reaction()

    def _subscribe(self, lines: Lines, mode: Mode, *, keep: bool = False) -> Reaction:
        """The present state follows at once (guess); ``keep``: what is subscribed stays as it is."""
        new = lines[self.modes[lines] == 0]
        room = INSTRUMENTS_PER_CONNECTION - int(np.count_nonzero(self.modes))
        over = new[max(room, 0) :]
        taken = np.setdiff1d(new if keep else lines, over, assume_unique=True)
        self.modes[taken] = mode
        text = f"Can't subscribe to more than {INSTRUMENTS_PER_CONNECTION} instruments."
        texts = [_text({"type": "error", "data": text})] if len(over) else []
        return Reaction(texts, taken if len(taken) else NO_LINES)


def _split(path: str) -> tuple[str, str]:
    """Dialect and call of ``/openapi/typeb/connect/login``; the dialect is empty for any other path."""
    for dialect in "ab":
        if path.startswith(f"/openapi/type{dialect}/"):
            return dialect, path.removeprefix(f"/openapi/type{dialect}/").strip("/")
    return "", path


def _choice(options: Mapping[str, str], name: str) -> str:
    value = options.get(name, "")
    if value and value not in _CHOICES[name]:
        raise MarketFeedError(f"{name} is {value!r}; choose {' or '.join(_CHOICES[name])}")
    return value


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(options.get(name, default))
    except ValueError:
        raise MarketFeedError(f"{name} is {options[name]!r}, which is no number") from None


def _text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
