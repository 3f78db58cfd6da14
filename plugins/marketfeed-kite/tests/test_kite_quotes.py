"""Quotes against the sandbox: what each kind tells, the limits of a request, the pace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from marketfeed_kite.quotes import read_quotes

from marketfeed.clock import OffsetClock, ist_text
from marketfeed.dtypes import Flag
from marketfeed.enums import Mode
from marketfeed.errors import ConfigError, RequestRejected, SessionExpired
from marketfeed.quotes import Quotes
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    options: dict[str, Any] = {"ticks_per_second": 0, "start": "2026-11-20 10:00:00", "instruments": 1200}
    with Sandbox("kite", log=True, **options) as one:
        yield one


@pytest.fixture(scope="module")
def quotes(box: Sandbox) -> Iterator[Quotes]:
    """One for all: two would each keep the pace, and together break it."""
    clock = OffsetClock(box.clock_offset_ns)
    with Quotes("kite", settings=box.settings(), clock=clock, tokens=MemoryTokenStore(), environ={}) as one:
        yield one


def requests_to(box: Sandbox, path: str) -> int:
    return sum(one.get("path") == path for one in box.records)


def test_the_last_price_is_that_of_the_market(box: Sandbox, quotes: Quotes) -> None:
    batch = quotes.ltp(["NSE:NIFTY 50", "NSE:INFY"])
    assert [tick.symbol for tick in batch] == ["NIFTY 50", "INFY"]
    lines = [next(n for n, one in enumerate(box.instruments) if one.symbol == tick.symbol) for tick in batch]
    market = box.world.market.snapshot(np.array(lines, np.int64))
    assert batch.rows["last_price"].tolist() == market["last_price"].tolist()
    assert batch.rows["flags"].tolist() == [Mode.LTP, Mode.LTP]
    assert batch.origin.vendor == "kite"
    assert ist_text(int(batch.rows["received_ns"][0])).startswith("2026-11-20 10:")


def test_ohlc_adds_open_to_close_and_quote_the_rest(box: Sandbox, quotes: Quotes) -> None:
    share = next(n for n, one in enumerate(box.instruments) if one.symbol == "INFY")
    market = box.world.market.snapshot(np.array([share], np.int64))[0]
    ohlc, full = quotes.ohlc("NSE:INFY").rows[0], quotes.quote("NSE:INFY").rows[0]
    assert ohlc["flags"] == Mode.QUOTE | Flag.OHLC
    prices = ("open", "high", "low", "close", "last_price")
    assert [ohlc[name] for name in prices] == [market[name] for name in prices]
    for name in ("volume", "buy_quantity", "sell_quantity", "average_price", "lower_circuit", "upper_circuit", *prices):
        assert full[name] == market[name], name
    for name in ("bid_price", "bid_quantity", "bid_orders", "ask_price", "ask_quantity", "ask_orders"):
        np.testing.assert_array_equal(full[name], market[name])
    assert full["flags"] & (Flag.DEPTH | Flag.VOLUME | Flag.CIRCUITS) == Flag.DEPTH | Flag.VOLUME | Flag.CIRCUITS
    assert full["exchange_ns"] // 10**9 == market["exchange_ns"] // 10**9  # whole seconds are sent


def test_a_quote_of_an_index_has_no_depth(quotes: Quotes) -> None:
    flags = int(quotes.quote("NSE:NIFTY 50").rows["flags"][0])
    assert not flags & (Flag.DEPTH | Flag.VOLUME | Flag.QUANTITIES)
    assert flags & Flag.OHLC


def test_long_lists_are_split_within_the_limits_and_keep_their_order(box: Sandbox, quotes: Quotes) -> None:
    wanted = list(quotes._account.instruments())[:600]
    before = requests_to(box, "/quote")
    batch = quotes.quote(wanted)
    assert requests_to(box, "/quote") - before == 2  # 500 and 100, a second apart: the sandbox answers 429 else
    assert batch.rows["instrument"].tolist() == list(range(600))
    assert list(batch.origin.instruments) == wanted


def test_an_unknown_name_is_refused_before_the_broker_is_asked(box: Sandbox, quotes: Quotes) -> None:
    before = requests_to(box, "/quote/ltp")
    with pytest.raises(ConfigError, match="NSE:NOBODY"):
        quotes.ltp(["NSE:INFY", "NSE:NOBODY"])
    assert requests_to(box, "/quote/ltp") == before


@pytest.mark.parametrize("quote", [{}, None, {"last_price": "much"}, {"last_price": 1, "ohlc": {"open": 1}}])
def test_what_is_no_quote_is_refused(quote: Any) -> None:
    with pytest.raises(RequestRejected, match="not look as documented"):
        read_quotes([(0, quote)], Mode.LTP)


def test_a_dead_token_that_was_given_is_not_tried_for_ever() -> None:
    with Sandbox("kite", ticks_per_second=0, instruments=5) as other:
        given = other.settings()
        with Quotes("kite", settings=given, tokens=MemoryTokenStore(), environ={}) as quotes:
            quotes.ltp("NSE:INFY")
            other.expire()
            with pytest.raises(SessionExpired, match="Incorrect `api_key` or `access_token`"):
                quotes.ltp("NSE:INFY")
