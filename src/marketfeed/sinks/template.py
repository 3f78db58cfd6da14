"""Templates of JSON lines: the constant text of all rows with the same fields, with room for their values.

A template is a row of 4-byte words. Text is padded with NUL to whole words, and the room of a number is as long
as its longest text; :mod:`marketfeed.sinks.bulk` fills the rooms and deletes what is left NUL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import DEPTH_LEVELS, PRICE_FIELDS, TICK, TICK_BLOCKS, Flag
from marketfeed.sinks.columns import FIELDS, GROUP_OF, mode_word

__all__ = ["NO_EXCHANGE_TIME", "NO_PRICE", "NO_TRADE_TIME", "SOME", "Layout", "layout_of", "word_of"]

Words = NDArray[np.uint32]

NO_EXCHANGE_TIME, NO_TRADE_TIME = 1 << 32, 1 << 33
NO_PRICE = 34
"""Bits of a pattern above the flags: fields that all its rows lack, whatever the reason. Prices have theirs from
number ``NO_PRICE`` on, in the order of the row."""
SOME = 20
"""The same bits, shifted by this: fields that some rows lack. They have room in the template, and
:attr:`Layout.instead` says what such a row has there."""

_WORDS: Final = {
    "plain": 2,
    "orders": 2,
    "whole": 2,
    "low": 2,
    "high": 2,
    "seconds": 1,
    "rest": 2,
    "eras": 1,
    "middles": 2,
    "ends": 2,
    "cents": 1,
    "decimals": 1,
    "micros": 2,
}
"""Words that a piece of a number takes (four digits each) where the values of a batch say nothing better."""


@attrs.define
class Layout:
    """A template, the places in it for each kind of piece, and the fields that the pieces come from.

    Kinds of pieces: ``plain`` and ``orders`` are quantities and orders of the book, ``whole`` with ``cents`` or
    ``decimals`` a price, ``high`` and ``low`` eight digits each of a large count, ``seconds``, ``rest`` and
    ``micros`` the timestamp, ``eras``, ``middles`` and ``ends`` a time in nanoseconds.
    """

    short: frozenset[str] = frozenset()
    """Kinds whose values all have at most four digits in this batch, and ``high`` where all are 0."""
    cents: bool = True
    """All prices have at most two decimals."""
    fields: dict[str, list[int]] = attrs.field(factory=lambda: {kind: [] for kind in _WORDS})
    """Words of a row (8 bytes each; of ``orders`` 4 bytes) that hold the field behind each piece."""
    places: dict[str, list[int]] = attrs.field(factory=lambda: {kind: [] for kind in _WORDS})
    """Words of the template that hold each piece, one after another."""
    names: slice = slice(0)
    """Words of the template for the instrument's names."""
    reasons: slice = slice(0)
    """Words for validation's doubts, which differ from row to row."""
    instead: list[tuple[int, slice, bytes]] = attrs.field(factory=list)
    """For a row that lacks what ``NO_...`` bit names: words of the template, and the text they have instead."""
    words: list[bytes] = attrs.field(factory=list)

    @property
    def template(self) -> Words:
        return np.frombuffer(b"".join(self.words), "u4")

    def text(self, text: bytes) -> None:
        """Constant text."""
        self.words += [text[place : place + 4].ljust(4, b"\0") for place in range(0, len(text), 4)]

    def blank(self, words: int) -> slice:
        """Room for text of up to that many words; where it lies."""
        place = slice(len(self.words), len(self.words) + words)
        self.words += [bytes(4)] * words
        return place

    def other(self, bit: int, place: slice, text: bytes = b"") -> None:
        """A row that lacks the field of ``bit`` has this text at this place."""
        self.instead.append((bit, place, text.ljust(4 * (place.stop - place.start), b"\0")))

    def room(self, *kinds: str) -> None:
        """Room for a piece of each kind."""
        for kind in kinds:
            count = 1 if kind in self.short else _WORDS[kind]
            self.places[kind] += range(len(self.words), len(self.words) + count)
            self.words += [bytes(4)] * count

    def field(self, name: str, level: int = 0) -> None:
        """Room for a field."""
        if name in PRICE_FIELDS:
            self._price(name, level)
        elif name.endswith("_orders"):
            self.fields["orders"].append(word_of(name, level, 4))
            self.room("orders")
        elif name in ("bid_quantity", "ask_quantity"):
            self.fields["plain"].append(word_of(name, level))
            self.room("plain")
        else:
            self.fields["low"].append(word_of(name))
            self.count()

    def count(self) -> None:
        """Room for a large count, such as the sequence number."""
        self.room(*(["low"] if "high" in self.short else ["high", "low"]))

    def _price(self, name: str, level: int) -> None:
        self.fields["whole"].append(word_of(name, level))
        self.room("whole")
        if self.cents:
            self.room("cents")  # with its point
        else:
            self.text(b".")
            self.room("decimals")

    def time(self, name: str) -> None:
        """Room for UTC nanoseconds."""
        self.fields["ends"].append(word_of(name))
        self.room("eras", "middles", "ends")

    def timestamp(self) -> None:
        """Room for seconds with six decimals."""
        self.room("seconds", "rest")
        self.text(b".")
        self.room("micros")


