"""Type A frames: Kite's big-endian packets plus mStock's own sizes, many a frame, to rows of ``TICK``.

Layout: read in the official SDKs (Python 0.1.9, Node 1.0.1); the 48-byte packet stands in the Python one only.
A frame is a u16 count, then per packet a u16 length and its bytes. All packets of one size are decoded together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.contract import BadPacket, Frame, Parsed
from marketfeed.dtypes import TICK_BLOCKS, Flag, Rows, empty_ticks
from marketfeed.enums import Mode
from marketfeed_mstock.times import ZoneCheck
from marketfeed_mstock.type_b import CURRENCY

__all__ = ["TypeAParser"]

_TWO_DAYS_S: Final = 172_800
_Block = tuple[int, list[int]]
"""First column (of the quantities or of the prices of a row) and the words that go there."""


@attrs.frozen(eq=False)
class _Layout:
    """Where a size of packet keeps its 4-byte words."""

    size: int
    flags: int
    prices: list[_Block]
    quantities: list[_Block] = attrs.field(factory=list)
    orders: list[int] = attrs.field(factory=list)
    """words whose upper half is a number of orders"""
    exchange_time: int | None = None
    trade_time: int | None = None


_QUOTE: Final = Mode.QUOTE | Flag.QUANTITIES | Flag.VOLUME | Flag.OHLC
_FULL: Final = Mode.FULL | Flag.QUANTITIES | Flag.VOLUME | Flag.OHLC | Flag.DEPTH | Flag.OPEN_INTEREST | Flag.OI_RANGE
_INDEX: Final = Mode.FULL | Flag.OHLC
_DAY: Final = [1, 3, 7, 8, 9, 10]
"""last price, average price, open, high, low, close"""
_LEVELS: Final = [16 + 3 * level for level in range(10)]
_FULL_PRICES: Final = [*_DAY, *(at + 1 for at in _LEVELS)]
_FULL_QUANTITIES: Final[list[_Block]] = [(3, [2, 4, 5, 6, 12, 13, 14]), (10, _LEVELS)]
_ORDERS: Final = [at + 2 for at in _LEVELS]
_KITE_DAY: Final[_Block] = (2, [4, 2, 3, 5])
"""An index's open, high, low, close where the packet says high, low, open, close"""
_SDK_DAY: Final[_Block] = (2, [2, 3, 4, 5])
_LAYOUTS: Final[Mapping[int, _Layout]] = {
    one.size: one
    for one in (
        _Layout(8, int(Mode.LTP), [(0, [1])]),
        _Layout(44, int(_QUOTE), [(0, _DAY)], [(3, [2, 4, 5, 6])]),
        _Layout(184, int(_FULL), [(0, _FULL_PRICES)], _FULL_QUANTITIES, _ORDERS, 15, 11),
        # Circuits stand upper first on the wire, lower first in a row.
        _Layout(200, _FULL | Flag.CIRCUITS, [(0, [*_FULL_PRICES, 47, 46])], _FULL_QUANTITIES, _ORDERS, 15, 11),
        _Layout(28, Mode.QUOTE | Flag.OHLC, [(0, [1]), _KITE_DAY]),
        _Layout(32, int(_INDEX), [(0, [1]), _KITE_DAY], exchange_time=7),
        _Layout(48, _INDEX | Flag.CIRCUITS, [(0, [1]), _SDK_DAY, (16, [9, 8])], exchange_time=7, trade_time=6),
    )
}
_Words = NDArray[np.int64]


