"""Batches: views of rows with names, and the same values in every form that they can be had in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from marketfeed.batches import CandleBatch, Origin, TickBatch
from marketfeed.clock import to_ns
from marketfeed.dtypes import CANDLE, FLAG_GROUPS, TICK, TICK_BLOCKS, CandleFlag, Flag, empty_ticks
from marketfeed.enums import Interval, Mode
from marketfeed.instruments import Instrument

NAMES = ("RELIANCE", "INFY", "TCS")
INSTRUMENTS = tuple(
    Instrument(exchange=exchange, symbol=symbol, token=str(100 + number))
    for number, (exchange, symbol) in enumerate([*(("NSE", name) for name in NAMES), ("BSE", "INFY")])
)
ORIGIN = Origin(INSTRUMENTS, feed="main", vendor="kite", journal="ab.1")


def ticks(numbers: list[int], first_row: int = 0) -> TickBatch:
    """One tick per instrument number; the price is the row's place, so that rows can be told apart."""
    rows = empty_ticks(len(numbers))
    rows["instrument"] = numbers
    rows["last_price"] = np.arange(len(numbers)) + 0.5
    return TickBatch(rows, ORIGIN, first_row)


numbers = st.lists(st.integers(0, len(INSTRUMENTS) - 1), max_size=12)
bounds = st.none() | st.integers(-15, 15)


def same(batch: TickBatch, prices: NDArray[Any], seq: NDArray[np.int64]) -> None:
    assert batch["last_price"].tolist() == prices.tolist()
    assert batch.seq.tolist() == seq.tolist()
    assert [tick.seq for tick in batch] == seq.tolist()


@given(numbers, st.integers(0, 10**12), bounds, bounds, st.none() | st.integers(-3, 3).filter(bool))
def test_a_slice_is_numpys_slice_and_keeps_its_row_numbers(
    which: list[int], first: int, start: int | None, stop: int | None, step: int | None
) -> None:
    batch, places = ticks(which, first), np.arange(len(which))[slice(start, stop, step)]
    same(batch[slice(start, stop, step)], places + 0.5, places + first)


@given(st.data(), numbers, st.integers(0, 10**12))
def test_a_filter_is_numpys_filter_also_of_a_filtered_batch(data: st.DataObject, which: list[int], first: int) -> None:
    batch, places = ticks(which, first), np.arange(len(which))
    for _ in range(2):
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places))), bool)
        batch, places = batch[mask], places[mask]
        same(batch, places + 0.5, places + first)
    same(batch[1:3], places[1:3] + 0.5, places[1:3] + first)


@given(numbers, st.sampled_from(NAMES))
def test_where_keeps_the_rows_of_a_symbol_in_order(which: list[int], symbol: str) -> None:
    batch = ticks(which).where(symbol=symbol)
    wanted = [place for place, number in enumerate(which) if INSTRUMENTS[number].symbol == symbol]
    assert batch.seq.tolist() == wanted
    assert {tick.symbol for tick in batch} <= {symbol}


def test_where_takes_a_key_an_exchange_and_a_token() -> None:
    batch = ticks([0, 1, 3, 1])
    assert batch.where(symbol="NSE:INFY").seq.tolist() == [1, 3]
    assert batch.where(symbol="INFY", exchange="BSE").seq.tolist() == [2]
    assert batch.where(token="100").seq.tolist() == [0]
    assert len(batch.where(symbol="WIPRO")) == 0
    assert batch.symbols == ["NSE:RELIANCE", "NSE:INFY", "BSE:INFY", "NSE:INFY"]


def test_an_item_by_number_counts_from_either_end_and_knows_its_limits() -> None:
    batch = ticks([0, 1, 2], 7)
    assert (batch[0].seq, batch[-1].seq, batch[-1].symbol) == (7, 9, "TCS")
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            batch[wrong]


