"""Faults of requests: refused upgrades, dead tokens, spoilt HTTP answers, wrong certificates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from marketfeed.brokers import HttpReply, HttpRequest, SandboxBroker, SandboxRefusals
from marketfeed.sandbox.faults.base import Fault, Gate, Stage, choice, flag, number, param, share, text, whole

if TYPE_CHECKING:
    from marketfeed.sandbox.peer import Peer

__all__ = ["Certificate", "Expire", "HttpError", "HttpShort", "HttpSlow", "Refuse"]

_HTML = "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n</body>\r\n</html>\r\n"
_WORDS = {
    400: "400 Bad Request",
    403: "403 Forbidden",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    502: "502 Bad Gateway",
    503: "503 Service Unavailable",
    504: "504 Gateway Time-out",
}


def _status(value: Any) -> int:
    status = whole(value)
    if not 400 <= status <= 599:
        raise ValueError("must be an HTTP status from 400 to 599")
    return status


def _answer(broker: SandboxBroker | None, status: int, body: str, retry_after_s: float | None) -> HttpReply:
    """An error as the vendor words it where it has words; a gateway's page for the rest."""
    reply: HttpReply | None = None
    if isinstance(broker, SandboxRefusals) and (body == "vendor" or (body == "auto" and status < 500)):
        reply = broker.refusal(status)
    if reply is None:
        page = "" if body == "empty" else _HTML.format(_WORDS.get(status, str(status)))
        reply = HttpReply(status=status, body=page.encode(), content_type="text/html")
    if retry_after_s is None:
        return reply
    return attrs.evolve(reply, headers={**reply.headers, "Retry-After": f"{retry_after_s:g}"})


_BODY = "auto = the vendor's words below 500 and a gateway's HTML page from 500 on"


@attrs.define(eq=False, kw_only=True)
class _Counted(Fault):
    """Ends after so many requests, when a number is given; after one, when no duration is given either."""

    who: ClassVar[str | None] = None
    attempts: int | None = param(None, whole, "how many requests; absent = 1, or for as long as it acts")
    _left: int | None = attrs.field(init=False, default=None)
    _broker: SandboxBroker | None = attrs.field(init=False, default=None)

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        self._broker = stage.broker
        self._left = 1 if self.attempts is None and self.seconds is None else self.attempts

    def _spend(self) -> bool:
        """True while there is an attempt left; the last one ends the fault."""
        if self._left is None:
            return True
        self._left -= 1
        self.done = self._left <= 0
        return self._left >= 0


@attrs.define(eq=False, kw_only=True)
class Refuse(_Counted):
    """Refuse WebSocket upgrades with a status."""

    kind: ClassVar[str] = "refuse"
    status: int = param(403, _status, "400, 403, 429, 502, ...")
    body: str = param("auto", choice("auto", "vendor", "html", "empty"), _BODY)
    retry_after_s: float | None = param(None, number, "adds Retry-After")

    def upgrade(self, asked: HttpRequest) -> HttpReply | None:
        return _answer(self._broker, self.status, self.body, self.retry_after_s) if self._spend() else None


@attrs.define(eq=False, kw_only=True)
class Expire(Fault):
    """Every access token dies: upgrades and requests are refused until a new login. Open connections stay,
    unless told otherwise."""

    kind: ClassVar[str] = "expire"
    momentary: ClassVar[bool] = True
    who: ClassVar[str | None] = None
    cut: bool = param(False, flag, "drop the open connections too")

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        stage.broker.expire()
        if self.cut:
            stage.hub.drop()


@attrs.define(eq=False, kw_only=True)
class _Http(_Counted):
    """HTTP requests whose path begins with ``path``; WebSocket upgrades are never meant."""

    path: str = param("/", text, "paths that begin with this")

    def request(self, asked: HttpRequest) -> Gate | None:
        return self._gate() if asked.path.startswith(self.path) and self._spend() else None

    def _gate(self) -> Gate:
        raise NotImplementedError


@attrs.define(eq=False, kw_only=True)
class HttpError(_Http):
    """Answer HTTP requests with an error."""

    kind: ClassVar[str] = "http-error"
    status: int = param(502, _status, "429, 502, ...")
    body: str = param("auto", choice("auto", "vendor", "html", "empty"), _BODY)
    retry_after_s: float | None = param(None, number, "adds Retry-After")

    def _gate(self) -> Gate:
        return Gate(reply=_answer(self._broker, self.status, self.body, self.retry_after_s))


@attrs.define(eq=False, kw_only=True)
class HttpSlow(_Http):
    """Answer HTTP requests late."""

    kind: ClassVar[str] = "http-slow"
    delay_s: float = param(5.0, number, "how long the answer waits")

    def _gate(self) -> Gate:
        return Gate(delay_s=self.delay_s)


@attrs.define(eq=False, kw_only=True)
class HttpShort(_Http):
    """Send a part of the announced body, then cut the connection."""

    kind: ClassVar[str] = "http-short"
    keep: float = param(0.5, share, "part of the body that is sent")

    def _gate(self) -> Gate:
        return Gate(keep=min(self.keep, 0.999999))


@attrs.define(eq=False, kw_only=True)
class Certificate(Fault):
    """Show a bad certificate in new TLS handshakes; needs a sandbox with TLS."""

    kind: ClassVar[str] = "certificate"
    who: ClassVar[str | None] = None
    how: str = param("self-signed", choice("self-signed", "wrong-host", "expired"), "what is wrong with it")

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        if stage.certificates is None:
            raise ValueError("fault 'certificate': the sandbox has no TLS; start it with tls = good")
        stage.certificates.show(self.how)

    def end(self, stage: Stage, peers: Sequence[Peer]) -> None:
        if stage.certificates is not None:
            stage.certificates.show("good")
