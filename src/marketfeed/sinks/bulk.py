"""Large tick batches as JSON lines, by numpy alone: no Python object is made for any value.

All rows with the same fields share one template, a row of 4-byte words in which every number has room for its
longest text. Digits come out of a table of all four-digit texts, so a batch is a handful of divisions and table
look-ups; what is left over of the room is NUL, and NUL is deleted from the whole block at the end (JSON text
holds none: it is written as an escape).

The text of a price is exact: a price that is a whole number of 1/10,000 rupee has no other shortest text. Where
any value is out of the ordinary (negative, not finite, 10**8 or more, more decimals), :meth:`BulkLines.lines`
returns None and the caller takes the general way; both give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from marketfeed.batches import TickBatch
from marketfeed.dtypes import DEPTH_LEVELS, PRICE_FIELDS, TICK, Flag
from marketfeed.instruments import Instrument
from marketfeed.sinks.columns import BLOCK_ROWS, FIELDS, GROUP_OF, instrument_at, mode_word, reason_words

__all__ = ["MIN_ROWS", "BulkLines"]

MIN_ROWS: Final = 24
"""From this many rows on it is the faster way (measured: even at 24, 1.5x at 100, 1.8x from 200 on)."""
_GROUP_ROWS: Final = 16
"""Fewest rows a template is worth, on average."""

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]

_E4, _E8, _E16 = 10**4, 10**8, 10**16
_EARLIEST_NS, _LATEST_NS = 10**17, 4 * 10**18
"""Times between 1973 and 2096 have 9 or 10 digits of seconds."""
_PRICE_BITS: Final = int(np.array(1e8).view("i8"))
"""Floats that are not negative are in the order of their bits, so one test finds all that do not fit."""
_NO_EXCHANGE_TIME, _NO_TRADE_TIME, _NO_AVERAGE = 1 << 32, 1 << 33, 1 << 34
"""Bits of a row's pattern above its flags."""
_LEAD, _LAST, _FULL = 0, _E4, 2 * _E4


def _texts(texts: Sequence[str]) -> Words:
    return np.array([text.encode() for text in texts], "S4").view("u4")


_NUMBERS = range(_E4)
_DIGITS = np.concatenate(
    [
        _texts([str(number) if number else "" for number in _NUMBERS]),  # _LEAD: the first digits, none for 0
        _texts([str(number) for number in _NUMBERS]),  # _LAST: the same, but 0 is "0"
        _texts([f"{number:04}" for number in _NUMBERS]),  # _FULL: digits that follow others
    ]
)
_FRACTION = _texts([f"{number:04}".rstrip("0") or "0" for number in _NUMBERS])
_MICRO_HEAD = _texts(
    [f"{number:03}".rstrip("0") or "0" for number in range(1000)] + [f"{number:03}" for number in range(1000)]
)
_MICRO_TAIL = _texts([f"{number:03}".rstrip("0") for number in range(1000)])


def _word(name: str, level: int = 0, size: int = 8) -> int:
    """Place of a field in a row of 8-byte (or 4-byte) words."""
    fields: Any = TICK.fields
    return int(fields[name][1]) // size + level


