"""Six ways to go mute: each is caught within the limit that ``docs/explanation/line-care.md`` states.

In virtual time the whole connection runs but for the socket; how long the silence may last is reckoned here
from the times of the ticks alone, without the watchdog.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from trials._report import Report
from trials._virtual import NEVER, VirtualBroker, VirtualClock, make_wire

from marketfeed.engine.supervisor import State

SLACK_S = 0.55
"""A line is judged four times a second, after a read that may wait as long."""
AGAIN_S = 5.0
"""From asking again to leaving the line."""
WORLD_END = 100_000.0
Passes = Callable[[str, int, float], bool]


def poisson(draw: random.Random, rate: float, until: float = WORLD_END) -> Iterator[float]:
    now = 0.0
    while (now := now + draw.expovariate(rate)) < until:
        yield now


def dying(draw: random.Random, rate: float, since: float, until: float) -> Iterator[float]:
    """Ticks that become rarer and rarer after ``since`` and stop at ``until``."""
    now = 0.0
    while now < until:
        fading = 1.0 if now < since else max(0.02, 1 - (now - since) / (until - since))
        now += draw.expovariate(rate * fading)
        if now < until:
            yield now
    yield from (at + until + 3600 for at in poisson(draw, rate))  # a new line finds a busy market, an hour later


def limit_s(ticks: list[float], minute_s: float) -> float:
    """How long the line may be silent after these ticks, as the page says.

    Time is looked at in slots of ten seconds, so the last minute may begin up to ten seconds earlier.
    """
    last = ticks[-1]
    gaps = [(late, late - early) for early, late in pairwise(ticks)]
    if last - ticks[0] >= minute_s and max(gap for late, gap in gaps if late > last - minute_s) <= 1.0:
        return 5.0
    slots = sorted({late // 10 for late, _ in gaps})[-60:]
    return max(5.0, 10 * max(gap for late, gap in gaps if late // 10 >= slots[0]))


def half_open(fault_s: float) -> Passes:
    """No byte comes any more, not even a pong."""
    return lambda what, line, now: line > 1 or now < fault_s


def mute_with_pongs(fault_s: float) -> Passes:
    return lambda what, line, now: line > 1 or now < fault_s or what == "pong"


def heartbeats_only(fault_s: float) -> Passes:
    return lambda what, line, now: line > 1 or now < fault_s or what == "heartbeat"


def no_ticks_but_orders(fault_s: float) -> Passes:
    """All instruments stop; order updates and heartbeats go on."""
    return lambda what, line, now: line > 1 or now < fault_s or what not in ("tick", "snapshot")


def accepted_in_vain(fault_s: float) -> Passes:
    """The line is cut; the next one takes the subscription, answers pings, and sends no tick."""
    return lambda what, line, now: line != 2 or what not in ("tick", "snapshot")


def slow_death(fault_s: float) -> Passes:
    return lambda what, line, now: line > 1 or now < fault_s or what not in ("tick", "snapshot")


WAYS = (half_open, mute_with_pongs, heartbeats_only, no_ticks_but_orders, accepted_in_vain, slow_death)
Way = Callable[[float], Passes]


def trial(way: Way, seed: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """How late it was caught, as a part of what the limit allows; asserts that it is not above 1."""
    draw = random.Random(f"{way.__name__} {seed}")
    rate = draw.choice([0.3, 1.0, 2.0, 5.0, 20.0])
    fault_s = draw.uniform(75, 900)
    ticks = poisson(draw, rate)
    if way is slow_death:
        ticks = dying(draw, rate, fault_s * 0.7, fault_s)
    clock = VirtualClock()
    broker = VirtualBroker(
        clock,
        ticks,
        ends_s=WORLD_END,
        passes=way(fault_s),
        snapshots=draw.random() < 0.5,
        orders_s=draw.uniform(0.5, 3) if way is no_ticks_but_orders else NEVER,
        heartbeats=way is not mute_with_pongs,
    )
    if way is accepted_in_vain:
        broker.cuts = lambda line, now: line == 1 and now >= fault_s
    wire = make_wire(broker, monkeypatch)
    mute = 2 if way is accepted_in_vain else 1
    # The trial ends when the line after the mute one has been up for a while, or when nobody noticed.
    broker.refuses = lambda: _end_soon(broker, mute)
    broker.ends_s = fault_s + 20_000
    wire.run()
    assert len(broker.opened_s) > mute, f"nobody noticed within {20_000} s"
    closed = broker.closed_s[mute - 1]
    before = [at for at in broker.received_s if at <= closed]
    since = broker.opened_s[1] if mute == 2 else before[-1]
    if way is half_open:
        late = closed - broker.heard_s[1]
        assert 5.0 - 1e-6 <= late <= 5.0 + SLACK_S
        return late / (5.0 + SLACK_S)
    lived = _lived(before, broker, mute)
    least, allowed = limit_s(lived, 60.0), limit_s(lived, 70.0)
    asked = [at for at in broker.asked_s if since < at <= closed]
    assert asked, "the line was left without asking again"
    if broker.received_s and before[-1] > since:
        raise AssertionError("a tick came on the mute line")
    assert least - 1e-6 <= asked[-1] - since <= allowed + SLACK_S, (way.__name__, seed, allowed)
    assert AGAIN_S <= closed - asked[-1] <= AGAIN_S + SLACK_S
    assert State.MUTE.value in wire.counts.transitions
    return (asked[-1] - since) / (allowed + SLACK_S)


def _end_soon(broker: VirtualBroker, mute: int) -> None:
    if len(broker.opened_s) == mute:  # the line after the mute one opens now
        broker.ends_s = broker.clock.monotonic() + 40


def _lived(ticks: list[float], broker: VirtualBroker, mute: int) -> list[float]:
    """The ticks in the line's own time, in which outages do not count."""
    if mute == 1:
        return ticks
    return [at for at in ticks if at <= broker.closed_s[0]]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_go_mute_is_caught_within_its_limit(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(10):
        trial(way, seed, monkeypatch)


@pytest.mark.chaos
@pytest.mark.parametrize("way", WAYS)
def test_fifty_trials_of_each_way(way: Way, monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    worst = max(trial(way, seed, monkeypatch) for seed in range(100, 150))
    report(
        f"3 {way.__name__.replace('_', ' ')}, virtual",
        50,
        f"all caught, latest at {worst:.0%} of what is allowed",
        aim="all",
    )
