"""Where a feed puts what it cannot deliver: counted at once, written by a thread of its own."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.clock import Clock
from marketfeed.contract import BadPacket, Frame
from marketfeed.deadletters.letter import DeadLetter, digests, slug
from marketfeed.deadletters.writer import LetterWriter
from marketfeed.dtypes import TICK, Rows
from marketfeed.journal import Journal
from marketfeed.redaction import clean

__all__ = ["MAX_BYTES", "DeadLetters"]

MAX_BYTES: Final = 256_000_000
_PAUSE_S = 0.02
"""The writer lets letters gather for so long."""
_WAITING_BYTES = 32 * 2**20
"""What may wait for the disk; a letter beyond it is counted and not kept."""
_RECENT_BYTES = 4 * 2**20
_MEMORY_BYTES = 16 * 2**20
"""What is kept at most where there is no disk."""
_RECENT = 1000
_REASONS = 200
"""Most reasons told apart: each is a time series of the metrics, and plugins choose the words."""
_OTHER = "other"
_MOST_ERROR = 1000
_MOST_OFFSETS = 500
_ROWS_A_LETTER = 1024
_NOTHING: tuple[str, ...] = ()

_log = logging.getLogger("marketfeed.deadletters")


class DeadLetters:
    """One store for a feed: a folder of segment files, or memory alone when ``folder`` is None.

    Any thread may put; that costs some microseconds and never waits for the disk. What is there is
    bounded by ``max_bytes``: the oldest segment goes, with an error in the log, and ``overflowed``
    counts the letters in it that nobody had replayed. A full disk does not stop anything either: the
    letter is counted in ``overflowed`` and not kept. ``hidden`` gives values that must not be kept, such
    as access tokens; they are blanked out of errors and raw bytes.
    """

    def __init__(
        self,
        feed: str,
        clock: Clock,
        folder: Path | None = None,
        max_bytes: int = MAX_BYTES,
        *,
        vendor: str = "",
        journal: Journal | None = None,
        hidden: Callable[[], Iterable[str]] = lambda: _NOTHING,
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._vendor = vendor
        self._journal = journal
        self.hidden = hidden
        """Gives the values that must neither be kept nor shown."""
        self._run = secrets.token_hex(5)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[DeadLetter] = deque()
        self._waiting_bytes = 0
        self._writing = False
        self._idle = False
        self._hurry = False
        self._closing = False
        self._refused = 0
        self._thread: threading.Thread | None = None
        self._writer = LetterWriter(folder, max_bytes, hidden) if folder is not None else None
        self._recent_limit = _RECENT_BYTES if folder is not None else min(max_bytes, _MEMORY_BYTES)
        self._recent_bytes = 0
        self.recent: deque[DeadLetter] = deque()
        """The newest letters, bounded in bytes unless one letter alone is larger: 4 MiB and 1,000 of them
        beside a disk, 16 MiB without one."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Rows or packets by (kind, reason) since the feed started; beyond 200 of them the reason is ``other``."""

    # --- putting --------------------------------------------------------------------------

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
        received_ns: int = 0,
    ) -> None:
        """Keep one letter; ``rows`` is how many packets or rows it stands for. The other fields are those
        of :class:`DeadLetter`."""
        values = {"raw": raw, "first_row": first_row, "rows": rows, "received_ns": received_ns}
        self._keep(self._letter(kind, reason, source, error, **values))

    def put_frame(self, source: str, frame: Frame, bad: Sequence[BadPacket], good: Rows | None = None) -> None:
        """Keep a frame with packets that could not be read: one letter, counted for each packet.

        ``good`` are the rows that its other packets gave (those of neighbours do no harm). They are not
        kept, but known again when the frame is tried again.
        """
        reasons = Counter(slug(one.reason) for one in bad)
        said = "; ".join(f"{one.reason} at byte {one.offset}" for one in bad[:20])
        letter = self._letter(
            "packet",
            next(iter(reasons)),
            source,
            said,
            raw=frame.data,
            rows=len(bad),
            received_ns=frame.received_ns,
            offsets=tuple(one.offset for one in bad[:_MOST_OFFSETS]),
            good=digests(good).tobytes() if good is not None and len(good) else b"",
        )
        self._keep(letter, reasons)

    def put_rows(
        self,
        kind: str,
        reason: str,
        source: str,
        rows: Rows,
        *,
        seq: NDArray[np.int64] | Sequence[int] | None = None,
        error: str = "",
    ) -> None:
        """Keep rows, in as many letters as they need.

        ``seq`` are their numbers in the journal, ascending; a letter's rows follow one another.
        """
        places: list[int] = [] if seq is None else (np.flatnonzero(np.diff(np.asarray(seq)) != 1) + 1).tolist()
        start = 0
        for end in [*places, len(rows)]:
            for first in range(start, end, _ROWS_A_LETTER):
                piece = rows[first : min(first + _ROWS_A_LETTER, end)]
                symbol, token = self._names(piece)
                letter = self._letter(
                    kind,
                    reason,
                    source,
                    error,
                    raw=piece.tobytes(),
                    rows=len(piece),
                    first_row=None if seq is None else int(seq[first]),
                    symbol=symbol,
                    token=token,
                )
                self._keep(letter)
            start = end

    def shown(self, text: str) -> str:
        """What may be shown of a text: without the values that must not be kept."""
        return clean(text, self.hidden())

    def _letter(self, kind: str, reason: str, source: str, error: str, **values: Any) -> DeadLetter:
        code, journal = slug(reason), self._journal
        return DeadLetter(
            id=self._new_id(),
            kind=kind,
            reason=code,
            at_ns=self._clock.wall_ns(),
            feed=self._feed,
            source=source,
            vendor=self._vendor,
            error=self._clean(error or (reason if reason != code else "")),
            journal=journal.name if journal is not None else "",
            instruments=len(journal.instruments) if journal is not None else None,
            **values,
        )

    def _new_id(self) -> str:
        return f"{self._run}-{next(self._numbers)}"

    def _clean(self, text: str) -> str:
        return clean(text[: 2 * _MOST_ERROR], self.hidden())[:_MOST_ERROR] if text else ""

    def _names(self, rows: Rows) -> tuple[str, str]:
        if self._journal is None or rows.dtype != TICK:
            return "", ""
        numbers = rows["instrument"]
        if numbers[0] < 0 or (numbers != numbers[0]).any():
            return "", ""
        one = self._journal.instruments[int(numbers[0])]
        return one.key, one.token

    def take(self, letter: DeadLetter) -> None:
        """Keep a letter that was made elsewhere, with a new id where it has none."""
        self._keep(attrs.evolve(letter, id=letter.id or self._new_id(), error=self._clean(letter.error)))

    def _keep(self, letter: DeadLetter, reasons: Counter[str] | None = None) -> None:
        """``reasons`` are counted, not its own."""
        with self._changed:
            for reason, count in (reasons or {letter.reason: letter.rows}).items():
                known = (letter.kind, reason) in self.counts or len(self.counts) < _REASONS
                self.counts[letter.kind, reason if known else _OTHER] += count
            self._remember(letter)
            if self._writer is not None:
                self._queue(letter)

    def _remember(self, letter: DeadLetter) -> None:
        self.recent.append(letter)
        self._recent_bytes += len(letter.raw)
        most = _RECENT if self._writer is not None else 10 * _RECENT
        while len(self.recent) > most or (self._recent_bytes > self._recent_limit and len(self.recent) > 1):
            self._recent_bytes -= len(self.recent.popleft().raw)
            self._refused += self._writer is None  # without a disk it is gone for good

    def _queue(self, letter: DeadLetter) -> None:
        size = len(letter.raw) + len(letter.good)
        if self._closing or (self._waiting_bytes and self._waiting_bytes + size > _WAITING_BYTES):
            self._refused += 1
            return
        self._waiting.append(letter)
        self._waiting_bytes += size
        if self._thread is None:
            name = f"marketfeed-{self._feed}-deadletters"
            self._thread = threading.Thread(target=self._run_writer, name=name, daemon=True)
            self._thread.start()
        if self._idle:
            self._changed.notify_all()

    # --- writing --------------------------------------------------------------------------

    def _run_writer(self) -> None:
        assert self._writer is not None
        taken = 0
        while True:
            with self._changed:
                self._writing = False
                self._waiting_bytes -= taken
                self._changed.notify_all()
                self._idle = True
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                self._idle = False  # from here on puts wake nobody: a storm shares one wake-up
                self._changed.wait_for(lambda: self._closing or self._hurry, _PAUSE_S)
                letters, self._waiting = self._waiting, deque()
                taken = self._waiting_bytes
                self._writing = True
            try:
                self._writer.write(letters)
            except Exception:  # a bug must neither stop the feed nor go unseen
                self._writer.overflowed += len(letters)
                _log.exception("dead letters could not be written")

    def settle(self, timeout_s: float = 5.0) -> bool:
        """Wait until what was put is with the operating system, or given up; False after ``timeout_s``.

        After True a kill of this process costs no letter.
        """
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._waiting and not self._writing, timeout_s)
            self._hurry = False
            return done

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits and end the thread. Twice is the same as once; what is put later is only counted."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._writer is not None and (self._thread is None or not self._thread.is_alive()):
            self._writer.close()

    @property
    def overflowed(self) -> int:
        """Letters that were counted and are not kept: no room, no disk, or removed before anybody replayed them."""
        return self._refused + (self._writer.overflowed if self._writer is not None else 0)

    @property
    def trouble(self) -> str:
        """Why the disk refuses letters; empty while it does not."""
        return self._writer.trouble if self._writer is not None else ""

    @property
    def kept_bytes(self) -> int:
        """Size of the store."""
        return self._writer.size if self._writer is not None else self._recent_bytes
