"""Lists of instruments: read from files, and refused where they contradict the master."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from marketfeed.enums import Kind
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.universes import Entry, check, read_universe


def share(symbol: str, number: int) -> Instrument:
    return Instrument(
        exchange="NSE", symbol=symbol, token=str(number * 256 + 1), vendor="kite", exchange_token=str(number)
    )


def index(symbol: str, number: int) -> Instrument:
    return attrs.evolve(share(symbol, number), token=str(number * 256 + 9), kind=Kind.INDEX)


KITE = InstrumentTable(
    [
        index("NIFTY 50", 1001),
        index("INDIA VIX", 1035),
        *(share("RELIANCE", 2885), share("LT", 11483), share("APOLLOHOSP", 157), share("SHRIRAMFIN", 4306)),
        *(share("TMPV", 3456), share("INFY", 1594)),
    ]
)
NOREN = InstrumentTable(
    attrs.evolve(one, vendor="flattrade", token=f"NSE|{one.exchange_token}") for one in KITE if one.kind != Kind.INDEX
)


# The pairs that an earlier system's own list had, and what is right.
WRONG = [
    ("RELIANCE", "kite", "256265", "738561"),
    ("LT", "kite", "500510", "2939649"),
    ("APOLLOHOSP", "kite", "5473281", "40193"),
    ("SHRIRAMFIN", "mstock", "18096", "4306"),
    ("INDIAVIX", "kite", "260093", "264969"),
]


@pytest.mark.parametrize(("symbol", "vendor", "token", "right"), WRONG, ids=[one[0] for one in WRONG])
def test_the_known_wrong_pairs_are_refused_by_name_with_the_right_token(
    symbol: str, vendor: str, token: str, right: str
) -> None:
    result = check(Entry(symbol=symbol, tokens={vendor: token}), KITE, "kite")
    assert result.instrument is None
    (problem,) = result.problems
    name = "INDIA VIX" if symbol == "INDIAVIX" else symbol
    assert problem.startswith(f"NSE:{name}: {vendor} token {token} is wrong, the right one is {right}")
    assert check(Entry(symbol=symbol, tokens={vendor: right}), KITE, "kite").instrument == KITE[f"NSE:{name}"]


def test_the_owner_of_a_wrong_token_is_named() -> None:
    (problem,) = check(Entry(symbol="RELIANCE", tokens={"kite": "256265"}), KITE, "kite").problems
    assert problem.endswith("(256265 is NSE:NIFTY 50)")
    (problem,) = check(Entry(symbol="RELIANCE", tokens={"mstock": "1594"}), KITE, "kite").problems
    assert problem.endswith("(1594 is NSE:INFY)")


@pytest.mark.parametrize(("symbol", "vendor", "token", "right"), WRONG[:4], ids=[one[0] for one in WRONG[:4]])
def test_a_wrong_token_is_refused_also_where_only_another_vendors_master_is_there(
    symbol: str, vendor: str, token: str, right: str
) -> None:
    (problem,) = check(Entry(symbol=symbol, tokens={vendor: token}), NOREN, "flattrade").problems
    assert f"NSE:{symbol}: {vendor} token {token} is wrong, the right one is {right}" in problem


def test_tokens_of_every_vendor_pass_in_every_spelling() -> None:
    tokens = {"kite": "738561", "mstock": "2885", "flattrade": "NSE|2885"}
    entry = Entry(symbol="RELIANCE", exchange_token="2885", tokens=tokens)
    for table, vendor in ((KITE, "kite"), (NOREN, "flattrade")):
        assert check(entry, table, vendor).instrument == table["NSE:RELIANCE"]


def test_a_renamed_share_is_found_by_what_proves_it() -> None:
    proven = [
        Entry(symbol="TATAMOTORS", exchange_token="3456"),
        Entry(symbol="TATAMOTORS", tokens={"kite": "884737", "mstock": "3456"}),
        Entry(symbol="OLDNAME", formerly="TMPV", tokens={"kite": "884737"}),
    ]
    for entry in proven:
        result = check(entry, KITE, "kite")
        assert result.instrument == KITE["NSE:TMPV"]
        assert "same exchange token, other name" in result.note


def test_one_vendors_token_alone_does_not_make_one_share_another() -> None:
    (problem,) = check(Entry(symbol="NOSUCH", tokens={"kite": "738561"}), KITE, "kite").problems
    assert "its token is that of NSE:RELIANCE" in problem
    (problem,) = check(Entry(symbol="NOSUCH", tokens={"kite": "738561", "mstock": "1594"}), KITE, "kite").problems
    assert "contradict each other: kite token 738561, mstock token 1594" in problem
    (problem,) = check(Entry(symbol="NOSUCH"), KITE, "kite").problems
    assert problem == "NSE:NOSUCH of the list is not in the master of kite"


def test_the_built_in_list_has_fifty_shares() -> None:
    entries = read_universe("nifty50")
    assert len({one.key for one in entries}) == len({one.exchange_token for one in entries}) == 50
    assert {one.exchange for one in entries} == {"NSE"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "NSE:INFY\n# a comment\n\nBSE:TCS\n"),
        ("list.csv", "symbol,exchange,kite_token\nINFY,NSE,408065\nTCS,BSE,\n"),
        ("list.csv", "\ufeffkite_token,symbol\n408065,NSE:INFY\n,BSE:TCS\n"),
        ("list.json", json.dumps(["NSE:INFY", {"symbol": "TCS", "exchange": "BSE"}])),
        ("list.json", json.dumps({"instruments": [{"symbol": "INFY", "tokens": {"kite": 408065}}, "BSE:TCS"]})),
    ],
)
def test_a_list_is_read_from_csv_and_json(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    infy, tcs = read_universe(str(path))
    assert (infy.key, tcs.key) == ("NSE:INFY", "BSE:TCS")
    assert infy.tokens in ({}, {"kite": "408065"})
    assert tcs.tokens == {}


@pytest.mark.parametrize(
    "text", ['{"a": 1}', "[1]", '[{"exchange": "NSE"}]', '[{"symbol": "A", "tokens": 1}]', "no json"]
)
def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError):
        read_universe(str(path))


def test_a_list_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(ValueError, match="built in are nifty50"):
        read_universe("nifty")
