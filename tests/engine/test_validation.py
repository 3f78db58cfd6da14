"""Every reason of validation with rows made by hand, what happens to them, and what is never doubted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest

from marketfeed.clock import NS, to_ns
from marketfeed.config import ValidationConfig
from marketfeed.dtypes import MODE_MASK, REASON_MASK, Flag, Rows, empty_ticks
from marketfeed.engine.validation import REASONS, Validator, validate
from marketfeed.enums import Exchange, Kind, Mode
from marketfeed.instruments import Instrument

NOON = to_ns("2026-11-20T12:00:00")
FULL = (
    Mode.FULL | Flag.QUANTITIES | Flag.OHLC | Flag.DEPTH | Flag.OPEN_INTEREST | Flag.EXCHANGE_TIME | Flag.TRADE_TIME
    | Flag.CIRCUITS | Flag.VOLUME | Flag.OI_RANGE
)  # fmt: skip


def ticks(count: int, instrument: int = 0, start_s: int = 0) -> Rows:
    """Good full rows, one a second."""
    rows = empty_ticks(count)
    second = np.arange(start_s, start_s + count)
    rows["instrument"], rows["flags"] = instrument, FULL
    rows["exchange_ns"] = NOON + second * NS
    rows["received_ns"] = rows["exchange_ns"] + NS // 5
    rows["last_price"], rows["average_price"] = 100 + 0.05 * (second % 7), 100
    rows["open"], rows["high"], rows["low"], rows["close"] = 100, 102, 98, 99
    rows["volume"] = 1000 + 10 * second
    rows["bid_price"], rows["ask_price"] = 99.95 - 0.05 * np.arange(5), 100.4 + 0.05 * np.arange(5)
    rows["lower_circuit"], rows["upper_circuit"] = 90, 110
    return rows


def reasons(rows: Rows) -> list[Flag]:
    return [Flag(flags & REASON_MASK) for flags in rows["flags"].tolist()]


def lenient(**actions: Any) -> ValidationConfig:
    """Rows that are doubted stay where they are, so that a test sees their flags."""
    return ValidationConfig(not_finite="keep", not_positive="keep", **actions)


def change(**fields: Any) -> Callable[[Rows], None]:
    def apply(row: Rows) -> None:
        for name, value in fields.items():
            row[name] = value

    return apply


def spike(row: Rows) -> None:
    row["last_price"], row["high"], row["upper_circuit"] = 130, 130, 130


def repeat(row: Rows) -> None:
    row["received_ns"] += NS


ONE_ROW = {
    "not finite": (change(high=np.inf), Flag.NOT_FINITE),
    "no last price although there were trades": (change(last_price=np.nan), Flag.NOT_FINITE),
    "an infinite level of the book": (change(ask_price=[[100.4, 100.5, 100.6, 100.7, np.inf]]), Flag.NOT_FINITE),
    "a price of 0 with a volume": (change(last_price=0), Flag.NOT_POSITIVE),
    "above the day's high": (change(last_price=102.05), Flag.OHLC_INCONSISTENT),
    "low above high": (change(low=103), Flag.OHLC_INCONSISTENT),
    "open below low": (change(open=97), Flag.OHLC_INCONSISTENT),
    "above the upper circuit": (change(upper_circuit=99.9), Flag.OUTSIDE_CIRCUIT),
    "below the lower circuit": (change(lower_circuit=101), Flag.OUTSIDE_CIRCUIT),
    "crossed": (change(ask_price=[[99.9, 100.5, 100.6, 100.7, 100.8]]), Flag.CROSSED_DEPTH),
    "unsorted bids": (change(bid_price=[[99, 99.5, 98, 97, 96]]), Flag.UNSORTED_DEPTH),
    "unsorted asks": (change(ask_price=[[100.4, 100.5, 100.6, 100.7, 100.45]]), Flag.UNSORTED_DEPTH),
    "time zero": (change(exchange_ns=0), Flag.TIME_ZERO),
    "time zero, and its flag gone with it": (
        change(exchange_ns=0, flags=FULL & ~Flag.EXCHANGE_TIME), Flag.TIME_ZERO,
    ),
    "in the future": (change(exchange_ns=NOON + 3600 * NS), Flag.TIME_AHEAD),
    "stepping back": (change(exchange_ns=NOON + 3 * NS), Flag.TIME_BACK),
    "volume stepping back": (change(volume=1010), Flag.VOLUME_BACK),
    "spike": (spike, Flag.PRICE_SPIKE),
    "unknown instrument": (change(instrument=-1), Flag.UNKNOWN_INSTRUMENT),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_ROW)
@pytest.mark.parametrize("size", [1, 20])
def test_the_bad_row_is_found_and_no_other(case: str, size: int) -> None:
    poison, expected = ONE_ROW[case]
    rows = ticks(20)
    poison(rows[12:13])
    validator = Validator(lenient())
    for start in range(0, 20, size):
        validator.check(rows[start : start + size])
    assert reasons(rows) == [expected if place == 12 else Flag(0) for place in range(20)]
    assert {flag: count for flag, count in validator.counts.items() if count} == {expected: 1}


def test_an_exact_repeat_is_the_same_row_received_again() -> None:
    rows = ticks(4)[[0, 1, 1, 2]]
    rows["received_ns"][2] += NS
    validate(rows)
    assert reasons(rows) == [Flag(0), Flag(0), Flag.REPEAT, Flag(0)]


@pytest.mark.parametrize("field", ["last_price", "volume", "open_interest", "bid_orders", "ask_price", "last_trade_ns"])
def test_a_row_that_differs_in_anything_is_no_repeat(field: str) -> None:
    rows = ticks(2)[[0, 0]]
    rows[field][1] = rows[field][1] + 1
    rows["ask_price"][1] += 1 if field == "ask_price" else 0
    assert not reasons(validate(rows).rows)[1] & Flag.REPEAT


def test_a_negative_price_is_a_doubt_unless_a_commodity_future_has_it() -> None:
    crude = Instrument(exchange=Exchange.MCX, symbol="CRUDEOIL20APRFUT", token="1", kind=Kind.FUTURE)
    stock = Instrument(exchange=Exchange.NSE, symbol="INFY", token="2")
    rows = np.concatenate([ticks(5, number) for number in (0, 1)])
    rows["last_price"] = rows["open"] = rows["high"] = rows["low"] = -2884.0
    for name in ("lower_circuit", "upper_circuit"):
        rows[name] = np.nan
    checked = validate(rows, instruments=[crude, stock])
    assert checked.rows["instrument"].tolist() == [0] * 5
    assert not any(reasons(checked.rows))
    assert {reason: len(bad) for reason, bad in checked.rejected.items()} == {Flag.NOT_POSITIVE: 5}


def never_traded() -> Rows:
    """An option that nobody has bought yet: a book, and zeros."""
    rows = ticks(6)
    for name in ("last_price", "average_price", "open", "high", "low", "volume"):
        rows[name] = 0
    rows["bid_price"][:, 1:] = rows["ask_price"][:, 1:] = 0
    return rows


def without_price() -> Rows:
    """The same at a broker that leaves out what is not there."""
    rows = never_traded()
    for name in ("last_price", "average_price", "open", "high", "low"):
        rows[name] = np.nan
    rows["flags"] &= ~np.uint32(Flag.VOLUME | Flag.OHLC | Flag.QUANTITIES)
    return rows


def index() -> Rows:
    """No volume, no book, no circuits."""
    rows = empty_ticks(6)
    good = ticks(6)
    for name in ("instrument", "exchange_ns", "received_ns", "last_price", "open", "high", "low", "close"):
        rows[name] = good[name]
    rows["flags"] = Mode.FULL | Flag.OHLC | Flag.EXCHANGE_TIME
    return rows


def last_price_only() -> Rows:
    rows = empty_ticks(6)
    for name in ("instrument", "received_ns", "last_price"):
        rows[name] = ticks(6)[name]
    rows["flags"] = int(Mode.LTP)
    return rows


def before_the_open() -> Rows:
    """Yesterday's last price, and no open, high and low yet."""
    rows = ticks(6)
    rows["open"] = rows["high"] = rows["low"] = 0
    return rows


