"""The price at the money: the newest candle that the broker has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marketfeed.batches import CandleBatch, Origin
from marketfeed.clock import ManualClock, to_ns
from marketfeed.contract import CandleRequest, Session, Vendor, VendorSettings
from marketfeed.dtypes import CANDLE
from marketfeed.engine.account import Account
from marketfeed.engine.choosing import choose, india_day, reference_price
from marketfeed.engine.logs import get_log
from marketfeed.enums import Interval, Kind
from marketfeed.errors import MarketFeedError, RequestRejected, SessionExpired
from marketfeed.hookspecs import hookimpl
from marketfeed.http import HttpSession
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.plugins import Plugins
from marketfeed.tokens import MemoryTokenStore

NIFTY = Instrument(exchange="NSE", symbol="NIFTY 50", token="1", kind=Kind.INDEX, vendor="shop")
NOW = to_ns("2026-11-20T11:00")
DAY_NS = 86_400 * 10**9


class Shop:
    """A vendor with candles of a minute and a day, as it is told."""

    def __init__(self, **closes: list[float] | Exception) -> None:
        self.closes = closes
        self.asked: list[CandleRequest] = []

    @hookimpl
    def marketfeed_vendor(self) -> Vendor:
        days = {Interval.M1: 3, Interval.D1: 2000}
        return Vendor(name="shop", title="Shop", settings=VendorSettings, candle_days=days)

    @hookimpl
    def marketfeed_authenticate(self) -> Session:
        return Session(vendor="shop", account="me", access_token="t")

    @hookimpl
    def marketfeed_fetch_candles(self, request: CandleRequest) -> CandleBatch:
        self.asked.append(request)
        closes = self.closes.get(request.interval.name, [])
        if isinstance(closes, Exception):
            self.closes.pop(request.interval.name)
            raise closes
        rows = np.zeros(len(closes), CANDLE)
        rows["close"] = closes
        return CandleBatch(rows, Origin([request.instrument]))


def account(shop: Shop) -> Account:
    plugin = Plugins.of(shop).vendor("shop")
    http: Any = HttpSession("shop")
    return Account(plugin, VendorSettings(), MemoryTokenStore(), http, ManualClock(NOW), get_log())


def test_the_last_minute_is_the_price() -> None:
    shop = Shop(M1=[24_000.0, 24_512.0], D1=[23_000.0])
    assert reference_price(account(shop), NIFTY) == 24_512.0
    (request,) = shop.asked
    assert (request.instrument, request.end_ns, request.end_ns - request.start_ns) == (NIFTY, NOW, 3 * DAY_NS)


@pytest.mark.parametrize("minutes", [[], RequestRejected("not of an index")], ids=["none", "refused"])
def test_without_minutes_the_last_day_is_the_price(minutes: list[float] | Exception) -> None:
    assert reference_price(account(Shop(M1=minutes, D1=[23_900.0, 24_100.0])), NIFTY) == 24_100.0


def test_a_session_that_died_is_renewed_once() -> None:
    desk = account(Shop(M1=SessionExpired("overnight"), D1=[1.0]))
    assert reference_price(desk, NIFTY) == 1.0
    assert desk.logins == 2


def test_no_candle_at_all_is_an_error_that_the_selection_explains() -> None:
    desk = account(Shop())
    with pytest.raises(MarketFeedError, match="no recent candle"):
        reference_price(desk, NIFTY)
    call = Instrument(
        exchange="NFO", symbol="C", token="2", name="NIFTY", kind=Kind.CALL, expiry=india_day(NOW), strike=24_000.0
    )
    (problem,) = choose(desk, ["NFO:NIFTY OPT ATM"], InstrumentTable([NIFTY, call])).problems
    assert "no price of NSE:NIFTY 50 (there is no recent candle); write one" in problem
    assert choose(desk, ["NFO:NIFTY OPT ATM @1"], InstrumentTable([NIFTY, call])).instruments == (call,)


def test_the_day_in_india_begins_five_and_a_half_hours_before_that_of_utc() -> None:
    assert str(india_day(to_ns("2026-11-20T00:00"))) == "2026-11-20"
    assert str(india_day(to_ns("2026-11-20T00:00") - 1)) == "2026-11-19"
