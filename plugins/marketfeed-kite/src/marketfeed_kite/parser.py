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
from marketfeed_kite.packets import DECODERS, DIVISORS, INSTRUMENT, KNOWN_LENGTHS, RECEIVED, WORDS, Words

__all__ = ["CUT_LENGTH", "CUT_PACKET", "MISSING_PACKETS", "TRAILING_BYTES", "UNKNOWN_LENGTH", "KiteParser"]

MISSING_PACKETS: Final = "frame ends before its last packet"
CUT_LENGTH: Final = "length field cut short"
CUT_PACKET: Final = "packet cut short"
UNKNOWN_LENGTH: Final = "unknown packet length"
TRAILING_BYTES: Final = "bytes after the last packet"

_SMALLEST = min(DECODERS) + 2
_ROW = np.dtype((np.void, TICK.itemsize))


class _Located(NamedTuple):
    """Where the packets of some frames lie."""

    data: bytes
    """All frames, joined."""
    starts: NDArray[np.intp]
    """First byte of each packet in ``data``, in wire order."""
    lengths: NDArray[np.uint8]
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
        data = first
        if len(frames) > 1:
            data = b"".join([frame.data for frame in frames])
            # Were the sizes different but the sum right, a count or a length below would be wrong.
            if len(data) != size * len(frames) or (_words16(data, 0, size, len(frames), 0, 1) != count).any():
                return None
        if (_words16(data, 2, size, len(frames), stride, count) != length).any():
            return None
        shape = (len(frames), count, length // 4)
        packets = np.ndarray(shape, ">u4", data, 4, (size, stride, 4)).astype(np.uint32).reshape(-1, length // 4)
        words = np.empty((len(packets), WORDS), np.int64)
        tokens = packets[:, 0]
        DECODERS[length](packets, DIVISORS.take(tokens & 0xFF)[:, None], words)
        return Parsed(self._finish(words, tokens, frames, count))

    def _mixed(self, frames: Sequence[Frame]) -> Parsed:
        """Anything else, damage included: locate, decode length by length, back to wire order."""
        found = _locate(frames)
        if not len(found.starts):
            return Parsed(np.empty(0, TICK), found.bad)
        tokens = _gather(found.data, found.starts, 4)[:, 0]
        divisors = DIVISORS.take(tokens & 0xFF)[:, None]
        order = found.lengths.argsort(kind="stable")
        starts, lengths, divisors = found.starts[order], found.lengths[order], divisors[order]
        words = np.empty((len(starts), WORDS), np.int64)
        begin = 0
        for length, decode in DECODERS.items():  # ascending, as argsort left them
            end = int(lengths.searchsorted(length, "right"))
            if end > begin:
                decode(_gather(found.data, starts[begin:end], length), divisors[begin:end], words[begin:end])
            begin = end
        in_wire_order = np.empty_like(words)
        # Whole rows move as opaque items: one memory copy each.
        in_wire_order.view(_ROW)[order] = words.view(_ROW)
        return Parsed(self._finish(in_wire_order, tokens, frames, found.per_frame), found.bad)

    def _finish(
        self, words: Words, tokens: NDArray[np.uint32], frames: Sequence[Frame], per_frame: int | list[int]
    ) -> NDArray[np.void]:
        """Fill in what is not in the packet and give the rows their names."""
        if len(frames) == 1:
            words[:, RECEIVED] = frames[0].received_ns
        else:
            words[:, RECEIVED] = np.repeat([frame.received_ns for frame in frames], per_frame)
        words.view(np.int32)[:, INSTRUMENT] = self._instruments.numbers(tokens)
        rows: NDArray[np.void] = words.view(TICK)[:, 0]
        return rows


def _words16(data: bytes, offset: int, step: int, count: int, inner: int, inner_count: int) -> NDArray[np.uint16]:
    """The uint16 fields at ``offset + i * step + j * inner``, shape ``(count, inner_count)``, without a copy."""
    return np.ndarray((count, inner_count), ">u2", data, offset, (step, inner))


def _gather(data: bytes, starts: NDArray[np.intp], length: int) -> NDArray[np.uint32]:
    """The ``length`` bytes at each start as native words, shape ``(n, length / 4)``."""
    windows = np.ndarray((len(data) - length + 1,), f"V{length}", data, 0, (1,))
    return windows[starts].view(">u4").reshape(-1, length // 4).astype(np.uint32)


def _locate(frames: Sequence[Frame]) -> _Located:
    data = b"".join([frame.data for frame in frames])
    bytes_ = np.frombuffer(data, np.uint8)
    found = _walk(data, frames)
    if found is not None:
        lows, per_frame = found
        places = np.array(lows, np.intp)
        lengths = bytes_[places]
        if KNOWN_LENGTHS[lengths].all() and not bytes_[places - 1].any():
            return _Located(data, places + 1, lengths, per_frame, ())
    starts, per_frame, bad = _walk_damaged(frames)
    places = np.array(starts, np.intp)
    return _Located(data, places, bytes_[places - 1], per_frame, bad)


def _walk(data: bytes, frames: Sequence[Frame]) -> tuple[list[int], list[int]] | None:
    """Place of each length's low byte in ``data``, and packets per frame; None when a frame does not add up.

    Every known length fits in its low byte, so one index per packet is enough; the caller checks
    the high bytes all at once.
    """
    lows: list[int] = []
    per_frame = []
    append = lows.append
    end = 0
    for frame in frames:
        begin = end
        end += len(frame.data)
        if end - begin < 2:
            per_frame.append(0)
            continue
        count = data[begin] << 8 | data[begin + 1]
        if count * _SMALLEST > end - begin:
            return None
        low = begin + 3
        try:
            for _ in repeat(None, count):
                append(low)
                low += data[low] + 2
        except IndexError:
            return None
        if low != end + 1:
            return None
        per_frame.append(count)
    return lows, per_frame


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
