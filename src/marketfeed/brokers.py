"""What a vendor plugin tells the sandbox server: the broker's side of the protocol, pure.

The server (``marketfeed.sandbox``) owns sockets, time, pace and faults and knows no vendor. It hands a
:class:`SandboxBroker` the HTTP requests, WebSocket upgrades and messages of clients, and market rows
to put into the vendor's wire format. Everything here is called on the server's one thread.

A *line* is the number of an instrument in the sandbox's market, counted from 0: the ``instrument``
column of its rows and the index of :attr:`SandboxMarket.instruments`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import parse_qsl

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import Rows
from marketfeed.instruments import Instrument

__all__ = [
    "NO_LINES",
    "Credentials",
    "Encoded",
    "HttpReply",
    "HttpRequest",
    "Lines",
    "Pace",
    "Reaction",
    "SandboxBroker",
    "SandboxConnection",
    "SandboxDamages",
    "SandboxMarket",
    "SandboxMemory",
    "SandboxOptions",
    "SandboxPatience",
    "SandboxRefusals",
    "SandboxWorld",
]

Lines = NDArray[np.int64]
"""Line numbers, shape ``(n,)``."""
NO_LINES: Lines = np.empty(0, np.int64)
NO_LINES.flags.writeable = False


@attrs.frozen(kw_only=True)
class Credentials:
    """The one account of a sandbox. Not secrets: the documentation prints the defaults."""

    user_id: str = "TEST01"
    password: str = "test-pass-1"
    totp_secret: str = "JBSWY3DPEHPK3PXP"
    api_key: str = "testkey"
    api_secret: str = "testsecret"
    access_token: str | None = None
    """A token that is good without a login and never expires of itself; None = log in."""
    redirect_url: str = "http://127.0.0.1:5000/"
    """Where the login page sends the browser, as registered for the app."""


class SandboxMarket(Protocol):
    """The simulated market: the same prices for every vendor."""

    @property
    def instruments(self) -> Sequence[Instrument]:
        """One per line. ``token`` and ``exchange_token`` are the exchange's number; no vendor is named."""

    def snapshot(self, lines: Lines) -> Rows:
        """The present state as rows of ``TICK`` with every group of the instrument's kind set."""

    def candles(self, line: int, interval_s: int, start_ns: int, end_ns: int) -> Rows:
        """Rows of ``CANDLE`` whose start lies in ``[start_ns, end_ns)`` and not in the future, market
        hours only, oldest first; ``open_interest`` is -1 where there is none."""


class SandboxWorld(Protocol):
    """Where a broker lives: its market, its one account and the sandbox's clock."""

    @property
    def market(self) -> SandboxMarket: ...
    @property
    def credentials(self) -> Credentials: ...
    @property
    def connection_limit(self) -> int | None:
        """Most WebSockets at a time instead of the vendor's own number; 0 = no limit, None = the vendor's."""

    @property
    def vendor_options(self) -> Mapping[str, str]:
        """What was asked for in the words of the vendor; see :class:`SandboxOptions`."""

    def now_ns(self) -> int:
        """The sandbox's clock, UTC nanoseconds."""

    def new_token(self) -> str:
        """A fresh, unguessable text of 32 letters and digits."""

    def totp_is_right(self, code: str) -> bool:
        """True for the account's code of this half minute or a neighbour, by the host's clock or the sandbox's."""


@attrs.frozen(kw_only=True)
class HttpRequest:
    """One HTTP request, or the request that asks for a WebSocket."""

    method: str
    path: str
    """Decoded path, without the query, repeated slashes kept."""
    raw_query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Names in lower case."""
    cookies: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query as pairs, in order, ``+`` read as a space."""
        return parse_qsl(self.raw_query, keep_blank_values=True)

    @property
    def form(self) -> dict[str, str]:
        """A form-encoded body; the last of repeated names wins."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))


@attrs.frozen(kw_only=True)
class HttpReply:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = attrs.field(factory=dict)


class Pace(NamedTuple):
    """How often a request may come: requests with the same ``key`` share ``calls`` in any ``per_s`` seconds."""

    key: str
    calls: int
    per_s: float
    refusal: HttpReply
    also: Pace | None = None
    """Another limit that the same request must keep."""


class Encoded(NamedTuple):
    """One WebSocket message and how many of the rows, in order, it holds."""

    data: str | bytes
    rows: int


class Reaction(NamedTuple):
    """What a client's message leads to, in this order."""

    messages: Sequence[str | bytes] = ()
    """To be sent back."""
    snapshot: Lines = NO_LINES
    """Lines whose present state is to be sent to this client at once."""
    close: int | None = None
    """Close the connection with this code."""
    evict: Sequence[SandboxConnection] = ()
    """Other connections to be closed with code 1000, because this one takes their place."""


