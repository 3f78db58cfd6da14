"""A whole feed against mStock's sandbox: refusals of the load balancer."""

from __future__ import annotations

from waiting import until

from marketfeed import Feed
from marketfeed.contract import Event
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore


def test_a_load_balancer_that_refuses_again_and_again_in_market_hours_is_told() -> None:
    heard: list[Event] = []
    with Sandbox("mstock", seed=1, instruments=5, ticks_per_second=200, rate_limits=False) as box:
        box.fault("refuse", status=502, attempts=3)
        options = box.settings()
        feed = Feed("mstock", instruments=["NSE:INFY"], settings=options, tokens=MemoryTokenStore())
        feed.on_event(heard.append)
        with feed:
            until(lambda: "NSE:INFY" in feed.latest)
    (told,) = [event.data for event in heard if event.kind == "refused"]
    assert told["attempts"] == 3
    assert "3 connections in a row with HTTP 502 in market hours" in told["reason"]
    assert "token" in told["reason"]
