"""One connection: what is wanted of it, its protocol as pure steps, and its frames as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol, runtime_checkable

import attrs

from marketfeed.dtypes import Rows
from marketfeed.enums import Mode
from marketfeed.errors import VendorError
from marketfeed.instruments import Instrument

__all__ = [
    "DATA",
    "IGNORE",
    "BadPacket",
    "CloseCodes",
    "Emit",
    "Frame",
    "Handshake",
    "KeepAlive",
    "LoginOnSocket",
    "Parsed",
    "Parser",
    "Plain",
    "Send",
    "Step",
    "Stream",
    "Subscription",
]


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

    Every ``period_s`` the core sends ``text``, if there is one, and a protocol ping; after 2 s without a byte it
    pings every 2 s. When neither bytes nor pong came for ``dead_after_s``, in market hours for 5 s, the line is lost.
    """

    period_s: float = 5.0
    dead_after_s: float = 15.0
    text: str | None = None
    pongs_prove: bool = True
    """False where the broker always sends something by itself: a line with nothing but pongs for
    ``dead_after_s`` is lost, too."""


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
        """Messages for a change at run time. An instrument in ``add`` may be known in another mode; one that is known
        in the same mode is asked for once more, for the broker may have lost it."""

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
