"""Validation against the same rules written down row by row, on random streams cut anywhere."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.clock import NS, to_ns
from marketfeed.config import ValidationConfig
from marketfeed.dtypes import MODE_MASK, PRICE_FIELDS, REASON_MASK, Flag, Rows, empty_ticks
from marketfeed.engine.validation import Validator
from marketfeed.enums import Mode

KEEP = ValidationConfig(not_finite="keep", not_positive="keep")
START = to_ns("2026-11-20T10:00:00")
DAY_NS, INDIA_NS = 86_400 * NS, 19_800 * NS


class Past:
    """What one instrument said."""

    def __init__(self) -> None:
        self.newest = 0
        self.day, self.volume = 0, 0
        self.last: bytes | None = None
        self.slots: dict[int, float] = {}


class Slow:
    """One row at a time, in plain Python."""

    def __init__(self, config: ValidationConfig) -> None:
        self.config = config
        self.past: dict[int, Past] = defaultdict(Past)

    def check(self, row: Rows) -> Flag:
        one = {name: row[name][0].tolist() for name in row.dtype.names or ()}
        found = content(one)
        if one["instrument"] < 0:
            return found | Flag.UNKNOWN_INSTRUMENT
        past = self.past[one["instrument"]]
        return found | self.order(one, past) | repeated(row, past) | self.price(one, past)

    def order(self, one: dict[str, Any], past: Past) -> Flag:
        found = Flag(0)
        time, volume, flags = one["exchange_ns"], one["volume"], one["flags"]
        ahead = time - one["received_ns"] > self.config.ahead_s * NS
        if time <= 0 and (flags & Flag.EXCHANGE_TIME or flags & MODE_MASK == Mode.FULL):
            found |= Flag.TIME_ZERO
        if ahead:
            found |= Flag.TIME_AHEAD
        if 0 < time < past.newest:
            found |= Flag.TIME_BACK
        day = ((time if time > 0 else one["received_ns"]) + INDIA_NS) // DAY_NS
        if flags & Flag.VOLUME:
            if volume < 0 or (day == past.day and volume < past.volume):
                found |= Flag.VOLUME_BACK
            elif not ahead and (day, volume) > (past.day, past.volume):
                past.day, past.volume = day, volume
        if not ahead:
            past.newest = max(past.newest, time)
        return found

    def price(self, one: dict[str, Any], past: Past) -> Flag:
        price, flags = one["last_price"], one["flags"]
        traded = one["volume"] > 0 or one["high"] > 0
        if math.isnan(price):
            says_something = flags & (
                Flag.QUANTITIES | Flag.OHLC | Flag.DEPTH | Flag.OPEN_INTEREST | Flag.CIRCUITS | Flag.VOLUME
                | Flag.OI_RANGE
            )  # fmt: skip
            return Flag.NOT_FINITE if traded or not says_something else Flag(0)
        if price < 0 or (price == 0 and traded):
            return Flag.NOT_POSITIVE
        if price == 0 or math.isinf(price):
            return Flag(0)
        seen = sorted(past.slots.values())
        past.slots[(one["received_ns"] >> 30) % 8] = price
        if len(seen) < 3:
            return Flag(0)
        middle, spread = seen[(len(seen) - 1) // 2], seen[-2] - seen[1]
        far = abs(price - middle) > max(self.config.spike_percent / 100 * middle, 1.0, 3 * spread)
        return Flag.PRICE_SPIKE if far else Flag(0)


def content(one: dict[str, Any]) -> Flag:
    found = Flag(0)
    if any(math.isinf(price) for name in PRICE_FIELDS for price in np.ravel(one[name]).tolist()):
        found |= Flag.NOT_FINITE
    last, low, high, opening = one["last_price"], one["low"], one["high"], one["open"]
    if any(above(*pair) for pair in ((low, high), (opening, high), (last, high), (low, opening), (low, last))):
        found |= Flag.OHLC_INCONSISTENT
    if above(last, one["upper_circuit"]) or above(one["lower_circuit"], last):
        found |= Flag.OUTSIDE_CIRCUIT
    bids, asks = one["bid_price"], one["ask_price"]
    if above(bids[0], asks[0]):
        found |= Flag.CROSSED_DEPTH
    if any(above(bids[level + 1], bids[level]) or above(asks[level], asks[level + 1]) for level in range(4)):
        found |= Flag.UNSORTED_DEPTH
    return found


def above(one: float, other: float) -> bool:
    return one > other and one != 0 and other != 0


def repeated(row: Rows, past: Past) -> Flag:
    row = row.copy()
    row["received_ns"] = row["check"] = row["spare"] = 0
    same = past.last == row.tobytes()
    past.last = row.tobytes()
    return Flag.REPEAT if same else Flag(0)


prices = st.sampled_from(
    [0.0, 99.0, 99.5, 100.0, 100.5, 101.0, 104.0, 106.0, 111.0, 130.0, 0.5, math.nan, math.inf, -5.0]
)
FEW = (Flag.VOLUME, Flag.EXCHANGE_TIME, Flag.OHLC, Flag.DEPTH)


def flags_of(row: Rows) -> int:
    return int(row["flags"][0])


@st.composite
def streams(draw: st.DrawFn) -> Rows:
    """Rows of few instruments, each close to the one before: that is where the rules meet."""
    count = draw(st.integers(1, 60))
    rows = empty_ticks(count)
    received = START
    for place in range(count):
        row = rows[place : place + 1]
        if place and draw(st.integers(0, 9)) == 0:
            row[:] = rows[draw(st.integers(0, place - 1))]
        else:
            row["instrument"] = draw(st.sampled_from([0, 0, 0, 1, 1, 2, 200, -1]))
            flags = int(draw(st.sampled_from([Mode.LTP, Mode.FULL])))
            row["flags"] = flags | sum(flag for flag in FEW if draw(st.integers(0, 5)))
            row["last_price"] = draw(st.one_of(st.floats(99, 101), prices))
            if draw(st.booleans()):
                row["low"], row["high"], row["open"] = draw(prices), draw(prices), draw(prices)
            if draw(st.integers(0, 3)) == 0:
                row["bid_price"], row["ask_price"] = ([[draw(prices) for _ in range(5)]] for _ in range(2))
            if draw(st.integers(0, 3)) == 0:
                row["lower_circuit"], row["upper_circuit"] = draw(prices), draw(prices)
            offset = draw(st.sampled_from([0, 0, 0, -1, -3, 4, 5, 6, 3600, -86_400, 86_400]))
            row["exchange_ns"] = draw(st.sampled_from([0, -1, *[received // NS * NS + offset * NS] * 8]))
            if flags_of(row) & Flag.VOLUME:  # else it is absent, and an absent number is 0 in a row
                row["volume"] = draw(st.sampled_from([place * 10, place * 10, place * 10 - 30, 0, -5]))
        received += draw(st.sampled_from([0, 10**6, NS, NS, 20 * NS]))
        if draw(st.integers(0, 30)) == 0:
            received += DAY_NS
        row["received_ns"] = received
    return rows


@settings(max_examples=300, deadline=None)
@given(streams(), st.lists(st.integers(1, 60), max_size=12))
def test_the_flags_are_those_of_the_rules_wherever_the_stream_is_cut(rows: Rows, cuts: list[int]) -> None:
    slow = Slow(KEEP)
    expected = [slow.check(rows[place : place + 1]) for place in range(len(rows))]
    for few in (24, 0):  # row by row and vectorized: two ways to the same end
        validator = Validator(KEEP, few=few)
        checked, start = rows.copy(), 0
        for size in [*cuts, len(rows)]:
            validator.check(checked[start : start + size])
            start += size
        assert [Flag(flags & REASON_MASK) for flags in checked["flags"].tolist()] == expected


def test_long_streams_of_one_instrument_take_the_vectorized_way_to_the_same_flags() -> None:
    draw = np.random.default_rng(5)
    rows = empty_ticks(3000)
    place = np.arange(3000)
    rows["instrument"] = draw.integers(0, 3, 3000)
    rows["flags"] = int(Mode.FULL | Flag.VOLUME | Flag.EXCHANGE_TIME)
    rows["received_ns"] = START + place * (NS // 20)
    rows["exchange_ns"] = rows["received_ns"] - NS * draw.integers(0, 3, 3000) + NS * 60 * (draw.random(3000) < 0.01)
    rows["last_price"] = (
        100 * np.exp(np.cumsum(draw.normal(0, 4e-3, 3000))) * np.where(draw.random(3000) < 0.02, 1.3, 1)
    )
    rows["volume"] = place * 10 - 100 * draw.integers(0, 2, 3000)
    slow = Slow(KEEP)
    expected = [slow.check(rows[one : one + 1]) for one in range(3000)]
    for size in (3000, 500, 64):
        validator, checked = Validator(KEEP), rows.copy()
        for start in range(0, 3000, size):
            validator.check(checked[start : start + size])
        assert [Flag(flags & REASON_MASK) for flags in checked["flags"].tolist()] == expected
    found = {flag for why in expected for flag in why}
    assert found >= {Flag.PRICE_SPIKE, Flag.TIME_BACK, Flag.VOLUME_BACK, Flag.TIME_AHEAD}
