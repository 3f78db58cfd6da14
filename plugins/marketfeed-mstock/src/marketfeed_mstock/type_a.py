"""Type A frames: Kite's big-endian packets plus mStock's own sizes, many a frame, to rows of ``TICK``.

Layout: read in the official SDKs (Python 0.1.9, Node 1.0.1); the 48-byte packet stands in the Python one only.
A frame is a u16 count, then per packet a u16 length and its bytes. All packets of one size are decoded together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.contract import BadPacket, Frame, Parsed
from marketfeed.dtypes import TICK, TICK_BLOCKS, Flag, Rows, empty_ticks
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap
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
    packets: np.dtype[np.void] = attrs.field(init=False)
    """A packet as it stands in a frame."""
    blank: bytearray = attrs.field(init=False)
    """A row without values, but with the flags: copying it is the fastest way to new rows."""

    @packets.default
    def _packets(self) -> np.dtype[np.void]:
        return np.dtype([("size", ">u2"), ("words", ">u4", (self.size // 4,))])

    @blank.default
    def _blank(self) -> bytearray:
        row = empty_ticks(1)
        row["flags"] = self.flags
        return bytearray(row.tobytes())

    def rows(self, count: int) -> Rows:
        return np.frombuffer(self.blank * count, TICK)


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
_Packets = bytes | NDArray[Any]
"""The bytes of one packet, or the words of many."""
_MAX_TABLE: Final = 1 << 22
"""Tokens below this are looked up in a table of at most 16 MB (those seen so far are below 1.5 million), others by
a search, which takes several times as long."""


class _Lookup:
    """Token -> value, for arrays; ``otherwise`` for a token that is not there."""

    def __init__(self, values: Mapping[int, float], otherwise: float = -1) -> None:
        dtype = np.int32 if otherwise == -1 else np.float64
        self._tokens: NDArray[np.int64] | None = None
        if (highest := max(values, default=0)) < _MAX_TABLE:
            self._values = np.full(highest + 2, otherwise, dtype)
            self._values[list(values)] = list(values.values())
        else:
            self._tokens = np.array([*sorted(values), np.iinfo(np.int64).max], np.int64)
            self._values = np.array([*(values[one] for one in sorted(values)), otherwise], dtype)

    def of(self, tokens: _Words) -> NDArray[Any]:
        if self._tokens is not None:
            place = self._tokens.searchsorted(tokens)  # the last entry is a sentinel
            tokens = np.where(self._tokens[place] == tokens, place, len(self._values) - 1)
        return self._values.take(tokens, mode="clip")  # the last value is that of all others


class TypeAParser:
    """A parser of one socket. Prices are divided by 100, those of the currency segment by ``currency_divisor``.

    A packet names a token without its exchange. ``tokens`` may be bare (``2885``) or ``<exchange type>:<token>``;
    a number that two instruments share cannot be told apart, so its ticks get no instrument (-1).
    """

    def __init__(self, tokens: TokenMap, zone: ZoneCheck | None = None, currency_divisor: float = 1e7) -> None:
        self.zone = zone or ZoneCheck()
        self._tokens = tokens
        self._currency_divisor = currency_divisor
        self._indexed: Mapping[str, int] | None = None
        self._numbers = _Lookup({})
        self._divisors: _Lookup | None = None
        """None while all prices are divided by 100"""

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        """Rows in the order of the packets; what cannot be read is a ``BadPacket``. Heartbeats give nothing."""
        bad: list[BadPacket] = []
        groups: dict[int, tuple[list[_Packets], list[Sequence[int]]]] = {}
        stamps: list[int] = []
        for number, frame in enumerate(frames):
            for size, packets, places in _runs(number, frame.data, len(stamps), bad):
                group = groups.setdefault(size, ([], []))
                group[0].append(packets)
                group[1].append(places)
                stamps += [frame.received_ns] * len(places)
        if self._indexed is not self._tokens.present:
            self._index()
        alone = len(groups) == 1
        rows = _LAYOUTS[next(iter(groups))].rows(len(stamps)) if alone else empty_ticks(len(stamps))
        if stamps:
            rows["received_ns"] = stamps if len(frames) > 1 else stamps[0]
        for size, (pieces, order) in groups.items():
            layout, at = _LAYOUTS[size], slice(None) if alone else np.array([*chain.from_iterable(order)])
            if not alone:
                rows["flags"][at] = layout.flags
            self._decode(layout, _words(size, pieces), rows, at)
        return Parsed(rows, bad)

    def _decode(self, layout: _Layout, words: _Words, rows: Rows, at: Any) -> None:
        if layout.size == 48:
            words = _sdk_order(words)
        tokens = words[:, 0]
        rows["instrument"][at] = self._numbers.of(tokens)
        divisor = 100.0 if self._divisors is None else self._divisors.of(tokens)[:, None]
        floats = rows.view("f8").reshape(len(rows), -1)
        start = TICK_BLOCKS["float64"].start
        for first, columns in layout.prices:
            # One column by its number: an index list would copy.
            values = words[:, columns] if len(columns) > 1 else words[:, columns[0], None]
            floats[at, start + first : start + first + len(columns)] = values / divisor
        ints = rows.view("i8").reshape(len(rows), -1)
        for first, columns in layout.quantities:
            ints[at, first : first + len(columns)] = words[:, columns]
        if layout.orders:
            halves = rows.view("i4").reshape(len(rows), -1)
            start = TICK_BLOCKS["int32"].start
            halves[at, start : start + 10] = words[:, layout.orders] >> 16
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
        self._indexed = self._tokens.present
        found: dict[int, tuple[int, float]] = {}
        for token, number in self._indexed.items():
            exchange, _, bare = token.rpartition(":")
            if bare.isdecimal():
                divisor = self._currency_divisor if exchange == str(CURRENCY) else 100.0
                found[int(bare)] = (-1, 100.0) if int(bare) in found else (number, divisor)
        self._numbers = _Lookup({token: number for token, (number, _) in found.items()})
        odd = {token: divisor for token, (_, divisor) in found.items() if divisor != 100.0}
        self._divisors = _Lookup(odd, 100.0) if odd else None


def _words(size: int, pieces: Sequence[_Packets]) -> _Words:
    """The words of the packets, shape ``(packets, size / 4)``."""
    if len(pieces) == 1 and isinstance(pieces[0], np.ndarray):
        return pieces[0].astype(np.int64)
    data = b"".join([one if isinstance(one, bytes) else one.tobytes() for one in pieces])
    return np.frombuffer(data, ">u4").reshape(-1, size // 4).astype(np.int64)


def _runs(frame: int, data: bytes, first: int, bad: list[BadPacket]) -> Iterator[tuple[int, _Packets, Sequence[int]]]:
    """The packets of a frame as (size, packets, places): all at once where they have one size, else one by one.

    ``first`` is the place of the frame's first packet among the rows.
    """
    if len(data) < 2:
        return  # a heartbeat
    count, size = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    alike = count > 1 and size in _LAYOUTS and len(data) == 2 + count * (size + 2)
    # Both bytes of all sizes; this is faster than comparing numbers.
    if alike and data[2 :: size + 2] == bytes(count) and data[3 :: size + 2] == data[3:4] * count:
        yield size, np.frombuffer(data, _LAYOUTS[size].packets, count, 2)["words"], range(first, first + count)
        return
    yield from _walk(frame, data, count, first, bad)


def _walk(
    frame: int, data: bytes, count: int, first: int, bad: list[BadPacket]
) -> Iterator[tuple[int, _Packets, Sequence[int]]]:
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
