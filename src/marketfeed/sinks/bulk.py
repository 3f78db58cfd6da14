"""Large tick batches as JSON lines, by numpy alone: no Python object is made for any value.

All rows with the same fields share one template (:mod:`marketfeed.sinks.template`), in which every number has
room for its longest text. All digits come out of one table of the texts of four digits, so a batch is some
divisions, one look-up and one copy; what is left over of the room is NUL, and NUL is deleted from the whole
block at the end (JSON text holds none: it is written as an escape).

The text of a price is exact: a float64 below 10**8 that equals a whole number of 1/100 or 1/10,000 rupee has no
other shortest text. Where any value is out of the ordinary (negative, infinite, 10**8 or more, more decimals),
:meth:`BulkLines.lines` returns None and the caller takes the general way; both give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from marketfeed.batches import TickBatch
from marketfeed.dtypes import DEPTH_LEVELS, PRICE_FIELDS, REASON_MASK, TICK_BLOCKS, Flag
from marketfeed.instruments import Instrument
from marketfeed.sinks.columns import BLOCK_ROWS, GROUP_OF, instrument_at, reason_words
from marketfeed.sinks.figures import Reader, Unusual
from marketfeed.sinks.template import NO_EXCHANGE_TIME, NO_PRICE, NO_TRADE_TIME, SOME, layout_of, word_of

__all__ = ["MIN_ROWS", "BulkLines"]

MIN_ROWS: Final = 28
"""From this many rows on it is the faster way (measured: even at 26, 1.8x at 100, 2x at 128)."""
_GROUP_ROWS: Final = 24
"""Fewest rows a template is worth, on average."""

_MOST_TEMPLATES: Final = 64
"""Kept at a time; a broker's messages make a handful."""

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_REASONS, _EXCHANGE_TIME, _TRADE_TIME = (
    np.uint32(REASON_MASK),
    np.uint32(Flag.EXCHANGE_TIME),
    np.uint32(Flag.TRADE_TIME),
)
_TIMES = _EXCHANGE_TIME | _TRADE_TIME
_PRICES: Final = TICK_BLOCKS["float64"]
_SHAPE = ~(_REASONS | _TIMES)
"""Flags that tell which fields the line has room for."""


class _Doubts(NamedTuple):
    """JSON fragments of equal width for the doubted rows, shape (doubted rows, words)."""

    places: Ints
    words: Words

    def of(self, places: Ints) -> _Doubts:
        """Those of some rows, in ascending order, which count from 0 then."""
        found, mine, theirs = np.intersect1d(places, self.places, assume_unique=True, return_indices=True)
        return _Doubts(mine, self.words[theirs]) if len(found) else _NO_DOUBTS


_NO_DOUBTS: Final = _Doubts(np.zeros(0, np.int64), np.zeros((0, 0), "u4"))