def test_nobody_can_change_a_batch() -> None:
    rows = empty_ticks(2)
    batch = TickBatch(rows, ORIGIN)
    with pytest.raises(ValueError, match="read-only"):
        batch["last_price"][0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        batch[1:].rows["volume"] = 3
    rows["last_price"] = 2.0  # the array that it was made from stays its owner's
    assert batch["last_price"].tolist() == [2.0, 2.0]


def test_an_item_has_the_fields_of_the_row_and_no_other() -> None:
    rows = empty_ticks(1)
    rows["instrument"] = 1
    rows["bid_price"] = [5, 4, 3, 2, 1]
    rows["flags"] = Mode.FULL | Flag.DEPTH
    tick = TickBatch(rows, ORIGIN, 4)[0]
    assert tick.bid_price == (5.0, 4.0, 3.0, 2.0, 1.0)
    assert (tick.exchange, tick.symbol, tick.token, tick.mode) == ("NSE", "INFY", "101", Mode.FULL)
    assert type(tick.volume) is int
    assert repr(tick) == "<Tick NSE:INFY #4>"
    assert set(TICK.names or ()) <= set(dir(tick))
    with pytest.raises(AttributeError, match="no field 'bid'"):
        tick.bid  # noqa: B018


def test_derived_columns_are_missing_without_both_sides() -> None:
    rows = empty_ticks(3)
    rows["bid_price"][:2, 0], rows["ask_price"][:2, 0] = [100.0, 0.0], [101.0, 101.0]  # an empty level is a price of 0
    rows["bid_quantity"][:, 0], rows["ask_quantity"][:, 0] = [30, 10, 0], [10, 10, 0]
    batch = TickBatch(rows, ORIGIN)
    np.testing.assert_array_equal(batch.mid_price, [100.5, np.nan, np.nan])
    np.testing.assert_array_equal(batch.bid_ask_spread, [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(batch.order_imbalance, [0.5, 0.0, np.nan])
    np.testing.assert_array_equal(batch.microprice, [100.75, np.nan, np.nan])  # nearer to the side with less behind it


# --- layout ---------------------------------------------------------------------------------------


def test_a_row_is_360_bytes_in_three_blocks() -> None:
    assert TICK.itemsize == 360
    assert CANDLE.itemsize % 8 == 0
    fields: Mapping[str, Any] = TICK.fields or {}
    for name, unit in (("int64", 8), ("float64", 8), ("int32", 4)):
        block = TICK_BLOCKS[name]
        inside = [one for one, (kind, place, *_) in fields.items() if block.start <= place / unit < block.stop]
        assert {np.dtype(fields[one][0].base).itemsize for one in inside} == {unit}
    assert sum(block.stop - block.start for block in TICK_BLOCKS.values()) == 20 + 18 + 14


def test_in_an_empty_row_everything_is_absent() -> None:
    row = empty_ticks(2)[1]
    for name in TICK.names or ():
        value = row[name]
        assert (
            np.isnan(value).all() if value.dtype.kind == "f" else (value == (-1 if name == "instrument" else 0)).all()
        )


def test_each_group_has_a_bit_of_its_own_and_fields_of_its_own() -> None:
    fields = [field for group in FLAG_GROUPS.values() for field in group]
    assert len(fields) == len(set(fields))
    assert set(fields) <= set(TICK.names or ())
    assert all(4 <= flag.bit_length() - 1 <= 15 for flag in FLAG_GROUPS)
    assert len({int(flag) for flag in Flag}) == len(Flag)


# --- frames and tables ----------------------------------------------------------------------------


@pytest.fixture
def two_ticks() -> TickBatch:
    """One with everything, and one of an index that holds little."""
    rows = empty_ticks(2)
    rows["instrument"] = [0, 1]
    rows["last_price"] = [2543.15, 1541.7]
    rows["received_ns"] = to_ns("2026-11-20 10:00:00.250")
    rows["exchange_ns"][0] = to_ns("2026-11-20 10:00:00")
    rows["volume"] = [2**53 + 1, 0]  # more than a float can tell apart
    rows["bid_price"][0] = [5, 4, 3, 2, 1]
    rows["bid_orders"][0] = [1, 2, 3, 4, 5]
    rows["flags"] = [int(sum(FLAG_GROUPS)), int(Mode.LTP)]
    return TickBatch(rows, ORIGIN, 40)


def test_a_frame_has_india_time_names_and_missing_values(two_ticks: TickBatch) -> None:
    frame = two_ticks.to_pandas()
    assert frame["seq"].tolist() == [40, 41]
    assert frame["symbol"].tolist() == ["NSE:RELIANCE", "NSE:INFY"]
    assert str(frame["exchange_time"][0]) == "2026-11-20 10:00:00+05:30"
    assert str(frame["received_time"][1]) == "2026-11-20 10:00:00.250000+05:30"
    assert pd.isna(frame["exchange_time"][1])
    assert frame["volume"][0] == 2**53 + 1
    assert pd.isna(frame["volume"][1])
    assert frame["bid_price_0"].tolist()[0] == 5.0
    assert frame["bid_orders_4"][0] == 5
    assert frame[[f"bid_{what}_{level}" for what in ("price", "orders") for level in range(5)]].iloc[1].isna().all()
    assert not {"check", "spare", "exchange_ns", "bid_price"} & set(frame.columns)


def test_a_table_has_utc_times_lists_and_nulls(two_ticks: TickBatch) -> None:
    table = two_ticks.to_arrow()
    first, second = table.to_pylist()
    assert str(table.schema.field("exchange_time").type) == "timestamp[ns, tz=UTC]"
    assert table.column("exchange_time").cast("int64").to_pylist() == [to_ns("2026-11-20 10:00:00"), None]
    assert (first["seq"], first["symbol"], first["volume"]) == (40, "NSE:RELIANCE", 2**53 + 1)
    assert first["bid_price"] == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert first["bid_orders"] == [1, 2, 3, 4, 5]
    assert second["last_price"] == 1541.7
    for absent in ("volume", "open", "open_interest", "lower_circuit", "last_trade_time"):
        assert second[absent] is None
    assert second["bid_orders"] is None
    assert second["bid_price"] == [None] * 5


@given(numbers, st.integers(0, 2**16 - 1).map(lambda bits: bits & 0xFFF0))
def test_absent_in_the_flags_is_missing_in_frame_and_table(which: list[int], bits: int) -> None:
    batch = ticks(which)
    rows = batch.rows.copy()
    rows["flags"] = bits
    batch = TickBatch(rows, ORIGIN)
    frame, table = batch.to_pandas(), batch.to_arrow()
    assert len(frame) == table.num_rows == len(which)
    for flag, fields in FLAG_GROUPS.items():
        for name in fields:
            if rows[name].dtype.kind == "i" and rows[name].ndim == 1 and not name.endswith("_ns"):
                missing = 0 if bits & flag else len(which)
                assert frame[name].isna().sum() == table.column(name).null_count == missing


def test_candles_come_with_names_of_intervals_and_without_an_open_interest_of_minus_one() -> None:
    rows = np.zeros(2, CANDLE)
    rows["start_ns"] = [to_ns("2026-11-20 09:15"), to_ns("2026-11-20 09:16")]
    rows["interval"], rows["instrument"] = Interval.M1.seconds, 1
    rows["close"], rows["open_interest"] = [1541.5, 1542.0], [-1, 7]
    rows["flags"][1] = CandleFlag.PARTIAL
    batch = CandleBatch(rows, ORIGIN)
    assert batch.intervals == [Interval.M1, Interval.M1]
    assert batch[1].flags == CandleFlag.PARTIAL
    assert [bar.symbol for bar in batch] == ["INFY", "INFY"]
    frame = batch.to_pandas()
    assert str(frame["start_time"][0]) == "2026-11-20 09:15:00+05:30"
    assert frame["open_interest"].isna().tolist() == [True, False]
    assert batch.to_arrow().column("open_interest").to_pylist() == [None, 7]