@attrs.define
class _Layout:
    """A template and what goes where: lists of source words, and of places in the template for each."""

    words: list[bytes] = attrs.field(factory=list)
    names: slice = slice(0)
    """Where the fragment with the instrument's names goes."""
    plain: list[int] = attrs.field(factory=list)
    wide: list[int] = attrs.field(factory=list)
    orders: list[int] = attrs.field(factory=list)
    times: list[int] = attrs.field(factory=list)
    prices: list[int] = attrs.field(factory=list)
    timed: bool = False
    places: dict[str, list[int]] = attrs.field(factory=dict)
    template: Words = attrs.field(init=False)

    def text(self, text: bytes) -> None:
        self.words += [text[place : place + 4].ljust(4, b"\0") for place in range(0, len(text), 4)]

    def room(self, *kinds: str) -> None:
        """Two words for each kind of piece (eight digits)."""
        for kind in kinds:
            self.places.setdefault(kind, []).extend((len(self.words), len(self.words) + 1))
            self.words += [bytes(4)] * 2

    def tail(self, kind: str, count: int) -> None:
        """A point and ``count`` words behind it."""
        self.text(b".")
        self.places.setdefault(kind, []).extend(range(len(self.words), len(self.words) + count))
        self.words += [bytes(4)] * count

    def integer(self, name: str, level: int = 0) -> None:
        if name.endswith("_orders"):
            self.orders.append(_word(name, level, 4))
            self.room("orders")
        elif name in ("bid_quantity", "ask_quantity"):
            self.plain.append(_word(name, level))
            self.room("plain")
        else:
            self.wide.append(_word(name))
            self.room("high", "low")

    def price(self, name: str, level: int = 0) -> None:
        self.prices.append(_word(name, level))
        self.room("whole")
        self.tail("fraction", 1)

    def time(self, name: str) -> None:
        self.times.append(_word(name))
        self.room("eras", "middles", "ends")

    def field(self, name: str, level: int = 0) -> None:
        (self.price if name in PRICE_FIELDS else self.integer)(name, level)

    def finish(self) -> _Layout:
        self.template = np.frombuffer(b"".join(self.words), "u4")
        return self


def _layout(pattern: int, journal: str, feed: str, names: int) -> _Layout:
    """The template of all rows with that pattern; ``names`` is the room for the instrument's names, in words."""
    flags, encode = pattern & 0xFFFFFFFF, msgspec.json.encode
    out = _Layout()
    out.text((b'{"journal":%s,"seq":' % encode(journal)) if journal else b'{"seq":')
    out.room("high", "low")
    out.text(b',"feed":%s,' % encode(feed))
    out.names = slice(len(out.words), len(out.words) + names)
    out.words += [bytes(4)] * names
    if mode := mode_word(flags):
        out.text(b',"mode":%s' % encode(mode))
    out.timed = bool(flags & Flag.EXCHANGE_TIME) and not pattern & _NO_EXCHANGE_TIME
    out.text(b',"timestamp":')
    out.room("seconds", "rest")
    out.tail("micro", 2)
    if not out.timed:
        out.text(b',"time_source":"received"')
    for name in _times(pattern, timed=out.timed):
        out.text(b',"%s":' % name.encode())
        out.time(name)
    for name in FIELDS:
        if flags & GROUP_OF.get(name, flags) or name not in GROUP_OF:
            if name == "average_price" and pattern & _NO_AVERAGE:
                continue
            out.text(b',"%s":' % name.encode())
            out.field(name)
    if flags & Flag.DEPTH:
        _depth(out)
    if reasons := reason_words(flags):
        out.text(b',"reasons":%s' % encode(reasons))
    out.text(b"}\n")
    return out.finish()


def _times(pattern: int, *, timed: bool) -> list[str]:
    traded = pattern & Flag.TRADE_TIME and not pattern & _NO_TRADE_TIME
    return ["exchange_ns"] * timed + ["received_ns"] + ["last_trade_ns"] * bool(traded)


def _depth(out: _Layout) -> None:
    for side, opening in (("bid", b',"depth":{"buy":['), ("ask", b'],"sell":[')):
        out.text(opening)
        for level in range(DEPTH_LEVELS):
            out.text(b',{"price":' if level else b'{"price":')
            out.field(f"{side}_price", level)
            out.text(b',"quantity":')
            out.field(f"{side}_quantity", level)
            out.text(b',"orders":')
            out.field(f"{side}_orders", level)
            out.text(b"}")
    out.text(b"]}")


class _Unusual(Exception):
    """A value that has no room in the template."""


