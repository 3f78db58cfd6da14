"""The parse thread: drains the frames of all connections, parses, validates, appends. The single writer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import attrs

from marketfeed.clock import Clock
from marketfeed.contract import BadPacket, Frame, Parsed, Parser
from marketfeed.dtypes import Rows, empty_ticks
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.inbox import Delivered, Inbox
from marketfeed.engine.latest import Latest
from marketfeed.engine.logs import Log
from marketfeed.engine.metrics import Histogram
from marketfeed.engine.validation import Validator
from marketfeed.errors import JournalError
from marketfeed.framelog import FrameLog
from marketfeed.journal import Journal

__all__ = ["ParseCounts", "ParseLoop"]

_DISK_WAIT_S = 0.5


@attrs.define
class ParseCounts:
    """What the parse thread did. ``parsed = appended + dropped + dead_lettered + lost`` at all times
    between two batches."""

    parsed: int = 0
    """Rows that parsers made."""
    appended: int = 0
    dropped: int = 0
    """Rows that validation kept out on purpose."""
    dead_lettered: int = 0
    """Rows put aside by validation."""
    lost: int = 0
    """Rows that could not be written before the feed had to stop, or that a bug cost."""
    bad_packets: int = 0
    """Pieces of frames that no parser could read; they are in the dead letters, not in ``parsed``."""

    @property
    def unaccounted(self) -> int:
        """What the law lacks: above 0 only while a batch is on its way."""
        return self.parsed - self.appended - self.dropped - self.dead_lettered - self.lost


@attrs.define
class ParseLoop:
    """Turns frames into journal rows until the inbox is closed and empty."""

    inbox: Inbox
    make_parser: Callable[[], Parser]
    journal: Journal
    deadletters: DeadLetters
    latest: Latest
    clock: Clock
    log: Log
    fail: Callable[[Exception], None]
    """Told when the feed cannot go on: the journal refuses for good, or there is a bug."""
    missed: Callable[[int, int, int, str], None] = lambda since_ns, until_ns, rows, why: None
    """Told when rows received from ``since_ns`` up to ``until_ns`` are lost."""
    validator: Validator = attrs.field(factory=Validator)
    """Remembers what each instrument said, also across connections."""
    counts: ParseCounts = attrs.field(factory=ParseCounts)
    exchange_to_receive: Histogram = attrs.field(factory=Histogram)
    receive_to_journal: Histogram = attrs.field(factory=Histogram)
    capture: FrameLog | None = None
    """Keeps the frames as they came, before anything is made of them."""
    stuck: str = ""
    """Why appending waits, such as a full disk; empty when it does not."""
    stopping: threading.Event = attrs.field(factory=threading.Event)
    _parsers: dict[int, Parser] = attrs.field(factory=dict)

    def run(self) -> None:
        """The thread's loop."""
        while (items := self.inbox.take()) is not None:
            for connection, frames in _by_connection(items):
                self._accept_or_fail(connection, frames)

    def _accept_or_fail(self, connection: int, frames: Sequence[Frame] | None) -> None:
        """A dead parse thread would let the readers wait for ever: fail the feed, keep draining."""
        try:
            if frames is None:
                self._renewed(connection)
            else:
                if self.capture is not None:
                    self.capture.put(connection, frames)
                self._accept(connection, frames)
        except Exception as error:
            self.log.error("the parse thread broke", connection=connection, error=repr(error))
            self.counts.lost += (missing := self.counts.unaccounted)
            if frames:
                self.missed(frames[0].received_ns, frames[-1].received_ns, missing, repr(error))
            self._parsers.pop(connection, None)
            self.fail(error)

    def _renewed(self, connection: int) -> None:
        self._parsers.pop(connection, None)
        if self.capture is not None:
            self.capture.renewed(connection)

    def _accept(self, connection: int, frames: Sequence[Frame]) -> None:
        parsed = self._parse(connection, frames)
        self.counts.parsed += len(parsed.rows)
        if parsed.bad:
            self._put_aside(connection, frames, parsed)
        rows, rejected = self.validator.check(parsed.rows, consume=True)
        aside = sum(map(len, rejected.values()))
        self.counts.dropped += len(parsed.rows) - len(rows) - aside
        for reason, bad in rejected.items():
            self.counts.dead_lettered += len(bad)
            code = str(reason.name).lower()
            self.deadletters.put_rows("row", code, f"connection {connection}", bad)
        if len(rows):
            self._append(rows)

    def _put_aside(self, connection: int, frames: Sequence[Frame], parsed: Parsed) -> None:
        """Keep the frames that had bad packets, and what their good ones gave."""
        self.counts.bad_packets += len(parsed.bad)
        by_frame: dict[int, list[BadPacket]] = {}
        for bad in parsed.bad:
            by_frame.setdefault(bad.frame, []).append(bad)
        for number, bads in by_frame.items():
            frame = frames[number]
            good = parsed.rows[parsed.rows["received_ns"] == frame.received_ns]
            self.deadletters.put_frame(f"connection {connection}", frame, bads, good)

    def _parse(self, connection: int, frames: Sequence[Frame]) -> Parsed:
        parser = self._parsers.get(connection)
        if parser is None:
            parser = self._parsers[connection] = self.make_parser()
        try:
            return parser(frames)
        except Exception as error:  # breaks the contract; keep the bytes, start over with a clean parser
            self.log.error("the parser raised", connection=connection, error=repr(error))
            del self._parsers[connection]
            self.counts.bad_packets += len(frames)
            for frame in frames:
                self.deadletters.put(
                    "packet",
                    "parser_raised",
                    f"connection {connection}",
                    raw=frame.data,
                    received_ns=frame.received_ns,
                    error=repr(error),
                )
            return Parsed(empty_ticks(0))

    def _append(self, rows: Rows) -> None:
        # First, so that whoever has a batch finds nothing older in ``latest``. One writer: the rows get these numbers.
        self.latest.update(rows, self.journal.committed)
        while True:
            try:
                self.journal.append(rows)
                break
            except OSError as error:  # nothing was published; the same rows can be tried again
                if not self._wait_for_disk(error):
                    self._lose(rows, error)
                    return
            except JournalError as error:
                self._lose(rows, error)
                self.fail(error)
                return
        if self.stuck:
            self.log.warning("the journal can be written again")
            self.stuck = ""
        self.counts.appended += len(rows)
        self._observe(rows)

    def _lose(self, rows: Rows, error: Exception) -> None:
        self.counts.lost += len(rows)
        received = rows["received_ns"]
        self.missed(int(received.min()), int(received.max()), len(rows), str(error))

    def _wait_for_disk(self, error: OSError) -> bool:
        """False when the feed must stop. Meanwhile readers fill their inbox and then the broker waits."""
        if not self.stuck:
            self.log.error("the journal cannot be written; trying again", error=str(error))
        self.stuck = str(error)
        return not self.clock.wait(self.stopping, _DISK_WAIT_S)

    def _observe(self, rows: Rows) -> None:
        """Two latencies of the batch's oldest row: one observation a batch costs next to nothing."""
        received_ns = int(rows["received_ns"][0])
        exchange_ns = int(rows["exchange_ns"][0])
        self.receive_to_journal.observe((self.clock.wall_ns() - received_ns) / 1e9)
        if exchange_ns:
            self.exchange_to_receive.observe((received_ns - exchange_ns) / 1e9)


def _by_connection(items: Sequence[Delivered]) -> Iterator[tuple[int, list[Frame] | None]]:
    """Join what waits of one connection into one call, keeping its order and its new sockets.

    Connections do not mix: each has a parser of its own.
    """
    waiting: dict[int, list[Frame]] = {}
    for connection, frames in items:
        if frames is None:
            if connection in waiting:
                yield connection, waiting.pop(connection)
            yield connection, None
        else:
            known = waiting.get(connection)
            if known is None:
                waiting[connection] = list(frames)
            else:
                known.extend(frames)
    yield from waiting.items()