def upper_circuit_hit() -> Rows:
    """Nobody sells: an empty side, an unlimited contract says its limit is 0."""
    rows = ticks(6)
    rows["ask_price"] = rows["upper_circuit"] = 0
    return rows


def cheap_option() -> Rows:
    rows = ticks(6)
    rows["last_price"] = [0.05, 0.1, 0.05, 0.15, 0.05, 0.9]
    rows["open"] = rows["low"] = 0.05
    rows["bid_price"] = rows["ask_price"] = rows["lower_circuit"] = 0
    return rows


def two_days() -> Rows:
    """The volume begins again on the next day, and snapshots of the day before carry its time."""
    rows = ticks(6)
    rows["exchange_ns"][3:] += 86_400 * NS
    rows["received_ns"] = rows["exchange_ns"].max() + np.arange(6) * NS
    rows["volume"] = [1000, 1010, 1020, 0, 5, 10]
    return rows


@pytest.mark.parametrize(
    "make",
    [never_traded, without_price, index, last_price_only, before_the_open, upper_circuit_hit, cheap_option, two_days],
)
def test_what_a_broker_may_well_send_is_not_doubted(make: Callable[[], Rows]) -> None:
    rows = make()
    checked = validate(rows)
    assert reasons(checked.rows) == [Flag(0)] * 6
    assert not checked.rejected