class TypeAParser:
    """A parser of one socket. Prices are divided by 100, those of the currency segment by ``currency_divisor``.

    A packet names a token without its exchange. ``tokens`` may be bare (``2885``) or ``<exchange type>:<token>``;
    a number that two instruments share cannot be told apart, so its ticks get no instrument (-1).
    """

    def __init__(self, tokens: Mapping[str, int], zone: ZoneCheck | None = None, currency_divisor: float = 1e7) -> None:
        self.zone = zone or ZoneCheck()
        self._tokens = tokens
        self._currency_divisor = currency_divisor
        self._indexed = -1
        self._known: NDArray[np.int64] = np.empty(0, np.int64)
        self._numbers: NDArray[np.int32] = np.empty(0, np.int32)
        self._divisors: NDArray[np.float64] = np.empty(0)

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        """Rows in the order of the packets; what cannot be read is a ``BadPacket``. Heartbeats give nothing."""
        bad: list[BadPacket] = []
        groups: dict[int, tuple[list[bytes], list[int]]] = {}
        stamps: list[int] = []
        for number, frame in enumerate(frames):
            for size, packets, places in _runs(number, frame.data, len(stamps), bad):
                group = groups.setdefault(size, ([], []))
                group[0].append(packets)
                group[1].extend(places)
                stamps += [frame.received_ns] * len(places)
        rows = empty_ticks(len(stamps))
        if not stamps:
            return Parsed(rows, bad)
        if self._indexed != len(self._tokens):  # the map only ever grows
            self._index()
        rows["received_ns"] = stamps
        for size, (pieces, order) in groups.items():
            at = slice(None) if len(order) == len(rows) else np.array(order)
            words = np.frombuffer(b"".join(pieces), ">u4").reshape(-1, size // 4).astype(np.int64)
            self._decode(_LAYOUTS[size], words, rows, at)
        return Parsed(rows, bad)

    def _decode(self, layout: _Layout, words: _Words, rows: Rows, at: Any) -> None:
        if layout.size == 48:
            words = _sdk_order(words)
        place = self._known.searchsorted(words[:, 0])  # the last entry is a sentinel
        hit = self._known[place] == words[:, 0]
        rows["instrument"][at] = np.where(hit, self._numbers[place], -1)
        divisor = np.where(hit, self._divisors[place], 100.0)[:, None]
        floats = rows.view("f8").reshape(len(rows), -1)
        start = TICK_BLOCKS["float64"].start
        for first, columns in layout.prices:
            floats[at, start + first : start + first + len(columns)] = words[:, columns] / divisor
        ints = rows.view("i8").reshape(len(rows), -1)
        for first, columns in layout.quantities:
            ints[at, first : first + len(columns)] = words[:, columns]
        if layout.orders:
            halves = rows.view("i4").reshape(len(rows), -1)
            start = TICK_BLOCKS["int32"].start
            halves[at, start : start + 10] = words[:, layout.orders] >> 16
        rows["flags"][at] = layout.flags
        self._times(layout, words, rows, at)

    def _times(self, layout: _Layout, words: _Words, rows: Rows, at: Any) -> None:
        if layout.exchange_time is not None and not self.zone.settled:
            self.zone.observe(words[:, layout.exchange_time], int(rows["received_ns"][at][-1]))
        for column, word, bit in (
            ("exchange_ns", layout.exchange_time, Flag.EXCHANGE_TIME),
            ("last_trade_ns", layout.trade_time, Flag.TRADE_TIME),
        ):
            if word is not None:
                raw = words[:, word]
                rows[column][at] = self.zone.to_ns(raw)
                rows["flags"][at] |= np.where(raw > 0, np.uint32(bit), np.uint32(0))

    def _index(self) -> None:
        self._indexed = len(self._tokens)
        found: dict[int, tuple[int, float]] = {}
        for token, number in self._tokens.items():
            exchange, _, bare = token.rpartition(":")
            if bare.isdecimal():
                divisor = self._currency_divisor if exchange == str(CURRENCY) else 100.0
                found[int(bare)] = (-1, 100.0) if int(bare) in found else (number, divisor)
        known = sorted(found)
        self._known = np.array([*known, np.iinfo(np.int64).max], np.int64)
        self._numbers = np.array([*(found[one][0] for one in known), -1], np.int32)
        self._divisors = np.array([*(found[one][1] for one in known), 100.0])


def _runs(frame: int, data: bytes, first: int, bad: list[BadPacket]) -> Iterator[tuple[int, bytes, Sequence[int]]]:
    """The packets of a frame as (size, bytes, places): all at once where they have one size, else one by one.

    ``first`` is the place of the frame's first packet among the rows.
    """
    if len(data) < 2:
        return  # a heartbeat
    count, size = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    if count > 1 and size in _LAYOUTS and len(data) == 2 + count * (size + 2):
        table = np.frombuffer(data, np.uint8, offset=2).reshape(count, size + 2)
        if (np.ascontiguousarray(table[:, :2]).view(">u2") == size).all():
            yield size, table[:, 2:].tobytes(), range(first, first + count)
            return
    yield from _walk(frame, data, count, first, bad)


def _walk(
    frame: int, data: bytes, count: int, first: int, bad: list[BadPacket]
) -> Iterator[tuple[int, bytes, Sequence[int]]]:
    at = 2
    for _ in range(count):
        size = int.from_bytes(data[at : at + 2], "big")
        end = at + 2 + size
        if len(data) < at + 2 or len(data) < end:
            bad.append(BadPacket(frame, at, "frame ends inside a packet"))
            return
        if size in _LAYOUTS:
            yield size, data[at + 2 : end], (first,)
            first += 1
        else:
            bad.append(BadPacket(frame, at, "length is not that of a packet"))
        at = end
    if at < len(data):
        bad.append(BadPacket(frame, at, "bytes after the last packet"))


def _sdk_order(words: _Words) -> _Words:
    """48-byte index packets in the SDK's order of fields.

    48 is 32 + 16, as 200 is 184 + 16, so bytes 8 to 27 may really stand as in the 32-byte packet (doubt). Then
    the "last trade time" is a price change, far from the exchange time, or the high is below open or low.
    The previous close may lie above the day's high, so it proves nothing.
    """
    kite = (np.abs(words[:, 6] - words[:, 7]) > _TWO_DAYS_S) & (words[:, 6] > 0)
    kite |= words[:, 3] < np.maximum(words[:, 2], words[:, 4])
    if not kite.any():
        return words
    words[np.ix_(kite, [2, 3, 4])] = words[np.ix_(kite, [4, 2, 3])]
    words[kite, 6] = 0
    return words
