"""The invented market: the same for the same seed, and never impossible."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.clock import NS, to_ns
from marketfeed.dtypes import Flag, Rows
from marketfeed.sandbox.market import Market
from marketfeed.sandbox.universe import make_universe

DAY = date(2026, 11, 20)
TEN = to_ns("2026-11-20 10:00:00")
MINUTE = 60 * NS


def market(count: int | None = None, seed: int = 1, start_ns: int = TEN) -> Market:
    return Market(make_universe(count, DAY), seed=seed, start_ns=start_ns)


def line_of(one: Market, key: str) -> int:
    return [instrument.key for instrument in one.instruments].index(key)


def walk(one: Market, steps: int, step_ns: int = NS) -> Rows:
    """``steps`` ticks of every instrument, a row each."""
    lines = np.arange(len(one))
    return np.stack([one.advance(lines, TEN + step * step_ns) for step in range(steps)])


def test_the_same_seed_makes_the_same_ticks() -> None:
    assert walk(market(), 20).tobytes() == walk(market(), 20).tobytes()


def test_another_seed_makes_other_prices() -> None:
    assert (walk(market(seed=1), 20)["last_price"] != walk(market(seed=2), 20)["last_price"]).any()


def test_an_instrument_does_not_care_what_else_is_there_or_in_which_steps_it_is_asked() -> None:
    small, large = market(60), market(500)
    line = np.array([line_of(small, "NSE:RELIANCE")])
    alone = [small.advance(line, TEN)["last_price"][0] for _ in range(30)]
    together = walk(large, 30, step_ns=0)["last_price"][:, line_of(large, "NSE:RELIANCE")]
    assert alone == together.tolist()


def test_instruments_move_together_but_not_alike() -> None:
    prices = walk(market(50), 2000)["last_price"][:, 3:]
    moves = np.diff(np.log(prices[::50]), axis=0)
    correlations = np.corrcoef(moves.T)[np.triu_indices(moves.shape[1], 1)]
    assert 0.2 < correlations.mean() < 0.7


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**63), steps=st.integers(1, 60))
def test_no_tick_is_impossible(seed: int, steps: int) -> None:
    one = market(seed=seed)
    rows = walk(one, steps)
    depth = (rows["flags"] & np.uint32(Flag.DEPTH)) > 0
    for side, sign in (("bid", -1), ("ask", 1)):
        prices, quantity = rows[f"{side}_price"][depth], rows[f"{side}_quantity"][depth]
        there = prices > 0
        assert ((np.diff(prices) * sign > 0) | ~there[:, 1:]).all(), f"{side} levels are not sorted"
        assert ((quantity > 0) == there).all()
    best_bid, best_ask = rows["bid_price"][depth][:, 0], rows["ask_price"][depth][:, 0]
    assert (best_bid < best_ask).all(), "the book is crossed"
    assert (rows["low"] <= np.minimum(rows["open"], rows["last_price"])).all()
    assert (rows["high"] >= np.maximum(rows["open"], rows["last_price"])).all()
    assert (np.diff(rows["volume"], axis=0) >= 0).all()
    circuits = rows[depth]
    assert (circuits["last_price"] >= circuits["lower_circuit"]).all()
    assert (circuits["last_price"] <= circuits["upper_circuit"]).all()
    assert (rows["oi_day_low"] <= rows["open_interest"]).all()
    assert (rows["open_interest"] <= rows["oi_day_high"]).all()


def test_prices_lie_on_the_grid_of_the_tick_size() -> None:
    one = market()
    tick = np.array([instrument.tick_size for instrument in one.instruments])
    steps = walk(one, 50)["last_price"] / tick
    assert np.abs(steps - np.rint(steps)).max() < 1e-6


def test_exchange_time_is_a_whole_second_that_never_falls() -> None:
    one = market(5)
    lines = np.arange(5)
    early = one.advance(lines, TEN + 5 * NS + 700_000_000)["exchange_ns"]
    late = one.advance(lines, TEN + 2 * NS)["exchange_ns"]
    assert early.tolist() == late.tolist() == [TEN + 5 * NS] * 5


def test_an_index_has_no_volume_book_or_trade_time() -> None:
    one = market(10)
    row = one.advance(np.array([line_of(one, "NSE:NIFTY 50")]), TEN)[0]
    assert (row["volume"], row["last_trade_ns"], row["bid_quantity"].sum()) == (0, 0, 0)
    assert np.isnan(row["bid_price"]).all()
    assert not row["flags"] & np.uint32(Flag.DEPTH | Flag.VOLUME)


def test_the_market_begins_where_the_history_of_the_day_ends() -> None:
    one = market()
    for line in range(len(one)):
        bars = one.candles(line, 60, to_ns("2026-11-20"), TEN)
        row = one.snapshot(np.array([line]))[0]
        assert row["last_price"] == bars["close"][-1]
        assert row["open"] == bars["open"][0]
        assert row["high"] == bars["high"].max()
        assert row["volume"] == bars["volume"].sum()


def test_the_previous_close_is_the_close_of_the_day_before() -> None:
    one = market()
    row = one.snapshot(np.array([line_of(one, "NSE:INFY")]))[0]
    eve = one.candles(line_of(one, "NSE:INFY"), 86_400, to_ns("2026-11-19"), to_ns("2026-11-20"))
    assert eve["close"].tolist() == [row["close"]]


def test_minutes_since_the_start_tell_what_the_ticks_said() -> None:
    one = market(10)
    line = line_of(one, "NSE:RELIANCE")
    before = int(one.snapshot(np.array([line]))["volume"][0])
    ticks = [one.advance(np.array([line]), TEN + second * NS)[0] for second in range(150)]
    bars = one.candles(line, 60, TEN, TEN + 10 * MINUTE)
    assert bars["start_ns"].tolist() == [TEN, TEN + MINUTE, TEN + 2 * MINUTE]
    assert bars["close"].tolist() == [ticks[59]["last_price"], ticks[119]["last_price"], ticks[149]["last_price"]]
    assert bars["volume"].sum() == ticks[-1]["volume"] - before


def test_asking_for_candles_early_does_not_change_them() -> None:
    asked, quiet = market(10), market(10)
    lines = np.arange(10)
    for second in range(90):
        for one in (asked, quiet):
            one.advance(lines, TEN + second * NS)
        asked.candles(4, 60, TEN, TEN + MINUTE)
    window = (4, 60, TEN - MINUTE, TEN + 10 * MINUTE)
    assert asked.candles(*window).tobytes() == quiet.candles(*window).tobytes()


@pytest.mark.parametrize("interval_s", [180, 300, 900, 3600, 86_400])
def test_longer_candles_are_made_of_the_minutes(interval_s: int) -> None:
    one = market(10)
    minutes = one.candles(4, 60, to_ns("2026-11-16"), to_ns("2026-11-20"))
    longer = one.candles(4, interval_s, to_ns("2026-11-16"), to_ns("2026-11-20"))
    assert longer["volume"].sum() == minutes["volume"].sum()
    assert longer["high"].max() == minutes["high"].max()
    assert longer["open"][0] == minutes["open"][0]
    assert longer["close"][-1] == minutes["close"][-1]


def test_a_full_trading_day_has_375_minutes_and_a_weekend_none() -> None:
    one = market(10)
    assert len(one.candles(4, 60, to_ns("2026-11-19"), to_ns("2026-11-20"))) == 375
    assert len(one.candles(4, 60, to_ns("2026-11-14"), to_ns("2026-11-16"))) == 0


def test_nothing_is_told_of_the_future() -> None:
    one = market(10)
    assert one.candles(4, 60, TEN, to_ns("2027-01-01")).tolist() == []


def test_before_the_session_the_state_is_the_previous_close() -> None:
    row = market(10, start_ns=to_ns("2026-11-20 08:00:00")).snapshot(np.array([4]))[0]
    assert row["last_price"] == row["open"] == row["close"]
    assert row["volume"] == 0


def test_catalogue_tokens_and_names_occur_once() -> None:
    universe = [one.instrument for one in make_universe(9500, DAY)]
    assert len(universe) == 9500
    assert len({one.key for one in universe}) == 9500
    assert len({one.exchange_token for one in universe}) == 9500


def test_expiries_are_never_in_the_past() -> None:
    for day in (date(2026, 11, 24), date(2026, 11, 25), date(2026, 12, 31), date(2024, 2, 28)):
        expiries = {one.instrument.expiry for one in make_universe(None, day) if one.instrument.expiry}
        assert min(expiries) >= day
