"""Identity on real masters: Kite's and Noren's dumps of 2025 and mStock's excerpt, if they are beside the checkout."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from marketfeed_flattrade.instruments import read_master
from marketfeed_kite.instruments import read_instruments
from marketfeed_mstock.instruments import read_type_a

from marketfeed.enums import Kind
from marketfeed.identity import DoubtKind, map_tables
from marketfeed.instruments import InstrumentTable
from marketfeed.selection import select
from marketfeed.symbols import respell_contracts
from marketfeed.universes import Entry, check, read_universe


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "data" / "instruments"


def text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


@pytest.fixture(scope="module")
def kite(folder: Path) -> InstrumentTable:
    return read_instruments(text(folder / "kite_nse_2025-12_trim.csv.gz"))


@pytest.fixture(scope="module")
def noren(folder: Path) -> InstrumentTable:
    return InstrumentTable(read_master(text(folder / "noren_NSE_symbols_2026-01.csv.gz")))


@pytest.fixture(scope="module")
def nifty(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "nifty50_tokens.json").read_text())
    return document


def test_no_wrong_pair_for_nifty_50_and_the_indices(
    kite: InstrumentTable, noren: InstrumentTable, nifty: dict[str, Any]
) -> None:
    pairs = {a.token: b.exchange_token for a, b in map_tables(kite, noren)}
    truth = {one["tokens"]["kite"]: one["tokens"]["flattrade"] for one in nifty["instruments"] + nifty["indices"]}
    listed = {token: number for token, number in truth.items() if kite.by_token(token) is not None}
    assert len(listed) >= 51
    assert {token: pairs.get(token) for token in listed} == listed
    indices = {a.symbol: b.exchange_token for a, b in map_tables(kite, noren) if a.kind == Kind.INDEX}
    assert indices == {
        "NIFTY 50": "26000",
        "NIFTY BANK": "26009",
        "INDIA VIX": "26017",
        "NIFTY FIN SERVICE": "26037",
        "NIFTY MID SELECT": "26074",
        "NIFTY NEXT 50": "26013",
    }


def test_every_pair_has_one_name_but_for_what_was_renamed(kite: InstrumentTable, noren: InstrumentTable) -> None:
    mapping = map_tables(kite, noren)
    assert len(mapping) > 1200
    renamed = {one.a.key for one in mapping.doubts if one.kind is DoubtKind.RENAMED}
    assert {a.key for a, b in mapping if a.key != b.key} == renamed
    assert {one.a.symbol for one in mapping.doubts if one.kind is DoubtKind.TICK_SIZE} >= {"HDFCBANK", "BAJFINANCE"}
    # What is left over is told apart by the exchange: another series has another number.
    numbers = {one.exchange_token for one in noren if one.kind != Kind.INDEX}
    assert not [one for one in mapping.only_a if one.kind != Kind.INDEX and one.exchange_token in numbers]


def test_kites_spelling_of_contracts_is_reproduced(folder: Path) -> None:
    table = read_instruments(text(folder / "kite_nfo_2025-12_trim.csv.gz"))
    assert [one.symbol for one in respell_contracts(table)] == [one.symbol for one in table]
    assert len(table) > 600


@pytest.mark.parametrize(
    "market", ["NFO_symbols_2025-11_sample", "CDS_symbols_2024-01_trim", "MCX_symbols_2024-01_trim"]
)
def test_norens_contracts_get_symbols_of_their_own(folder: Path, market: str) -> None:
    raw = text(folder / f"noren_{market}.csv")
    found = read_master(raw)
    assert len(found) == len({one.key for one in found}) == len(list(csv.reader(raw.splitlines()))) - 1
    future = [one for one in found if one.kind == Kind.FUTURE]
    assert all(one.symbol.endswith("FUT") and one.strike == 0 for one in future)
    assert all(one.symbol.startswith(one.name) for one in found)


def test_the_expiring_contracts_of_one_stock(folder: Path) -> None:
    found = read_master(text(folder / "noren_NFO_symbols_2025-11_sample.csv"))
    one = InstrumentTable(found)["NFO:IDFCFIRSTB25NOV85PE"]
    assert (one.expiry, one.strike, one.lot_size, one.trading_symbol) == (
        *(date(2025, 11, 25), 85.0, 9275, "IDFCFIRSTB25NOV25P85"),
    )


def test_mstocks_series_are_told_apart_and_map_by_number(folder: Path, kite: InstrumentTable) -> None:
    mstock = InstrumentTable(read_type_a((folder / "mstockA_scripmaster_excerpt.csv").read_text()))
    keys = [one.key for one in mstock if one.symbol.startswith("HAPPSTMNDS")]
    assert keys == [f"NSE:HAPPSTMNDS{tail}" for tail in ("", "-RL", "-BE", "-BL", "-IQ")]
    assert mstock["CDS:USDINR25MAR83.25CE"].name == "USDINR"
    pairs = [(a.key, b.key) for a, b in map_tables(mstock, kite)]
    assert {("NSE:ADANIENT", "NSE:ADANIENT"), ("NSE:APOLLOHOSP", "NSE:APOLLOHOSP")} <= set(pairs)
    assert all(a == b for a, b in pairs)


def test_the_built_in_list_holds_in_both_masters(
    kite: InstrumentTable, noren: InstrumentTable, nifty: dict[str, Any]
) -> None:
    assert {one.symbol for one in read_universe("nifty50")} == {one["symbol"] for one in nifty["instruments"]}
    found = select(["@nifty50"], noren, vendor="flattrade", today=date(2026, 1, 2))
    assert (len(found.instruments), found.problems) == (50, ())
    assert [note for note in found.notes if "TMPV is NSE:TATAMOTORS" in note] == list(found.notes)
    wrong = [check(one, kite, "kite") for one in read_universe("nifty50") if one.key in kite]
    assert not [one for one in wrong if one.problems]


@pytest.mark.parametrize(
    ("symbol", "tokens", "right"),
    [
        ("RELIANCE", {"kite": "256265"}, "738561"),
        ("LT", {"kite": "500510", "mstock": "11483"}, "2939649"),
        ("APOLLOHOSP", {"kite": "5473281"}, "40193"),
        ("SHRIRAMFIN", {"mstock": "18096"}, "4306"),
        ("INDIAVIX", {"kite": "260093"}, "264969"),
    ],
)
def test_the_known_wrong_pairs_are_refused_in_both_masters(
    kite: InstrumentTable, noren: InstrumentTable, symbol: str, tokens: dict[str, str], right: str
) -> None:
    for table, vendor in ((kite, "kite"), (noren, "flattrade")):
        (problem,) = check(Entry(symbol=symbol, tokens=tokens), table, vendor).problems
        assert f"is wrong, the right one is {right}" in problem


def test_the_right_tokens_of_all_vendors_pass(
    kite: InstrumentTable, noren: InstrumentTable, nifty: dict[str, Any]
) -> None:
    for row in nifty["instruments"]:
        entry = Entry(symbol=row["symbol"], tokens=row["tokens"])
        for table, vendor in ((kite, "kite"), (noren, "flattrade")):
            result = check(entry, table, vendor)
            if vendor == "flattrade" or entry.key in table:
                assert result.instrument is not None, result.problems
