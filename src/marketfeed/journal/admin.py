"""Looking after journals on disk: find them, describe them, prove them, forget a cursor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np

from marketfeed.dtypes import CANDLE, TICK
from marketfeed.errors import JournalError
from marketfeed.journal.attached import FileJournal, attach
from marketfeed.journal.cursorfiles import remove_cursor
from marketfeed.journal.layout import CONTROL, segment_firsts, segment_name
from marketfeed.journal.recovery import Epoch, read_epochs, read_rows
from marketfeed.journal.rowcheck import RowCheck

__all__ = ["CursorInfo", "Damage", "JournalInfo", "Verification", "find", "forget", "info", "only", "verify"]

_CHUNK_ROWS = 16_384


@attrs.frozen(kw_only=True)
class CursorInfo:
    """One cursor, in rows."""

    name: str
    position: int
    """The next row it has not committed."""
    lag: int
    delivered: int
    skipped: int
    dead_lettered: int
    updated_ns: int
    """When it was last committed (UTC); 0 = never."""
    in_use: bool


@attrs.frozen(kw_only=True)
class JournalInfo:
    """One journal on disk."""

    folder: str
    name: str
    """The published name, ``<id>.<epoch>``."""
    feed: str
    vendor: str
    kind: str
    """``ticks``, ``candles`` or ``other``."""
    oldest: int
    committed: int
    synced: int
    disk_bytes: int
    """What the segments take on the disk."""
    segments: int
    instruments: int
    first_received_ns: int
    """Of the oldest row (UTC); 0 if there is none."""
    last_received_ns: int
    writer_pid: int
    """0 when the last writer closed the journal in order."""
    writer_alive: bool
    epochs: tuple[Epoch, ...]
    """When rows were lost to a power cut."""
    cursors: tuple[CursorInfo, ...]

    @property
    def rows(self) -> int:
        """Rows that can be read."""
        return self.committed - self.oldest


@attrs.frozen
class Damage:
    """A run of rows that do not prove themselves."""

    first_row: int
    rows: int
    what: str
    """``damaged`` or ``missing``."""


@attrs.frozen(kw_only=True)
class Verification:
    """What :func:`verify` found."""

    folder: str
    first_row: int
    rows: int
    """Rows looked at, good or not."""
    damage: tuple[Damage, ...]

    @property
    def good(self) -> bool:
        return not self.damage


def find(folder: Path | str) -> list[Path]:
    """Folders of the journals at or below ``folder``, sorted."""
    return sorted(path.parent for path in Path(folder).rglob(CONTROL) if path.is_file())


def only(folder: Path | str, kind: str = "ticks") -> Path:
    """The folder of the one journal meant by ``folder``: itself, or the only one of ``kind`` below it.

    ``JournalError`` names the choices when there are several, and says so when there is none.
    """
    found = find(folder)
    if Path(folder) in found or len(found) == 1:
        return Path(folder) if Path(folder) in found else found[0]
    fitting = [one for one in found if one.name == kind]
    if len(fitting) == 1:
        return fitting[0]
    if not found:
        raise JournalError(f"there is no journal in {folder}")
    raise JournalError(f"there are {len(found)} journals in {folder}; name one: {', '.join(map(str, found))}")


def info(folder: Path | str) -> JournalInfo:
    """Describe the journal in ``folder``, which may be in use; ``JournalError`` if there is none."""
    journal = attach(Path(folder))
    page, committed, oldest = journal.page, journal.committed, journal.oldest
    firsts = segment_firsts(journal.folder)
    times = [_received_ns(journal, row) for row in (oldest, committed - 1)] if committed > oldest else [0, 0]
    return JournalInfo(
        folder=str(folder),
        name=journal.name,
        feed=page.description.feed,
        vendor=page.description.vendor,
        kind="ticks" if journal.dtype == TICK else "candles" if journal.dtype == CANDLE else "other",
        oldest=oldest,
        committed=committed,
        synced=page.synced,
        disk_bytes=sum(_disk_bytes(journal.folder / segment_name(first)) for first in firsts),
        segments=len(firsts),
        instruments=len(journal.instruments),
        first_received_ns=times[0],
        last_received_ns=times[1],
        writer_pid=page.pid,
        writer_alive=journal.writer_alive,
        epochs=tuple(read_epochs(journal.folder)),
        cursors=tuple(_cursors(journal, committed)),
    )


def _cursors(journal: FileJournal, committed: int) -> Iterator[CursorInfo]:
    for one in journal.cursors():
        state = one.state.clamped(journal.cut_since(one.state.epoch))
        yield CursorInfo(
            name=one.name,
            position=state.position,
            lag=max(0, committed - state.position),
            delivered=state.counts.delivered,
            skipped=state.skipped,
            dead_lettered=state.dead_lettered,
            updated_ns=state.updated_ns,
            in_use=one.in_use,
        )


def _received_ns(journal: FileJournal, row: int) -> int:
    block = journal.block(row) if "received_ns" in (journal.dtype.names or ()) else None
    return 0 if block is None else int(block.rows["received_ns"][row - block.first_row])


def _disk_bytes(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def verify(folder: Path | str, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Test the check of every row that is committed at this moment; about 10 million rows a second.

    ``progress(done, total)`` is called every so often, in rows. The journal may be in use: rows that
    retention removes meanwhile are not damage.
    """
    journal = attach(Path(folder))
    first, end = journal.oldest, journal.committed
    damage: list[Damage] = []
    row = first
    while row < end:
        row = max(row, journal.oldest)
        count = min(_CHUNK_ROWS, end - row, journal.page.geometry.first_of(row) + _per_segment(journal) - row)
        if count <= 0:
            break
        for place, rows, what in _faults(journal, row, count):
            _note(damage, Damage(row + place, rows, what))
        row += count
        if progress is not None:
            progress(row - first, end - first)
    damage = [one for one in damage if one.first_row >= journal.oldest]
    return Verification(folder=str(folder), first_row=first, rows=end - first, damage=tuple(damage))


def _per_segment(journal: FileJournal) -> int:
    return journal.page.geometry.rows_per_segment


def _faults(journal: FileJournal, row: int, count: int) -> Iterator[tuple[int, int, str]]:
    """Place in the piece, rows, and what is wrong with them."""
    geometry = journal.page.geometry
    path = journal.folder / segment_name(geometry.first_of(row))
    rows = read_rows(path, geometry, row, count) if path.exists() else journal.no_rows
    if len(rows):
        bad = np.flatnonzero(~RowCheck(geometry.dtype).fits(rows, row))
        for run in np.split(bad, np.flatnonzero(np.diff(bad) != 1) + 1):
            if len(run):
                yield int(run[0]), len(run), "damaged"
    if len(rows) < count:
        yield len(rows), count - len(rows), "missing"


def _note(damage: list[Damage], new: Damage) -> None:
    last = damage[-1] if damage else None
    if last is not None and last.what == new.what and last.first_row + last.rows == new.first_row:
        damage[-1] = Damage(last.first_row, last.rows + new.rows, last.what)
    else:
        damage.append(new)


def forget(folder: Path | str, cursor: str) -> None:
    """Remove a cursor, so that it holds back no rows. ``JournalError`` if it is unknown or in use."""
    if os.sep in cursor or cursor in ("", ".", ".."):
        raise JournalError(f"{cursor!r} cannot name a cursor")
    remove_cursor(attach(Path(folder)).folder, cursor)