class SandboxConnection(Protocol):
    """The broker's side of one WebSocket."""

    modes: NDArray[np.uint8]
    """What each line is subscribed for: a :class:`~marketfeed.enums.Mode`, 0 = not. Shape ``(lines,)``.
    The connection changes it in :meth:`received`; the server reads it."""

    def opened(self) -> Sequence[str | bytes]:
        """What the broker says first."""

    def received(self, data: str | bytes) -> Reaction:
        """A message of the client."""

    def encode(self, rows: Rows, *, snapshot: bool) -> Iterable[Encoded]:
        """Put rows of subscribed lines into messages, in order and without leaving one out.

        Each message goes through the faults before the next one is asked for.
        An instrument may occur more than once. Absent values (NaN) are sent as the vendor sends them.
        """

    def heartbeat(self) -> str | bytes | None:
        """What is sent when nothing was sent for a second; None = nothing."""


class SandboxBroker(Protocol):
    """A vendor's servers. Made once for each sandbox by ``marketfeed_sandbox``."""

    def settings(self, http_url: str, ws_url: str) -> Mapping[str, Any]:
        """Settings that make the vendor's plugin use this sandbox: base URLs, keys, and the fixed
        access token if there is one. ``http_url`` and ``ws_url`` have no path."""

    def token(self, line: int) -> str:
        """The vendor's token of an instrument."""

    def pace(self, request: HttpRequest) -> Pace | None:
        """The vendor's limit for this request; None = none."""

    def http(self, request: HttpRequest) -> HttpReply:
        """Answer a request; the vendor's own error for a path it does not know."""

    def upgrade(self, request: HttpRequest, live: int) -> HttpReply | SandboxConnection:
        """Accept a WebSocket or refuse it. ``live`` is the number of connections now open."""

    def order_message(self, order: Mapping[str, Any]) -> str | bytes:
        """An order update as clients receive it; absent fields get values of the broker's making."""

    def expire(self) -> None:
        """Let every access token die, the fixed one too."""


@runtime_checkable
class SandboxDamages(Protocol):
    """What a broker may offer besides: damage that only this vendor's messages can have."""

    @property
    def damages(self) -> Sequence[str]:
        """Names for ``how`` of the fault ``damage``, beside those that suit every vendor."""

    def damaged(self, data: str | bytes, how: str) -> str | bytes:
        """A message with ticks, damaged in the way named."""


@runtime_checkable
class SandboxRefusals(Protocol):
    """What a broker may offer besides: its own words for faults that refuse a request or an upgrade."""

    def refusal(self, status: int) -> HttpReply | None:
        """The vendor's answer with this HTTP status; None = it has no words of its own."""


@runtime_checkable
class SandboxOptions(Protocol):
    """What a broker may offer besides: options of its own, ``marketfeed sandbox NAME --dialect a``."""

    @property
    def option_names(self) -> Sequence[str]:
        """Names that it knows in :attr:`SandboxWorld.vendor_options`; others are refused."""


@runtime_checkable
class SandboxPatience(Protocol):
    """What a connection may offer besides: an end to the broker's patience."""

    def overdue(self) -> int | None:
        """Asked a few times a second: the code to close with, such as for want of a login; None = stay."""


@runtime_checkable
class SandboxMemory(Protocol):
    """What a connection may offer besides, if its messages tell what changed since earlier ones."""

    def forget(self) -> None:
        """A fault touched a message: what the client knows is unsure, so the next ones are to tell everything."""
