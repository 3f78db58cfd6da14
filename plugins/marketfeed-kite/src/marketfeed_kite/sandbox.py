"""Kite Connect's side of the protocol, for the sandbox: login, REST and ticker, byte for byte.

Written from the documentation and from what the official SDK sends and accepts, on purpose without
the code of this plugin's parser: each checks the other. Where nothing is documented, the comment
says "guess".
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.brokers import (
    NO_LINES,
    Credentials,
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
from marketfeed.enums import Kind, Mode
from marketfeed.instruments import Instrument

__all__ = ["KiteBroker", "KiteTicker"]

INSTRUMENTS_PER_CONNECTION = 3000
CONNECTIONS = 3
REQUEST_TOKEN_S = 300
"""A request token is good once and for five minutes (staff answer)."""
_SEGMENTS = {"NSE": 1, "NFO": 2, "CDS": 3, "BSE": 4, "BFO": 5, "BCD": 6, "MCX": 7, "NCO": 12}
_DIVISORS = {3: 10_000_000.0, 6: 10_000.0, 12: 10_000.0}
_INDEX = 9
# Kite numbers indices in its own way; the exchange's numbers are 26000 and so on.
_INDEX_TOKENS = {"NIFTY 50": 1001, "NIFTY BANK": 1016, "INDIA VIX": 1035}
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
        return success(_person(self.world.credentials) | {"meta": {"demat_consent": "physical"}})

    def _instruments(self, exchange: str) -> HttpReply:
        rows = [
            dump_row(one, int(self.tokens[line]))
            for line, one in enumerate(self.world.market.instruments)
            if not exchange or one.exchange == exchange
        ]
        text = "\r\n".join([_DUMP_HEADER, *rows, ""])
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
            first, last = (_moment(query.get(name, "")) for name in ("from", "to"))
        except ValueError:
            return refused(400, "InputException", "invalid from or to date")
        seconds, days = _INTERVALS[word]
        if last < first:
            return refused(400, "InputException", "from date should be before to date")
        if last - first > days * 86_400:
            return refused(400, "InputException", f"interval exceeds max limit: {days} days")
        rows = self.world.market.candles(line, seconds, first * NS, last * NS + 1)  # both ends are included
        return success({"candles": _candles(rows, with_interest=query.get("oi") == "1")})

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
        update = _ORDER | {name: now for name in _ORDER if name.endswith("timestamp")}
        update |= {"user_id": account.user_id, "placed_by": account.user_id, **order}
        # The documented proof of origin: SHA-256 of order id, time and the app's secret.
        text = f"{update['order_id']}{update['order_timestamp']}{account.api_secret}"
        update["checksum"] = hashlib.sha256(text.encode()).hexdigest()
        return json.dumps({"type": "order", "data": update}, separators=(",", ":"))

    def expire(self) -> None:
        self.login.expire()


# --- login ------------------------------------------------------------------------------------


class Login:
    """The login pages, the token exchange, and which access tokens are good."""

    def __init__(self, world: SandboxWorld) -> None:
        self._world = world
        self._account = world.credentials
        self._access = {self._account.access_token} - {None}
        self._issued: str | None = None  # by a login; the next login ends it
        self._pending: set[str] = set()  # request_ids: the password was right
        self._browsers: set[str] = set()  # cookies of browsers that are logged in
        self._visits: dict[str, str] = {}  # sess_id -> the rest of the redirect URL
        self._request_tokens: dict[str, int] = {}  # -> when it was given, sandbox nanoseconds
        self._routes = {
            ("GET", "/connect/login"): self._page,
            ("POST", "/connect/login"): self._submitted,
            ("GET", "/connect/finish"): self._finish,
            ("POST", "/api/login"): self._password,
            ("POST", "/api/twofa"): self._second_factor,
            ("POST", "/session/token"): self._exchange,
            ("DELETE", "/session/token"): self._logout,
        }

    def http(self, request: HttpRequest) -> HttpReply:
        route = self._routes.get((request.method, request.path))
        return route(request) if route else refused(404, "GeneralException", "Route not found")

    def may(self, authorization: str) -> bool:
        """``token api_key:access_token``"""
        kind, _, pair = authorization.partition(" ")
        key, _, token = pair.partition(":")
        return kind == "token" and self.knows(key, token)

    def knows(self, api_key: str, access_token: str) -> bool:
        return api_key == self._account.api_key and access_token in self._access

    def expire(self) -> None:
        self._access.clear()
        self._browsers.clear()

    def _page(self, request: HttpRequest) -> HttpReply:
        query = dict(request.query)
        if query.get("api_key") != self._account.api_key:
            return refused(400, "InputException", "Invalid `api_key`.")
        if request.cookies.get("kite_session") in self._browsers:
            return self._onwards(query)
        return _html(_FORM.format(query=html.escape(request.raw_query)))

    def _onwards(self, query: Mapping[str, str]) -> HttpReply:
        """One redirect on our own host first, as the live page does; the next one holds the request token."""
        visit = self._world.new_token()
        self._visits[visit] = query.get("redirect_params", "")
        target = "/connect/finish?" + urlencode({"api_key": self._account.api_key, "sess_id": visit})
        return HttpReply(status=302, content_type="text/html", headers={"Location": target})

    def _finish(self, request: HttpRequest) -> HttpReply:
        extra = self._visits.pop(dict(request.query).get("sess_id", ""), None)
        if extra is None or request.cookies.get("kite_session") not in self._browsers:
            return refused(400, "InputException", "Invalid session.")
        token = self._world.new_token()
        self._request_tokens[token] = self._world.now_ns()
        query = urlencode({"action": "login", "type": "login", "status": "success", "request_token": token})
        target = self._account.redirect_url
        target += ("&" if "?" in target else "?") + query + ("&" + extra if extra else "")
        return HttpReply(status=302, content_type="text/html", headers={"Location": target})

    def _submitted(self, request: HttpRequest) -> HttpReply:
        """The form for people: password and code at once."""
        form = request.form
        right = self._password_is_right(form) and self._world.totp_is_right(form.get("totp", ""))
        if not right:
            return _html("<p>Wrong user id, password or code. <a href=''>Again</a></p>", status=403)
        answer = self._onwards(dict(request.query))
        return attrs.evolve(answer, headers={**answer.headers, **self._new_browser()})

    def _new_browser(self) -> dict[str, str]:
        cookie = self._world.new_token()
        self._browsers.add(cookie)
        return {"Set-Cookie": f"kite_session={cookie}; Path=/; HttpOnly"}

    def _password_is_right(self, form: Mapping[str, str]) -> bool:
        return form.get("user_id") == self._account.user_id and form.get("password") == self._account.password

    def _password(self, request: HttpRequest) -> HttpReply:
        if not self._password_is_right(request.form):
            return refused(403, "UserException", "Invalid username or password.")  # status and words: guess
        request_id = self._world.new_token()
        self._pending.add(request_id)
        return success(
            {
                "user_id": self._account.user_id,
                "request_id": request_id,
                "twofa_type": "totp",
                "twofa_types": ["totp"],
                "twofa_status": "active",
                "profile": {"user_name": "Sandbox User", "user_shortname": "Sandbox", "avatar_url": None},
            }
        )

    def _second_factor(self, request: HttpRequest) -> HttpReply:
        form = request.form
        if form.get("request_id") not in self._pending or form.get("user_id") != self._account.user_id:
            return refused(400, "InputException", "Invalid `request_id`.")  # guess
        if not self._world.totp_is_right(form.get("twofa_value", "")):
            return refused(403, "TwoFAException", "Invalid TOTP.")  # guess
        self._pending.discard(form["request_id"])
        return attrs.evolve(success({}), headers=self._new_browser())

    def _exchange(self, request: HttpRequest) -> HttpReply:
        form, account = request.form, self._account
        request_token = form.get("request_token", "")
        wanted = hashlib.sha256((account.api_key + request_token + account.api_secret).encode()).hexdigest()
        if form.get("api_key") != account.api_key:
            return refused(403, "TokenException", "Invalid `api_key`.")
        if form.get("checksum") != wanted:
            return refused(403, "TokenException", "Invalid `checksum`.")
        given = self._request_tokens.pop(request_token, None)
        if given is None or self._world.now_ns() - given > REQUEST_TOKEN_S * NS:
            return refused(403, "TokenException", "Token is invalid or has expired.")
        self._access.discard(self._issued)
        self._issued = self._world.new_token()
        self._access.add(self._issued)
        return success(self._session(self._issued))

    def _session(self, access_token: str) -> dict[str, Any]:
        return _person(self._account) | {
            "user_id": self._account.user_id,
            "api_key": self._account.api_key,
            "access_token": access_token,
            "public_token": self._world.new_token(),
            "enctoken": self._world.new_token(),
            "refresh_token": "",
            "silo": "",
            "login_time": ist_text(self._world.now_ns())[:19],
        }

    def _logout(self, request: HttpRequest) -> HttpReply:
        query = dict(request.query)
        if not self.knows(query.get("api_key", ""), query.get("access_token", "")):
            return refused(403, "TokenException", "Incorrect `api_key` or `access_token`.")
        self._access.discard(query["access_token"])
        return success(True)


# --- ticker -----------------------------------------------------------------------------------


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


_LEVEL = np.dtype([("quantity", ">u4"), ("price", ">i4"), ("orders", ">u2"), ("padding", ">u2")])
_HEAD = [("length", ">u2"), ("token", ">u4"), ("last_price", ">i4")]
_QUOTE = [
    *_HEAD,
    ("last_quantity", ">u4"),
    ("average_price", ">i4"),
    ("volume", ">u4"),
    ("buy_quantity", ">u4"),
    ("sell_quantity", ">u4"),
    *((name, ">i4") for name in ("open", "high", "low", "close")),
]
_INDEX_QUOTE = [*_HEAD, *((name, ">i4") for name in ("high", "low", "open", "close", "change"))]
_TIMES = ("last_trade_ns", "exchange_ns")
_PACKETS = {  # (index, mode) -> packet behind its length
    (False, Mode.LTP): np.dtype(_HEAD),
    (True, Mode.LTP): np.dtype(_HEAD),
    (False, Mode.QUOTE): np.dtype(_QUOTE),
    (True, Mode.QUOTE): np.dtype(_INDEX_QUOTE),
    (False, Mode.FULL): np.dtype(
        [
            *_QUOTE,
            ("last_trade_ns", ">u4"),
            ("open_interest", ">u4"),
            ("oi_day_high", ">u4"),
            ("oi_day_low", ">u4"),
            ("exchange_ns", ">u4"),
            ("bid", _LEVEL, (5,)),
            ("ask", _LEVEL, (5,)),
        ]
    ),
    (True, Mode.FULL): np.dtype([*_INDEX_QUOTE, ("exchange_ns", ">u4")]),
}
_PRICES = ("last_price", "average_price", "open", "high", "low", "close")


@attrs.frozen(eq=False)
class PacketLayout:
    """Rows to packets, in columns. Shape of the fields: ``(lines,)``."""

    tokens: NDArray[np.uint32]
    divisor: NDArray[np.float64]
    is_index: NDArray[np.bool_]

    @classmethod
    def of(cls, instruments: Sequence[Instrument], tokens: NDArray[np.uint32]) -> PacketLayout:
        segments = (tokens & 0xFF).tolist()
        divisor = np.array([_DIVISORS.get(segment, 100.0) for segment in segments])
        return cls(tokens, divisor, np.array([one.kind == Kind.INDEX for one in instruments], bool))

    def frame(self, rows: Rows, modes: NDArray[np.uint8]) -> bytes:
        """The whole message, packets in the order of the rows; each mode is above 0."""
        lines = rows["instrument"]
        kinds = self.is_index[lines].astype(np.int64) * 4 + modes
        head = len(rows).to_bytes(2, "big")
        if (kinds == kinds[0]).all():
            return head + self._packets(rows, int(kinds[0])).tobytes()
        return head + self._mixed(rows, kinds)

    def _mixed(self, rows: Rows, kinds: NDArray[np.int64]) -> bytes:
        """Packets of several lengths: each kind is written at once, into the places that are its rows'."""
        sizes = np.zeros(8, np.int64)
        for (index, mode), dtype in _PACKETS.items():
            sizes[int(index) * 4 + mode] = dtype.itemsize
        ends = np.cumsum(sizes[kinds])
        out = np.empty(int(ends[-1]), np.uint8)
        for kind in np.unique(kinds).tolist():
            mine = np.flatnonzero(kinds == kind)
            packets = self._packets(rows[mine], kind)
            size = int(sizes[kind])
            places = (ends[mine] - size)[:, None] + np.arange(size)
            out[places] = packets.view(np.uint8).reshape(len(mine), size)
        return out.tobytes()

    def _packets(self, rows: Rows, kind: int) -> Rows:
        index, mode = kind >= 4, Mode(kind % 4)
        dtype = _PACKETS[index, mode]
        lines = rows["instrument"]
        divisor = self.divisor[lines]
        packets: Rows = np.zeros(len(rows), dtype)
        packets["length"] = dtype.itemsize - 2
        packets["token"] = self.tokens[lines]
        for name in dtype.names or ():
            if name in _PRICES:
                packets[name] = _raw(rows[name], divisor)
            elif name in _TIMES:
                packets[name] = rows[name] // NS
            elif name == "change":
                packets[name] = _raw(rows["last_price"] - rows["close"], divisor)
            elif name in ("bid", "ask"):
                levels = packets[name]
                levels["quantity"] = rows[f"{name}_quantity"] & 0xFFFFFFFF
                levels["price"] = _raw(rows[f"{name}_price"], divisor[:, None])
                levels["orders"] = rows[f"{name}_orders"] & 0xFFFF
            elif name not in ("length", "token"):
                packets[name] = rows[name] & 0xFFFFFFFF  # the wire wraps at 32 bits and tells nobody
        return packets


