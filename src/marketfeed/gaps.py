"""The ledger of gaps on disk: intervals in which ticks could have been missed, and what became of them.

::

    <journal folder>/<feed>/gaps.jsonl      one event a line, only ever appended

A gap is what its events amount to: ``opened``, ``joined`` (a second cause while it is open), ``closed``,
``repaired``. Instruments are numbers of the feed's journal and stand in ``set`` lines of their own, because
a thousand gaps of one connection are of the same thousand instruments. A line that cannot be read (a kill
hit in the middle of it) is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from marketfeed.errors import MarketFeedError
from marketfeed.journal.files import force
from marketfeed.journal.layout import safe_name

__all__ = [
    "Book",
    "Cause",
    "Gap",
    "Happening",
    "append_events",
    "encode",
    "find_ledgers",
    "gaps_file",
    "open_for_appending",
    "read_book",
    "repair",
    "sink_gaps_file",
]

NAME: Final = "gaps.jsonl"


class Cause(StrEnum):
    """Why ticks could have been missed."""

    OUTAGE = "outage"
    """The connection was lost."""
    TAKEN_OVER = "taken_over"
    """Another session of the account took the connection."""
    MUTE = "mute"
    """The connection was there and gave nothing."""
    RESTART = "restart"
    """The feed was stopped in order and started again."""
    CRASH = "crash"
    """The feed ended without a word (a kill, a power cut) and was started again."""
    SKIPPED = "skipped"
    """Rows are in no sink: this one lagged too far behind."""
    DROPPED = "dropped"
    """Ticks were read and could not be written to the journal."""


@attrs.frozen(kw_only=True)
class Gap:
    """One interval. Times are UTC nanoseconds."""

    number: int
    """Counted from 1 in this ledger; what ``marketfeed gaps`` calls it."""
    feed: str
    vendor: str
    cause: str
    """The first of ``causes``."""
    causes: tuple[str, ...]
    """All that happened while it was open (:class:`Cause`)."""
    why: str
    """In words."""
    start_ns: int
    """Receipt of the last data before it; 0 = unknown."""
    end_ns: int | None
    """Receipt of the first data after it; None while it is open."""
    in_session_s: float | None
    """Seconds of it inside market hours; None while it is open."""
    connection: int | None
    """None where all connections are meant, or a sink."""
    sink: str | None
    """The sink that rows were not delivered to; the journal has them or had them."""
    journal: str
    """Published name of the journal that the row numbers belong to."""
    row_before: int | None
    """Last row received at or before ``start_ns``, of any connection; None = there is none."""
    row_after: int | None
    """First row received at or after ``end_ns``; None while that is not known."""
    rows: int
    """How many rows are missing, where that is known (``skipped``, ``dropped``); else 0."""
    instruments: tuple[int, ...] = attrs.field(repr=False)
    """Which ones could have been missed: numbers of the journal's instruments."""
    repaired_by: str | None = None
    """What filled it later; None = nothing has."""
    repaired_ns: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has no end yet."""
        return self.end_ns is None

    @property
    def seconds(self) -> float | None:
        """Its length; None while it is open or where its start is not known."""
        return (self.end_ns - self.start_ns) / 1e9 if self.end_ns is not None and self.start_ns else None

    def document(self, instruments: Sequence[str]) -> dict[str, Any]:
        """Ready for JSON, see ``schemas/gap.schema.json``; ``instruments`` are their names."""
        shown = attrs.asdict(self, filter=lambda field, _: field.name not in ("number", "instruments"))
        return {"gap": self.number, **shown, "seconds": self.seconds, "instruments": list(instruments)}


# --- events -----------------------------------------------------------------------------------------


class Run(msgspec.Struct, frozen=True, tag="run", tag_field="event"):
    """The feed begins to connect."""

    at_ns: int
    journal: str


class InstrumentSet(msgspec.Struct, frozen=True, tag="set", tag_field="event"):
    """Instruments under a number, as runs of ``[first, count]``."""

    set: int
    instruments: tuple[tuple[int, int], ...]


class Subscribed(msgspec.Struct, frozen=True, tag="subscribed", tag_field="event"):
    """What a connection carries from now on."""

    at_ns: int
    connection: int
    set: int


class Opened(msgspec.Struct, frozen=True, tag="opened", tag_field="event", omit_defaults=True):
    """A gap begins."""

    gap: int
    at_ns: int
    start_ns: int
    cause: str
    why: str
    set: int
    feed: str
    vendor: str
    journal: str
    row_before: int | None = None
    connection: int | None = None
    sink: str | None = None


class Joined(msgspec.Struct, frozen=True, tag="joined", tag_field="event", omit_defaults=True):
    """Another cause befell a gap that is open; ``start_ns`` where it turned out to begin earlier."""

    gap: int
    at_ns: int
    cause: str
    why: str
    start_ns: int | None = None


class Closed(msgspec.Struct, frozen=True, tag="closed", tag_field="event", omit_defaults=True):
    """Data come again."""

    gap: int
    at_ns: int
    end_ns: int
    in_session_s: float
    row_before: int | None = None
    row_after: int | None = None
    rows: int = 0
    why: str = ""
    """Where that says more than it did when the gap was opened."""


class Repaired(msgspec.Struct, frozen=True, tag="repaired", tag_field="event"):
    """Somebody has filled a gap."""

    gap: int
    at_ns: int
    by: str


class Stopped(msgspec.Struct, frozen=True, tag="stopped", tag_field="event"):
    """The feed was stopped in order."""

    at_ns: int


Happening = Run | InstrumentSet | Subscribed | Opened | Joined | Closed | Repaired | Stopped
_DECODER: msgspec.json.Decoder[Happening] = msgspec.json.Decoder(Happening)
_ENCODE = msgspec.json.Encoder().encode


def encode(events: Iterable[Happening]) -> bytes:
    """Their lines."""
    return b"".join(_ENCODE(one) + b"\n" for one in events)


class Book:
    """What the events of a ledger amount to, as far as they were applied."""

    def __init__(self) -> None:
        self.gaps: dict[int, Gap] = {}
        self.sets: dict[int, tuple[int, ...]] = {}
        self.wanted: dict[int, tuple[int, ...]] = {}
        """Connection -> instruments, of the latest run."""
        self.run: Run | None = None
        """The latest run; None before the first."""
        self.stopped_ns: int | None = None
        """When the latest run was stopped in order; None while it goes on, and after a crash."""
        self.damaged = 0
        """Lines that could not be read."""

    def apply(self, event: Happening) -> None:
        """Events that speak of an unknown gap or set (their line was damaged) change nothing."""
        match event:
            case Run():
                self.run, self.stopped_ns, self.wanted = event, None, {}
            case Stopped(at_ns):
                self.stopped_ns = at_ns
            case InstrumentSet(number, runs):
                self.sets[number] = tuple(one for first, count in runs for one in range(first, first + count))
            case Subscribed(_, connection, number):
                self.wanted[connection] = self.sets.get(number, ())
            case Opened():
                self.gaps[event.gap] = _begun(event, self.sets.get(event.set, ()))
            case Joined() | Closed() | Repaired():
                known = self.gaps.get(event.gap)
                if known is not None:
                    self.gaps[event.gap] = _changed(known, event)


def _begun(event: Opened, instruments: tuple[int, ...]) -> Gap:
    return Gap(
        number=event.gap,
        feed=event.feed,
        vendor=event.vendor,
        cause=event.cause,
        causes=(event.cause,),
        why=event.why,
        start_ns=event.start_ns,
        end_ns=None,
        in_session_s=None,
        connection=event.connection,
        sink=event.sink,
        journal=event.journal,
        row_before=event.row_before,
        row_after=None,
        rows=0,
        instruments=instruments,
    )


def _changed(gap: Gap, event: Joined | Closed | Repaired) -> Gap:
    match event:
        case Joined():
            start_ns = gap.start_ns if event.start_ns is None else event.start_ns
            why = f"{gap.why}; {event.why}"
            causes = tuple(dict.fromkeys((*gap.causes, event.cause)))
            return attrs.evolve(gap, causes=causes, why=why, start_ns=start_ns)
        case Closed():
            return attrs.evolve(
                gap,
                end_ns=event.end_ns,
                in_session_s=event.in_session_s,
                row_before=event.row_before,
                row_after=event.row_after,
                rows=event.rows,
                why=event.why or gap.why,
            )
        case Repaired():
            return attrs.evolve(gap, repaired_by=event.by, repaired_ns=event.at_ns)


# --- files ------------------------------------------------------------------------------------------


def gaps_file(folder: Path | str, feed: str) -> Path:
    """The ledger of ``feed`` inside the folder of the journals."""
    return Path(folder) / safe_name(feed, "feed") / NAME


def sink_gaps_file(folder: Path | str, feed: str, sink: str) -> Path:
    """The ledger of a sink of ``feed`` that has a process of its own: each ledger has one writer."""
    return Path(folder) / safe_name(feed, "feed") / f"gaps-{safe_name(sink, 'sink')}.jsonl"


def find_ledgers(folder: Path | str) -> list[Path]:
    """The ledgers at or below ``folder``: a feed's folder, or that of the journals."""
    folder = Path(folder)
    names = (NAME, "gaps-*.jsonl")
    places = [found for start in ("", "*/") for name in names for found in sorted(folder.glob(start + name))]
    return [one for one in places if one.is_file()]


