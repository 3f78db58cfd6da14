"""One spelling of symbols: Kite's, reproduced from the parts of a contract."""

from __future__ import annotations

from datetime import date

import pytest

from marketfeed.enums import Kind
from marketfeed.instruments import Instrument
from marketfeed.symbols import (
    contract_symbol,
    index_named,
    index_of,
    indices,
    respell_contracts,
    series_of,
    share_symbol,
    underlying_of,
)


def contract(
    symbol: str, expiry: date, strike: float = 0.0, kind: str = Kind.FUTURE, exchange: str = "NFO", name: str = "NIFTY"
) -> Instrument:
    return Instrument(
        exchange=exchange, symbol=symbol, token=symbol, name=name, expiry=expiry, strike=strike, kind=kind
    )


@pytest.mark.parametrize(
    ("expiry", "strike", "kind", "weekly", "symbol"),
    [
        (date(2026, 11, 24), 0.0, "FUT", False, "NIFTY26NOVFUT"),
        (date(2026, 11, 24), 24000.0, "CE", False, "NIFTY26NOV24000CE"),
        (date(2026, 11, 24), 24000.0, "CE", True, "NIFTY26N2424000CE"),
        (date(2026, 1, 6), 26000.0, "PE", True, "NIFTY2610626000PE"),
        (date(2026, 10, 6), 83.25, "CE", True, "NIFTY26O0683.25CE"),
        (date(2025, 9, 26), 0.995, "PE", False, "NIFTY25SEP0.995PE"),
    ],
)
def test_a_contract_is_spelled_from_its_parts(
    expiry: date, strike: float, kind: str, weekly: bool, symbol: str
) -> None:
    assert contract_symbol("NIFTY", expiry, strike, kind, weekly=weekly) == symbol
    assert underlying_of(symbol, expiry) == "NIFTY"


def test_the_last_expiry_of_a_month_is_the_monthly_one() -> None:
    days = [date(2026, 11, 17), date(2026, 11, 24), date(2026, 12, 1), date(2026, 12, 29)]
    spelled = respell_contracts([contract(str(day), day, 24000.0, "CE") for day in days])
    assert [one.symbol for one in spelled] == [
        *("NIFTY26N1724000CE", "NIFTY26NOV24000CE", "NIFTY26D0124000CE", "NIFTY26DEC24000CE"),
    ]


def test_a_weekly_currency_contract_may_expire_after_the_monthly_one() -> None:
    days = [date(2023, 12, 22), date(2023, 12, 27), date(2023, 12, 29)]
    spelled = respell_contracts([contract(str(day), day, exchange="CDS", name="USDINR") for day in days])
    assert [one.symbol for one in spelled] == ["USDINR23D22FUT", "USDINR23DECFUT", "USDINR23D29FUT"]


def test_commodities_have_no_weekly_contracts() -> None:
    future = contract("GOLDM05DEC23", date(2023, 12, 5), exchange="MCX", name="GOLDM")
    option = contract("GOLDM22DEC23C62000", date(2023, 12, 22), 62000.0, "CE", "MCX", "GOLDM")
    assert [one.symbol for one in respell_contracts([future, option])] == ["GOLDM23DECFUT", "GOLDM23DEC62000CE"]


def test_two_contracts_never_get_one_symbol() -> None:
    pair = [contract(name, date(2023, 12, day), exchange="MCX") for name, day in (("A", 5), ("B", 29))]
    assert [one.symbol for one in respell_contracts(pair)] == ["NIFTY23DECFUT", "B"]


def test_what_is_no_contract_or_lacks_its_parts_keeps_its_symbol() -> None:
    share = Instrument(exchange="NSE", symbol="INFY", token="1", name="INFY")
    nameless = contract("X26NOVFUT", date(2026, 11, 24), name="")
    assert respell_contracts([share, nameless]) == [share, nameless]


@pytest.mark.parametrize(
    ("symbol", "series", "common"),
    [
        ("M&M-EQ", "EQ", "M&M"),
        ("M&M", "EQ", "M&M"),
        ("BAJAJ-AUTO-EQ", "EQ", "BAJAJ-AUTO"),
        ("RELIANCE-BE", "BE", "RELIANCE-BE"),
        ("RELIANCE", "BE", "RELIANCE-BE"),
        ("AFL-RE", "BE", "AFL-RE-BE"),
        ("RELIANCE", "", "RELIANCE"),
    ],
)
def test_only_series_other_than_eq_show_in_the_symbol_of_a_share(symbol: str, series: str, common: str) -> None:
    assert share_symbol(symbol, series) == common


def test_a_series_is_a_tail_of_two_letters() -> None:
    assert [series_of(one) for one in ("INFY", "CENTRALBK-BE", "BAJAJ-AUTO", "NAM-INDIA")] == ["EQ", "BE", "EQ", "EQ"]


@pytest.mark.parametrize("name", ["Nifty 50", "NIFTY INDEX", "NIFTY", "nifty 50"])
def test_an_index_is_known_under_every_spelling(name: str) -> None:
    index = index_named("NSE", "nonsense", name)
    assert index is not None
    assert index.symbol == "NIFTY 50"
    assert index is index_of("NIFTY")
    assert index_named("BSE", name) is None


def test_the_table_of_indices_gives_no_number_twice() -> None:
    for vendor in ("kite", "flattrade", "mstock"):
        numbers = [(one.exchange, one.tokens[vendor]) for one in indices() if vendor in one.tokens]
        assert len(numbers) == len(set(numbers)) >= 6
