"""Selections: the forms in which people name instruments, resolved on one day."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from marketfeed.chains import expiries, futures, option_chain, underlying
from marketfeed.enums import Kind
from marketfeed.errors import LineLost
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.selection import Found, form_problem, is_moving, select
from marketfeed.symbols import respell_contracts

TODAY = date(2026, 11, 20)
WEEKLY, MONTHLY, NEXT = date(2026, 11, 24), date(2026, 11, 26), date(2026, 12, 31)


def contract(
    name: str, expiry: date, kind: str = Kind.FUTURE, strike: float = 0.0, exchange: str = "NFO"
) -> Instrument:
    token = f"{exchange}-{name}-{expiry}-{kind}-{strike}"
    return Instrument(
        exchange=exchange, symbol=token, token=token, name=name, kind=kind, expiry=expiry, strike=strike, vendor="shop"
    )


def table() -> InstrumentTable:
    cash = [
        Instrument(exchange="NSE", symbol="NIFTY 50", token="i", kind=Kind.INDEX),
        Instrument(exchange="NSE", symbol="RELIANCE", token="r", exchange_token="2885", name="RELIANCE"),
    ]
    contracts = [contract(name, day) for name in ("NIFTY", "RELIANCE") for day in (NEXT, MONTHLY, date(2026, 10, 27))]
    strikes = range(24_000, 25_001, 50)
    contracts += [
        contract("NIFTY", day, kind, float(strike))
        for day in (NEXT, WEEKLY, MONTHLY)
        for strike in strikes
        for kind in ("CE", "PE")
    ]
    contracts += [contract("CRUDEOIL", MONTHLY, exchange="MCX")]
    contracts += [contract("CRUDEOIL", WEEKLY, "CE", strike, "MCX") for strike in (5400.0, 5450.0, 5500.0)]
    return InstrumentTable([*cash, *respell_contracts(contracts)])


TABLE = table()
PRICES = {"NSE:NIFTY 50": 24_512.0, "MCX:CRUDEOIL26NOVFUT": 5_460.0}


def find(*texts: str, today: date = TODAY) -> Found:
    return select(texts, TABLE, vendor="shop", today=today, price=lambda one: PRICES[one.key])


def keys(found: Found) -> list[str]:
    assert not found.problems
    return [one.key for one in found.instruments]


def test_names_and_globs_stay_what_they_are() -> None:
    assert keys(find("NSE:RELIANCE", "NSE:*", "NSE:NIFTY 50")) == ["NSE:RELIANCE", "NSE:NIFTY 50"]


def test_the_nearest_future_is_one_that_has_not_expired() -> None:
    assert keys(find("NFO:NIFTY FUT 1", "NFO:NIFTY FUT 2")) == ["NFO:NIFTY26NOVFUT", "NFO:NIFTY26DECFUT"]
    assert keys(find("NFO:NIFTY FUT 1", today=MONTHLY)) == ["NFO:NIFTY26NOVFUT"]  # on its last day, too
    assert keys(find("NFO:NIFTY FUT 1", today=date(2026, 11, 27))) == ["NFO:NIFTY26DECFUT"]
    assert keys(find("NFO:NIFTY 50 FUT 1")) == ["NFO:NIFTY26NOVFUT"]  # by the name of the index


def test_options_at_the_money_are_those_around_the_price_of_the_underlying() -> None:
    assert keys(find("NFO:NIFTY OPT ATM+-1")) == [
        f"NFO:NIFTY26N24{strike}{side}" for strike in (24450, 24500, 24550) for side in ("CE", "PE")
    ]
    assert keys(find("NFO:NIFTY OPT ATM CE")) == ["NFO:NIFTY26N2424500CE"]
    assert keys(find("MCX:CRUDEOIL OPT ATM")) == ["MCX:CRUDEOIL26NOV5450CE"]  # on the future
    assert len(find("NFO:NIFTY OPT ATM+-5").instruments) == 22
    assert len(find("NFO:NIFTY OPT ATM±5").instruments) == 22


def test_expiry_side_and_price_can_be_said() -> None:
    assert keys(find("NFO:NIFTY OPT ATM 2 PE @24740")) == ["NFO:NIFTY26NOV24750PE"]
    assert keys(find("NFO:NIFTY OPT ATM+-1 2026-12-31 CE @24000")) == [
        *("NFO:NIFTY26DEC24000CE", "NFO:NIFTY26DEC24050CE"),  # the chain ends below
    ]
    assert len(find("NFO:NIFTY OPT ALL 3").instruments) == 42


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("NFO:NIFTY FUT 3", "NFO lists 2 futures on NIFTY"),
        ("NFO:TCS FUT 1", "NFO lists no futures on TCS"),
        ("NFO:TCS OPT ATM+-5", "NFO lists no options on TCS"),
        ("NFO:NIFTY OPT ATM 4", "there are 3 days of expiry, the last is 2026-12-31"),
        ("NFO:NIFTY OPT ATM 2026-11-25", "nothing expires on 2026-11-25; near it are 2026-11-24, 2026-11-26"),
        ("NFO:NIFTY OPT ATM+-x", "is not understood; write 'NFO:NIFTY FUT 1'"),
        ("XYZ:NIFTY FUT 1", "'XYZ' is no exchange; choose NSE"),
        ("@nosuch", "there is no such list; built in are nifty50"),
        ("@missing.csv", "No such file"),
        ("@nifty50", "@nifty50: NSE:ADANIENT of the list is not in the master of shop"),
        ("NSE:RELIANC", "did you mean 'NSE:RELIANCE'?"),
    ],
)
def test_what_cannot_be_had_is_said_and_the_rest_is_found(text: str, problem: str) -> None:
    found = find(text, "NSE:NIFTY 50")
    assert TABLE["NSE:NIFTY 50"] in found.instruments
    assert any(problem in one for one in found.problems), found.problems


def test_without_a_price_the_remedy_is_named() -> None:
    def lost(_: Instrument) -> float:
        raise LineLost("no answer")

    for price in (None, lost):
        (problem,) = select(["NFO:NIFTY OPT ATM+-5"], TABLE, vendor="shop", today=TODAY, price=price).problems
        assert "NSE:NIFTY 50" in problem
        assert "write one, such as 'NFO:NIFTY OPT ATM+-5 @24000'" in problem


def test_a_list_from_a_file_is_resolved_and_a_new_name_noted(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("symbol,exchange_token\nOLD,2885\nNSE:NIFTY 50,\n")
    found = find(f"@{path}")
    assert keys(found) == ["NSE:RELIANCE", "NSE:NIFTY 50"]
    assert found.notes == (f"@{path}: NSE:OLD is NSE:RELIANCE at shop: same exchange token, other name",)


@pytest.mark.parametrize(
    "text",
    ["NSE:RELIANCE", "NSE:*", "NIFTY*", "@nifty50", "@a/b.csv", "@b.json", "NFO:M&M FUT 1", "NFO:A OPT ATM+-5 @24000"],
)
def test_forms_that_are_right(text: str) -> None:
    assert form_problem(text) is None


@pytest.mark.parametrize(
    "text", ["RELIANCE", "@", "@nifty", "@file.txt", "NFO:NIFTY FUT", "NFO:NIFTY OPT 5", "ABC:A FUT 1"]
)
def test_forms_that_are_wrong(text: str) -> None:
    assert form_problem(text)


def test_only_selections_by_distance_in_time_or_price_move() -> None:
    texts = ["NFO:NIFTY FUT 1", "NFO:NIFTY OPT ATM+-5", "NSE:NIFTY 50", "NSE:*", "@a FUT.csv"]
    assert [is_moving(one) for one in texts] == [True, True, False, False, False]


def test_chains_are_cut_out_of_a_table() -> None:
    chain = option_chain(TABLE, "NFO", "NIFTY", WEEKLY)
    assert len(chain) == 2 * len(chain.strikes) == 42
    assert chain.calls[24_500.0].key == "NFO:NIFTY26N2424500CE"
    assert chain.puts[24_500.0].kind == Kind.PUT
    assert chain.at_the_money(24_525.0) == 24_500.0
    assert [one.strike for one in chain.around(99_999.0, 1)] == [24_950.0, 24_950.0, 25_000.0, 25_000.0]
    assert expiries(TABLE, "NFO", "NIFTY", TODAY) == [WEEKLY, MONTHLY, NEXT]
    assert futures(TABLE, "NFO", "nifty", NEXT)[0].expiry == NEXT
    assert underlying(TABLE, "NFO", "RELIANCE", TODAY) == TABLE["NSE:RELIANCE"]
    assert underlying(TABLE, "NFO", "TCS", TODAY) is None
    assert len(option_chain(TABLE, "NFO", "NIFTY", date(2026, 11, 25))) == 0
