"""A row proves itself and its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.dtypes import CANDLE, TICK, Rows, empty_ticks
from marketfeed.errors import JournalError
from marketfeed.journal.rowcheck import RowCheck


def checked(count: int, first_row: int, seed: int = 1) -> Rows:
    data = np.random.default_rng(seed).integers(0, 256, count * TICK.itemsize, dtype="u1")
    rows: Rows = data.view(TICK)
    RowCheck(TICK).fill(rows, first_row)
    return rows


@given(st.integers(1, 50), st.integers(0, 2**40))
def test_what_was_filled_fits(count: int, first_row: int) -> None:
    assert RowCheck(TICK).leading(checked(count, first_row), first_row) == count


@given(st.integers(0, TICK.itemsize * 8 - 1), st.integers(0, 9))
def test_any_flipped_bit_is_found_in_its_row(bit: int, row: int) -> None:
    rows = checked(10, 500)
    data = rows.view("u1").reshape(10, -1)
    data[row, bit // 8] ^= 1 << bit % 8
    assert RowCheck(TICK).fits(rows, 500).tolist() == [number != row for number in range(10)]


@given(st.integers(0, 2**31), st.integers(1, 2**31))
def test_a_row_in_another_place_does_not_fit(place: int, distance: int) -> None:
    rows = checked(1, place)
    assert not RowCheck(TICK).fits(rows, place + distance).any()


def test_zeros_fit_nowhere() -> None:
    zeros = np.zeros(1000, TICK)
    assert not RowCheck(TICK).fits(zeros, 0).any()


def test_two_rows_that_changed_places_do_not_fit() -> None:
    rows = checked(2, 0)
    assert not RowCheck(TICK).fits(rows[::-1].copy(), 0).any()


def test_leading_counts_up_to_the_first_damage() -> None:
    rows = checked(10, 0)
    rows["volume"][[4, 7]] += 1
    assert RowCheck(TICK).leading(rows, 0) == 4


def test_a_batch_longer_than_any_before_is_filled_too() -> None:
    assert RowCheck(TICK).leading(checked(10_000, 3), 3) == 10_000


def test_the_constants_of_the_format_do_not_change() -> None:
    rows = empty_ticks(2)
    RowCheck(TICK).fill(rows, 41)
    candles = np.zeros(1, CANDLE)
    RowCheck(CANDLE).fill(candles, 0)
    assert (rows["check"].tolist(), candles["check"].tolist()) == (EXPECTED_TICKS, EXPECTED_CANDLES)


EXPECTED_TICKS = [296671807, 2951107568]
EXPECTED_CANDLES = [2654435761]


def test_a_dtype_without_check_is_refused() -> None:
    with pytest.raises(JournalError, match="check"):
        RowCheck(np.dtype([("price", "f8")]))
