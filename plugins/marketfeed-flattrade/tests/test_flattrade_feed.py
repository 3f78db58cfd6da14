"""A whole feed against FlatTrade's sandbox: the login on the socket, eviction, order updates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import websocket
from waiting import until

from marketfeed import Feed
from marketfeed.clock import NS, OffsetClock, to_ns
from marketfeed.contract import Event
from marketfeed.gaps import Cause
from marketfeed.sandbox import READY_TOKEN, Sandbox
from marketfeed.tokens import MemoryTokenStore


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox("flattrade", seed=1, instruments=20, ticks_per_second=500, rate_limits=False) as one:
        yield one


def feed_on(box: Sandbox, heard: list[Event], **settings: Any) -> Feed:
    options = {**box.settings(), **settings}
    feed = Feed(
        "flattrade", instruments=["NSE:INFY", "NSE:TCS"], mode="full", settings=options, tokens=MemoryTokenStore()
    )
    feed.on_event(heard.append)
    return feed


def kinds(heard: list[Event]) -> list[str]:
    return [event.kind for event in list(heard)]


def test_a_broker_that_never_acknowledges_the_login_is_tried_again_until_it_does(box: Sandbox) -> None:
    heard: list[Event] = []
    box.fault("deaf")
    with feed_on(box, heard, login_within_s=0.3) as feed:
        until(lambda: feed.pipeline.wires[0].counts.transitions.get("backing_off", 0) >= 2)
        assert "connected" not in kinds(heard)
        assert not feed.latest
        box.clear("deaf")
        until(lambda: {"NSE:INFY", "NSE:TCS"} <= set(feed.latest))
    why = {event.data["why"] for event in heard if event.kind == "line" and event.data["now"] == "backing_off"}
    assert why == {"the broker did not answer the login on the socket within 0.3 s"}
    assert kinds(heard).count("connected") == 1


def test_another_session_with_the_same_token_is_told_and_not_fought(box: Sandbox) -> None:
    heard: list[Event] = []
    with feed_on(box, heard, takeover_wait_s=1.0) as feed:
        until(lambda: "NSE:INFY" in feed.latest)
        with_same_token = websocket.create_connection(f"{box.url.replace('http', 'ws')}/PiConnectWSAPI/", timeout=10)
        user = feed.account.session().account
        with_same_token.send(
            f'{{"t":"a","uid":"{user}","actid":"{user}","source":"API","accesstoken":"{READY_TOKEN}"}}'
        )
        until(lambda: "taken_over" in kinds(heard))
        assert "another session took over" in next(one.data["reason"] for one in heard if one.kind == "taken_over")
        until(lambda: kinds(heard).count("connected") == 2)
        until(lambda: any(one.kind == "gap" and one.data["state"] == "closed" for one in list(heard)))
        with_same_token.close()
    (evicted,) = [one for one in heard if one.kind == "taken_over"]
    back = [one for one in heard if one.kind == "connected"][1]
    assert back.at_ns - evicted.at_ns >= NS  # an ordinary loss would be back within half a second
    told = [one.data for one in heard if one.kind == "gap"]
    assert [one["cause"] for one in told] == [Cause.TAKEN_OVER, Cause.TAKEN_OVER]
    assert "another session took over" in told[0]["why"]


def test_order_updates_are_events_while_ticks_flow_on_the_same_socket(box: Sandbox) -> None:
    heard: list[Event] = []
    with feed_on(box, heard) as feed:
        until(lambda: "NSE:INFY" in feed.latest)
        before = feed.pipeline.journal.committed
        assert [box.order(norenordno=f"N{number}", status="OPEN") for number in range(5)] == [1] * 5
        until(lambda: kinds(heard).count("order_update") == 5)
        until(lambda: feed.pipeline.journal.committed > before + 50)
        assert feed.pipeline.wires[0].counts.connects == 1
        assert feed.pipeline.parse is not None
        assert feed.pipeline.parse.counts.dead_lettered == 0
    orders = [event for event in heard if event.kind == "order_update"]
    assert [one.data["norenordno"] for one in orders] == [f"N{number}" for number in range(5)]
    assert {(one.vendor, one.connection) for one in orders} == {("flattrade", 0)}


def test_a_login_goes_by_the_clock_of_the_feed() -> None:
    start, tokens = "2026-03-02 10:00:00", MemoryTokenStore()
    with Sandbox("flattrade", instruments=5, start=start, access_token=None, rate_limits=False) as box:
        clock = OffsetClock(box.clock_offset_ns)
        with Feed("flattrade", instruments=["NSE:INFY"], settings=box.settings(), tokens=tokens, clock=clock) as feed:
            until(lambda: "NSE:INFY" in feed.latest)
            session = feed.account.session()
    assert session.expires_ns == to_ns("2026-03-03T06:00:00")
