"""Kite's binary frames to rows of ``TICK``: the hot path.

A frame is ``count uint16 | count x (length uint16 | packet)``. Frames that wait are parsed in one
call. Where all their packets have one length they are seen as one strided array; otherwise they are
walked once and decoded length by length. What cannot be read is reported beside the rows, and the
packets around it are kept; the official SDK would lose the frame and the connection with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.contract import BadPacket, Frame, Parsed
from marketfeed.dtypes import TICK
from marketfeed.instruments import TokenMap
from marketfeed_kite.packets import DECODERS, DIVISORS, INSTRUMENT, RECEIVED, WORDS, Words

__all__ = ["CUT_LENGTH", "CUT_PACKET", "MISSING_PACKETS", "TRAILING_BYTES", "UNKNOWN_LENGTH", "KiteParser"]

MISSING_PACKETS: Final = "frame ends before its last packet"
CUT_LENGTH: Final = "length field cut short"
CUT_PACKET: Final = "packet cut short"
UNKNOWN_LENGTH: Final = "unknown packet length"
TRAILING_BYTES: Final = "bytes after the last packet"

_SMALLEST = min(DECODERS) + 2
# Made once: numpy takes longer to read a dtype's name than to copy ten packets.
_BIG_ENDIAN = np.dtype(">u4")
_NATIVE = np.dtype(np.uint32)
_OPAQUE = {length: np.dtype((np.void, length)) for length in (4, *DECODERS)}
_ROW = np.dtype((np.void, TICK.itemsize))


class _Located(NamedTuple):
    """Where the packets of some frames lie."""

    data: bytes
    """All frames, joined."""
    starts: NDArray[np.intp]
    """First byte of each packet in ``data``, in wire order."""
    lengths: NDArray[np.uint8]
    counts: dict[int, int]
    """Length -> number of packets, ascending."""
    per_frame: list[int]
    """Number of packets of each frame."""
    bad: Sequence[BadPacket]


class KiteParser:
    """Frames of one connection to rows; see :data:`marketfeed.contract.Parser`. Keeps no state."""

    def __init__(self, instruments: TokenMap) -> None:
        self._instruments = instruments

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        """Rows in wire order, and one ``BadPacket`` for each piece that could not be read.

        The offset of a bad packet is that of its length field. The rows are new, writeable and the
        caller's own. Heartbeats (one byte) and frames without packets give nothing.
        """
        return self._uniform(frames) or self._mixed(frames)

    def _uniform(self, frames: Sequence[Frame]) -> Parsed | None:
        """The usual case: frames of equal size, all packets of one length. None for anything else."""
        if not frames:
            return None
        first = frames[0].data
        size = len(first)
        if size < 2 + _SMALLEST:
            return None
        count, length = first[0] << 8 | first[1], first[2] << 8 | first[3]
        stride = length + 2
        if size != 2 + count * stride or length not in DECODERS:
            return None
        if len(frames) == 1:
            data = first
            # Slices of bytes cost a tenth of a numpy comparison, which counts when frames are small.
            alike = data[2::stride] == bytes(count) and data[3::stride] == bytes([length]) * count
        else:
            pieces = [frame.data for frame in frames]
            data = b"".join(pieces)
            alike = set(map(len, pieces)) == {size} and _alike(data, size, count, length)
        if not alike:
            return None
        shape = (len(frames), count, length // 4)
        packets = np.ndarray(shape, _BIG_ENDIAN, data, 4, (size, stride, 4)).astype(_NATIVE).reshape(-1, length // 4)
        words = np.empty((len(packets), WORDS), np.int64)
        tokens = packets[:, 0]
        DECODERS[length](packets, DIVISORS.take(tokens & 0xFF)[:, None], words)
        words.view(np.int32)[:, INSTRUMENT] = self._instruments.numbers(tokens)
        _stamp(words, frames, count)
        return Parsed(np.ndarray(len(words), TICK, words))

    def _mixed(self, frames: Sequence[Frame]) -> Parsed:
        """Anything else, damage included: locate, decode length by length, back to wire order."""
        found = _locate(frames)
        count = len(found.starts)
        if not count:
            return Parsed(np.empty(0, TICK), found.bad)
        order = found.lengths.argsort(kind="stable")
        starts = found.starts[order]
        tokens = _gather(found.data, starts, 4)[:, 0]
        divisors = DIVISORS.take(tokens & 0xFF)[:, None]
        by_length = np.empty((count, WORDS), np.int64)
        begin = 0
        for length, many in found.counts.items():  # ascending, as argsort left them
            end = begin + many
            DECODERS[length](_gather(found.data, starts[begin:end], length), divisors[begin:end], by_length[begin:end])
            begin = end
        by_length.view(np.int32)[:, INSTRUMENT] = self._instruments.numbers(tokens)
        words = np.empty_like(by_length)
        words.view(_ROW)[order] = by_length.view(_ROW)  # as opaque items: one memory copy a row
        _stamp(words, frames, found.per_frame)
        return Parsed(np.ndarray(count, TICK, words), found.bad)


def _stamp(words: Words, frames: Sequence[Frame], per_frame: int | list[int]) -> None:
    """Set ``received_ns`` of each row to that of its frame."""
    if len(frames) == 1:
        words[:, RECEIVED] = frames[0].received_ns
    else:
        words[:, RECEIVED] = np.repeat([frame.received_ns for frame in frames], per_frame)


def _alike(data: bytes, size: int, count: int, length: int) -> bool:
    """True when each ``size`` bytes are a frame of ``count`` packets of ``length`` bytes."""
    frames = len(data) // size
    counts = np.ndarray((frames,), ">u2", data, 0, (size,))
    lengths = np.ndarray((frames, count), ">u2", data, 2, (size, length + 2))
    return bool((counts == count).all() and (lengths == length).all())


def _gather(data: bytes, starts: NDArray[np.intp], length: int) -> NDArray[np.uint32]:
    """The ``length`` bytes at each start as native words, shape ``(n, length / 4)``."""
    windows = np.ndarray((len(data) - length + 1,), _OPAQUE[length], data, 0, (1,))
    return np.ndarray((len(starts), length // 4), _BIG_ENDIAN, windows[starts]).astype(_NATIVE)


def _locate(frames: Sequence[Frame]) -> _Located:
    """Walk the frames, fast if they add up and with all care if they do not."""
    data = b"".join([frame.data for frame in frames])
    starts, per_frame = _walk(data, frames)
    if len(per_frame) == len(frames):
        found = _located(data, starts, per_frame, ())
        high_bytes = np.ndarray((len(data),), np.uint8, data)[found.starts - 2]
        if sum(found.counts.values()) == len(starts) and not np.count_nonzero(high_bytes):
            return found
    return _located(data, *_walk_damaged(frames))


def _located(data: bytes, starts: list[int], per_frame: list[int], bad: Sequence[BadPacket]) -> _Located:
    places = np.array(starts, np.intp)
    lengths = np.ndarray((len(data),), np.uint8, data)[places - 1]
    return _Located(data, places, lengths, _count(lengths), per_frame, bad)


def _count(lengths: NDArray[np.uint8]) -> dict[int, int]:
    """How many packets there are of each length that can be decoded; ascending, without zeros."""
    raw = lengths.tobytes()
    return {length: many for length in DECODERS if (many := raw.count(length))}


def _walk(data: bytes, frames: Sequence[Frame]) -> tuple[list[int], list[int]]:
    """Start of each packet in ``data``, and packets per frame; ends at a frame that does not add up.

    Every known length fits in the low byte of its field, so one index a packet is enough; the
    caller checks the high bytes all at once.
    """
    starts: list[int] = []
    per_frame: list[int] = []
    append = starts.append
    end = 0
    for frame in frames:
        begin = end
        end += len(frame.data)
        count = 0
        if end - begin > 1:
            count = data[begin] << 8 | data[begin + 1]
            if count * _SMALLEST > end - begin:
                break
            start = begin + 4
            try:
                for _ in repeat(None, count):
                    append(start)
                    start += data[start - 1] + 2
            except IndexError:
                break
            if start != end + 2:
                break
        per_frame.append(count)
    return starts, per_frame


def _walk_damaged(frames: Sequence[Frame]) -> tuple[list[int], list[int], list[BadPacket]]:
    """As :func:`_walk` (but starts of packets), step by step, with everything that is wrong."""
    starts: list[int] = []
    per_frame: list[int] = []
    bad: list[BadPacket] = []
    base = 0
    for number, frame in enumerate(frames):
        good, problems = _walk_frame(frame.data)
        starts += [base + start for start in good]
        per_frame.append(len(good))
        bad += [BadPacket(number, offset, reason) for offset, reason in problems]
        base += len(frame.data)
    return starts, per_frame, bad


def _walk_frame(data: bytes) -> tuple[list[int], list[tuple[int, str]]]:
    """Starts of the good packets of one frame, and (offset, reason) of what is wrong with it."""
    good: list[int] = []
    bad: list[tuple[int, str]] = []
    size = len(data)
    if size < 2:
        return good, bad
    offset = 2
    for _ in range(data[0] << 8 | data[1]):
        start = offset + 2
        if start > size:
            return good, [*bad, (offset, CUT_LENGTH if offset < size else MISSING_PACKETS)]
        length = data[offset] << 8 | data[offset + 1]
        if start + length > size:
            return good, [*bad, (offset, CUT_PACKET)]
        if length in DECODERS:
            good.append(start)
        else:
            bad.append((offset, UNKNOWN_LENGTH))
        offset = start + length
    if offset < size:
        bad.append((offset, TRAILING_BYTES))
    return good, bad
