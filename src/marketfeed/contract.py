"""What plugins give and get. Read with :mod:`marketfeed.hookspecs`, which says when.

A vendor plugin is pure: bytes in, values out. The core owns every socket, HTTP call, thread, retry
and clock, so a stream and a parser are tested with a bytes literal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable
from urllib.parse import urlsplit

import attrs

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.dtypes import Rows
from marketfeed.enums import Interval, Mode
from marketfeed.errors import VendorError
from marketfeed.instruments import Instrument

if TYPE_CHECKING:
    import requests

__all__ = [
    "DATA",
    "IGNORE",
    "BadPacket",
    "CandleRequest",
    "CloseCodes",
    "Emit",
    "Event",
    "Frame",
    "Handshake",
    "Http",
    "KeepAlive",
    "LoginOnSocket",
    "LoginPage",
    "Parsed",
    "Parser",
    "QuoteKind",
    "RateLimit",
    "Send",
    "Service",
    "Session",
    "Sink",
    "Step",
    "Stream",
    "Subscription",
    "TokenStore",
    "Vendor",
    "VendorSettings",
    "base_url",
    "secret",
    "setting",
]


# --- settings ---------------------------------------------------------------------------------


def secret(*, env: str | None = None, **options: Any) -> Any:
    """An attrs field that never shows its value: not in ``repr``, errors, logs or ``check``.

    ``env`` as in :func:`setting`.
    """
    return attrs.field(repr=False, metadata={"secret": True, "env": env}, **options)


def setting(*, env: str | None = None, **options: Any) -> Any:
    """An attrs field that is read from the environment variable ``env`` where the TOML does not name it.

    That holds for the vendor's table of its own name (``[vendors.kite]``) and where there is no table;
    a second account (``[vendors.second]`` with ``type = "kite"``) must name everything itself.
    """
    return attrs.field(metadata={"env": env}, **options)


def is_loopback(host: str | None) -> bool:
    """True for addresses that cannot leave this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback  # a name such as 127.0.0.1.example.com is no address
    except ValueError:
        return False


def _check_url(_: object, field: attrs.Attribute[str], value: str) -> None:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise ValueError(f"{value!r} is not a URL; write https://host or wss://host")
    if parts.scheme in ("http", "ws") and not is_loopback(parts.hostname):
        raise ValueError(f"plain {parts.scheme} is accepted for loopback addresses only; use {parts.scheme}s")


def base_url(default: str) -> Any:
    """An attrs field for a base URL. Plain http and ws pass for loopback addresses only."""
    return attrs.field(default=default, validator=_check_url)


@attrs.frozen(kw_only=True)
class VendorSettings:
    """What every vendor's ``[vendors.NAME]`` table knows. A plugin subclasses it and sets the URLs."""

    login_url: str = base_url("https://localhost")
    """Base URL of the login pages"""
    rest_url: str = base_url("https://localhost")
    """Base URL of the REST API"""
    stream_url: str = base_url("wss://localhost")
    """Base URL of the WebSocket"""
    access_token: str | None = secret(default=None)
    """A ready access token; leaves out the login"""
    proxy: str | None = None
    """Proxy URL for HTTP and WebSocket; by default the usual environment variables"""

    @property
    def account(self) -> str:
        """What tells this account from another of the same vendor in the token store; not a secret."""
        return "default"


@attrs.frozen
class RateLimit:
    """At most ``calls`` calls in any window of ``per_s`` seconds to paths that begin with ``prefix``."""

    prefix: str
    calls: int
    per_s: float = 1.0


@attrs.frozen(kw_only=True)
class Vendor:
    """What the core needs to know of a broker before it connects."""

    name: str
    """Short name in configuration, metrics and rows: ``kite``"""
    title: str
    """Name for people: ``Zerodha Kite``"""
    settings: type[VendorSettings]
    modes: tuple[Mode, ...] = (Mode.LTP, Mode.QUOTE, Mode.FULL)
    instruments_per_connection: int = 1000
    connections_per_account: int = 1
    candle_days: Mapping[Interval, int] = attrs.field(factory=dict)
    """Most days that one historical request may span, per interval; an absent interval is not offered."""
    rate_limits: tuple[RateLimit, ...] = ()


@attrs.frozen(kw_only=True)
class Session:
    """A login that works. Kept by the token store until the broker says otherwise."""

    vendor: str
    account: str
    """The broker's user id, or the API key where there is none."""
    access_token: str = secret()
    expires_ns: int | None = None
    """When the token may be dead (UTC); the truth is the broker's refusal."""
    extra: Mapping[str, str] = secret(factory=dict)
    """Whatever else the vendor needs, such as a feed token."""


