"""What a writer does first: find the last whole row, and make sure that no later one can be mistaken for one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs
import msgspec
import numpy as np

from marketfeed.dtypes import Rows
from marketfeed.journal.control import ControlPage, boot_identity
from marketfeed.journal.files import force_folder, write_whole
from marketfeed.journal.layout import EPOCHS, Geometry, segment_firsts, segment_name
from marketfeed.journal.rowcheck import RowCheck

__all__ = ["Epoch", "Recovery", "read_epochs", "recover"]

_CHUNK_ROWS: Final = 8192


class Epoch(msgspec.Struct, frozen=True):
    """One line of ``epochs.jsonl``: from ``first_row`` on, row numbers were used anew."""

    epoch: int
    first_row: int
    at_ns: int = 0


@attrs.frozen(kw_only=True)
class Recovery:
    """What opening a journal for writing found."""

    committed: int = 0
    """Where it goes on."""
    found: int = 0
    """Whole rows beyond the last published one: a kill hit between writing and publishing."""
    lost: int = 0
    """Published rows that are damaged or gone."""
    new_epoch: bool = False
    """Rows may have been seen by somebody and then lost, so the journal has a new name."""


def recover(folder: Path, page: ControlPage, now_ns: int) -> Recovery:
    """Bring ``folder`` into a state in which rows can be appended; only the lock's holder may.

    Scans from the last row known to be on the disk. Raises the epoch when published rows are lost,
    or when the machine was booted since: then the page itself may be older than what was published.
    """
    geometry, published = page.geometry, page.committed
    firsts = segment_firsts(folder)
    end = _scan(folder, geometry, max(page.synced, _oldest_file(page, firsts)))
    if page.pid == 0:  # closed in order: what stands behind is left of an append that failed
        end = min(end, published)
    oldest = _oldest_kept(page.oldest, end, geometry, firsts)
    rebooted = page.pid != 0 and not _same_boot(page.boot, boot_identity())
    new_epoch = end < published or (rebooted and published > 0)
    _clear(folder, geometry, end, firsts)
    for first in firsts:
        if first + geometry.rows_per_segment <= page.oldest:  # a kill in the middle of their removal
            (folder / segment_name(first)).unlink(missing_ok=True)
    if new_epoch:
        epoch = max([page.epoch, *(one.epoch for one in read_epochs(folder))]) + 1
        _add_epoch(folder, Epoch(epoch, end, now_ns))
    # The end first: a reader that meets the new epoch then meets the new end with it.
    page.publish(end)
    page.set_synced(min(end, page.synced))
    page.set_oldest(oldest)
    if new_epoch:
        page.set_epoch(epoch)
    return Recovery(committed=end, found=max(0, end - published), lost=max(0, published - end), new_epoch=new_epoch)


def _same_boot(before: bytes, now: bytes) -> bool:
    return before == now and any(now)  # where the system does not tell, assume the worst


def _oldest_file(page: ControlPage, firsts: list[int]) -> int:
    # The page may be older than the last deletion of segments.
    if page.geometry.first_of(page.oldest) in firsts:
        return page.oldest
    return min((first for first in firsts if first > page.oldest), default=page.oldest)


def _oldest_kept(oldest: int, end: int, geometry: Geometry, firsts: list[int]) -> int:
    """The lowest row from which on no segment is missing up to ``end``."""
    known, lowest = set(firsts), end
    while lowest > oldest and geometry.first_of(lowest - 1) in known:
        lowest = geometry.first_of(lowest - 1)
    return min(end, max(lowest, oldest))


def _scan(folder: Path, geometry: Geometry, start: int) -> int:
    """First row from ``start`` on that is not whole."""
    check, row = RowCheck(geometry.dtype), start
    while True:
        first = geometry.first_of(row)
        end = first + geometry.rows_per_segment
        path = folder / segment_name(first)
        if not path.exists():
            return row
        while row < end:
            rows = read_rows(path, geometry, row, min(_CHUNK_ROWS, end - row))
            fit = check.leading(rows, row) if len(rows) else 0
            row += fit
            if fit < len(rows) or not len(rows):
                return row


def read_rows(path: Path, geometry: Geometry, row: int, count: int) -> Rows:
    """Up to ``count`` whole rows of a segment file, fewer where the file ends."""
    with path.open("rb") as file:
        file.seek(geometry.offset(row))
        data = file.read(count * geometry.row_size)
    return np.frombuffer(data[: len(data) - len(data) % geometry.row_size], geometry.dtype)


def _clear(folder: Path, geometry: Geometry, end: int, firsts: list[int]) -> None:
    """Remove everything beyond ``end``: later files by unlinking, the rest of its own by zeros."""
    later = [first for first in firsts if first >= end]
    for first in later:
        (folder / segment_name(first)).unlink()
    first = geometry.first_of(end)
    if first != end and first in firsts:
        _zero_from(folder / segment_name(first), geometry.offset(end))
    if later:
        force_folder(folder)


def _zero_from(path: Path, offset: int) -> None:
    # Forced to the disk: a second power cut must not bring the old rows back under new numbers.
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        changed = False
        while data := os.pread(fd, 2**20, offset):
            if any(data):
                write_whole(fd, bytes(len(data)), offset)
                changed = True
            offset += len(data)
        if changed:
            os.fsync(fd)
    finally:
        os.close(fd)


def read_epochs(folder: Path) -> list[Epoch]:
    """The lines of ``epochs.jsonl``, oldest first; a line that a kill left unfinished is not one."""
    try:
        data = (folder / EPOCHS).read_bytes()
    except FileNotFoundError:
        return []
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [msgspec.json.decode(line, type=Epoch) for line in lines if line.strip()]


def _add_epoch(folder: Path, epoch: Epoch) -> None:
    fd = os.open(folder / EPOCHS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(fd).st_size
        whole = os.pread(fd, size, 0).rfind(b"\n") + 1
        os.ftruncate(fd, whole)
        write_whole(fd, msgspec.json.encode(epoch) + b"\n", whole)
        os.fsync(fd)
    finally:
        os.close(fd)
    force_folder(folder)


def last_received_ns(folder: Path, page: ControlPage) -> int:
    """``received_ns`` of the newest row; 0 without rows or without that field."""
    geometry = page.geometry
    if page.committed <= page.oldest or "received_ns" not in (geometry.dtype.names or ()):
        return 0
    row = page.committed - 1
    rows = read_rows(folder / segment_name(geometry.first_of(row)), geometry, row, 1)
    return int(rows["received_ns"][0]) if len(rows) else 0
