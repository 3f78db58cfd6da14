"""What could not be delivered, kept with its reason: bad packets, bad rows, rows that a sink refused."""

from __future__ import annotations

import threading
from collections import Counter, deque
from pathlib import Path
from typing import Any

import attrs
import msgspec

from marketfeed.clock import Clock

__all__ = ["DeadLetter", "DeadLetters"]

_RECENT_BYTES = 4 * 2**20
_REASONS = 200
"""Most reasons told apart: each is a time series of the metrics, and plugins choose the words."""


@attrs.frozen(kw_only=True)
class DeadLetter:
    """One thing that was put aside."""

    kind: str
    """``packet``, ``row``, ``refused`` or ``callback``"""
    reason: str
    """A code, such as ``short_packet`` or the class of the error; counted and shown as a metric"""
    at_ns: int
    feed: str
    source: str
    """``connection 0`` or the sink's name"""
    raw: bytes = b""
    """The bytes of the packet or row"""
    first_row: int | None = None
    rows: int = 1
    error: str = ""
    """What was said, for people"""


class DeadLetters:
    """One bounded store for a feed: a JSON-lines file, or memory alone when ``path`` is None.

    Policy when full: the new letter is counted, not kept, and ``overflowed`` says how many. Any
    thread may put.
    """

    def __init__(self, feed: str, clock: Clock, path: Path | None = None, max_bytes: int = 64 * 2**20) -> None:
        self._feed = feed
        self._clock = clock
        self._path = path
        self._max_bytes = max_bytes
        self._bytes = path.stat().st_size if path and path.exists() else 0
        self._lock = threading.Lock()
        self.recent: deque[DeadLetter] = deque()
        """The newest letters: at most 1,000, and 4 MiB of raw bytes unless one letter alone is larger."""
        self._recent_bytes = 0
        self.counts: Counter[tuple[str, str]] = Counter()
        """Rows or packets by (kind, reason) since the feed started; beyond 200 of them the reason is ``other``."""
        self.overflowed = 0

    def put(
        self,
        kind: str,
        reason: str,
        source: str,
        *,
        raw: bytes = b"",
        first_row: int | None = None,
        rows: int = 1,
        error: str = "",
    ) -> None:
        """Keep one letter; ``rows`` is how many packets or rows it stands for."""
        letter = DeadLetter(
            kind=kind,
            reason=reason,
            at_ns=self._clock.wall_ns(),
            feed=self._feed,
            source=source,
            raw=raw,
            first_row=first_row,
            rows=rows,
            error=error,
        )
        with self._lock:
            known = (kind, reason) in self.counts or len(self.counts) < _REASONS
            self.counts[kind, reason if known else "other"] += rows
            self._remember(letter)
            if self._path is not None:
                self._write(letter, self._path)

    def _remember(self, letter: DeadLetter) -> None:
        self.recent.append(letter)
        self._recent_bytes += len(letter.raw)
        while len(self.recent) > 1000 or (self._recent_bytes > _RECENT_BYTES and len(self.recent) > 1):
            self._recent_bytes -= len(self.recent.popleft().raw)

    def _write(self, letter: DeadLetter, path: Path) -> None:
        fields: dict[str, Any] = attrs.asdict(letter)
        line = msgspec.json.encode(fields) + b"\n"  # bytes become base64
        if self._bytes + len(line) > self._max_bytes:
            self.overflowed += 1
            return
        try:
            with path.open("ab") as file:
                file.write(line)
            self._bytes += len(line)
        except OSError:
            self.overflowed += 1  # a full disk must not stop the feed; the counter is in the metrics