class BulkLines:
    """Encodes large batches of layout ``full``; remembers templates and the names of instruments."""

    def __init__(self) -> None:
        self._origin: tuple[str, str, str] = ("", "", "")
        self._names = _NameTable((), "")
        self._readers: dict[int, Reader] = {}
        self._reasons: dict[int, bytes] = {}
        """The fragment of each combination of doubts that occurred."""

    def lines(self, batch: TickBatch) -> bytes | None:
        """JSON lines of the batch; None if it holds something out of the ordinary."""
        rows, seq = np.ascontiguousarray(batch.rows), batch.seq
        blocks = []
        try:
            slots = self._slots(batch)
            for start in range(0, len(rows), BLOCK_ROWS):
                part = slice(start, start + BLOCK_ROWS)
                blocks.append(self._block(rows[part], seq[part], slots[part]))
        except Unusual:
            return None
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _slots(self, batch: TickBatch) -> Ints:
        """Where each row's names stand in the table; templates are void when their width or origin changed."""
        origin = batch.origin
        place = (origin.journal, origin.feed, origin.vendor)
        if origin.instruments is not self._names.known or place != self._origin:
            self._names, self._origin = _NameTable(origin.instruments, origin.vendor), place
            self._readers.clear()
        width = self._names.width
        slots = self._names.slots(batch.rows["instrument"])
        if self._names.width != width:
            self._readers.clear()
        return slots

    def _block(self, rows: Any, seq: Ints, slots: Ints) -> bytes:
        doubts = self._doubts(rows["flags"])
        patterns, lacks = _patterns(rows)
        if not isinstance(patterns, np.ndarray):
            block = self._write(patterns, lacks, rows, seq, slots, doubts)
            return block.tobytes().translate(None, b"\0")
        groups = np.unique(patterns).tolist()
        if len(groups) * _GROUP_ROWS > len(rows):
            raise Unusual
        # Each row in the left part of a line as long as the longest, so that their order stays.
        written = []
        for pattern in groups:
            places = np.flatnonzero(patterns == pattern)
            part = self._write(pattern, lacks.of(places), rows[places], seq[places], slots[places], doubts.of(places))
            written.append((places, part))
        block = np.zeros((len(rows), max(part.shape[1] for _, part in written)), "u4")
        for places, part in written:
            block[places, : part.shape[1]] = part
        return block.tobytes().translate(None, b"\0")

    def _write(self, pattern: int, lacks: _Lacks, rows: Any, seq: Ints, slots: Ints, doubts: _Doubts) -> Words:
        """``pattern`` without the bits of :mod:`marketfeed.sinks.template`, which ``lacks`` gives."""
        every, some = lacks.bits(pattern)
        reader = self._reader(pattern | every | sum(some) << SOME)
        values = reader.read(rows, seq, some)
        plan = reader.plan(values, doubts.words.shape[1])
        block = plan.fill(values)
        for bit, columns, words in plan.instead:
            block[some[bit], columns] = words
        block[:, plan.names] = self._names.words[slots]
        if len(doubts.places):
            block[doubts.places, plan.reasons] = doubts.words
        return block

    def _reader(self, pattern: int) -> Reader:
        reader = self._readers.get(pattern)
        if reader is None:
            if len(self._readers) >= _MOST_TEMPLATES:
                self._readers.clear()
            journal, feed, _ = self._origin
            reader = self._readers[pattern] = Reader(partial(layout_of, pattern, journal, feed, self._names.width))
        return reader

    def _doubts(self, flags: NDArray[np.uint32]) -> _Doubts:
        """Why some rows are doubted."""
        places = np.flatnonzero(flags & _REASONS)
        if not len(places):
            return _NO_DOUBTS
        texts = [self._reasons.get(one) or self._reason(one) for one in (flags[places] & _REASONS).tolist()]
        size = -(-max(map(len, texts)) // 32) * 32  # few widths, few templates
        words = np.frombuffer(b"".join([text.ljust(size, b"\0") for text in texts]), "u4")
        return _Doubts(places, words.reshape(len(places), -1))

    def _reason(self, reasons: int) -> bytes:
        text = self._reasons[reasons] = b',"reasons":%s' % msgspec.json.encode(reason_words(reasons))
        return text


class _NameTable:
    """vendor, exchange, symbol and token as JSON fragments of equal width, made when first seen: a journal may
    know many times more instruments than are subscribed today."""

    def __init__(self, known: Sequence[Instrument], vendor: str) -> None:
        self.known = known
        self._vendor = vendor
        self._texts: list[bytes] = []
        self._slot_of = np.full(1, -1, np.intp)  # the last entry is that of instrument -1: unknown
        self.words: Words = np.zeros((0, 0), "u4")
        """The fragments, shape (slots, width)."""

    @property
    def width(self) -> int:
        """Words of a fragment."""
        return int(self.words.shape[1])

    def slots(self, numbers: NDArray[np.int32]) -> Ints:
        """The slot of each instrument number, shape (n,)."""
        if int(numbers.max()) >= len(self._slot_of) - 1:
            self._grow(int(numbers.max()))
        if int(numbers.min()) < -1:
            raise Unusual
        slots: Ints = self._slot_of[numbers]
        if int(slots.min()) < 0:
            self._learn(np.unique(numbers[slots < 0]).tolist())
            slots = self._slot_of[numbers]
        return slots

    def _grow(self, highest: int) -> None:
        if highest >= len(self.known):
            raise Unusual
        larger = np.full(len(self.known) + 1, -1, np.intp)
        larger[: len(self._slot_of) - 1] = self._slot_of[:-1]
        larger[-1] = self._slot_of[-1]
        self._slot_of = larger

    def _learn(self, numbers: list[int]) -> None:
        for number in numbers:
            one = instrument_at(self.known, number)
            names = {"vendor": self._vendor or one.vendor, "exchange": one.exchange}
            text = msgspec.json.encode({**names, "symbol": one.symbol, "token": one.token})[1:-1]
            self._slot_of[number] = len(self._texts)
            self._texts.append(text)
        size = -(-max(map(len, self._texts)) // 4) * 4
        self.words = np.frombuffer(b"".join(text.ljust(size, b"\0") for text in self._texts), "u4")
        self.words = self.words.reshape(len(self._texts), -1)


class _Lacks(NamedTuple):
    """What rows lack beside what their flags say."""

    exchange_time: Bools
    """Shape (n,), as the next one."""
    trade_time: Bools
    prices: NDArray[np.float64]
    """Shape (n, 18); NaN where there is none."""
    suspects: Bools
    """Shape (18,): the prices that any row lacks."""

    def of(self, places: Ints) -> _Lacks:
        """The same of some rows."""
        return _Lacks(self.exchange_time[places], self.trade_time[places], self.prices[places], self.suspects)

    def bits(self, shape: int) -> tuple[int, dict[int, Ints]]:
        """The bits of fields that all rows lack, and for each field that some lack these rows.

        ``shape``: their flags; a price of a group that they do not have has no room anyway.
        """
        every, some = 0, {}
        missing = np.flatnonzero(self.suspects & _held(shape)).tolist()
        for bit, mask in (
            (NO_EXCHANGE_TIME, self.exchange_time),
            (NO_TRADE_TIME, self.trade_time),
            *((1 << NO_PRICE + number, np.isnan(self.prices[:, number])) for number in missing),
        ):
            count = np.count_nonzero(mask)
            if count == len(mask):
                every |= bit
            elif count:
                some[bit] = np.flatnonzero(mask)
        return every, some


@lru_cache(maxsize=_MOST_TEMPLATES)
def _held(shape: int) -> Bools:
    """Shape (18,): which prices the groups of these flags hold."""
    held = np.ones(_PRICES.stop - _PRICES.start, bool)
    for name in PRICE_FIELDS:
        if not shape & GROUP_OF.get(name, shape):
            levels = DEPTH_LEVELS if name in ("bid_price", "ask_price") else 1
            held[word_of(name) - _PRICES.start :][:levels] = False
    return held


def _patterns(rows: Any) -> tuple[int | Ints, _Lacks]:
    """The flags that make a template, of all rows alike or of each, and what rows lack beside them.

    Neither doubts nor such a field make a template: one such row in a hundred must not cost a second pass.
    """
    flags = rows["flags"]
    prices = rows.view("f8").reshape(len(rows), -1)[:, _PRICES]
    suspects = np.isnan(np.maximum.reduce(prices, axis=0))
    lacks = _Lacks(rows["exchange_ns"] == 0, rows["last_trade_ns"] == 0, prices, suspects)
    if not (flags & _TIMES == _TIMES).all():
        np.logical_or(lacks.exchange_time, flags & _EXCHANGE_TIME == 0, out=lacks.exchange_time)
        np.logical_or(lacks.trade_time, flags & _TRADE_TIME == 0, out=lacks.trade_time)
    shapes = flags & _SHAPE
    first = int(shapes[0])
    return (first if (shapes == first).all() else shapes), lacks
