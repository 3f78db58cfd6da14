"""Type B packets: little-endian, 51, 123 or 379 bytes, one a message, to rows of ``TICK``.

Layout: read in the official SDKs (Python 1.0.5, Node 0.0.3). The optional 4-byte header (count and size,
both u16) stands in the documentation only; both forms are read. All packets of one size are decoded together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.contract import BadPacket, Frame, Parsed
from marketfeed.dtypes import TICK_BLOCKS, Flag, Rows, empty_ticks
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap
from marketfeed_mstock.times import MAX_RAW_S, ZoneCheck

__all__ = ["CURRENCY", "LAYOUTS", "TypeBParser", "header_of"]

CURRENCY: Final = 13
"""Exchange type NSECD: the one whose prices are not paise."""
_UNKNOWN: Final = -2
_MAX_INT64: Final = np.uint64(2**63 - 1)
_DEPTH_AT: Final = 147
_LEVELS: Final = [_DEPTH_AT + 20 * level for level in range(10)]
_DAY: Final = [43, 59, 91, 99, 107, 115]
"""last price, average price, open, high, low, close"""


@attrs.frozen(eq=False)
class _Layout:
    """Where a size of packet keeps its u64 words, in the order of the ``TICK`` columns."""

    size: int
    mode: Mode
    flags: int
    times: list[int]
    quantities: list[int]
    """last quantity, volume, total buy, total sell (the latter two float64), open interest"""
    prices: list[int]
    depth: list[int] = attrs.field(factory=list)
    """quantities of ten levels, bids first"""
    take: NDArray[np.intp] = attrs.field(init=False)
    """Byte offsets of all words above, eight bytes each."""

    @take.default
    def _take(self) -> NDArray[np.intp]:
        words = np.array(self.times + self.quantities + self.depth + self.prices)
        return (words[:, None] + np.arange(8)).ravel()


_QUOTE_FLAGS: Final = Flag.QUANTITIES | Flag.VOLUME | Flag.OHLC
_FULL_FLAGS: Final = _QUOTE_FLAGS | Flag.DEPTH | Flag.OPEN_INTEREST | Flag.CIRCUITS
LAYOUTS: Final[Mapping[int, _Layout]] = {
    one.size: one
    for one in (
        _Layout(51, Mode.LTP, int(Mode.LTP), [35], [], [43]),
        _Layout(123, Mode.QUOTE, Mode.QUOTE | _QUOTE_FLAGS, [35], [51, 67, 75, 83], _DAY),
        _Layout(
            379,
            Mode.FULL,
            Mode.FULL | _FULL_FLAGS,
            [35, 123],
            # The change of open interest at 139 is left out: SDK, documentation and third parties disagree about it.
            [51, 67, 75, 83, 131],
            [*_DAY, *(at + 10 for at in _LEVELS), 355, 347],
            [at + 2 for at in _LEVELS],
        ),
    )
}
"""Packet size -> layout. Circuits stand upper first on the wire, lower first in a row."""
_ORDERS: Final = (np.array(_LEVELS)[:, None] + 18 + np.arange(2)).ravel()


def header_of(data: bytes) -> tuple[int, int] | None:
    """Count and size of the packets behind a 4-byte header, or None if that does not fit the length."""
    count, size = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
    return (count, size) if size in LAYOUTS and count and len(data) == 4 + count * size else None


@attrs.define
class _Group:
    """Packets of one size and the rows that they become."""

    packets: list[bytes] = attrs.field(factory=list)
    rows: list[int] = attrs.field(factory=list)


class TypeBParser:
    """A parser of one socket. Prices are divided by 100, those of the currency segment by ``currency_divisor``.

    ``tokens`` maps ``<exchange type>:<token>``, such as ``1:2885``, to instrument numbers.
    """

    def __init__(self, tokens: TokenMap, zone: ZoneCheck | None = None, currency_divisor: float = 1e7) -> None:
        self.zone = zone or ZoneCheck()
        self._tokens = tokens
        self._index: dict[bytes, int] = {}
        self._indexed: Mapping[str, int] | None = None
        self._divisor = np.full(256, 100.0)
        self._divisor[CURRENCY] = currency_divisor

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        """Rows in the order of the packets; a malformed message or packet is a ``BadPacket``."""
        bad: list[BadPacket] = []
        groups, origins = _split(frames, bad)
        rows = empty_ticks(len(origins))
        if not origins:
            return Parsed(rows, bad)
        if self._indexed is not self._tokens.present:
            self._indexed = self._tokens.present
            self._index = _index(self._indexed)
        rows["received_ns"] = [frames[frame].received_ns for frame, _ in origins]
        reasons: dict[int, str] = {}
        for size, group in groups.items():
            at = slice(None) if len(group.rows) == len(origins) else np.array(group.rows)
            self._decode(LAYOUTS[size], b"".join(group.packets), rows, at, reasons)
        if not reasons:
            return Parsed(rows, bad)
        bad += [BadPacket(*origins[row], reason) for row, reason in reasons.items()]
        keep = np.ones(len(rows), bool)
        keep[list(reasons)] = False
        return Parsed(rows[keep], sorted(bad))

    def _decode(self, layout: _Layout, data: bytes, rows: Rows, at: Any, reasons: dict[int, str]) -> None:
        packets = np.frombuffer(data, np.uint8).reshape(-1, layout.size)
        words = packets.take(layout.take, axis=1).view("<u8")
        ints = rows.view("i8").reshape(len(rows), -1)
        floats = rows.view("f8").reshape(len(rows), -1)
        problem = self._times(layout, words, rows, at)
        first = len(layout.times)
        if layout.quantities:
            problem |= _fill_quantities(words[:, first : first + len(layout.quantities)], ints, at)
            first += len(layout.quantities)
        if layout.depth:
            problem |= _fill_depth(packets, words[:, first : first + 10], ints, rows, at)
            first += 10
        prices = words[:, first:] / self._divisor[packets[:, 1]][:, None]
        start = TICK_BLOCKS["float64"].start
        floats[at, start : start + prices.shape[1]] = prices
        numbers = self._numbers(packets)
        rows["instrument"][at] = numbers
        wrong = problem | (numbers == _UNKNOWN)
        if wrong.any():
            place = np.arange(len(rows))[at]
            for one in np.flatnonzero(wrong).tolist():
                reasons[int(place[one])] = "value out of range" if problem[one] else "token is not a number"

    def _times(self, layout: _Layout, words: NDArray[Any], rows: Rows, at: Any) -> NDArray[np.bool_]:
        """Fill the times and the flags that depend on them; True where a time is absurd."""
        raw = words[:, : len(layout.times)]
        absurd: NDArray[np.bool_] = raw > MAX_RAW_S
        raw = np.where(absurd, 0, raw).astype("i8")
        if not self.zone.settled:
            self.zone.observe(raw[:, 0], int(rows["received_ns"][at][-1]))
        times = self.zone.to_ns(raw)
        rows["exchange_ns"][at] = times[:, 0]
        flags = np.where(times[:, 0] > 0, np.uint32(layout.flags | Flag.EXCHANGE_TIME), np.uint32(layout.flags))
        if len(layout.times) > 1:
            rows["last_trade_ns"][at] = times[:, 1]
            flags |= np.where(times[:, 1] > 0, np.uint32(Flag.TRADE_TIME), np.uint32(0))
        rows["flags"][at] = flags
        return _any(absurd)

    def _numbers(self, packets: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Instrument of each packet; -1 for a token that the feed does not know, -2 for what is no token."""
        keys = np.ascontiguousarray(packets[:, 1:27]).view("S26").ravel().tolist()
        numbers = [self._index.get(key, _UNKNOWN) for key in keys]
        if _UNKNOWN in numbers:
            for place, key in enumerate(keys):
                if numbers[place] == _UNKNOWN and (clean := _clean_key(key)):
                    numbers[place] = self._index.get(clean, -1)
        return np.array(numbers, np.int32)


