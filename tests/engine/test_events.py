"""Events: told in order on one thread, never holding up the feed, the oldest dropped and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from marketfeed.clock import ManualClock
from marketfeed.contract import Event
from marketfeed.engine.events import Events
from marketfeed.engine.logs import get_log


def events_of(*listeners: Callable[[Event], None], size: int = 1000) -> Events:
    events = Events("main", "kite", ManualClock(7), get_log(), size)
    events.listeners = list(listeners)
    return events


def test_a_listener_is_told_everything_in_order_and_then_the_thread_ends() -> None:
    told: list[Event] = []
    events = events_of(told.append)
    thread = threading.Thread(target=events.run)
    thread.start()
    for number in range(50):
        events.put("connected", number, {"instruments": number})
    events.put("stopped")
    events.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [one.connection for one in told] == [*range(50), None]
    assert told[3] == Event(
        kind="connected", feed="main", at_ns=7, vendor="kite", connection=3, data={"instruments": 3}
    )
    assert events.dropped == 0


def test_when_full_the_oldest_go_and_are_counted() -> None:
    told: list[Event] = []
    events = events_of(told.append, size=3)
    for number in range(10):  # nobody listens yet; put returns all the same
        events.put("tick", number)
    assert events.dropped == 7
    events.close()
    events.run()
    assert [one.connection for one in told] == [7, 8, 9]


def test_a_slow_listener_does_not_hold_up_whoever_puts() -> None:
    entered, go_on = threading.Event(), threading.Event()
    told: list[int | None] = []

    def slow(event: Event) -> None:
        entered.set()
        go_on.wait(10)
        told.append(event.connection)

    events = events_of(slow, size=2)
    thread = threading.Thread(target=events.run)
    thread.start()
    events.put("first", 0)
    assert entered.wait(10)
    for number in range(1, 6):
        events.put("later", number)
    go_on.set()
    events.close()
    thread.join(10)
    assert told == [0, 4, 5]
    assert events.dropped == 3


def test_a_listener_that_raises_costs_the_others_nothing() -> None:
    told: list[str] = []

    def broken(event: Event) -> None:
        raise RuntimeError("my bug")

    events = events_of(broken, lambda event: told.append(event.kind))
    events.put("connected")
    events.put("stopped")
    events.close()
    events.run()
    assert told == ["connected", "stopped"]
