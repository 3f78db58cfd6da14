"""FlatTrade's side of the protocol, for the sandbox: login, REST, masters and the socket.

Written from the manual of 2026 and from what the official clients send and accept, on purpose without
the code of this plugin's parser: each checks the other. Where nothing is documented, the comment says "guess".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketfeed.brokers import (
    Encoded,
    HttpReply,
    HttpRequest,
    Pace,
    Reaction,
    SandboxConnection,
    SandboxWorld,
)
from marketfeed.clock import NS, ist_text
from marketfeed.dtypes import Rows
from marketfeed.enums import Mode
from marketfeed.errors import MarketFeedError
from marketfeed_flattrade._sandbox_login import Login, refused
from marketfeed_flattrade._sandbox_messages import ABSENT, DAMAGES, FAMILIES, Family, Messages
from marketfeed_flattrade._sandbox_rest import Rest
from marketfeed_flattrade._sandbox_scrips import make_scrips

__all__ = ["FlattradeBroker", "FlattradeSocket"]

_REST = "/PiConnectAPI/"
_SOCKET = "/PiConnectWSAPI"
_ACKNOWLEDGE = {"a": "ak", "c": "ck"}
_TOKEN_FIELD = {"a": "accesstoken", "c": "susertoken"}
_SUBSCRIBE = {"t": 0, "d": 1}
_UNSUBSCRIBE = {"u": 0, "ud": 1}
_ANSWERS = {"o": "ok", "uo": "uok", "p": "pk", "up": "upk"}
_BITS = (1, 2)
"""Of touchline and depth in the families of a line."""
_MODES = np.array([0, Mode.QUOTE, Mode.FULL, Mode.FULL], np.uint8)
"""By the bits."""


class FlattradeBroker:
    """Implements :class:`marketfeed.brokers.SandboxBroker` for FlatTrade's Pi API."""

    option_names = ("ack",)

    def __init__(self, world: SandboxWorld) -> None:
        self.world = world
        self.scrips = make_scrips(world.market.instruments)
        self.lines = {one.key: line for line, one in enumerate(self.scrips)}
        self.messages = Messages(self.scrips)
        self.login = Login(world)
        self.sockets: dict[str, FlattradeSocket] = {}
        """By the token that logged in: there is one socket for each."""
        self._rest = Rest(world, self.login, self.scrips, self.messages)
        self.ack = world.vendor_options.get("ack", "")
        if self.ack not in ("", "ak", "ck"):
            raise MarketFeedError(f"ack is {self.ack!r}; choose ak or ck")

    def settings(self, http_url: str, ws_url: str) -> Mapping[str, Any]:
        account = self.world.credentials
        settings = {
            "login_url": http_url,
            "rest_url": f"{http_url}/PiConnectAPI",
            "stream_url": f"{ws_url}/PiConnectWSAPI/",
            "master_url": f"{http_url}/scripmaster",
            "user_id": account.user_id,
            "api_key": account.api_key,
            "api_secret": account.api_secret,
            "password": account.password,
            "totp_secret": account.totp_secret,
        }
        # Without a ready token the login page's back end is the way that needs nobody.
        return settings | (
            {"access_token": account.access_token} if account.access_token else {"automatic_login": True}
        )

    def token(self, line: int) -> str:
        return self.scrips[line].key

    # --- HTTP ---------------------------------------------------------------------------------

    def pace(self, request: HttpRequest) -> Pace | None:
        """40 a second and 200 a minute in total (manual); the words are quoted by third parties."""
        if not request.path.startswith(_REST):
            return None  # the login and the masters live on other hosts
        minute = refused("Order Recieved 201 in a current minute exceeds Limit 200")
        second = refused("Order Recieved 41 in a current second exceeds Limit 40")
        return Pace("all a second", 40, 1.0, second, Pace("all a minute", 200, 60.0, minute))

    def http(self, request: HttpRequest) -> HttpReply:
        reply = self.login.http(request)
        if reply is not None:
            return reply
        if "/scripmaster/" in request.path and request.method == "GET":
            return self._rest.master(request.path)
        if request.path.startswith(_REST) and request.method == "POST":
            # The official client joins its URLs with two slashes.
            return self._rest.http(request, request.path.removeprefix(_REST).strip("/"))
        body = b"<html><head><title>404 Not Found</title></head></html>"
        return HttpReply(status=404, body=body, content_type="text/html")

    # --- WebSocket ----------------------------------------------------------------------------

    def upgrade(self, request: HttpRequest, live: int) -> HttpReply | SandboxConnection:
        """There are no credentials here: the first message logs in. The old address is refused (change log)."""
        if request.path.rstrip("/") != _SOCKET:
            return HttpReply(status=404, content_type="text/html", body=b"<html>404 Not Found</html>")
        if self.world.connection_limit and live >= self.world.connection_limit:
            return HttpReply(status=503, content_type="text/html", body=b"<html>503</html>")
        return FlattradeSocket(self)

    def order_message(self, order: Mapping[str, Any]) -> str:
        now = ist_text(self.world.now_ns())[:19]
        clock = f"{now[8:10]}-{now[5:7]}-{now[:4]} {now[11:]}"
        user = self.world.credentials.user_id
        times = {"exch_tm": clock, "fltm": clock, "tm": str(self.world.now_ns() // NS)}
        return _text({"t": "om", **_ORDER, **times, "uid": user, "actid": user, **order})

    def expire(self) -> None:
        self.login.expire()

    # --- faults -------------------------------------------------------------------------------

    @property
    def damages(self) -> Sequence[str]:
        return tuple(DAMAGES)

    def damaged(self, data: str | bytes, how: str) -> str | bytes:
        return DAMAGES[how](data) if isinstance(data, str) else data

    def refusal(self, status: int) -> HttpReply | None:
        """Texts tell the reason, with the status of those that third parties saw."""
        words = {
            400: "jData is not valid json object",
            401: "Session Expired :  Invalid User Id",
            403: "Session Expired :  Invalid Session Key",
            429: "Order Recieved 201 in a current minute exceeds Limit 200",
        }
        return refused(words[status], status) if status in words else None


class FlattradeSocket:
    """One WebSocket. Implements :class:`marketfeed.brokers.SandboxConnection` and ``SandboxMemory``."""

    def __init__(self, broker: FlattradeBroker) -> None:
        self._broker = broker
        count = len(broker.scrips)
        self.modes: NDArray[np.uint8] = np.zeros(count, np.uint8)
        self._families = np.zeros(count, np.uint8)
        self._open = False
        self._sent = [np.full((count, len(one.fields)), ABSENT, np.int64) for one in FAMILIES]
        """What the client knows: the values sent last."""
        self._fresh: list[set[int]] = [set(), set()]
        """Lines of a family whose next message is the snapshot."""

    def opened(self) -> Sequence[str | bytes]:
        return ()

    def received(self, data: str | bytes) -> Reaction:
        """Nonsense is ignored (guess), and so is anything before the login (third parties)."""
        try:
            message = json.loads(data)
            kind = message.get("t")
        except (ValueError, AttributeError):
            return Reaction()
        if kind in _ACKNOWLEDGE:
            return self._login(kind, message)
        if not self._open:
            return Reaction()
        if kind == "h":
            return Reaction([_text({"t": "hk", "hk": str(self._broker.world.now_ns() // NS)})])
        if kind in _SUBSCRIBE:
            return self._subscribe(_SUBSCRIBE[kind], str(message.get("k", "")))
        if kind in _UNSUBSCRIBE:
            self._unsubscribe(_UNSUBSCRIBE[kind], str(message.get("k", "")))
            return Reaction([_text({"t": f"{kind}k", "k": message.get("k", "")})])
        return Reaction([_text({"t": _ANSWERS[kind]})]) if kind in _ANSWERS else Reaction()

    def encode(self, rows: Rows, *, snapshot: bool) -> Iterator[Encoded]:
        """A message a row and family: the first one a snapshot, then what changed since the one before."""
        del snapshot  # whether one is owed is known here, family by family
        values = [self._broker.messages.values(family, rows) for family in FAMILIES]
        for place, line in enumerate(rows["instrument"].tolist()):
            wanted = [family for family in FAMILIES if self._families[line] & _BITS[family.number]]
            for family in wanted:
                text = self._message(family, line, values[family.number][place])
                yield Encoded(text, int(family is wanted[-1]))

    def heartbeat(self) -> None:
        return None  # the client asks, the server answers

    def forget(self) -> None:
        """A message may not have come: tell everything again."""
        for sent in self._sent:
            sent[:] = ABSENT

    def _message(self, family: Family, line: int, values: NDArray[np.int64]) -> str:
        sent, fresh = self._sent[family.number], self._fresh[family.number]
        if line in fresh:
            fresh.discard(line)
            text = self._broker.messages.snapshot(family, line, values)
        else:
            text = self._broker.messages.delta(family, line, values, sent[line])
        sent[line] = values
        return text

    def _login(self, kind: str, message: Mapping[str, Any]) -> Reaction:
        """A refused socket stays open and silent, an accepted one drives out the older of its token (third parties)."""
        answer = {"t": self._broker.ack or _ACKNOWLEDGE[kind]}
        token = str(message.get(_TOKEN_FIELD[kind]))
        if not self._broker.login.knows(str(message.get("uid")), token):
            return Reaction([_text({**answer, "s": "NOT_OK"})])
        self._open = True
        older = self._broker.sockets.get(token)
        self._broker.sockets[token] = self
        evict = [older] if older is not None and older is not self else []
        return Reaction([_text({**answer, "uid": str(message.get("uid")), "s": "OK"})], evict=evict)

    def _known(self, keys: str) -> NDArray[np.int64]:
        lines = self._broker.lines
        return np.array(list(dict.fromkeys(lines[one] for one in keys.split("#") if one in lines)), np.int64)

    def _subscribe(self, family: int, keys: str) -> Reaction:
        """A snapshot for each scrip, also for one that was subscribed before (guess)."""
        lines = self._known(keys)
        self._families[lines] |= _BITS[family]
        self.modes[lines] = _MODES[self._families[lines]]
        self._fresh[family].update(lines.tolist())
        return Reaction((), lines)

    def _unsubscribe(self, family: int, keys: str) -> None:
        lines = self._known(keys)
        self._families[lines] &= 3 ^ _BITS[family]
        self.modes[lines] = _MODES[self._families[lines]]


def _text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


_ORDER: dict[str, str] = {
    "norenordno": "26112000000001",
    "exch": "NSE",
    "tsym": "RELIANCE-EQ",
    "qty": "1",
    "prc": "0.00",
    "pcode": "C",
    "status": "COMPLETE",
    "reporttype": "Fill",
    "trantype": "B",
    "prctyp": "MKT",
    "ret": "DAY",
    "fillshares": "1",
    "avgprc": "1412.00",
    "flid": "1",
    "flqty": "1",
    "flprc": "1412.00",
    "rejreason": "",
    "exchordid": "1000000000000001",
    "cancelqty": "0",
    "remarks": "",
    "dscqty": "0",
    "trgprc": "0.00",
}