def _index(tokens: Mapping[str, int]) -> dict[bytes, int]:
    """The exchange byte and token of a packet, as they stand there -> instrument number."""
    found: dict[bytes, int] = {}
    for token, number in tokens.items():
        exchange, _, rest = token.partition(":")
        if exchange.isdecimal() and int(exchange) < 256:
            found[bytes([int(exchange)]) + rest.encode()] = number
    return found


def _clean_key(key: bytes) -> bytes:
    """Exchange byte and token up to the first NUL; empty if the token is not all digits."""
    token = key[1:].partition(b"\0")[0]
    return key[:1] + token if token.isdigit() else b""


def _split(frames: Sequence[Frame], bad: list[BadPacket]) -> tuple[dict[int, _Group], list[tuple[int, int]]]:
    """Packets by size, and for every row its frame and byte offset."""
    groups: dict[int, _Group] = {}
    origins: list[tuple[int, int]] = []
    for number, frame in enumerate(frames):
        data = frame.data
        size, pieces = len(data), [(0, data)]
        if size not in LAYOUTS:
            header = header_of(data)
            if header is None:
                bad.append(BadPacket(number, 0, "length is not that of a packet"))
                continue
            size = header[1]
            pieces = [(at, data[at : at + size]) for at in range(4, len(data), size)]
        group = groups.get(size)
        if group is None:
            group = groups[size] = _Group()
        for offset, piece in pieces:
            group.packets.append(piece)
            group.rows.append(len(origins))
            origins.append((number, offset))
    return groups, origins


def _any(problems: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True for each packet with at least one problem. Shape ``(n, k)`` in, ``(n,)`` out."""
    found: NDArray[np.bool_] = np.logical_or.reduce(problems, axis=1)
    return found


def _fill_quantities(words: NDArray[Any], ints: NDArray[np.int64], at: Any) -> NDArray[np.bool_]:
    """Last quantity to open interest; True where one is out of range."""
    totals = words[:, 2:4].copy().view("<f8")
    usable = (totals >= 0) & (totals < 2.0**63)
    plain = words.astype("i8")
    plain[:, 2:4] = np.where(usable, totals, 0)
    ints[at, 3 : 3 + plain.shape[1]] = plain
    # A u64 of 2**63 or more turns negative in int64.
    return _any(plain < 0) | _any(~usable)


def _fill_depth(
    packets: NDArray[np.uint8], words: NDArray[Any], ints: NDArray[np.int64], rows: Rows, at: Any
) -> NDArray[np.bool_]:
    """Quantities and orders of ten levels; True where a quantity is out of range. Sides go by position."""
    ints[at, 10:20] = words.astype("i8")
    halves = rows.view("i4").reshape(len(rows), -1)
    halves[at, TICK_BLOCKS["int32"].start : TICK_BLOCKS["int32"].start + 10] = packets.take(_ORDERS, axis=1).view("<u2")
    return _any(words > _MAX_INT64)
