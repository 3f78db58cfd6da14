"""One consumer of a journal: where it is, and batches without a copy."""

from __future__ import annotations

import contextlib
import threading
from time import monotonic, time_ns
from typing import Final, NamedTuple, Protocol, Self, cast

from marketfeed.batches import CandleBatch, Origin, TickBatch
from marketfeed.dtypes import CANDLE, Rows
from marketfeed.errors import JournalError, Overrun
from marketfeed.journal.cursors import Counts, Cursor, CursorState

__all__ = ["Bell", "Block", "Reader", "Store"]

SHORTEST_PAUSE_S: Final = 0.0002
LONGEST_PAUSE_S: Final = 0.01
LONGEST_SLEEP_S: Final = 3600.0
DAMAGED_AFTER_S: Final = 1.0


class Block(NamedTuple):
    """A run of rows that lie in one piece of memory: a segment's mapping or a memory block."""

    first_row: int
    rows: Rows
    """Read-only; rows that are not committed yet are there but mean nothing."""


class Store(Protocol):
    """What a reader needs of a journal."""

    @property
    def committed(self) -> int: ...
    @property
    def oldest(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def no_rows(self) -> Rows:
        """A read-only array of the journal's dtype without rows."""

    def block(self, row: int) -> Block | None:
        """The piece of memory that holds ``row``; None when retention has removed it."""

    def whole(self, rows: Rows, first_row: int) -> int:
        """How many of these rows, from the first on, have arrived in this process's memory."""

    def cut_since(self, epoch: int) -> int:
        """The lowest row at which an epoch later than ``epoch`` began."""

    def seconds_behind(self, row: int) -> float:
        """How much older than the newest row ``row`` was received."""

    def detach(self, reader: Reader) -> None:
        """The reader is closed."""


class Bell:
    """Wakes one sleeping thread. A token rung early is kept, so no wake-up is lost."""

    __slots__ = ("_lock", "asleep")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.asleep = False
        """The reader is about to sleep: it looks once more after setting this, so ringing suffices."""

    def ring(self) -> None:
        """End the present or the next :meth:`wait`. Any thread; twice is the same as once."""
        with contextlib.suppress(RuntimeError):  # a token is waiting already
            self._lock.release()

    def wait(self, timeout_s: float) -> None:
        """Sleep until rung or until ``timeout_s`` went by."""
        self._lock.acquire(timeout=timeout_s)


class Reader:
    """Reads a journal in order from a cursor of its own; made by :meth:`Journal.reader`.

    ``take`` and ``commit`` belong to one thread; the counts, ``lag`` and ``wake`` to any. A batch
    is read-only and stays valid as long as it is kept, but it keeps a whole segment alive (disk
    space after retention has removed it, not memory): a consumer that hoards rows copies them.
    """

    def __init__(self, store: Store, name: str, cursor: Cursor, state: CursorState, *, keep: bool, rung: bool) -> None:
        self.name = name
        self.keep = keep
        """True when rows wait for this reader; False for an observer, which gets ``Overrun`` instead."""
        self.overrun: Overrun | None = None
        """The gap that the latest ``take`` found before its first row, or None."""
        self.overruns = 0
        """How many gaps there were."""
        self.cut = 0
        """Rows that were read and then lost to a power cut of the writer's machine."""
        self.bell = Bell()
        self._store = store
        self._kind = CandleBatch if store.no_rows.dtype == CANDLE else TickBatch
        self._cursor = cursor
        self._state = state
        self._next = state.position
        self._gaps: list[tuple[int, int]] = []
        self._epoch = state.epoch
        self._block: Block | None = None
        self._rung = rung
        self._pause = SHORTEST_PAUSE_S
        self._woken = False
        self._suspected_at = 0.0
        self._closed = False

    # --- reading --------------------------------------------------------------------------

    def take(self, max_rows: int = 4096, wait_s: float = 0.0) -> TickBatch:
        """The next rows, at most ``max_rows``, without a copy; an empty batch when there are none.

        Waits up to ``wait_s`` seconds for the first row; :meth:`wake` ends the wait. Never spans
        two segments, so it may be shorter than what is there. A journal of candles gives a
        ``CandleBatch``. For a keeping reader, rows that retention removed are counted as skipped
        and told in ``overrun``; an observer gets ``Overrun`` raised, once, and then goes on.
        """
        if self._closed:
            raise JournalError(f"reader {self.name!r} is closed")
        self.overrun = None
        store = self._store
        committed = store.committed  # read once: nothing beyond it is looked at, although bytes are there
        if committed <= self._next and wait_s > 0:
            committed = self._wait(wait_s)
        if store.epoch != self._epoch or committed < self._next:
            committed = self._rejoin(committed)
        if committed <= self._next:
            return self._batch(store.no_rows)
        return self._batch(self._rows(min(committed, self._next + max_rows)))

    def _rows(self, stop: int) -> Rows:
        block = self._block
        if block is None or not block.first_row <= self._next < block.first_row + len(block.rows):
            self._block = None  # let the old mapping go before the next one comes
            self._block = block = self._find()
        start = self._next - block.first_row
        rows = block.rows[start : max(start, stop - block.first_row)]
        whole = self._store.whole(rows, self._next)
        if whole == 0:
            self._suspect()
        else:
            self._suspected_at = 0.0
        return rows if whole == len(rows) else rows[:whole]

    def _suspect(self) -> None:
        # Published but not here yet: a moment's matter between processors, or else damage.
        now = monotonic()
        if not self._suspected_at:
            self._suspected_at = now
        elif now - self._suspected_at > DAMAGED_AFTER_S:
            raise JournalError(f"row {self._next} is damaged; `marketfeed journal verify` tells more")
        self.bell.wait(SHORTEST_PAUSE_S)

    def _find(self) -> Block:
        while True:
            oldest = self._store.oldest
            if self._next < oldest:
                self._pass_over(oldest)
            found = self._store.block(self._next)
            if found is not None:
                return found
            if self._next >= self._store.oldest:
                raise JournalError(f"row {self._next} is missing although the journal should hold it")

    def _pass_over(self, oldest: int) -> None:
        missed = oldest - self._next
        self._gaps.append((self._next, oldest))
        self._next = oldest
        self.overruns += 1
        self.overrun = Overrun(self.name, missed, oldest)
        if not self.keep:
            self.commit()
            raise self.overrun
        if self._gaps[-1][0] == self._state.position:
            self.commit()

    def _batch(self, rows: Rows) -> TickBatch:
        batch = self._kind(rows, self._store.origin, self._next)
        self._next += len(rows)
        return cast("TickBatch", batch)

    def _wait(self, wait_s: float) -> int:
        end = monotonic() + wait_s
        while True:
            self.bell.asleep = True
            committed = self._store.committed
            left = end - monotonic()
            if committed > self._next or self._woken or left <= 0 or self._store.epoch != self._epoch:
                break
            self.bell.wait(min(left, LONGEST_SLEEP_S if self._rung else self._pause))
            self._pause = min(self._pause * 1.25, LONGEST_PAUSE_S)
        self.bell.asleep = False
        self._woken = False
        if committed > self._next:
            self._pause = SHORTEST_PAUSE_S
        return committed

    def wake(self) -> None:
        """Make the present ``take`` return at once, or else the next one that would wait. Any thread."""
        self._woken = True
        self.bell.ring()

    def _rejoin(self, committed: int) -> int:
        # The writer's machine lost power: rows beyond the cut are gone and their numbers are used anew.
        epoch = self._store.epoch
        end = min(committed, self._store.cut_since(self._epoch))
        self._epoch = epoch
        self._block = None
        if end < self._next:
            self.cut += self._next - end
            self._next = end
        self._gaps = [gap for gap in self._gaps if gap[1] <= end]
        if end < self._state.position:
            self._store_state(self._state.clamped(end))
        return self._store.committed

    # --- position -------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The next row that is not committed: what a restart begins with."""
        return self._state.position

    @property
    def next_row(self) -> int:
        """The next row that ``take`` gives; beyond ``position`` by what is taken and not committed."""
        return self._next

    @property
    def lag(self) -> int:
        """Rows in the journal that this reader has not committed."""
        return max(0, self._store.committed - self._state.position)

    @property
    def lag_seconds(self) -> float:
        """How much older than the newest row the next one to commit was received, in seconds; 0 without lag."""
        return self._store.seconds_behind(self._state.position)

    @property
    def waiting(self) -> int:
        """Rows in the journal that this reader has not taken yet."""
        return max(0, self._store.committed - self._next)

    @property
    def waiting_seconds(self) -> float:
        """How much older than the newest row the next one to take was received; 0 when none waits."""
        return self._store.seconds_behind(self._next)

    @property
    def counts(self) -> Counts:
        """start, position, delivered, skipped, dead_lettered: rows."""
        return self._state.counts

    def commit(self, row: int | None = None, *, skipped: int = 0, dead_lettered: int = 0) -> None:
        """Everything below ``row`` is done with (default: everything taken).

        ``skipped`` and ``dead_lettered`` say how many of these rows were not delivered. One store
        commits all of it. Raises ``JournalError`` when ``row`` was not taken or is committed already.
        """
        row = self._next if row is None else row
        if not self._state.position <= row <= self._next:
            raise JournalError(
                f"reader {self.name!r} cannot commit row {row}: it is between {self._state.position} and {self._next}"
            )
        for gap in [gap for gap in self._gaps if gap[1] <= row]:
            skipped += gap[1] - gap[0]
            self._gaps.remove(gap)
        self._store_state(
            self._state._replace(
                position=row,
                skipped=self._state.skipped + skipped,
                dead_lettered=self._state.dead_lettered + dead_lettered,
            )
        )

    def seek(self, row: int) -> None:
        """Go on with ``row`` and commit that: for a consumer that stores its position with its rows.

        Going forward counts the rows between as delivered. Going back takes them from the counts, from that of
        skipped rows first: a consumer does not store a position for what it did not get.
        """
        row = max(0, min(row, self._store.committed))
        self._next = row
        self._gaps = []
        state, back = self._state, max(0, self._state.position - row)
        skipped = max(0, state.skipped - back)
        dead = max(0, state.dead_lettered - (back - (state.skipped - skipped)))
        start = min(state.start, row)
        self._store_state(state._replace(start=start, position=row, skipped=skipped, dead_lettered=dead))

    def rewind(self) -> None:
        """Take again what was taken and not committed."""
        self._next = self._state.position
        self._gaps = []

    def _store_state(self, state: CursorState) -> None:
        state = state._replace(updated_ns=time_ns(), epoch=self._epoch)
        self._cursor.commit(state)
        self._state = state

    # --- end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the cursor's name. Batches that were taken stay valid. Twice is the same as once."""
        if self._closed:
            return
        self._closed = True
        self._block = None
        self._store.detach(self)
        self._cursor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