def test_a_late_row_is_compared_with_the_newest_one_and_not_with_the_row_before() -> None:
    rows = ticks(6)[[0, 3, 1, 2, 4, 5]]
    validate(rows)
    late = Flag.TIME_BACK | Flag.VOLUME_BACK
    assert reasons(rows) == [Flag(0), Flag(0), late, late, Flag(0), Flag(0)]


def test_a_stamp_in_the_future_does_not_make_what_follows_look_late() -> None:
    rows = ticks(4)
    rows["exchange_ns"][1] += 3600 * NS
    validate(rows)
    assert reasons(rows) == [Flag(0), Flag.TIME_AHEAD, Flag(0), Flag(0)]


def test_a_price_that_stays_is_a_new_level_after_two_seconds() -> None:
    rows = ticks(20)
    for name in ("last_price", "high", "upper_circuit"):
        rows[name][10:] = 150
    validate(rows)
    assert [place for place, why in enumerate(reasons(rows)) if why == Flag.PRICE_SPIKE] == [10, 11]


def test_spikes_next_to_each_other_do_not_hide_each_other() -> None:
    rows = ticks(20)
    for name in ("last_price", "high", "upper_circuit"):
        rows[name][10], rows[name][13] = 130, 160
    validate(rows)
    assert [place for place, why in enumerate(reasons(rows)) if why] == [10, 13]


def test_actions_part_the_rows_and_a_dead_letter_goes_before_a_drop() -> None:
    config = ValidationConfig(repeat="drop", crossed_depth="dead-letter", unsorted_depth="dead-letter")
    rows = ticks(8)
    rows["last_price"][1] = np.nan
    rows["ask_price"][2, 0] = 1  # crossed
    rows["ask_price"][3] = [1, 0.5, 2, 3, 4]  # crossed and unsorted
    rows[5:6] = rows[4:5]  # a repeat
    rows["ask_price"][6, 0] = 1
    rows[7:8] = rows[6:7]  # a repeat that is crossed, too
    validator = Validator(config)
    checked = validator.check(rows)
    assert checked.rows["exchange_ns"].tolist() == [NOON + second * NS for second in (0, 4)]
    assert {reason: len(bad) for reason, bad in checked.rejected.items()} == {
        Flag.NOT_FINITE: 1,
        Flag.CROSSED_DEPTH: 4,
    }
    assert reasons(checked.rejected[Flag.CROSSED_DEPTH])[1] == Flag.CROSSED_DEPTH | Flag.UNSORTED_DEPTH
    assert validator.status()["repeat"] == {"action": "drop", "rows": 2}
    assert validator.status()["unsorted_depth"] == {"action": "dead-letter", "rows": 1}


def test_a_row_found_not_finite_twice_counts_once() -> None:
    rows = ticks(1)
    rows["last_price"], rows["open"] = np.nan, -np.inf
    validator = Validator()
    validator.check(rows)
    assert validator.counts[Flag.NOT_FINITE] == 1


def test_what_the_message_held_stays_in_the_flags() -> None:
    rows = ticks(2)
    rows["ask_price"][:, 0] = 1
    checked = validate(rows)
    assert [flags & ~REASON_MASK for flags in checked.rows["flags"].tolist()] == [int(FULL)] * 2
    assert checked.rows["flags"][0] & MODE_MASK == Mode.FULL


def test_rows_that_must_not_be_written_to_are_flagged_in_a_copy() -> None:
    rows = ticks(2)
    rows["ask_price"][:, 0] = 1
    rows.flags.writeable = False
    assert reasons(validate(rows).rows) == [Flag.CROSSED_DEPTH] * 2
    assert reasons(rows) == [Flag(0)] * 2


def test_an_empty_batch_is_nothing() -> None:
    assert len(validate(empty_ticks(0)).rows) == 0


def test_instruments_may_come_at_any_time_with_any_number() -> None:
    validator = Validator()
    for number in (3, 70, 5000):
        validator.check(ticks(3, number))
    late = validator.check(ticks(1, 3)).rows
    assert reasons(late) == [Flag.TIME_BACK | Flag.VOLUME_BACK]


def test_every_reason_has_an_action_in_the_configuration() -> None:
    assert {str(flag.name).lower() for flag in REASONS} == {
        name for name, value in attrs.asdict(ValidationConfig()).items() if value in ("keep", "drop", "dead-letter")
    }


def test_rows_that_nobody_needs_any_more_move_together_in_place() -> None:
    rows = ticks(50)
    rows["instrument"][[0, 7, 8, 30, 49]] = -1
    copied, moved = Validator().check(rows.copy()), Validator().check(own := rows.copy(), consume=True)
    assert moved.rows.tobytes() == copied.rows.tobytes()
    assert len(moved.rows) == 45
    assert np.shares_memory(moved.rows, own)
    assert {reason: one.tobytes() for reason, one in moved.rejected.items()} == {
        reason: one.tobytes() for reason, one in copied.rejected.items()
    }
