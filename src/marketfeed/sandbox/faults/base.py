"""What a fault is: an object that sees rows, messages, requests and connections while it acts.

Every kind is a small class with its parameters as fields; the director (``director.py``) starts and
ends it and calls its hooks on the server's thread. A hook that is not overridden changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

import attrs

from marketfeed.brokers import HttpReply, HttpRequest, Reaction, SandboxBroker
from marketfeed.dtypes import Rows
from marketfeed.instruments import Instrument

if TYPE_CHECKING:
    from marketfeed.sandbox.hub import Hub
    from marketfeed.sandbox.peer import Outgoing, Peer

__all__ = [
    "Certificates",
    "Fault",
    "Gate",
    "Stage",
    "choice",
    "flag",
    "number",
    "param",
    "share",
    "text",
    "whole",
]

Value = TypeVar("Value")
Convert = Callable[[Any], Any]


class Certificates(Protocol):
    """The server's TLS side, as the fault ``certificate`` needs it."""

    def show(self, name: str) -> None:
        """Use another certificate for every handshake from now on."""


class Stage(NamedTuple):
    """What faults act upon."""

    hub: Hub
    broker: SandboxBroker
    instruments: Sequence[Instrument]
    seed: int
    certificates: Certificates | None = None


class Gate(NamedTuple):
    """What becomes of an HTTP request."""

    delay_s: float = 0.0
    """Wait before the answer."""
    reply: HttpReply | None = None
    """Answer this instead of asking the broker."""
    keep: float = 1.0
    """Part of the body that is sent before the connection is cut; 1 = all, no cut."""


# --- parameters ---------------------------------------------------------------------------------


def number(value: Any) -> float:
    """A finite number of 0 or more."""
    found = float(value)
    if not 0 <= found < float("inf"):
        raise ValueError("must be a finite number, 0 or more")
    return found


def share(value: Any) -> float:
    found = float(value)
    if not 0 <= found <= 1:
        raise ValueError("must lie between 0 and 1")
    return found


def whole(value: Any) -> int:
    """A whole number of 0 or more."""
    found = int(str(value))
    if found < 0:
        raise ValueError("must be a whole number, 0 or more")
    return found


def flag(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError("must be yes or no")
    return words[str(value).lower()]


def text(value: Any) -> str:
    return str(value)


def choice(*words: str) -> Convert:
    def convert(value: Any) -> str:
        if str(value) not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return convert


def param(default: Value, convert: Convert, means: str) -> Value:
    """A field that can be given as text or JSON; ``means`` is for people."""
    found: Value = attrs.field(default=default, metadata={"convert": convert, "means": means})
    return found


def _connection(value: Any) -> str | int:
    return str(value) if value in ("open", "all") else whole(value)


# --- the base of all kinds ----------------------------------------------------------------------


@attrs.define(eq=False, kw_only=True)
class Fault:
    """One fault. ``connection`` is a number (counted from 1), ``open`` for the connections that are open
    when it starts, or ``all``: those that come later too."""

    kind: ClassVar[str]
    momentary: ClassVar[bool] = False
    """It is over as soon as it began; ``seconds`` means nothing to it."""
    who: ClassVar[str | None] = "all"
    """What ``connection`` is unless given; None = it is not about connections."""
    marks: ClassVar[bool] = False
    """The log names it at rows that it edited."""

    seconds: float | None = param(None, number, "how long it acts; absent = until cleared")
    connection: str | int | None = param(None, _connection, "a number, open (those open at its start) or all")
    until: str = param("", choice("", "resubscribed"), "resubscribed = it ends with the client's next subscription")
    done: bool = attrs.field(default=False, init=False)
    """Set by the fault itself when it has nothing left to do."""

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        """Start; ``peers`` are the open connections it acts upon."""

    def end(self, stage: Stage, peers: Sequence[Peer]) -> None:
        """Stop; what it held back is sent or thrown away here."""

    def edit(self, peer: Peer, rows: Rows) -> Rows:
        """Rows before they are encoded; the array is shared, so a change is made in a copy."""
        return rows

    def alter(self, message: Outgoing) -> Iterable[Outgoing]:
        """A message before it is queued."""
        return (message,)

    def swallows(self, message: Outgoing) -> bool:
        """True: a message that was about to be sent is thrown away, and is not in the log."""
        return False

    def ignores(self, peer: Peer) -> bool:
        """True: the client's messages, pings included, are not read."""
        return False

    def pongs(self, peer: Peer) -> bool:
        """False: pings are not answered."""
        return True

    def command_delay_s(self, peer: Peer) -> float:
        """How long the client's second and later messages wait."""
        return 0.0

    def pause_s(self, size: int) -> float:
        """How long the sender waits before so many bytes."""
        return 0.0

    def reacted(self, peer: Peer, reaction: Reaction) -> None:
        """A client's message was obeyed."""
        if self.until and len(reaction.snapshot):
            self.done = True

    def upgrade(self, asked: HttpRequest) -> HttpReply | None:
        """Refuse a WebSocket with this reply."""
        return None

    def request(self, asked: HttpRequest) -> Gate | None:
        """Spoil the answer to an HTTP request."""
        return None

    @classmethod
    def parameters(cls) -> Mapping[str, attrs.Attribute[Any]]:
        """Its parameters by name; those that mean nothing to this kind are left out."""
        useless = {"seconds", "until"} if cls.momentary else set()
        useless |= {"connection", "until"} if cls.who is None else set()
        fields = attrs.fields(cls)
        return {field.name: field for field in fields if "convert" in field.metadata and field.name not in useless}
