"""Large tick batches as JSON lines, by numpy alone: no Python object is made for any value.

All rows with the same fields share one template (:mod:`marketfeed.sinks.template`), in which every number has
room for its longest text. All digits come out of one table of the texts of four digits, so a batch is some
divisions, one look-up and one copy; what is left over of the room is NUL, and NUL is deleted from the whole
block at the end (JSON text holds none: it is written as an escape).

The text of a price is exact: a float64 below 10**8 that equals a whole number of 1/100 or 1/10,000 rupee has no
other shortest text. Where any value is out of the ordinary (negative, not finite, 10**8 or more, more decimals),
:meth:`BulkLines.lines` returns None and the caller takes the general way; both give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from marketfeed.batches import TickBatch
from marketfeed.dtypes import REASON_MASK, Flag
from marketfeed.instruments import Instrument
from marketfeed.sinks.columns import BLOCK_ROWS, instrument_at, reason_words
from marketfeed.sinks.template import NO_AVERAGE, NO_EXCHANGE_TIME, NO_TRADE_TIME, SOME, Layout, layout_of, word_of

__all__ = ["MIN_ROWS", "BulkLines"]

MIN_ROWS: Final = 28
"""From this many rows on it is the faster way (measured: even at 26, 1.8x at 100, 2x at 128)."""
_GROUP_ROWS: Final = 24
"""Fewest rows a template is worth, on average."""

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]
Lacks = dict[int, NDArray[np.bool_]]
"""For each ``NO_...`` bit, which rows lack the field."""

_E4, _E8, _E16 = 10**4, 10**8, 10**16
_EARLIEST_NS, _LATEST_NS = 10**17, 4 * 10**18
"""Times between 1973 and 2096 have 9 or 10 digits of seconds."""
_PRICE_BITS: Final = int(np.array(1e8).view("i8"))
"""Floats that are not negative are in the order of their bits, so one test finds all that do not fit."""


def _texts(texts: Sequence[str]) -> Words:
    return np.array([text.encode() for text in texts], "S4").view("u4")


def _trimmed(number: int, digits: int) -> str:
    return f"{number:0{digits}}".rstrip("0") or "0"


_LEAD, _FULL, _DECIMALS, _CENTS = 1 * _E4, 2 * _E4, 3 * _E4, 4 * _E4
_MICRO_HEAD, _MICRO_FULL, _MICRO_TAIL = _CENTS + 100, _CENTS + 1100, _CENTS + 2100
_TABLE = np.concatenate(
    [
        _texts([str(number) for number in range(_E4)]),  # 0: a number by itself
        _texts([str(number or "") for number in range(_E4)]),  # _LEAD: first digits of a longer one, none for 0
        _texts([f"{number:04}" for number in range(_E4)]),  # _FULL: digits that follow others
        _texts([_trimmed(number, 4) for number in range(_E4)]),
        _texts(["." + _trimmed(number, 2) for number in range(100)]),
        _texts([_trimmed(number, 3) for number in range(1000)]),  # _MICRO_HEAD: nothing but zeros behind it
        _texts([f"{number:03}" for number in range(1000)]),
        _texts([f"{number:03}".rstrip("0") for number in range(1000)]),
    ]
)
"""Texts of up to four letters, as words; the constants above say where each kind begins."""


_REASONS, _EXCHANGE_TIME, _TRADE_TIME = (
    np.uint32(REASON_MASK),
    np.uint32(Flag.EXCHANGE_TIME),
    np.uint32(Flag.TRADE_TIME),
)
_TIMES = _EXCHANGE_TIME | _TRADE_TIME
_SHAPE = ~(_REASONS | _TIMES)
"""Flags that tell which fields the line has room for."""


class _Unusual(Exception):
    """A value that has no room in the template."""


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
        self._readers: dict[int, _Reader] = {}
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
        except _Unusual:
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
            raise _Unusual
        # Each row in the left part of a line as long as the longest, so that their order stays.
        written = []
        for pattern in groups:
            places = np.flatnonzero(patterns == pattern)
            mine = {bit: mask[places] for bit, mask in lacks.items()}
            part = self._write(pattern, mine, rows[places], seq[places], slots[places], doubts.of(places))
            written.append((places, part))
        block = np.zeros((len(rows), max(part.shape[1] for _, part in written)), "u4")
        for places, part in written:
            block[places, : part.shape[1]] = part
        return block.tobytes().translate(None, b"\0")

    def _write(self, pattern: int, lacks: Lacks, rows: Any, seq: Ints, slots: Ints, doubts: _Doubts) -> Words:
        """``pattern`` without the bits of :mod:`marketfeed.sinks.template`, which ``lacks`` gives."""
        some: dict[int, Ints] = {}
        for bit, mask in lacks.items():
            count = np.count_nonzero(mask)
            if count == len(rows):
                pattern |= bit
            elif count:
                pattern |= bit << SOME
                some[bit] = np.flatnonzero(mask)
        reader = self._readers.get(pattern)
        if reader is None:
            journal, feed, _ = self._origin
            reader = self._readers[pattern] = _Reader(partial(layout_of, pattern, journal, feed, self._names.width))
        values = reader.read(rows, seq, some)
        plan = reader.plan(values, doubts.words.shape[1])
        block = plan.fill(values)
        for bit, columns, words in plan.instead:
            block[some[bit], columns] = words
        block[:, plan.names] = self._names.words[slots]
        if len(doubts.places):
            block[doubts.places, plan.reasons] = doubts.words
        return block

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
            raise _Unusual
        slots: Ints = self._slot_of[numbers]
        if int(slots.min()) < 0:
            self._learn(np.unique(numbers[slots < 0]).tolist())
            slots = self._slot_of[numbers]
        return slots

    def _grow(self, highest: int) -> None:
        if highest >= len(self.known):
            raise _Unusual
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


def _patterns(rows: Any) -> tuple[int | Ints, Lacks]:
    """The flags that make a template, of all rows alike or of each, and which rows lack the fields that need a look.

    Neither doubts nor such a field make a template: one such row in a hundred must not cost a second pass.
    """
    flags = rows["flags"]
    lacks = {
        NO_EXCHANGE_TIME: rows["exchange_ns"] == 0,
        NO_TRADE_TIME: rows["last_trade_ns"] == 0,
        NO_AVERAGE: np.isnan(rows["average_price"]),
    }
    first = int(flags[0])
    if not (flags & _TIMES == _TIMES).all():
        lacks[NO_EXCHANGE_TIME] |= flags & _EXCHANGE_TIME == 0
        lacks[NO_TRADE_TIME] |= flags & _TRADE_TIME == 0
    shapes = flags & _SHAPE
    first = int(shapes[0])
    return (first if (shapes == first).all() else shapes), lacks


class _Values(NamedTuple):
    """The numbers of a batch, checked; shape (n, fields of the kind)."""

    plain: Ints
    orders: Ints
    whole: Ints
    fraction: Ints
    counts: Ints
    times: Ints
    short: frozenset[str]
    """See :attr:`Layout.short`."""
    cents: bool


class _Reader:
    """Takes the fields of one pattern out of rows, and knows the plans for their sizes."""

    def __init__(self, layout: Callable[..., Layout]) -> None:
        self._layout = layout
        self._plans: dict[tuple[frozenset[str], bool, int], _Plan] = {}
        fields = layout(frozenset(), cents=True).fields
        self._plain, self._orders, self._prices, self._counts, self._times = (
            np.array(fields[kind], np.intp) for kind in ("plain", "orders", "whole", "low", "ends")
        )
        self._average = np.flatnonzero(self._prices == word_of("average_price"))

    def read(self, rows: Any, seq: Ints, lack: dict[int, Ints]) -> _Values:
        """``lack``: the rows without a field that others have. Raises ``_Unusual`` for a value that has no room."""
        words = rows.view("i8").reshape(len(rows), -1)
        short: list[str] = []
        plain = _checked(words[:, self._plain], _E8, short, "plain")
        orders = _checked(rows.view("i4").reshape(len(rows), -1)[:, self._orders], _E8, short, "orders")
        counts = np.empty((len(rows), len(self._counts) + 1), np.int64)
        counts[:, 0], counts[:, 1:] = seq, words[:, self._counts]
        _checked(counts, _E16, short, "high", _E8)
        bits = words[:, self._prices]
        if NO_AVERAGE in lack:
            bits[lack[NO_AVERAGE], self._average] = 0
        _checked(bits, _PRICE_BITS, short, "whole", _TEN_THOUSAND_BITS)
        whole, fraction, cents = _split(bits.view("f8"))
        times = words[:, self._times]
        for bit, column in ((NO_EXCHANGE_TIME, 0), (NO_TRADE_TIME, -1)):
            if bit in lack:
                times[lack[bit], column] = rows["received_ns"][lack[bit]]
        if int(times.min()) < _EARLIEST_NS:
            raise _Unusual
        _checked(times, _LATEST_NS)
        return _Values(plain, orders, whole, fraction, counts, times, frozenset(short), cents)

    def plan(self, values: _Values, reasons: int) -> _Plan:
        """How to write values of these sizes, with this room for doubts."""
        key = (values.short, values.cents, reasons)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _Plan(self._layout(values.short, cents=values.cents, reasons=reasons))
        return plan


_TEN_THOUSAND_BITS: Final = int(np.array(1e4).view("i8"))


def _checked(values: Any, limit: int, short: list[str] | None = None, kind: str = "", small: int = _E4) -> Any:
    """The values, if they lie in ``[0, limit)``; notes the kind as short if all are below ``small``."""
    if not values.size:
        return values
    highest = int(values.max())
    if highest >= limit or int(values.min()) < 0:
        raise _Unusual
    if short is not None and highest < small:
        short.append(kind)
    return values


def _split(prices: NDArray[np.float64]) -> tuple[Any, Any, bool]:
    """Whole rupees, the rest in 1/100 (True) or 1/10,000 rupee (False)."""
    whole = np.floor(prices)
    for scale in (1e2, 1e4):
        scaled = np.rint(prices * scale)
        if (scaled / scale == prices).all():
            return whole, scaled - whole * scale, scale == 1e2
    raise _Unusual


class _Plan:
    """A layout made ready: every piece becomes one or two numbers of texts in ``_TABLE``, all in one matrix.

    Its columns, in this order: numbers of one word; first and last words of numbers of two; the same of digits
    that always follow others; fractions and microseconds; first and last words of ``high`` and ``low``.
    """

    def __init__(self, layout: Layout) -> None:
        self.template, self.names, self.reasons = layout.template, layout.names, layout.reasons
        self.instead = [(bit, place, np.frombuffer(text, "u4")) for bit, place, text in layout.instead]
        self._short, self._wide = layout.short, "high" not in layout.short
        self._fraction = _CENTS if layout.cents else _DECIMALS
        places = layout.places
        alone = [kind for kind in ("plain", "orders", "whole") if kind in self._short]
        pairs = [kind for kind in ("plain", "orders", "whole") if kind not in self._short]
        one = [place for kind in (*alone, "seconds", "eras") for place in places[kind]]
        two = [place for kind in (*pairs, *([] if self._wide else ["low"])) for place in places[kind]]
        full = [place for kind in ("rest", "middles", "ends") for place in places[kind]]
        rest = places["cents"] + places["decimals"]
        large = places["high"] + places["low"] if self._wide else []
        columns = [one, two[::2], two[1::2], full[::2], full[1::2], rest, places["micros"], large[::2], large[1::2]]
        self._places = np.array([place for column in columns for place in column], np.intp)
        borders = np.cumsum([0, *map(len, columns)]).tolist()
        self._columns = [slice(start, end) for start, end in pairwise(borders)]
        self._alone, self._pairs = alone, pairs

    def fill(self, values: _Values) -> Words:
        """The block of words of these rows, without the names."""
        one, first, last, full_first, full_last, rest, micros, large_first, large_last = self._columns
        count = len(values.counts)
        index = np.empty((count, len(self._places)), np.intp)
        seconds, pieces, fraction = _clock(values.times)
        np.concatenate([*(getattr(values, kind) for kind in self._alone), *seconds], 1, index[:, one], casting="unsafe")
        pairs = [getattr(values, kind) for kind in self._pairs] + ([] if self._wide else [values.counts])
        _pairs(pairs, index[:, first], index[:, last])
        _full(pieces, index[:, full_first], index[:, full_last])
        np.add(values.fraction, self._fraction, out=index[:, rest], casting="unsafe")
        index[:, micros] = fraction
        if self._wide:
            _large(values.counts, index[:, large_first], index[:, large_last])
        block = np.empty((count, len(self.template)), np.uint32)
        block[:] = self.template
        block[:, self._places] = _TABLE.take(index)
        return block


def _pairs(values: Sequence[Any], first: Ints, last: Ints) -> None:
    """Numbers below 10**8 as two texts, the first one empty where it is not needed."""
    if not values:
        return
    pieces = np.concatenate(values, 1, dtype=np.uint32, casting="unsafe")
    high = pieces // np.uint32(_E4)
    np.add(high, _LEAD, out=first, casting="unsafe")
    pieces -= high * np.uint32(_E4)
    pieces += (high > 0) * np.uint32(_FULL)
    last[:] = pieces


def _full(pieces: Words, first: Ints, last: Ints) -> None:
    """Eight digits as two texts with all their zeros."""
    high = pieces // np.uint32(_E4)
    np.add(high, _FULL, out=first, casting="unsafe")
    pieces -= high * np.uint32(_E4)
    np.add(pieces, _FULL, out=last, casting="unsafe")


def _large(counts: Ints, first: Ints, last: Ints) -> None:
    """Numbers below 10**16: first and last texts of the upper and then of the lower eight digits."""
    size = counts.shape[1]
    upper = counts // _E8
    lower = counts - upper * _E8
    for part, shown, zero, at in ((upper, False, _LEAD, slice(size)), (lower, upper > 0, 0, slice(size, None))):
        high = part // _E4
        first[:, at] = high + np.where(shown, _FULL, _LEAD)
        last[:, at] = part - high * _E4 + np.where(shown | (high > 0), _FULL, zero)


def _clock(ns: Ints) -> tuple[tuple[Ints, Ints], Words, Ints]:
    """All times in pieces: those without leading zeros (of the timestamp, of each time), eight digits each (of the
    timestamp, middles, ends), and the timestamp's microseconds as two texts."""
    count = ns.shape[1]
    pieces = np.empty((len(ns), 2 * count + 1), np.uint32)
    upper = ns // _E8
    eras = upper // _E8
    pieces[:, 1 : count + 1] = upper - eras * _E8
    pieces[:, count + 1 :] = ns - upper * _E8
    micros = ns[:, :1] // 1000  # exchange time comes first where it is known, else received time
    whole = micros // 10**6
    seconds = whole // _E8
    pieces[:, :1] = whole - seconds * _E8
    micros -= whole * 10**6
    head = micros // 1000
    tail = micros - head * 1000
    texts = np.concatenate((head + np.where(tail > 0, _MICRO_FULL, _MICRO_HEAD), tail + _MICRO_TAIL), axis=1)
    return (seconds, eras), pieces, texts
