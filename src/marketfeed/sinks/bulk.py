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

import msgspec
import numpy as np
from numpy.typing import NDArray

from marketfeed.batches import TickBatch
from marketfeed.instruments import Instrument
from marketfeed.sinks.columns import BLOCK_ROWS, instrument_at
from marketfeed.sinks.template import NO_AVERAGE, NO_EXCHANGE_TIME, NO_TRADE_TIME, Layout, layout_of

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


class _Unusual(Exception):
    """A value that has no room in the template."""


class BulkLines:
    """Encodes large batches of layout ``full``; remembers templates and the names of instruments."""

    def __init__(self) -> None:
        self._origin: tuple[str, str, str] = ("", "", "")
        self._names = _NameTable((), "")
        self._plans: dict[int, _Plan] = {}

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
            self._plans.clear()
        width = self._names.width
        slots = self._names.slots(batch.rows["instrument"])
        if self._names.width != width:
            self._plans.clear()
        return slots

    def _block(self, rows: Any, seq: Ints, slots: Ints) -> bytes:
        patterns = _patterns(rows)
        if not isinstance(patterns, np.ndarray):
            return self._write(patterns, rows, seq, slots).tobytes().translate(None, b"\0")
        groups = np.unique(patterns).tolist()
        if len(groups) * _GROUP_ROWS > len(rows):
            raise _Unusual
        # Each row in the left part of a line as long as the longest, so that their order stays.
        width = max(len(self._plan(pattern).template) for pattern in groups)
        block = np.zeros((len(rows), width), "u4")
        for pattern in groups:
            places = np.flatnonzero(patterns == pattern)
            written = self._write(pattern, rows[places], seq[places], slots[places])
            block[places, : written.shape[1]] = written
        return block.tobytes().translate(None, b"\0")

    def _plan(self, pattern: int) -> _Plan:
        plan = self._plans.get(pattern)
        if plan is None:
            journal, feed, _ = self._origin
            plan = self._plans[pattern] = _Plan(layout_of(pattern, journal, feed, self._names.width))
        return plan

    def _write(self, pattern: int, rows: Any, seq: Ints, slots: Ints) -> Words:
        plan = self._plan(pattern)
        block = plan.fill(rows, seq)
        block[:, plan.names] = self._names.words[slots]
        return block


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


def _patterns(rows: Any) -> int | Ints:
    """Which template each row needs: its flags, and which of the fields without a group it lacks."""
    flags = rows["flags"]
    first = int(flags[0])
    marks = (
        (NO_EXCHANGE_TIME, rows["exchange_ns"] == 0),
        (NO_TRADE_TIME, rows["last_trade_ns"] == 0),
        (NO_AVERAGE, np.isnan(rows["average_price"])),
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

    def __init__(self, layout: Layout) -> None:
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