def word_of(name: str, level: int = 0, size: int = 8) -> int:
    """Number of the word of a row, of ``size`` bytes each, that holds a field or a level of it."""
    fields: Any = TICK.fields
    return int(fields[name][1]) // size + level


def layout_of(
    pattern: int, journal: str, feed: str, names: int, short: frozenset[str], *, cents: bool, reasons: int = 0
) -> Layout:
    """The template of all rows with that pattern; ``names`` and ``reasons`` are the rooms for the instrument's
    names and for validation's doubts, in words."""
    encode = msgspec.json.encode
    out = Layout(short, cents)
    out.text((b'{"journal":%s,"seq":' % encode(journal)) if journal else b'{"seq":')
    out.count()
    out.text(b',"feed":%s,' % encode(feed))
    out.names = out.blank(names)
    if mode := mode_word(pattern):
        out.text(b',"mode":%s' % encode(mode))
    _times(out, pattern)
    for name in FIELDS:
        bit = _no_price(name) if name in PRICE_FIELDS else 0
        if pattern & GROUP_OF.get(name, -1) and not pattern & bit:
            _optional(out, pattern, name, bit, out.field)
    if pattern & Flag.DEPTH:
        _depth(out, pattern)
    out.reasons = out.blank(reasons)
    out.text(b"}\n")
    return out


def _no_price(name: str, level: int = 0) -> int:
    return 1 << NO_PRICE + word_of(name, level) - int(TICK_BLOCKS["float64"].start)


def _times(out: Layout, pattern: int) -> None:
    """The timestamp and then, the one that it shows first, the times it may come from."""
    out.text(b',"timestamp":')
    out.timestamp()
    source = b',"time_source":"received"'
    if pattern & NO_EXCHANGE_TIME:
        out.text(source)
    elif pattern & NO_EXCHANGE_TIME << SOME:
        out.other(NO_EXCHANGE_TIME, out.blank(-(-len(source) // 4)), source)
    for name, bit in (("exchange_ns", NO_EXCHANGE_TIME), ("received_ns", 0), ("last_trade_ns", NO_TRADE_TIME)):
        if not pattern & bit:
            _optional(out, pattern, name, bit, out.time)


def _optional(out: Layout, pattern: int, name: str, bit: int, room: Callable[[str], None]) -> None:
    """A field that some rows may lack: they have nothing there, not even its name."""
    start = len(out.words)
    out.text(b',"%s":' % name.encode())
    room(name)
    if pattern & bit << SOME:
        out.other(bit, slice(start, len(out.words)))


def _depth(out: Layout, pattern: int) -> None:
    for side, opening in (("bid", b',"depth":{"buy":['), ("ask", b'],"sell":[')):
        out.text(opening)
        for level in range(DEPTH_LEVELS):
            _level_price(out, pattern, side, level)
            out.field(f"{side}_quantity", level)
            out.text(b',"orders":')
            out.field(f"{side}_orders", level)
            out.text(b"}")
    out.text(b"]}")


def _level_price(out: Layout, pattern: int, side: str, level: int) -> None:
    """A level up to its quantity. Where only some rows have the price, it is a piece of its own."""
    name, opening = f"{side}_price", b",{" if level else b"{"
    bit = _no_price(name, level)
    if pattern & bit:
        out.text(opening + b'"quantity":')
    elif pattern & bit << SOME:
        out.text(opening)
        start = len(out.words)
        out.text(b'"price":')
        out.field(name, level)
        out.text(b",")
        out.other(bit, slice(start, len(out.words)))
        out.text(b'"quantity":')
    else:
        out.text(opening + b'"price":')
        out.field(name, level)
        out.text(b',"quantity":')
