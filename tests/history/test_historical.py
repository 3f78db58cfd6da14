"""Candles over any span: split into windows, fetched with patience, put together without gaps or repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import pytest

from marketfeed import Historical
from marketfeed.batches import CandleBatch, Origin
from marketfeed.clock import NS, Clock, OffsetClock, to_ns
from marketfeed.contract import CandleRequest, Session, Vendor, VendorSettings, setting
from marketfeed.dtypes import CANDLE, CandleFlag, Rows
from marketfeed.enums import Interval
from marketfeed.errors import AuthError, ConfigError, LineLost, RateLimited, RequestRejected, SessionExpired
from marketfeed.history.windows import mark_partial, merge, windows
from marketfeed.hookspecs import hookimpl
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.plugins import Plugins
from marketfeed.tokens import MemoryTokenStore

DAY_NS = 86_400 * NS
INFY, TCS = (Instrument(exchange="NSE", symbol=name, token=name, vendor="shop") for name in ("INFY", "TCS"))


@attrs.frozen(kw_only=True)
class ShopSettings(VendorSettings):
    rest_url: str = "http://127.0.0.1:1"
    """Base URL"""
    api_key: str = setting(env="SHOP_API_KEY")
    """Key"""


class Shop:
    """A vendor with hourly candles of every hour, that fails as told."""

    def __init__(self) -> None:
        self.requests: list[CandleRequest] = []
        self.sessions: list[str] = []
        self.logins = 0
        self.failures: list[Exception] = []

    @hookimpl
    def marketfeed_vendor(self) -> Vendor:
        return Vendor(name="shop", title="Shop", settings=ShopSettings, candle_days={Interval.H1: 10})

    @hookimpl
    def marketfeed_authenticate(self, settings: ShopSettings) -> Session:
        self.logins += 1
        return Session(vendor="shop", account=settings.api_key, access_token=f"token-{self.logins}")

    @hookimpl
    def marketfeed_instruments(self) -> InstrumentTable:
        return InstrumentTable([INFY, TCS])

    @hookimpl
    def marketfeed_fetch_candles(self, session: Session, request: CandleRequest) -> CandleBatch:
        self.requests.append(request)
        self.sessions.append(session.access_token)
        if self.failures:
            raise self.failures.pop(0)
        hour = 3600 * NS
        starts = np.arange(-(-request.start_ns // hour) * hour, request.end_ns, hour)
        rows = np.zeros(len(starts), CANDLE)
        rows["start_ns"], rows["interval"] = starts, 3600
        rows["close"] = 1.0 if request.instrument == INFY else 2.0
        return CandleBatch(rows, Origin([request.instrument]))


class PatientClock(Clock):
    """The host's clock, but waits end at once and are remembered."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait(self, event: Any, timeout_s: float | None) -> bool:
        self.waits.append(timeout_s or 0.0)
        return bool(event.is_set())


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def clock() -> PatientClock:
    return PatientClock()


@pytest.fixture
def history(shop: Shop, clock: PatientClock) -> Iterator[Historical]:
    with Historical(
        "shop", settings={"api_key": "k"}, plugins=Plugins.of(shop), tokens=MemoryTokenStore(), clock=clock, environ={}
    ) as made:
        yield made


def test_a_long_span_is_fetched_window_by_window_in_order(history: Historical, shop: Shop) -> None:
    bars = history.candles("NSE:INFY", "1h", "2026-01-01", "2026-01-25", open_interest=True)
    spans = [(one.start_ns, one.end_ns) for one in shop.requests]
    assert spans[0][0] == to_ns("2026-01-01")
    assert spans[-1][1] == to_ns("2026-01-25")
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert all(end - start <= 10 * DAY_NS for start, end in spans)
    assert all(one.open_interest for one in shop.requests)
    assert np.diff(bars["start_ns"]).tolist() == [3600 * NS] * (24 * 24 - 1)


def test_start_is_included_and_end_is_not(history: Historical) -> None:
    bars = history.candles("NSE:INFY", Interval.H1, "2026-01-01", "2026-01-02")
    assert (bars[0].start_ns, bars[-1].start_ns) == (to_ns("2026-01-01T00:30"), to_ns("2026-01-01T23:30"))


def test_rows_are_in_the_order_of_the_instruments(history: Historical) -> None:
    bars = history.candles(["NSE:TCS", INFY, "NSE:TCS"], "1h", "2026-01-01", "2026-01-02")
    assert bars.symbols == ["NSE:TCS"] * 24 + ["NSE:INFY"] * 24
    assert bars.where(symbol="INFY")["close"].tolist() == [1.0] * 24


def test_candles_become_a_data_frame_in_india_time(history: Historical) -> None:
    frame = history.candles("NSE:*", "1h", "2026-01-01", "2026-01-02").to_pandas()
    assert len(frame) == 48
    assert set(frame["symbol"]) == {"NSE:INFY", "NSE:TCS"}


