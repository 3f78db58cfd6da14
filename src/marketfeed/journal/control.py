"""The control page: one page that everybody maps and only the writer changes.

====== ======================================================================================
0      magic ``MFJ1``, version, row size, rows per segment (each uint32)
64     committed: rows that anyone may read; the only point of publication
128    synced: rows known to be on the disk
192    oldest: first row still kept
256    journal id (16 random bytes)
272    epoch (uint32)
288    identity of the machine's boot in which it was last written (16 bytes)
320    pid of the writer (0 = closed in order), 328 its start, 336 first row of its run
384    heartbeat of the writer (UTC nanoseconds)
1024   length (uint32) and text: JSON with feed, vendor and the rows' dtype
====== ======================================================================================

The counts are aligned 8-byte words, stored and loaded by one machine instruction through a
``memoryview``: a reader sees the old or the new one. (``os.pwrite`` of 8 bytes tears.)
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import uuid
from pathlib import Path
from typing import Final

import msgspec

from marketfeed.errors import JournalError
from marketfeed.journal.layout import CONTROL, MAGIC, PAGE, VERSION, Geometry, dtype_text, parse_dtype

__all__ = ["ControlPage", "Description", "boot_identity"]

_HEAD = struct.Struct("<4sIII")
_COMMITTED: Final = 64 // 8
_SYNCED: Final = 128 // 8
_OLDEST: Final = 192 // 8
_ID: Final = slice(256, 272)
_EPOCH: Final = 272 // 4
_BOOT: Final = slice(288, 304)
_PID: Final = 320 // 8
_STARTED: Final = 328 // 8
_RUN_START: Final = 336 // 8
_HEARTBEAT: Final = 384 // 8
_TEXT: Final = 1024


class Description(msgspec.Struct, frozen=True):
    """What a journal says of itself for ever."""

    feed: str
    vendor: str
    dtype: str


class ControlPage:
    """The mapped page of one journal."""

    def __init__(self, folder: Path, *, writable: bool) -> None:
        self._path = path = folder / CONTROL
        try:
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError:
            raise JournalError(f"there is no journal in {folder}") from None
        try:
            if os.fstat(fd).st_size != PAGE:
                raise JournalError(f"{path} is not the control page of a journal")
            self._map = mmap.mmap(fd, PAGE, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self._words = memoryview(self._map).cast("Q")
        self._halves = memoryview(self._map).cast("I")
        magic, version, row_size, rows_per_segment = _HEAD.unpack_from(self._map)
        if magic != MAGIC:
            raise JournalError(f"{path} is not the control page of a journal")
        if version != VERSION:
            raise JournalError(f"{path} has format {version}; this marketfeed reads format {VERSION}")
        (length,) = struct.unpack_from("<I", self._map, _TEXT)
        self.description = msgspec.json.decode(self._map[_TEXT + 4 : _TEXT + 4 + length], type=Description)
        self.geometry = Geometry(parse_dtype(self.description.dtype), rows_per_segment)
        if self.geometry.row_size != row_size:
            raise JournalError(f"{path} contradicts itself about the size of a row")
        self.id: str = self._map[_ID].hex()

    @staticmethod
    def make(folder: Path, geometry: Geometry, feed: str, vendor: str) -> None:
        """Create the page whole, with real bytes on the disk; does nothing when there is one."""
        text = msgspec.json.encode(Description(feed, vendor, dtype_text(geometry.dtype)))
        if _TEXT + 4 + len(text) > PAGE:
            raise JournalError("a row of this layout has too many fields for a journal's control page")
        page = bytearray(PAGE)
        _HEAD.pack_into(page, 0, MAGIC, VERSION, geometry.row_size, geometry.rows_per_segment)
        page[_ID] = uuid.uuid4().bytes
        struct.pack_into("<I", page, _EPOCH * 4, 1)
        struct.pack_into("<I", page, _TEXT, len(text))
        page[_TEXT + 4 : _TEXT + 4 + len(text)] = text
        draft = folder / f"{CONTROL}.{os.getpid()}.new"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, page)
            os.fsync(fd)
        finally:
            os.close(fd)
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.link(draft, folder / CONTROL)  # fails when somebody else was first, unlike a rename
        draft.unlink(missing_ok=True)

    # --- what everybody reads -------------------------------------------------------------

    @property
    def committed(self) -> int:
        return self._words[_COMMITTED]

    @property
    def synced(self) -> int:
        return self._words[_SYNCED]

    @property
    def oldest(self) -> int:
        return self._words[_OLDEST]

    @property
    def epoch(self) -> int:
        return self._halves[_EPOCH]

    @property
    def pid(self) -> int:
        """Process of the writer; 0 when the last one closed the journal in order."""
        return self._words[_PID]

    @property
    def run_start(self) -> int:
        return self._words[_RUN_START]

    @property
    def started_ns(self) -> int:
        return self._words[_STARTED]

    @property
    def heartbeat_ns(self) -> int:
        return self._words[_HEARTBEAT]

    @property
    def boot(self) -> bytes:
        """The boot of the machine in which the page was last written; zeros when unknown."""
        return self._map[_BOOT]

    # --- what only the writer does --------------------------------------------------------

    def publish(self, committed: int) -> None:
        """Let everybody read the rows below ``committed``."""
        self._words[_COMMITTED] = committed

    def set_synced(self, row: int) -> None:
        self._words[_SYNCED] = row

    def set_oldest(self, row: int) -> None:
        self._words[_OLDEST] = row

    def set_epoch(self, epoch: int) -> None:
        self._halves[_EPOCH] = epoch

    def beat(self, now_ns: int) -> None:
        """Show that the writer lives."""
        self._words[_HEARTBEAT] = now_ns

    def begin_run(self, now_ns: int) -> None:
        """Sign the page as this process's; everything else of it is set already."""
        self._words[_RUN_START] = self.committed
        self._words[_STARTED] = now_ns
        self._map[_BOOT] = boot_identity()
        self.beat(now_ns)
        self._words[_PID] = os.getpid()

    def sync(self) -> None:
        """Return when the page is on the disk, or raise ``OSError``."""
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def end_run(self) -> None:
        """Say that the writer closed the journal in order."""
        self._words[_PID] = 0


def boot_identity() -> bytes:
    """16 bytes that change when the machine boots; zeros where the system does not tell."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return uuid.UUID(text).bytes
    except (OSError, ValueError):
        return bytes(16)
