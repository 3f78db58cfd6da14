"""What the sink needs of a Kafka client; two modules provide it, one for each library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from marketfeed_kafka.chunks import Chunk

__all__ = ["Driver", "Failure", "Outcome", "Ticket"]


class Failure(NamedTuple):
    """Why a message was not stored."""

    text: str
    record: bool = False
    """The message itself is refused (too large, invalid); sent again it would be again."""
    too_large: bool = False


Outcome = bool | Failure | None
"""Of one message: True when the broker has acknowledged it, None when nobody knows, else why not."""


class Ticket(Protocol):
    """What became of a chunk."""

    @property
    def error(self) -> Failure | None:
        """Why a message, and with it all after it, was not even handed over."""

    @property
    def settled(self) -> bool:
        """Every message is acknowledged or has failed."""

    def failed(self) -> bool:
        """At least one message has failed; only asked once settled."""

    def outcomes(self) -> Sequence[Outcome]:
        """Of each message, as far as it is known."""


class Driver(Protocol):
    """One producer. It keeps the order of a partition: what the broker stores of it is, until the first failure,
    everything sent from the first message on. It never gives up by itself; the sink does, and makes a new one."""

    exact: bool
    """When a message fails by itself its neighbours do not, and their order stays."""
    fatal: Failure | None
    """Why this producer is of no use any more."""

    def partitions(self, topic: str) -> int:
        """How many partitions it has. Raises ``SinkError`` when that cannot be learnt in time."""

    def send(self, chunk: Chunk) -> Ticket:
        """Take a chunk; never raises and never waits long."""

    def wait(self, timeout_s: float) -> None:
        """Return when something was acknowledged or failed, or after the timeout."""

    def close(self) -> None:
        """Let go of everything at once; what is in flight may still be stored."""
