"""A feed's connections at run time: subscribing, modes, spreading, expiry; against a real sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from waiting import until

from marketfeed import Feed
from marketfeed.contract import Event
from marketfeed.dtypes import MODE_MASK
from marketfeed.enums import Mode
from marketfeed.errors import ConfigError, MarketFeedError, SessionExpired
from marketfeed.instruments import InstrumentTable
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox("kite", seed=1, instruments=60, ticks_per_second=1000, rate_limits=False) as box:
        yield box


def feed_on(box: Sandbox, instruments: list[str], mode: str = "full") -> Feed:
    return Feed("kite", instruments=instruments, mode=mode, settings=box.settings(), tokens=MemoryTokenStore())


def test_an_instrument_added_at_run_time_ticks_and_the_others_do_not_notice(box: Sandbox) -> None:
    with feed_on(box, ["NSE:INFY"]) as feed:
        until(lambda: "NSE:INFY" in feed.latest)
        feed.subscribe(["NSE:TCS"])
        until(lambda: "NSE:TCS" in feed.latest)
        assert feed.latest["NSE:TCS"].mode in (Mode.QUOTE, Mode.FULL)
        until(lambda: feed.latest["NSE:TCS"].mode == Mode.FULL)
        assert feed.pipeline.wires[0].counts.connects == 1


def test_an_instrument_taken_away_falls_silent_and_may_come_back(box: Sandbox) -> None:
    with feed_on(box, ["NSE:INFY", "NSE:TCS"]) as feed:
        until(lambda: {"NSE:INFY", "NSE:TCS"} <= set(feed.latest))
        feed.unsubscribe(["NSE:TCS"])
        until(lambda: not box.hub.subscribed.size or len(box.hub.subscribed) == 1)
        last = feed.latest["NSE:TCS"].seq
        until(lambda: feed.pipeline.journal.committed > last + 50)
        quiet = feed.latest["NSE:TCS"].seq
        feed.subscribe(["NSE:TCS"])
        until(lambda: feed.latest["NSE:TCS"].seq > quiet)
        assert feed.pipeline.parse is not None
        assert feed.pipeline.parse.counts.dead_lettered == 0


def test_the_mode_changes_for_the_named_instrument_alone(box: Sandbox) -> None:
    with feed_on(box, ["NSE:INFY", "NSE:TCS"], mode="ltp") as feed:
        until(lambda: {"NSE:INFY", "NSE:TCS"} <= set(feed.latest))
        feed.set_mode(["NSE:TCS"], "full")
        until(lambda: feed.latest["NSE:TCS"].mode == Mode.FULL)
        start = feed.pipeline.journal.committed
        until(lambda: feed.pipeline.journal.committed > start + 50)
        reader = feed.pipeline.journal.reader(start=start)
        rows = reader.take().where(symbol="INFY")
        reader.close()
        assert set((rows["flags"] & MODE_MASK).tolist()) == {int(Mode.LTP)}


def test_the_nearest_future_is_that_of_the_master_and_not_of_the_subscription() -> None:
    with Sandbox("kite", seed=1, instruments=200, ticks_per_second=100, rate_limits=False) as box:
        table = InstrumentTable(box.instruments)
        futures = [one for one in table.contracts("NIFTY", "NFO") if one.kind == "FUT"]
        first, second = (one.key for one in sorted(futures, key=lambda one: str(one.expiry)))
        with feed_on(box, [second, "NSE:INFY"]) as feed:
            feed.unsubscribe(["NFO:NIFTY FUT 1"])  # which is not subscribed
            lines = feed._lines()
            assert {one.key for one in lines.wanted} == {second, "NSE:INFY"}
            with pytest.raises(ConfigError, match=f"{first} is not among them"):
                feed.set_mode(["NFO:NIFTY FUT 1"], "ltp")
            feed.unsubscribe(["NFO:NIFTY FUT 2"])
            assert {one.key for one in lines.wanted} == {"NSE:INFY"}


def test_unknown_and_unsubscribed_names_are_refused_and_nothing_changes(box: Sandbox) -> None:
    with feed_on(box, ["NSE:INFY"]) as feed:
        with pytest.raises(ConfigError, match="NSE:NOWHERE"):
            feed.subscribe(["NSE:TCS", "NSE:NOWHERE"])
        with pytest.raises(ConfigError, match="not subscribed"):
            feed.set_mode(["NSE:TCS"], "ltp")
        lines = feed.pipeline.lines
        assert lines is not None
        assert [one.key for one in lines.wanted] == ["NSE:INFY"]


def test_more_than_one_connection_holds_is_spread_and_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import attrs

    with Sandbox("kite", seed=1, instruments=60, ticks_per_second=2000, rate_limits=False) as box:
        feed = feed_on(box, ["NSE:*"])
        info = attrs.evolve(feed.account.plugin.info, instruments_per_connection=20)
        monkeypatch.setattr(feed.account, "plugin", attrs.evolve(feed.account.plugin, info=info))
        with feed:
            wires = feed.pipeline.wires
            assert 2 <= len(wires) <= 3
            assert max(len(wire.wanted) for wire in wires) <= 20
            until(lambda: all(wire.counts.frames for wire in wires))
        info = attrs.evolve(info, instruments_per_connection=5)
        feed = feed_on(box, ["NSE:*"])
        monkeypatch.setattr(feed.account, "plugin", attrs.evolve(feed.account.plugin, info=info))
        with pytest.raises(MarketFeedError, match="3 connections of 5"):
            feed.start()


def test_an_expired_token_that_cannot_be_renewed_stops_the_feed_with_a_clear_message(box: Sandbox) -> None:
    events: list[Event] = []
    feed = feed_on(box, ["NSE:INFY"])
    feed.on_event(events.append)
    with feed:
        until(lambda: "NSE:INFY" in feed.latest)
        box.expire()
        box.drop()
        assert feed.wait(20)
        assert isinstance(feed.error, SessionExpired)
        assert "not accepted" in str(feed.error)
    states = [event.data["now"] for event in events if event.kind == "line"]
    assert states.count("waiting_for_login") == 1
    assert states[-1] == "failed"