class BulkLines:
    """Encodes large batches of layout ``full``; remembers templates and the names of instruments."""

    def __init__(self) -> None:
        self._origin: tuple[str, str, str] = ("", "", "")
        self._known: Sequence[Instrument] | None = None
        self._layouts: dict[int, _Plan] = {}
        self._names: Words = np.zeros((0, 0), "u4")

    def lines(self, batch: TickBatch) -> bytes | None:
        """JSON lines of the batch; None if it holds something out of the ordinary."""
        rows, seq = np.ascontiguousarray(batch.rows), batch.seq
        blocks = []
        try:
            self._learn(batch)
            for start in range(0, len(rows), BLOCK_ROWS):
                part = slice(start, start + BLOCK_ROWS)
                blocks.append(self._block(rows[part], seq[part]))
        except _Unusual:
            return None
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _block(self, rows: Any, seq: Ints) -> bytes:
        patterns = _patterns(rows)
        if not isinstance(patterns, np.ndarray):
            return self._write(patterns, rows, seq).tobytes().translate(None, b"\0")
        groups = np.unique(patterns).tolist()
        if len(groups) * _GROUP_ROWS > len(rows):
            raise _Unusual
        # Each row in the left part of a line as long as the longest, so that their order stays.
        width = max(len(self._plan(pattern).template) for pattern in groups)
        block = np.zeros((len(rows), width), "u4")
        for pattern in groups:
            places = np.flatnonzero(patterns == pattern)
            written = self._write(pattern, rows[places], seq[places])
            block[places, : written.shape[1]] = written
        return block.tobytes().translate(None, b"\0")

    def _plan(self, pattern: int) -> _Plan:
        plan = self._layouts.get(pattern)
        if plan is None:
            journal, feed, _ = self._origin
            plan = self._layouts[pattern] = _Plan(_layout(pattern, journal, feed, self._names.shape[1]))
        return plan

    def _write(self, pattern: int, rows: Any, seq: Ints) -> Words:
        plan = self._plan(pattern)
        numbers = rows["instrument"]
        if int(numbers.max()) >= len(self._names) - 1 or int(numbers.min()) < -1:
            raise _Unusual
        block = plan.fill(rows, seq)
        block[:, plan.names] = self._names[numbers]  # -1, an unknown instrument, is the last one: without names
        return block

    def _learn(self, batch: TickBatch) -> None:
        """Make the fragments with the names, and start anew when something in them or around them changed."""
        origin = batch.origin
        known, place = origin.instruments, (origin.journal, origin.feed, origin.vendor)
        if known is self._known and place == self._origin and len(known) == len(self._names) - 1:
            return
        texts = [_names(instrument_at(known, number), origin.vendor) for number in (*range(len(known)), -1)]
        size = -(-max(map(len, texts)) // 4)
        self._names = np.frombuffer(b"".join(text.ljust(4 * size, b"\0") for text in texts), "u4").reshape(-1, size)
        self._known, self._origin = known, place
        self._layouts.clear()


def _names(one: Instrument, vendor: str) -> bytes:
    names = {"vendor": vendor or one.vendor, "exchange": one.exchange, "symbol": one.symbol, "token": one.token}
    return msgspec.json.encode(names)[1:-1]


def _patterns(rows: Any) -> int | Ints:
    """Which template each row needs: its flags, and which of the fields without a group it lacks."""
    flags = rows["flags"]
    first = int(flags[0])
    marks = (
        (_NO_EXCHANGE_TIME, rows["exchange_ns"] == 0),
        (_NO_TRADE_TIME, rows["last_trade_ns"] == 0),
        (_NO_AVERAGE, np.isnan(rows["average_price"])),
    )
    if (flags == first).all() and all(bool(mask.all()) or not mask.any() for _, mask in marks):
        return first | sum(bit for bit, mask in marks if mask[0])
    patterns: Ints = flags.astype("i8")
    for bit, mask in marks:
        patterns |= mask * np.int64(bit)
    return patterns


class _Plan:
    """A layout made ready: index arrays, and the rules for leading zeros of each piece.

    Pieces are numbers below 10**8. They stand in one matrix, in the order of ``_KINDS``, so that all digits
    of a batch come from four operations.
    """

    _KINDS = ("plain", "orders", "whole", "high", "seconds", "eras", "low", "rest", "middles", "ends")

    def __init__(self, layout: _Layout) -> None:
        self.layout, self.template, self.names = layout, layout.template, layout.names
        places = layout.places
        self._places = np.array([place for kind in self._KINDS for place in places.get(kind, ())], np.intp)
        counts = [len(places.get(kind, ())) // 2 for kind in self._KINDS]
        borders = np.cumsum([0, *counts]).tolist()
        self._parts = {kind: slice(*borders[at : at + 2]) for at, kind in enumerate(self._KINDS)}
        self._count = borders[-1]
        # A first piece that is 0 shows nothing where another piece follows, else "0".
        self._zero = np.full(self._count, _LAST, np.uint32)
        self._zero[self._parts["high"]] = _LEAD
        self._follows = slice(self._parts["rest"].start, None)
        self._fraction = np.array(places.get("fraction", ()), np.intp)
        self._micro = slice(places["micro"][0], places["micro"][1] + 1)

    def fill(self, rows: Any, seq: Ints) -> Words:
        """The block of words of these rows, without the names."""
        layout, part = self.layout, self._parts
        count = len(rows)
        words = rows.view("i8").reshape(count, -1)
        pieces = np.empty((count, self._count), np.uint32)
        pieces[:, part["plain"]] = _checked(words[:, layout.plain], _E8)
        pieces[:, part["orders"]] = _checked(rows.view("i4").reshape(count, -1)[:, layout.orders], _E8)
        fraction = self._prices(words[:, layout.prices], pieces)
        self._wide(words[:, layout.wide], seq, pieces)
        micro = self._times(words, pieces)
        block = np.empty((count, len(self.template)), np.uint32)
        block[:] = self.template
        block[:, self._places] = self._digits(pieces)
        block[:, self._fraction] = _FRACTION[fraction]
        block[:, self._micro] = _micro_words(micro)
        return block

    def _prices(self, bits: Ints, pieces: Words) -> Ints:
        """Whole rupees into the pieces; 1/10,000 rupees returned."""
        _checked(bits, _PRICE_BITS)
        prices = bits.view("f8")
        whole = np.floor(prices)
        rest = np.rint((prices - whole) * 1e4)
        if not np.array_equal((whole * 1e4 + rest) / 1e4, prices):
            raise _Unusual
        pieces[:, self._parts["whole"]] = whole
        fraction: Ints = rest.astype(np.intp)
        return fraction

    def _wide(self, values: Ints, seq: Ints, pieces: Words) -> None:
        wide = np.empty((len(values), values.shape[1] + 1), np.int64)
        wide[:, 0], wide[:, 1:] = seq, values
        high = _checked(wide, _E16) // _E8
        pieces[:, self._parts["high"]] = high
        pieces[:, self._parts["low"]] = wide - high * _E8

    def _times(self, words: Ints, pieces: Words) -> Ints:
        """All times into the pieces; microseconds of the timestamp returned."""
        ns = _checked(words[:, self.layout.times], _LATEST_NS, _EARLIEST_NS)
        ends = ns // _E8
        eras = ends // _E8
        pieces[:, self._parts["ends"]] = ns - ends * _E8
        pieces[:, self._parts["eras"]] = eras
        pieces[:, self._parts["middles"]] = ends - eras * _E8
        micros: Ints = ns[:, 0] // 1000  # exchange time comes first where it is known, else received time
        seconds = micros // 10**6
        high = seconds // _E8
        pieces[:, self._parts["seconds"]] = high[:, None]
        pieces[:, self._parts["rest"]] = (seconds - high * _E8)[:, None]
        micros -= seconds * 10**6
        return micros

    def _digits(self, pieces: Words) -> Words:
        """Two words of text for each piece, shape (n, 2 * pieces)."""
        part = self._parts
        follows = np.zeros(pieces.shape, np.bool_)
        follows[:, part["low"]] = pieces[:, part["high"]] > 0
        follows[:, self._follows] = True
        high = pieces // np.uint32(_E4)
        index = np.empty((*pieces.shape, 2), np.intp)
        index[:, :, 1] = pieces - high * np.uint32(_E4) + np.where(follows | (high > 0), np.uint32(_FULL), self._zero)
        index[:, :, 0] = high + follows * np.uint32(_FULL)
        return _DIGITS.take(index).reshape(len(pieces), -1)


def _checked(values: Any, limit: int, least: int = 0) -> Any:
    if values.size and (int(values.min()) < least or int(values.max()) >= limit):
        raise _Unusual
    return values


def _micro_words(micros: Ints) -> Words:
    """Six decimals without trailing zeros, as two words."""
    head = micros // 1000
    tail = micros - head * 1000
    return np.stack((_MICRO_HEAD[head + 1000 * (tail > 0)], _MICRO_TAIL[tail]), axis=1)