def _raw(prices: NDArray[np.float64], divisor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prices as the wire's whole numbers; absent is 0."""
    raw: NDArray[np.float64] = np.rint(np.where(np.isnan(prices), 0.0, prices) * divisor)
    return raw


# --- texts ------------------------------------------------------------------------------------


def kite_token(instrument: Instrument) -> int:
    """Kite's number: the exchange's number and a byte for the segment."""
    if instrument.kind == Kind.INDEX:
        number = _INDEX_TOKENS.get(instrument.symbol, int(instrument.exchange_token))
        return number << 8 | _INDEX
    return int(instrument.exchange_token) << 8 | _SEGMENTS[instrument.exchange]


_DUMP_HEADER = (
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,"
    "tick_size,lot_size,instrument_type,segment,exchange"
)


def dump_row(one: Instrument, token: int) -> str:
    """One line of the instruments dump. Made before the market opens, so the price is 0."""
    index = one.kind == Kind.INDEX
    derivative = one.kind in (Kind.FUTURE, Kind.CALL, Kind.PUT)
    kind = one.kind if derivative else "EQ"  # indices are EQ too
    segment = "INDICES" if index else f"{one.exchange}-{_SEGMENT_WORDS[kind]}" if derivative else one.exchange
    fields = (
        token,
        token >> 8,
        one.symbol,
        one.name,
        0.0,
        one.expiry or "",
        float(one.strike),
        0.0 if index else one.tick_size,
        0 if index else one.lot_size,
        kind,
        segment,
        one.exchange,
    )
    return ",".join(map(str, fields))


_SEGMENT_WORDS = {"FUT": "FUT", "CE": "OPT", "PE": "OPT"}


def quote_of(row: Any, token: int) -> dict[str, Any]:
    """A market quote. Times are India time without a zone; an index has fewer fields."""
    times = [ist_text(int(row[name]))[:19] if row[name] else None for name in ("exchange_ns", "last_trade_ns")]
    quote = {
        "instrument_token": token,
        "timestamp": times[0],
        "last_price": _number(row["last_price"]),
        "net_change": round(_number(row["last_price"]) - _number(row["close"]), 4),
        "ohlc": {name: _number(row[name]) for name in ("open", "high", "low", "close")},
    }
    if np.isnan(row["lower_circuit"]) and not row["last_trade_ns"]:  # an index
        return quote
    return quote | {
        "last_trade_time": times[1],
        "last_quantity": int(row["last_quantity"]),
        "average_price": _number(row["average_price"]),
        "volume": int(row["volume"]),
        "buy_quantity": int(row["buy_quantity"]),
        "sell_quantity": int(row["sell_quantity"]),
        "oi": int(row["open_interest"]),
        "oi_day_high": int(row["oi_day_high"]),
        "oi_day_low": int(row["oi_day_low"]),
        "lower_circuit_limit": _number(row["lower_circuit"]),
        "upper_circuit_limit": _number(row["upper_circuit"]),
        "depth": {"buy": _levels(row, "bid"), "sell": _levels(row, "ask")},
    }


def _levels(row: Any, side: str) -> list[dict[str, Any]]:
    columns = zip(row[f"{side}_price"], row[f"{side}_quantity"], row[f"{side}_orders"], strict=True)
    return [
        {"price": _number(price), "quantity": int(quantity), "orders": int(orders)}
        for price, quantity, orders in columns
    ]


def _number(price: Any) -> float | int:
    """A price as Kite writes it: whole numbers without a point, absent as 0."""
    if np.isnan(price):
        return 0
    value = float(price)
    return int(value) if value.is_integer() else value


def _candles(rows: Rows, *, with_interest: bool) -> list[list[Any]]:
    """``[time, open, high, low, close, volume]``, and the open interest if asked for."""
    names = ["open", "high", "low", "close", "volume"] + ["open_interest"] * with_interest
    columns: list[list[Any]] = [rows[name].tolist() for name in names]
    if with_interest:
        columns[-1] = [max(value, 0) for value in columns[-1]]
    starts = (rows["start_ns"] // NS).tolist()
    texts = [datetime.fromtimestamp(start, IST).strftime("%Y-%m-%dT%H:%M:%S+0530") for start in starts]
    bars = zip(texts, *columns, strict=True)
    return [[_whole(value) for value in bar] for bar in bars]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _moment(text: str) -> int:
    """India time as the client writes it -> epoch seconds. A date alone is its midnight."""
    return int(datetime.fromisoformat(text).replace(tzinfo=IST).timestamp())


def success(data: Any) -> HttpReply:
    return HttpReply(body=json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode())


def refused(status: int, error_type: str, message: str) -> HttpReply:
    body = {"status": "error", "message": message, "data": None, "error_type": error_type}
    return HttpReply(status=status, body=json.dumps(body, separators=(",", ":")).encode())


def _html(body: str, status: int = 200) -> HttpReply:
    page = f"<!doctype html><title>Kite sandbox</title><h1>Kite sandbox</h1>{body}"
    return HttpReply(status=status, body=page.encode(), content_type="text/html; charset=utf-8")


_FORM = """<form method="post" action="/connect/login?{query}">
<p><label>User ID <input name="user_id"></label></p>
<p><label>Password <input name="password" type="password"></label></p>
<p><label>TOTP code <input name="totp" inputmode="numeric"></label></p>
<p><button>Log in</button></p></form>
<p>This is a sandbox on this machine. Its account is printed in the documentation of marketfeed.</p>"""


def _person(account: Credentials) -> dict[str, Any]:
    return {
        "user_id": account.user_id,
        "user_type": "individual",
        "email": "sandbox@example.com",
        "user_name": "Sandbox User",
        "user_shortname": "Sandbox",
        "broker": "ZERODHA",
        "exchanges": ["NSE", "NFO", "BFO", "CDS", "BSE", "MCX", "BCD"],
        "products": ["CNC", "NRML", "MIS", "BO", "CO"],
        "order_types": ["MARKET", "LIMIT", "SL", "SL-M"],
        "avatar_url": None,
    }


_ORDER: dict[str, Any] = {
    "unfilled_quantity": 0,
    "app_id": 1,
    "checksum": "",
    "order_id": "261120000000001",
    "exchange_order_id": "1000000000000001",
    "parent_order_id": None,
    "status": "COMPLETE",
    "status_message": None,
    "status_message_raw": None,
    "order_timestamp": "",
    "exchange_update_timestamp": "",
    "exchange_timestamp": "",
    "variety": "regular",
    "exchange": "NSE",
    "tradingsymbol": "RELIANCE",
    "instrument_token": 738561,
    "order_type": "MARKET",
    "transaction_type": "BUY",
    "validity": "DAY",
    "product": "CNC",
    "quantity": 1,
    "disclosed_quantity": 0,
    "price": 0,
    "trigger_price": 0,
    "average_price": 1412,
    "filled_quantity": 1,
    "pending_quantity": 0,
    "cancelled_quantity": 0,
    "market_protection": 0,
    "meta": {},
    "tag": None,
    "guid": "sandbox",
}
