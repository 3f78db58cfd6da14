"""What the sandbox did, for tests to compare with what arrived: in memory, in a JSON Lines file, or both."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, Any

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import Rows

__all__ = ["KINDS", "LOG_COLUMNS", "EventLog", "SentFrame"]

KINDS = frozenset({"requests", "ticks", "events"})
LOG_COLUMNS = (
    *("exchange_ns", "last_trade_ns", "last_price", "last_quantity", "average_price", "volume"),
    *("buy_quantity", "sell_quantity", "open", "high", "low", "close"),
    *("open_interest", "oi_day_high", "oi_day_low"),
    *("bid_price", "bid_quantity", "bid_orders", "ask_price", "ask_quantity", "ask_orders"),
)
"""Columns of the rows in a log file, after ``token`` and ``mode``."""


@attrs.frozen(kw_only=True, eq=False)
class SentFrame:
    """The ticks of one message as they went to the socket."""

    at_ns: int
    """Host time, UTC nanoseconds."""
    connection: int
    """Counted from 1 in the order of acceptance."""
    first_seq: int
    """Number of the first tick on its connection, counted from 0; ticks of damaged messages have none."""
    origin: str
    """``tick``, ``snapshot``, ``replay`` or ``push``."""
    intact: bool = True
    """The message held exactly these rows, and the kernel took all of it while the line was up. False: a fault
    damaged the message (``rows`` is what it held before), or the line was cut before it had left."""
    faults: tuple[str, ...] = ()
    """Kinds of fault that changed, repeated, delayed or damaged it; ``cut`` = lost with the line."""
    modes: NDArray[np.uint8]
    """In which mode each row was sent; its groups beyond that mode were left out."""
    rows: Rows = attrs.field(repr=False)
    """``instrument`` is the line of the market."""


class EventLog:
    """Collects what happens. Not safe for threads: written on the server's thread, read after it."""

    def __init__(self, kinds: Collection[str] = KINDS, *, keep: bool = False, path: Path | None = None) -> None:
        unknown = set(kinds) - KINDS
        if unknown:
            raise ValueError(f"unknown kinds of log: {sorted(unknown)}; choose from {sorted(KINDS)}")
        self._kinds = frozenset(kinds)
        self.frames: list[SentFrame] = []
        self.records: list[dict[str, Any]] = []
        self._keep = keep
        self._file: IO[bytes] | None = path.open("wb") if path else None
        self._encode = msgspec.json.Encoder().encode
        self._tokens: list[str] = []

    def begin(self, tokens: Iterable[str], **facts: Any) -> None:
        """The first record: what the columns mean. ``tokens`` are the vendor's, one per line."""
        self._tokens = list(tokens)
        self._record({"kind": "start", "columns": ["token", "mode", *LOG_COLUMNS], **facts})

    def wants(self, kind: str) -> bool:
        return kind in self._kinds and (self._keep or self._file is not None)

    def request(self, **facts: Any) -> None:
        if self.wants("requests"):
            self._record({"kind": "request", **facts})

    def event(self, name: str, **facts: Any) -> None:
        if self.wants("events"):
            self._record({"kind": "event", "event": name, **facts})

    def frame(self, sent: SentFrame) -> None:
        if not self.wants("ticks"):
            return
        if self._keep:
            self.frames.append(sent)
        if self._file is not None:
            self._file.write(self._encode(self._line(sent)) + b"\n")

    def lose(self, connection: int, first_seq: int, at_ns: int) -> None:
        """Ticks of a connection from this number on did not leave: the line was cut."""
        self.event("lost", at_ns=at_ns, connection=connection, first_seq=first_seq)
        for place in range(len(self.frames) - 1, -1, -1):
            frame = self.frames[place]
            if frame.connection == connection and frame.first_seq < first_seq:
                break
            if frame.connection == connection:
                self.frames[place] = attrs.evolve(frame, intact=False, faults=(*frame.faults, "cut"))

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _record(self, record: dict[str, Any]) -> None:
        if self._keep:
            self.records.append(record)
        if self._file is not None:
            self._file.write(self._encode(record) + b"\n")

    def _line(self, sent: SentFrame) -> dict[str, Any]:
        columns = [sent.rows[name].tolist() for name in LOG_COLUMNS]
        tokens = [self._tokens[line] for line in sent.rows["instrument"].tolist()]
        return {
            "kind": "ticks",
            "at_ns": sent.at_ns,
            "connection": sent.connection,
            "first_seq": sent.first_seq,
            "origin": sent.origin,
            "intact": sent.intact,
            "faults": sent.faults,
            "rows": list(zip(tokens, sent.modes.tolist(), *columns, strict=True)),
        }