@attrs.frozen(kw_only=True)
class LoginPage:
    """Where a person logs in with a browser, and what the browser brings back.

    After the login the browser is sent to the address registered for the app, with a token that is good
    once. ``marketfeed login`` takes it from there and calls ``marketfeed_authenticate`` with ``setting`` set.
    """

    url: str
    setting: str
    """Vendor setting that takes the token: ``request_token``"""
    parameters: tuple[str, ...]
    """Query parameters of the redirect address that may hold it; the first one there counts."""


class TokenStore(Protocol):
    """Sessions on disk, mode 0600, one per vendor and account."""

    def load(self, vendor: str, account: str) -> Session | None: ...
    def save(self, session: Session) -> None: ...
    def forget(self, vendor: str, account: str) -> None: ...


class Http(Protocol):
    """The one way to call a broker: verified TLS, proxy, time limit, pacing, metrics, redaction."""

    @property
    def session(self) -> requests.Session:
        """For vendor SDKs that want a requests session; everything above holds for it too."""

    def get(self, url: str, **options: Any) -> requests.Response: ...
    def post(self, url: str, **options: Any) -> requests.Response: ...
    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """As ``requests.Session.request``. Raises ``LineLost`` when no answer came, ``RateLimited`` on 429."""


# --- stream -----------------------------------------------------------------------------------


class Subscription(Mapping[Instrument, Mode]):
    """Instruments with the mode wanted for each. Immutable; ``+`` adds or changes, ``-`` takes away."""

    def __init__(self, modes: Mapping[Instrument, Mode] | None = None) -> None:
        self._modes = dict(modes or {})

    @classmethod
    def of(cls, instruments: Iterable[Instrument], mode: Mode) -> Subscription:
        """All instruments in the same mode."""
        return cls(dict.fromkeys(instruments, mode))

    def __getitem__(self, instrument: Instrument) -> Mode:
        return self._modes[instrument]

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._modes)

    def __len__(self) -> int:
        return len(self._modes)

    def __add__(self, other: Mapping[Instrument, Mode]) -> Subscription:
        return Subscription({**self._modes, **other})

    def __sub__(self, other: Iterable[Instrument]) -> Subscription:
        gone = set(other)
        return Subscription({one: mode for one, mode in self._modes.items() if one not in gone})

    def by_mode(self) -> dict[Mode, list[Instrument]]:
        """Instruments grouped by mode, in order."""
        groups: dict[Mode, list[Instrument]] = {}
        for instrument, mode in self._modes.items():
            groups.setdefault(mode, []).append(instrument)
        return groups


@attrs.frozen(kw_only=True)
class Handshake:
    """How to open one connection. May hold secrets, so it never shows itself."""

    url: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    subprotocols: tuple[str, ...] = ()


@attrs.frozen
class KeepAlive:
    """What proves that the line lives.

    Every ``period_s`` the core sends ``text``, or a protocol ping when it is None. When neither
    bytes nor pong came for ``dead_after_s``, the line is lost.
    """

    period_s: float = 5.0
    dead_after_s: float = 15.0
    text: str | None = None


class Send(NamedTuple):
    """Step: send these messages, in order."""

    messages: Sequence[str | bytes]


class Emit(NamedTuple):
    """Step: tell the plugins. ``kind`` such as ``order_update``, ``broker_error``, ``broker_message``."""

    kind: str
    data: Mapping[str, Any]


class Plain(Enum):
    """Steps without a payload; use them by the names below."""

    DATA = "data"
    IGNORE = "ignore"


DATA = Plain.DATA
"""Step: hand the message to the parser."""
IGNORE = Plain.IGNORE
"""Step: nothing to do, such as a heartbeat; still a sign of life."""
Step = Send | Emit | Plain


class Stream(Protocol):
    """One connection's protocol, pure: no socket, thread, sleep or clock. Made anew for each connection,
    kept over its reconnects."""

    def handshake(self) -> Handshake:
        """Asked before every connect. A one-time URL may be fetched through ``http`` here."""

    def opened(self, wanted: Subscription) -> Sequence[str | bytes]:
        """The socket is open: what to send first. All state of an earlier socket is void."""

    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str | bytes]:
        """Messages for a change at run time; an instrument in ``add`` may be known in another mode."""

    def received(self, data: str | bytes) -> Step:
        """Called on the reader thread for each message: a prefix test for data, no parsing.

        Text messages come as ``str`` (bad UTF-8 replaced), binary ones as ``bytes``; the parser gets
        the raw bytes of either. May raise ``SessionExpired``, ``AuthError`` or ``LineLost``.
        """

    def keepalive(self) -> KeepAlive | None:
        """How to see that the line lives; None leaves it to the core's own pings."""


