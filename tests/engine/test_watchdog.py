"""Quiet or mute: the watchdog's judgement from what came over the line."""

from __future__ import annotations

import random

import pytest

from marketfeed.engine.watchdog import DEAD_S, FEW, UNKNOWN_S, Verdict, Watchdog

LONG = 10_000.0
"""A session that has been open for long."""


def ticking(period_s: float, seconds: float, start_s: float = 0.0) -> tuple[Watchdog, float]:
    """A watchdog of a line that ticked every ``period_s`` for so long, and the time of the last tick."""
    dog = Watchdog()
    dog.opened(start_s)
    dog.judge(start_s, LONG)
    now = start_s
    while now < start_s + seconds:
        now += period_s
        dog.data(now)
    return dog, now


def test_a_busy_line_is_mute_after_five_seconds() -> None:
    dog, last = ticking(0.2, 120)
    dog.sign(last + 4.5)
    assert dog.judge(last + DEAD_S - 0.1, LONG) is Verdict.LIVE
    assert dog.judge(last + DEAD_S, LONG) is Verdict.MUTE


def test_a_slow_line_may_be_silent_for_ten_of_its_gaps() -> None:
    dog, last = ticking(7.0, 300)
    for late, verdict in ((6.0, Verdict.QUIET), (69.0, Verdict.QUIET), (70.0, Verdict.MUTE)):
        dog.sign(last + late)
        assert dog.judge(last + late, LONG) is verdict


def test_heartbeats_are_no_data() -> None:
    dog, last = ticking(0.2, 120)
    for second in range(1, 6):
        dog.sign(last + second)
    assert dog.judge(last + 5, LONG) is Verdict.MUTE


def test_without_any_sign_the_line_is_dead_after_five_seconds_in_market_hours() -> None:
    dog, last = ticking(30.0, 900)
    assert dog.judge(last + 4.9, LONG) is Verdict.LIVE
    assert dog.judge(last + 5.0, LONG) is Verdict.DEAD


def test_outside_market_hours_silence_is_quiet_and_signs_may_come_later() -> None:
    dog, last = ticking(0.2, 120)
    dog.sign(last + 590)
    assert dog.judge(last + 600, None) is Verdict.QUIET
    assert dog.judge(last + 605, None) is Verdict.DEAD


def test_the_opening_starts_the_silence_anew_and_yesterday_does_not_make_it_busy() -> None:
    dog, last = ticking(0.2, 120)
    night = last + 60_000
    dog.sign(night)
    assert dog.judge(night, None) is Verdict.QUIET
    dog.sign(night + 6)
    assert dog.judge(night + 6, 6.0) is Verdict.MUTE  # its gaps are far below half a second
    slow, last = ticking(3.0, 120)
    slow.sign(last + 60_000)
    slow.judge(last + 60_000, None)
    slow.sign(last + 60_006)
    assert slow.judge(last + 60_006, 6.0) is Verdict.QUIET


def test_the_night_is_no_gap_between_ticks() -> None:
    dog, last = ticking(3.0, 900)
    opens = last + 60_000
    dog.sign(opens - 1)
    assert dog.judge(opens - 1, None) is Verdict.QUIET
    dog.data(opens - 400)  # before the opening, which proves nothing
    dog.sign(opens)
    dog.judge(opens, 0.0)
    for late in (2.0, 5.0, 8.0):
        dog.data(opens + late)
    dog.sign(opens + 38)
    assert dog.judge(opens + 37.9, 37.9) is Verdict.QUIET
    assert dog.judge(opens + 38, 38.0) is Verdict.MUTE  # ten times three seconds, not ten nights


def test_a_line_of_which_nothing_is_known_is_never_called_mute() -> None:
    dog = Watchdog()
    dog.opened(0)
    for arrival in range(FEW - 1):
        dog.data(float(arrival) / 10)
    dog.sign(UNKNOWN_S + 1)
    assert dog.judge(UNKNOWN_S + 1, LONG) is Verdict.UNSURE
    dog.sign(LONG)
    assert dog.judge(LONG, LONG) is Verdict.UNSURE


def test_an_outage_is_no_gap_between_ticks() -> None:
    dog, last = ticking(0.2, 120)
    dog.closed(last + 1)
    dog.opened(last + 301)
    dog.sign(last + 305)
    assert dog.judge(last + 301 + DEAD_S, LONG) is Verdict.MUTE  # as busy as before


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 1.0, 3.0, 20.0])
def test_random_arrivals_of_any_rate_are_never_called_mute(rate: float) -> None:
    draw = random.Random(int(rate * 1000))
    dog = Watchdog()
    dog.opened(0)
    now, tick = 0.0, draw.expovariate(rate)
    while now < 22_500:  # a whole session
        now += 0.25
        dog.sign(now)  # heartbeats and pongs
        while tick <= now:
            dog.data(tick)
            tick += draw.expovariate(rate)
        assert dog.judge(now, now) is not Verdict.MUTE, f"false alarm after {now} s"


def test_one_mute_does_not_hide_the_next() -> None:
    dog, last = ticking(0.2, 120)
    now = last + 7.0  # mute, and then it goes on by itself
    dog.data(now)
    for _ in range(20):
        now += 0.2
        dog.data(now)
    dog.sign(now + 5)
    assert dog.judge(now + DEAD_S, LONG) is Verdict.MUTE


def test_a_line_that_really_slowed_down_is_understood_after_a_few_alarms() -> None:
    dog, now = ticking(0.2, 120)
    alarms = 0
    for _ in range(30):
        for quarter in range(1, 241):  # a tick a minute from now on
            dog.sign(now + quarter / 4)
            if dog.judge(now + quarter / 4, LONG) is Verdict.MUTE:
                alarms += 1
                break
        now += 60
        dog.data(now)
    assert 1 <= alarms <= 8
