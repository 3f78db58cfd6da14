"""The search index gives what looking at every text would give."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.enums import Kind
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.lookup import TextIndex

WORDS = st.text("ABé-&. 5", max_size=6)
TEXTS = st.lists(WORDS, max_size=30)


@given(TEXTS, st.text("ABÉ-5", min_size=1, max_size=3))
def test_pieces_and_beginnings_are_those_of_a_search_through_all(texts: list[str], piece: str) -> None:
    index, upper = TextIndex(texts), [text.upper() for text in texts]
    assert index.containing(piece).tolist() == [n for n, text in enumerate(upper) if piece in text]
    assert index.beginning(piece).tolist() == [n for n, text in enumerate(upper) if text.startswith(piece)]
    assert index.equal(piece).tolist() == [n for n, text in enumerate(upper) if text == piece]


@given(TEXTS, st.text("AB5-*?[]!", max_size=6))
def test_globs_are_those_of_fnmatch(texts: list[str], pattern: str) -> None:
    expected = [n for n, text in enumerate(texts) if fnmatch.fnmatchcase(text.upper(), pattern.upper())]
    assert TextIndex(texts).glob(pattern).tolist() == expected


@pytest.mark.parametrize("piece", ["A", "AB", "ABCD", "D000", "D2999"])
def test_a_piece_of_most_texts_is_found_in_all_of_them(piece: str) -> None:
    texts = [f"ABCABCD{number:04d}" for number in range(3000)]
    assert TextIndex(texts).containing(piece).tolist() == [n for n, text in enumerate(texts) if piece in text]


def test_the_best_hits_come_first() -> None:
    names = [("BANKNIFTY26NOVFUT", "BANKNIFTY"), ("NIFTY26NOVFUT", "NIFTY"), ("NIFTYBEES", "x"), ("X", "of NIFTY")]
    table = InstrumentTable(
        Instrument(exchange="NFO", symbol=symbol, token=symbol, name=name, kind=Kind.FUTURE) for symbol, name in names
    )
    found = [one.symbol for one in table.find("nifty")]
    assert found == ["NIFTY26NOVFUT", "NIFTYBEES", "BANKNIFTY26NOVFUT", "X"]
    assert [one.symbol for one in table.find("nfo:nifty")] == ["NIFTY26NOVFUT", "NIFTYBEES"]
    assert len(table.find("")) == len(table.find("*")) == 4
    assert table.find("nifty", exchange="NSE") == table.find("nifty", kind="CE") == []


def test_an_empty_table_has_no_hits() -> None:
    table = InstrumentTable([])
    assert table.find("A") == table.search("A*") == table.search("*") == table.contracts("A") == []
