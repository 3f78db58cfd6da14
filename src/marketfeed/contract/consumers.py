"""Who takes what comes out: sinks, services, and whoever listens to events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import attrs

from marketfeed.batches import CandleBatch, TickBatch

__all__ = [
    "Event",
    "Service",
    "Sink",
]


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


class Sink:
    """Where batches go. A plugin subclasses it as an attrs class whose fields are its TOML options.

    ``open``, ``write``, ``flush`` and ``close`` run on the sink's own thread, one at a time.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"ticks"})
    """What it can take: ``ticks``, ``candles``."""
    exclusive: ClassVar[tuple[str, ...]] = ()
    """Options that together name a place only one instance may use, such as ``("path",)``: ``marketfeed
    check`` refuses two users of one place. A field ``port`` among them is a port that the sink listens on."""
    read_by_number: ClassVar[bool] = False
    """Whether readers of what it writes leave out rows whose number is not above the last one of their journal. Dead
    letters that are replayed then come under a journal name of their own, as for a sink that stores positions."""

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

    def for_replay(self) -> Sink:
        """The sink that dead letters are replayed into: one that raises what it refuses again, and does not, like
        the sink itself perhaps, put it aside in a place of its own."""
        return self

    def metrics(self) -> Mapping[str, float]:
        """Numbers to publish beside the core's own, by metric name; one that ends with ``_total`` is a counter,
        any other a gauge. Called on another thread than all else, at any moment: only read plain numbers."""
        return {}


@runtime_checkable
class Service(Protocol):
    """Something that runs beside a feed and drives it, such as a web console."""

    def start(self, feed: Any) -> None: ...
    def stop(self) -> None: ...