@runtime_checkable
class LoginOnSocket(Protocol):
    """What a stream may offer besides, where the broker answers a login on the socket before data flow."""

    @property
    def login_within_s(self) -> float:
        """Seconds from the open socket to the answer; without it by then the attempt failed (``LineLost``)."""

    def logged_in(self) -> bool:
        """Whether the broker has answered on this socket. Asked after :meth:`Stream.received`, on its thread."""


@runtime_checkable
class CloseCodes(Protocol):
    """What a stream may offer besides, where the broker's close codes have a meaning of their own."""

    def closed(self, code: int, reason: str) -> VendorError | None:
        """The broker closed the socket with this code (1005 = none): what it means, such as ``TakenOver``;
        None = nothing but a lost line."""


class Frame(NamedTuple):
    """One data message as it came off the wire."""

    data: bytes
    received_ns: int
    """UTC nanoseconds, stamped by the reader thread."""
    text: bool = False
    """True for a text message; parsers need not look, the bytes are the same."""


class BadPacket(NamedTuple):
    """A piece of a frame that could not be read; the pieces around it were kept."""

    frame: int
    """Index of the frame in the call."""
    offset: int
    """Byte offset in that frame."""
    reason: str


class Parsed(NamedTuple):
    """What a parser makes of frames: rows of ``TICK`` and the bad packets beside them."""

    rows: Rows
    bad: Sequence[BadPacket] = ()


Parser = Callable[[Sequence[Frame]], Parsed]
"""Frames of one connection, oldest first -> :class:`Parsed`. Never raises for content.

Fills every field it knows (``received_ns`` from the frame, ``instrument`` from the token map, -1 for
an unknown token) and the group bits; leaves ``check`` alone. Called on the parse thread only, so it
may keep state; a new one is made for every new socket.
"""


@attrs.frozen(kw_only=True)
class CandleRequest:
    """Candles of one instrument whose start lies in ``[start_ns, end_ns)``, UTC nanoseconds."""

    instrument: Instrument
    interval: Interval
    start_ns: int
    end_ns: int
    open_interest: bool = False


QuoteKind = Literal["ltp", "ohlc", "quote"]
"""How much a quote is to tell: last price; with open to close; everything."""


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened, for ``marketfeed_event`` and ``feed.events``."""

    kind: str
    """``connected``, ``disconnected``, ``session_renewed``, ``order_update``, ``gap``, ``sink_failed``,
    ``stopped``, ... ; the reference page lists them all."""
    feed: str
    at_ns: int
    vendor: str = ""
    connection: int | None = None
    data: Mapping[str, Any] = attrs.field(factory=dict)


# --- consumers --------------------------------------------------------------------------------


class Sink:
    """Where batches go. A plugin subclasses it as an attrs class whose fields are its TOML options.

    ``open``, ``write``, ``flush`` and ``close`` run on the sink's own thread, one at a time.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"ticks"})
    """What it can take: ``ticks``, ``candles``."""
    exclusive: ClassVar[tuple[str, ...]] = ()
    """Options that together name a place only one instance may use, such as ``("path",)``: ``marketfeed
    check`` refuses two users of one place. A field ``port`` among them is a port that the sink listens on."""

    def open(self) -> None:
        """Connect, create, lock. Raise ``SinkError`` when it cannot be done (now: ``retryable``)."""

    def position(self, journal: str) -> int | None:
        """The next row wanted of the journal with exactly this name (``<id>.<epoch>``), stored with the
        rows; None = nothing stored under this name. Called after ``open``; after a power cut also
        with the names of older epochs, newest first."""
        return None

    def write(self, batch: TickBatch | CandleBatch) -> None:
        """Take a batch; may buffer. Raise ``SinkError(retryable=..., rejected=rows)``."""
        raise NotImplementedError

    def flush(self) -> None:
        """Return when all written rows would survive a kill of this process; then the cursor moves."""

    def close(self) -> None:
        """Let everything go; called once, also after failures."""

    def metrics(self) -> Mapping[str, float]:
        """Numbers to publish beside the core's own, by metric name; one that ends with ``_total`` is a counter,
        any other a gauge. Called on another thread than all else, at any moment: only read plain numbers."""
        return {}


@runtime_checkable
class Service(Protocol):
    """Something that runs beside a feed and drives it, such as a web console."""

    def start(self, feed: Any) -> None: ...
    def stop(self) -> None: ...
