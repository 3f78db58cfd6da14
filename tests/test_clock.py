"""Time: moments in any form become UTC nanoseconds, the same on every host; clocks that shift and stand still."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.clock import IST, NS, Clock, ManualClock, OffsetClock, ist_text, to_ns


@pytest.fixture(params=["UTC", "Asia/Kolkata", "America/New_York"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The host's zone, which must not matter."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


def test_every_form_of_a_moment_means_the_same_wherever_the_host_is(zone: str) -> None:
    ten = 1_795_149_000 * NS  # 2026-11-20 04:30 UTC
    assert to_ns("2026-11-20 10:00") == ten
    assert to_ns("2026-11-20T10:00:00+05:30") == ten
    assert to_ns("2026-11-20T04:30:00Z") == ten
    assert to_ns(datetime(2026, 11, 20, 10, 0)) == ten
    assert to_ns(datetime(2026, 11, 20, 4, 30, tzinfo=UTC)) == ten
    assert to_ns(ten) == ten
    assert to_ns(date(2026, 11, 20)) == to_ns("2026-11-20") == ten - 10 * 3600 * NS
    assert ist_text(ten + 250_999_999) == "2026-11-20 10:00:00.250"


moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(moments, offsets)
def test_no_microsecond_is_lost(moment: datetime, offset: timezone) -> None:
    aware = moment.replace(tzinfo=offset)
    ns = to_ns(aware)
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000) == aware
    assert ns % 1000 == 0
    assert to_ns(aware.isoformat()) == ns
    assert to_ns(moment) == to_ns(moment.replace(tzinfo=IST))


@given(st.integers(0, 2**62))
def test_the_text_is_the_moment_cut_to_the_millisecond(ns: int) -> None:
    assert to_ns(ist_text(ns)) == ns // 10**6 * 10**6


@pytest.mark.parametrize("wrong", ["yesterday", "", "20/11/2026", "2026-13-01"])
def test_other_text_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):
        to_ns(wrong)


def test_an_offset_clock_starts_where_it_is_told_and_goes_on() -> None:
    start = to_ns("2026-11-20 10:00")
    clock = OffsetClock.starting_at(start)
    first, second = clock.wall_ns(), clock.wall_ns()
    assert start <= first <= second < start + 60 * NS
    assert abs(clock.monotonic() - time.monotonic()) < 60


def test_a_manual_clock_moves_both_hands_and_only_when_told() -> None:
    clock = ManualClock(5 * NS)
    assert (clock.wall_ns(), clock.monotonic()) == (5 * NS, 0.0)
    clock.advance(1.5)
    assert (clock.wall_ns(), clock.monotonic()) == (6 * NS + NS // 2, 1.5)


def test_a_wait_on_a_manual_clock_ends_when_it_has_moved_far_enough() -> None:
    clock, never = ManualClock(), threading.Event()
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(clock.wait(never, 10.0)))
    waiter.start()
    clock.advance(9.0)
    waiter.join(0.05)
    assert waiter.is_alive()
    clock.advance(2.0)
    waiter.join(10)
    assert answers == [False]


@pytest.mark.parametrize("clock", [Clock(), ManualClock()], ids=["host", "manual"])
def test_a_wait_ends_at_once_when_the_event_is_set(clock: Clock) -> None:
    event = threading.Event()
    event.set()
    assert clock.wait(event, None)
    assert clock.wait(event, 1000.0)
    assert not clock.wait(threading.Event(), 0.0)
