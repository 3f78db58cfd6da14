"""Which instrument of one vendor is which of another: by the exchange's number, never by name alone."""

from __future__ import annotations

from datetime import date
from typing import Any

import attrs
import pytest

from marketfeed.enums import Kind
from marketfeed.identity import DoubtKind, diff_tables, exchange_token, kite_token, map_tables
from marketfeed.instruments import Instrument, InstrumentTable


def kite(symbol: str, number: int, **more: Any) -> Instrument:
    return _make("kite", symbol, str(number * 256 + 1), number, more)


def noren(symbol: str, number: int, **more: Any) -> Instrument:
    return _make("flattrade", symbol, f"NSE|{number}", number, more)


def _make(vendor: str, symbol: str, token: str, number: int, more: dict[str, Any]) -> Instrument:
    plain = Instrument(exchange="NSE", symbol=symbol, token=token, vendor=vendor, exchange_token=str(number))
    return attrs.evolve(plain, **more)


def test_a_pair_has_one_number_whatever_its_names() -> None:
    same, renamed = kite("INFY", 1594), kite("TMPV", 3456)
    mapping = map_tables(
        InstrumentTable([same, renamed]), InstrumentTable([noren("TATAMOTORS", 3456), noren("INFY", 1594)])
    )
    assert [(a.symbol, b.symbol) for a, b in mapping] == [("INFY", "INFY"), ("TMPV", "TATAMOTORS")]
    assert [str(one) for one in mapping.doubts] == [
        "NSE:TMPV is called NSE:TATAMOTORS by flattrade (exchange token 3456)"
    ]
    assert mapping.only_a == mapping.only_b == ()


def test_one_name_with_two_numbers_is_no_pair() -> None:
    mapping = map_tables(InstrumentTable([kite("PRAXIS", 1204)]), InstrumentTable([noren("PRAXIS", 1216)]))
    assert len(mapping) == 0
    assert (len(mapping.only_a), len(mapping.only_b)) == (1, 1)
    assert [one.kind for one in mapping.doubts] == [DoubtKind.TOKEN]
    assert "1204 at kite, 1216 at flattrade; not mapped" in str(mapping.doubts[0])


@pytest.mark.parametrize(
    "other",
    [{"expiry": date(2026, 12, 29)}, {"strike": 24500.0}, {"kind": Kind.PUT}, {"exchange": "BFO"}],
    ids=["expiry", "strike", "kind", "exchange"],
)
def test_a_number_that_was_used_again_is_no_pair(other: dict[str, Any]) -> None:
    call: dict[str, Any] = {"exchange": "NFO", "kind": Kind.CALL, "expiry": date(2026, 11, 24), "strike": 24000.0}
    a = InstrumentTable([kite("C", 48000, **call)])
    assert len(map_tables(a, InstrumentTable([noren("C", 48000, **call)]))) == 1
    assert len(map_tables(a, InstrumentTable([noren("C", 48000, **{**call, **other})]))) == 0


def test_series_are_told_apart_at_nse_and_groups_of_bse_are_not() -> None:
    a = InstrumentTable([kite("X", 1, series="EQ"), kite("Y", 2, exchange="BSE", series="EQ")])
    b = InstrumentTable([noren("X", 1, series="BE"), noren("Y", 2, exchange="BSE", series="A")])
    assert [one.symbol for one, _ in map_tables(a, b)] == ["Y"]


def test_indices_are_paired_by_the_table_of_their_numbers() -> None:
    index: dict[str, Any] = {"kind": Kind.INDEX}
    a = InstrumentTable(
        [kite("NIFTY 50", 1001, **index), kite("NIFTY BANK", 1016, **index), kite("NIFTY IT", 1, **index)]
    )
    b = InstrumentTable(
        [noren("NIFTY 50", 26000, **index), noren("NIFTY BANK", 26000, **index), noren("NIFTY IT", 2, **index)]
    )
    mapping = map_tables(a, b)
    assert [(one.symbol, other.exchange_token) for one, other in mapping] == [("NIFTY 50", "26000")]
    assert [one.kind for one in mapping.doubts] == [DoubtKind.INDEX, DoubtKind.INDEX]
    # A share that has an index's number by chance is not the index.
    assert len(map_tables(InstrumentTable([kite("A", 26000)]), b)) == 0


def test_other_sizes_are_told_and_unknown_ones_are_not() -> None:
    a = InstrumentTable([kite("A", 1, tick_size=0.1), kite("B", 2, tick_size=0.1), kite("C", 3, lot_size=100)])
    b = InstrumentTable([noren("A", 1, tick_size=0.05), noren("B", 2, tick_size=0.0), noren("C", 3)])
    mapping = map_tables(a, b)
    assert len(mapping) == 3
    assert [str(one) for one in mapping.doubts] == [
        "NSE:A: tick size 0.1 at kite, 0.05 at flattrade",
        "NSE:C: lot size 100 at kite, 1 at flattrade",
    ]
    assert mapping.counts() == {DoubtKind.TICK_SIZE: 1, DoubtKind.LOT_SIZE: 1}


def test_no_instrument_is_in_two_pairs() -> None:
    twice = InstrumentTable([kite("A", 1), kite("A2", 1)])
    mapping = map_tables(twice, InstrumentTable([noren("A", 1)]))
    assert (len(mapping), [one.symbol for one in mapping.only_a]) == (1, ["A2"])


def test_the_number_of_the_exchange_is_read_from_every_vendors_token() -> None:
    tokens = [("kite", "738561"), ("flattrade", "NSE|2885"), ("mstock", "1:2885"), ("mstock", "2885"), ("", "2885")]
    assert {exchange_token(vendor, token) for vendor, token in tokens} == {"2885"}
    assert exchange_token("kite", "x") == exchange_token("kite", "") == ""
    assert kite_token("NSE", "2885") == "738561"
    assert kite_token("NSE", "1001", index=True) == "256265"
    assert kite_token("NCO", "1") == ""


def test_two_days_differ_in_what_is_new_gone_renamed_and_changed() -> None:
    old = InstrumentTable([kite("SAME", 1), kite("TATAMOTORS", 3456), kite("LOT", 2), kite("GONE", 3)])
    new = InstrumentTable([kite("NEW", 4), kite("SAME", 1), kite("LOT", 2, lot_size=5), kite("TMPV", 3456)])
    changes = diff_tables(old, new)
    assert [(one.kind, (one.new or one.old or kite("", 0)).symbol) for one in changes] == [
        *(("renamed", "TMPV"), ("changed", "LOT"), ("gone", "GONE"), ("new", "NEW")),
    ]
    assert changes[1].fields == {"lot_size": (1, 5)}
    assert diff_tables(new, new) == []
