"""Instruments: finding them by name, token and glob, and the numbers of their tokens."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.enums import Interval, Kind, Mode
from marketfeed.instruments import Instrument, InstrumentTable, TokenMap

INFY = Instrument(exchange="NSE", symbol="INFY", token="408065")
TABLE = InstrumentTable(
    [
        INFY,
        Instrument(exchange="NSE", symbol="INFIBEAM", token="4451329"),
        Instrument(exchange="BSE", symbol="INFY", token="128053508"),
        Instrument(exchange="NFO", symbol="NIFTY26NOVFUT", token="1", kind=Kind.FUTURE),
        Instrument(exchange="NFO", symbol="NIFTY26NOV25000CE", token="2", kind=Kind.CALL),
        Instrument(exchange="NSE", symbol="INFY", token="3", series="BL"),
    ]
)


def keys(found: list[Instrument]) -> list[str]:
    return [one.key for one in found]


def test_a_key_and_a_token_find_the_first_of_their_name() -> None:
    assert TABLE["NSE:INFY"] is INFY
    assert TABLE.by_token(408065) is TABLE.by_token("408065") is INFY
    assert TABLE.get("NSE:WIPRO") is None
    assert TABLE.by_token("9") is None
    assert "NSE:INFY" in TABLE
    assert len(TABLE) == len(list(TABLE)) == 6


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("NSE:INFI", "did you mean 'NSE:INFY'?"),
        ("INFY", "did you mean NSE:INFY or BSE:INFY?"),
        ("WIPRO", "write it as EXCHANGE:SYMBOL"),
    ],
)
def test_an_unknown_name_says_what_is_near(wrong: str, hint: str) -> None:
    with pytest.raises(KeyError) as error:
        TABLE[wrong]
    assert hint in str(error.value)


def test_a_glob_with_a_colon_matches_keys_and_one_without_symbols() -> None:
    assert keys(TABLE.search("NFO:NIFTY*FUT")) == ["NFO:NIFTY26NOVFUT"]
    assert keys(TABLE.search("inf*", exchange="NSE")) == ["NSE:INFY", "NSE:INFIBEAM", "NSE:INFY"]
    assert keys(TABLE.search("*", kind=Kind.CALL)) == ["NFO:NIFTY26NOV25000CE"]


def test_select_gives_each_once_and_a_sentence_for_each_name_that_fails() -> None:
    found, problems = TABLE.select(["NSE:INFY", "NSE:INF?", "BSE:INFY", "MCX:*", "NSE:NOPE"])
    assert keys(found) == ["NSE:INFY", "NSE:INFY", "BSE:INFY"]  # the second one is another series
    assert len(set(found)) == 3
    assert problems == ["no instrument matches 'MCX:*'", "unknown instrument 'NSE:NOPE'; did you mean 'NSE:INFY'?"]


def test_an_instrument_cannot_change() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        INFY.lot_size = 2  # type: ignore[misc]


tokens = st.integers(0, 2**40)


@given(st.dictionaries(tokens, st.integers(0, 2**31 - 1), max_size=30), st.lists(tokens, max_size=30), st.data())
def test_numbers_of_an_array_are_those_of_the_dictionary(
    known: dict[int, int], others: list[int], data: st.DataObject
) -> None:
    asked = others + (data.draw(st.lists(st.sampled_from(sorted(known)), max_size=30)) if known else [])
    numbers = TokenMap({str(token): number for token, number in known.items()})
    found = numbers.numbers(np.array(asked, np.int64))
    assert found.tolist() == [known.get(token, -1) for token in asked]
    assert found.dtype == np.int32


@pytest.mark.parametrize("kind", [">i4", "<u4", "i8"])
def test_tokens_may_come_in_the_byte_order_of_the_wire(kind: str) -> None:
    assert TokenMap({"408065": 3}).numbers(np.array([408065, 7], kind)).tolist() == [3, -1]


def test_tokens_that_are_added_are_found_at_once_and_the_others_stay() -> None:
    numbers = TokenMap({"5": 0})
    asked = np.array([5, 6])
    assert numbers.numbers(asked).tolist() == [0, -1]
    numbers.add({"6": 1})
    assert numbers.numbers(asked).tolist() == [0, 1]
    assert dict(numbers) == {"5": 0, "6": 1}


def test_tokens_that_are_names_are_found_one_by_one_and_disturb_no_array() -> None:
    numbers = TokenMap({"NSE|22": 0, "22": 1})
    assert numbers["NSE|22"] == 0
    assert numbers.numbers(np.array([22])).tolist() == [1]


def test_the_largest_number_is_a_token_like_others_and_not_the_end_of_the_table() -> None:
    assert TokenMap({}).numbers(np.array([0, np.iinfo(np.int64).max - 1])).tolist() == [-1, -1]


def test_modes_and_intervals_have_words() -> None:
    assert [Mode.of(mode.word) for mode in Mode] == list(Mode)
    assert [one.seconds for one in Interval] == [60, 180, 300, 600, 900, 1800, 3600, 86400]
    with pytest.raises(ValueError, match="choose ltp, quote or full"):
        Mode.of("depth")