def read_book(path: Path) -> Book:
    """The ledger in that file as it is now; an empty one if there is no file. Raises ``OSError``."""
    book = Book()
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return book
    for event in _decoded(lines, book):
        book.apply(event)
    return book


def _decoded(lines: Iterable[bytes], book: Book) -> Iterator[Happening]:
    for line in lines:
        if line.strip():
            try:
                yield _DECODER.decode(line)
            except (msgspec.DecodeError, msgspec.ValidationError):
                book.damaged += 1


def append_events(fd: int, data: bytes) -> tuple[int, OSError | None]:
    """Write as much as the disk takes, safe from a power cut: how many bytes that was, and why no more."""
    done = 0
    try:
        while done < len(data):
            done += os.write(fd, data[done:])
        force(fd)
    except OSError as error:
        return done, error
    return done, None


def open_for_appending(path: Path) -> int:
    """A descriptor at the end of the file, on a line of its own. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o644)
    size = os.fstat(fd).st_size
    if size:
        os.lseek(fd, size - 1, os.SEEK_SET)
        if os.read(fd, 1) != b"\n":
            append_events(fd, b"\n")  # a kill in the middle of a line: it must not spoil the next one
    return fd


def repair(path: Path, number: int, by: str, at_ns: int) -> Gap:
    """Note in the ledger at ``path`` that ``by`` has filled a gap; the feed may be running.

    Raises ``MarketFeedError`` for a gap that is not there or still open, ``OSError``.
    """
    book = read_book(path)
    known = book.gaps.get(number)
    if known is None or known.is_open:
        raise MarketFeedError(f"there is no gap {number} in {path}" if known is None else f"gap {number} is still open")
    event = Repaired(number, at_ns, by)
    fd = open_for_appending(path)
    try:
        _, error = append_events(fd, encode([event]))
    finally:
        os.close(fd)
    if error is not None:
        raise error
    book.apply(event)
    return book.gaps[number]