def test_nothing_is_asked_for_an_empty_span(history: Historical, shop: Shop) -> None:
    assert len(history.candles(INFY, "1h", "2026-01-02", "2026-01-02")) == 0
    assert not shop.requests


def test_a_dead_session_is_renewed_once(history: Historical, shop: Shop) -> None:
    shop.failures = [SessionExpired("over")]
    assert len(history.candles(INFY, "1h", "2026-01-01", "2026-01-02")) == 24
    assert shop.sessions == ["token-1", "token-2"]
    shop.failures = [SessionExpired("over"), SessionExpired("still")]
    with pytest.raises(SessionExpired, match="still"):
        history.candles(INFY, "1h", "2026-01-01", "2026-01-02")
    assert shop.logins == 3


def test_a_broker_that_asks_for_time_gets_it(history: Historical, shop: Shop, clock: PatientClock) -> None:
    shop.failures = [RateLimited("slow down", 7.0), LineLost("gone")]
    assert len(history.candles(INFY, "1h", "2026-01-01", "2026-01-02")) == 24
    assert clock.waits[0] == 7.0
    assert len(clock.waits) == 2


def test_a_broker_that_never_answers_is_given_up(history: Historical, shop: Shop) -> None:
    shop.failures = [LineLost(f"gone {n}") for n in range(1, 10)]
    with pytest.raises(LineLost, match="gone 4"):
        history.candles(INFY, "1h", "2026-01-01", "2026-01-02")


@pytest.mark.parametrize("error", [RequestRejected("no"), AuthError("no")])
def test_what_no_patience_cures_is_raised_at_once(history: Historical, shop: Shop, error: Exception) -> None:
    shop.failures = [error]
    with pytest.raises(type(error)):
        history.candles(INFY, "1h", "2026-01-01", "2026-01-02")
    assert len(shop.requests) == 1


def test_a_closed_one_does_not_wait(history: Historical, shop: Shop) -> None:
    history.close()
    shop.failures = [LineLost("gone")] * 9
    with pytest.raises(LineLost):
        history.candles(INFY, "1h", "2026-01-01", "2026-01-02")
    assert len(shop.requests) == 1


def unknown_name(history: Historical) -> CandleBatch:
    return history.candles(["NSE:INFI", "NSE:NOPE*"], "1h", "2026-01-01")


def unknown_interval(history: Historical) -> CandleBatch:
    return history.candles(INFY, "7m", "2026-01-01")


@pytest.mark.parametrize(("ask", "hint"), [(unknown_name, "NSE:INFY"), (unknown_interval, "choose 1h")])
def test_mistakes_are_named_with_what_is_near(
    history: Historical, ask: Callable[[Historical], CandleBatch], hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        ask(history)


def test_settings_may_come_from_the_environment(shop: Shop) -> None:
    with Historical("shop", plugins=Plugins.of(shop), tokens=MemoryTokenStore(), environ={"SHOP_API_KEY": "e"}) as made:
        made.candles(INFY, "1h", "2026-01-01", "2026-01-02")
    with pytest.raises(ConfigError, match="api_key"):
        Historical("shop", plugins=Plugins.of(shop), environ={})


def test_a_running_bar_is_flagged(shop: Shop) -> None:
    clock = OffsetClock.starting_at(to_ns("2026-01-01T12:15"))
    with Historical(
        "shop", settings={"api_key": "k"}, plugins=Plugins.of(shop), tokens=MemoryTokenStore(), clock=clock, environ={}
    ) as made:
        bars = made.candles(INFY, "1h", "2026-01-01T10:30")
    assert bars["flags"].tolist() == [0, CandleFlag.PARTIAL]


# --- windows ----------------------------------------------------------------------------------


def rows_of(*starts: int, close: float = 0.0) -> Rows:
    rows = np.zeros(len(starts), CANDLE)
    rows["start_ns"], rows["close"], rows["interval"] = starts, close, 60
    return rows


def test_windows_cover_the_span_exactly() -> None:
    assert list(windows(0, 5 * DAY_NS // 2, 1)) == [
        (0, DAY_NS),
        (DAY_NS, 2 * DAY_NS),
        (2 * DAY_NS, 5 * DAY_NS // 2),
    ]
    assert list(windows(5, 5, 1)) == []
    assert list(windows(9, 5, 1)) == []


def test_of_two_candles_with_the_same_start_the_later_answer_wins() -> None:
    merged = merge([rows_of(3, 1, close=1.0), rows_of(2, 3, close=2.0)])
    assert merged["start_ns"].tolist() == [1, 2, 3]
    assert merged["close"].tolist() == [1.0, 2.0, 2.0]
    assert len(merge([])) == 0


def test_a_bar_is_over_when_its_last_second_is() -> None:
    rows = rows_of(0, 60 * NS)
    mark_partial(rows, 120 * NS - 1)
    assert rows["flags"].tolist() == [0, CandleFlag.PARTIAL]
    rows = rows_of(0, 60 * NS)
    mark_partial(rows, 120 * NS)
    assert rows["flags"].tolist() == [0, 0]
