"""Numbers as text, many at a time: what :mod:`marketfeed.sinks.bulk` puts into the rooms of a template.

All digits come out of one table of the texts of four digits: some divisions, one look-up, one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import TICK_BLOCKS
from marketfeed.sinks.template import NO_EXCHANGE_TIME, NO_PRICE, NO_TRADE_TIME, Layout

__all__ = ["Reader", "Unusual"]

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_PRICES: Final = TICK_BLOCKS["float64"]
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


class Unusual(Exception):
    """A value that has no room in the template."""


class Values(NamedTuple):
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


class Reader:
    """Takes the fields of one pattern out of rows, and knows the plans for their sizes."""

    def __init__(self, layout: Callable[..., Layout]) -> None:
        self._layout = layout
        self._plans: dict[tuple[frozenset[str], bool, int], Plan] = {}
        fields = layout(frozenset(), cents=True).fields
        self._plain, self._orders, self._prices, self._counts, self._times = (
            np.array(fields[kind], np.intp) for kind in ("plain", "orders", "whole", "low", "ends")
        )
        self._price_of = {1 << NO_PRICE + word - _PRICES.start: at for at, word in enumerate(self._prices.tolist())}
        """Bit of a missing price -> its column here."""

    def read(self, rows: Any, seq: Ints, some: dict[int, Ints]) -> Values:
        """``some``: by its bit, the rows without a field that others have.

        Raises ``Unusual`` for a value that has no room.
        """
        words = rows.view("i8").reshape(len(rows), -1)
        short: list[str] = []
        plain = _checked(words[:, self._plain], _E8, short, "plain")
        orders = _checked(rows.view("i4").reshape(len(rows), -1)[:, self._orders], _E8, short, "orders")
        counts = np.empty((len(rows), len(self._counts) + 1), np.int64)
        counts[:, 0], counts[:, 1:] = seq, words[:, self._counts]
        _checked(counts, _E16, short, "high", _E8)
        bits = words[:, self._prices]
        for bit in some:
            if bit >= 1 << NO_PRICE:
                bits[some[bit], self._price_of[bit]] = 0
        _checked(bits, _PRICE_BITS, short, "whole", _TEN_THOUSAND_BITS)
        whole, fraction, cents = _split(bits.view("f8"))
        times = words[:, self._times]
        for bit, column in ((NO_EXCHANGE_TIME, 0), (NO_TRADE_TIME, -1)):
            if bit in some:
                times[some[bit], column] = rows["received_ns"][some[bit]]
        if int(times.min()) < _EARLIEST_NS:
            raise Unusual
        _checked(times, _LATEST_NS)
        return Values(plain, orders, whole, fraction, counts, times, frozenset(short), cents)

    def plan(self, values: Values, reasons: int) -> Plan:
        """How to write values of these sizes, with this room for doubts."""
        key = (values.short, values.cents, reasons)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = Plan(self._layout(values.short, cents=values.cents, reasons=reasons))
        return plan


_TEN_THOUSAND_BITS: Final = int(np.array(1e4).view("i8"))


def _checked(values: Any, limit: int, short: list[str] | None = None, kind: str = "", small: int = _E4) -> Any:
    """The values, if they lie in ``[0, limit)``; notes the kind as short if all are below ``small``."""
    if not values.size:
        return values
    highest = int(values.max())
    if highest >= limit or int(values.min()) < 0:
        raise Unusual
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
    raise Unusual


class Plan:
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

    def fill(self, values: Values) -> Words:
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
