"""Reading capture files: frame by frame, over damage, also while the file is being written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from marketfeed.errors import MarketFeedError
from marketfeed.framelog.format import (
    FRAMES,
    HEADER,
    INSTRUMENTS,
    MAGIC,
    PREFIX_BYTES,
    BlockHead,
    CapturedFrame,
    Damaged,
    FileHeader,
    decode_frames,
    decode_header,
    decode_instruments,
    read_head,
    unpack,
)
from marketfeed.instruments import Instrument
from marketfeed.journal.layout import safe_name

__all__ = ["CaptureError", "CaptureFile", "Damage", "read_frames"]

_STRIDE = 1 << 20
_log = logging.getLogger("marketfeed.capture")


class CaptureError(MarketFeedError):
    """A capture file cannot be used at all."""


class Damage(NamedTuple):
    """A stretch of a file that was passed over."""

    offset: int
    size: int
    """Bytes"""
    reason: str
    frames: int | None
    """Frames lost with it, as far as that is known."""


class CaptureFile:
    """One ``.mfc`` file. Opening reads its header alone; each iteration reads the file from the start.

    Raises :class:`CaptureError` when it is no capture file or its header is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.damage: list[Damage] = []
        """What the latest iteration had to pass over; each is a warning in the log, too."""
        try:
            with self.path.open("rb") as file:
                kind, raw = self._first(file)
        except OSError as error:
            raise CaptureError(f"{self.path} cannot be read: {error.strerror}") from error
        try:
            if kind != HEADER:
                raise Damaged("it does not begin with a header")
            self.header: FileHeader = decode_header(raw)
            safe_name(self.header.feed, "feed")  # it may become part of a file's name
        except (Damaged, MarketFeedError) as error:
            raise CaptureError(f"{self.path} is not a capture file that can be used: {error}") from error

    def _first(self, file: BinaryIO) -> tuple[bytes, bytes]:
        try:
            head = read_head(file.read(PREFIX_BYTES))
            return head.kind, unpack(head, file.read(head.stored_bytes))
        except Damaged as error:
            raise CaptureError(f"{self.path} is not a capture file that can be used: {error}") from error

    def __iter__(self) -> Iterator[CapturedFrame]:
        for piece in self.pieces():
            if isinstance(piece, list):
                yield from piece

    def pieces(self) -> Iterator[list[CapturedFrame] | dict[int, Instrument]]:
        """Blocks in order: the frames of one, or instruments by number that the frames after them may name."""
        self.damage = []
        with self.path.open("rb") as file:
            for head, raw, offset in self._blocks(file):
                try:
                    if head.kind == FRAMES:
                        yield decode_frames(raw, head.items, self.header.connection)
                    elif head.kind == INSTRUMENTS:
                        yield decode_instruments(raw)
                except Damaged as error:
                    self._passed(offset, PREFIX_BYTES + head.stored_bytes, str(error), head)

    def instruments(self) -> dict[int, Instrument]:
        """Every instrument of the file by its number in the journal that was written then."""
        found: dict[int, Instrument] = {}
        for piece in self.pieces():
            if isinstance(piece, dict):
                found |= piece
        return found

    def _blocks(self, file: BinaryIO) -> Iterator[tuple[BlockHead, bytes, int]]:
        """Every block that is whole, with its offset."""
        offset = 0
        while prefix := file.read(PREFIX_BYTES):
            head: BlockHead | None = None
            try:
                head = read_head(prefix)
                raw = unpack(head, file.read(head.stored_bytes))
            except Damaged as error:
                after = self._next_block(file, offset + 1)
                self._passed(offset, after - offset, str(error), head)
                offset = after
                file.seek(offset)
                continue
            yield head, raw, offset
            offset += PREFIX_BYTES + head.stored_bytes
            file.seek(offset)

    def _next_block(self, file: BinaryIO, start: int) -> int:
        """Offset of the next header with a right checksum, from ``start`` on; the file's size without one."""
        place, size = start, file.seek(0, 2)
        while place < size:
            file.seek(place)
            data = file.read(_STRIDE)
            found = data.find(MAGIC)
            if found < 0:
                place += max(len(data) - len(MAGIC) + 1, 1)
                continue
            file.seek(place + found)
            try:
                read_head(file.read(PREFIX_BYTES))
                return place + found
            except Damaged:
                place += found + 1
        return size

    def _passed(self, offset: int, size: int, reason: str, head: BlockHead | None) -> None:
        frames = head.items if head is not None and head.kind == FRAMES else None
        self.damage.append(Damage(offset, size, reason, frames))
        _log.warning(
            "%s: %d bytes at %d passed over (%s)%s",
            self.path.name,
            size,
            offset,
            reason,
            f"; {frames} frames are missing" if frames is not None else "",
        )


def read_frames(path: Path | str) -> Iterator[CapturedFrame]:
    """Every frame of a capture file, in the order received. Damage is passed over with a warning in the log.

    Raises :class:`CaptureError` when the file cannot be used at all.
    """
    return iter(CaptureFile(path))
