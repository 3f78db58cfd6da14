"""Templates of JSON lines: the constant text of all rows with the same fields, with room for their values.

A template is a row of 4-byte words. Text is padded with NUL to whole words, and the room of a number is as long
as its longest text; :mod:`marketfeed.sinks.bulk` fills the rooms and deletes what is left NUL.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import DEPTH_LEVELS, PRICE_FIELDS, TICK, Flag
from marketfeed.sinks.columns import FIELDS, GROUP_OF, mode_word, reason_words

__all__ = ["NO_AVERAGE", "NO_EXCHANGE_TIME", "NO_TRADE_TIME", "Layout", "layout_of"]

Words = NDArray[np.uint32]

NO_EXCHANGE_TIME, NO_TRADE_TIME, NO_AVERAGE = 1 << 32, 1 << 33, 1 << 34
"""Bits of a row's pattern above its flags: fields that are absent although no group bit says so."""


def _word(name: str, level: int = 0, size: int = 8) -> int:
    """Place of a field in a row of 8-byte (or 4-byte) words."""
    fields: Any = TICK.fields
    return int(fields[name][1]) // size + level


@attrs.define
class Layout:
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

    def finish(self) -> Layout:
        self.template = np.frombuffer(b"".join(self.words), "u4")
        return self


def layout_of(pattern: int, journal: str, feed: str, names: int) -> Layout:
    """The template of all rows with that pattern; ``names`` is the room for the instrument's names, in words."""
    flags, encode = pattern & 0xFFFFFFFF, msgspec.json.encode
    out = Layout()
    out.text((b'{"journal":%s,"seq":' % encode(journal)) if journal else b'{"seq":')
    out.room("high", "low")
    out.text(b',"feed":%s,' % encode(feed))
    out.names = slice(len(out.words), len(out.words) + names)
    out.words += [bytes(4)] * names
    if mode := mode_word(flags):
        out.text(b',"mode":%s' % encode(mode))
    out.timed = bool(flags & Flag.EXCHANGE_TIME) and not pattern & NO_EXCHANGE_TIME
    out.text(b',"timestamp":')
    out.room("seconds", "rest")
    out.tail("micro", 2)
    if not out.timed:
        out.text(b',"time_source":"received"')
    for name in _times(pattern, timed=out.timed):
        out.text(b',"%s":' % name.encode())
        out.time(name)
    for name in FIELDS:
        if _holds(pattern, name):
            out.text(b',"%s":' % name.encode())
            out.field(name)
    if flags & Flag.DEPTH:
        _depth(out)
    if reasons := reason_words(flags):
        out.text(b',"reasons":%s' % encode(reasons))
    out.text(b"}\n")
    return out.finish()


def _times(pattern: int, *, timed: bool) -> list[str]:
    traded = pattern & Flag.TRADE_TIME and not pattern & NO_TRADE_TIME
    return ["exchange_ns"] * timed + ["received_ns"] + ["last_trade_ns"] * bool(traded)


def _holds(pattern: int, name: str) -> bool:
    if name in GROUP_OF:
        return bool(pattern & GROUP_OF[name])
    return not (name == "average_price" and pattern & NO_AVERAGE)


def _depth(out: Layout) -> None:
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
