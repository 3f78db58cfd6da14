"""One connection's mind, told what happened at which second."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from marketfeed.engine.retry import Backoff
from marketfeed.engine.supervisor import (
    Answered,
    Checked,
    Close,
    Connect,
    LoggedIn,
    Login,
    Lost,
    Market,
    Opened,
    Resubscribe,
    Started,
    State,
    StopAsked,
    Supervisor,
    Wait,
    Woke,
)
from marketfeed.errors import AuthError, LineLost, RateLimited, SessionExpired, TakenOver


def started() -> Supervisor:
    supervisor = Supervisor(Backoff(random=random.Random(7)))
    assert supervisor.handle(Started(), 0) == Connect()
    return supervisor


def test_a_lost_line_waits_longer_each_time_and_never_longer_than_the_cap() -> None:
    supervisor = started()
    waits = []
    for second in range(20):
        step = supervisor.handle(Lost(LineLost("gone")), second)
        assert isinstance(step, Wait)
        waits.append(step.seconds)
        assert supervisor.handle(Woke(), second) == Connect()
    assert all(low / 2 <= wait <= low for wait, low in zip(waits[:7], [0.5, 1, 2, 4, 8, 16, 32], strict=True))
    assert max(waits) <= 60
    assert min(waits[8:]) >= 30


def test_a_short_success_does_not_reset_the_back_off() -> None:
    supervisor = started()
    for second in range(6):
        supervisor.handle(Lost(LineLost("gone")), second)
        supervisor.handle(Woke(), second)
    supervisor.handle(Opened(), 100)
    assert supervisor.state is State.LIVE
    step = supervisor.handle(Lost(LineLost("gone")), 129.9)
    assert isinstance(step, Wait)
    assert step.seconds >= 16


def test_thirty_stable_seconds_reset_the_back_off() -> None:
    supervisor = started()
    for second in range(6):
        supervisor.handle(Lost(LineLost("gone")), second)
        supervisor.handle(Woke(), second)
    supervisor.handle(Opened(), 100)
    step = supervisor.handle(Lost(LineLost("gone")), 130)
    assert isinstance(step, Wait)
    assert step.seconds <= 0.5


def test_an_expired_session_leads_to_one_login_and_then_to_the_end() -> None:
    supervisor = started()
    assert supervisor.handle(Lost(SessionExpired("dead token")), 1) == Login()
    assert supervisor.state is State.WAITING_FOR_LOGIN
    assert supervisor.handle(LoggedIn(), 2) == Connect()
    error = SessionExpired("dead again")
    assert supervisor.handle(Lost(error), 3) == Close(error)
    assert supervisor.state is State.FAILED


def test_a_session_that_dies_after_a_stable_day_may_be_renewed_again() -> None:
    supervisor = started()
    supervisor.handle(Lost(SessionExpired("dead token")), 1)
    supervisor.handle(LoggedIn(), 2)
    supervisor.handle(Opened(), 3)
    assert supervisor.handle(Lost(SessionExpired("next morning")), 86_400) == Login()


def test_wrong_credentials_end_it_at_once() -> None:
    supervisor = started()
    error = AuthError("wrong secret")
    assert supervisor.handle(Lost(error), 1) == Close(error)


def test_a_rate_limit_waits_at_least_as_long_as_asked() -> None:
    step = started().handle(Lost(RateLimited("slow down", 17.0)), 1)
    assert isinstance(step, Wait)
    assert step.seconds >= 17


@pytest.mark.parametrize("before", [[], [Opened()], [Lost(LineLost("x"))], [Lost(SessionExpired("x"))]])
def test_a_stop_closes_from_every_state(before: list[Opened | Lost]) -> None:
    supervisor = started()
    for what in before:
        supervisor.handle(what, 1)
    assert supervisor.handle(StopAsked(), 2) == Close(None)
    assert supervisor.state is State.CLOSED


def test_jitter_keeps_two_clients_out_of_step() -> None:
    first, second = Backoff(random=random.Random(1)), Backoff(random=random.Random(2))
    assert [first.next_s() for _ in range(3)] != [second.next_s() for _ in range(3)]


def busy() -> tuple[Supervisor, float]:
    """A line that ticked five times a second for two minutes, and the time of the last tick."""
    supervisor = started()
    supervisor.handle(Opened(), 0)
    now = 0.0
    while now < 120:
        now += 0.2
        supervisor.watchdog.data(now)
        assert supervisor.handle(Checked(), now) is None
    return supervisor, now


def test_a_mute_line_is_asked_again_first_and_then_left() -> None:
    supervisor, last = busy()
    steps = []
    for quarter in range(1, 50):
        now = last + quarter / 4
        supervisor.watchdog.sign(now)  # heartbeats go on
        step = supervisor.handle(Checked(), now)
        if step is not None:
            steps.append((now - last, step))
            if isinstance(step, Close):
                break
    (asked_s, first), (left_s, second) = steps
    assert isinstance(first, Resubscribe)
    assert asked_s == pytest.approx(5, abs=0.26)
    assert isinstance(second, Close)
    assert left_s == pytest.approx(10, abs=0.26)
    assert isinstance(second.error, LineLost)


def test_ticks_after_asking_again_make_it_live() -> None:
    supervisor, last = busy()
    supervisor.watchdog.sign(last + 5)
    assert supervisor.handle(Checked(), last + 5) == Resubscribe()
    assert supervisor.state is State.MUTE
    supervisor.watchdog.data(last + 5.5)
    assert supervisor.handle(Checked(), last + 5.6) is None
    assert supervisor.state is State.LIVE


def test_a_dead_line_is_left_at_once() -> None:
    supervisor, last = busy()
    step = supervisor.handle(Checked(), last + 5)
    assert isinstance(step, Close)
    assert supervisor.state is State.MUTE


def test_an_unknown_line_is_asked_again_ever_more_rarely_and_never_left() -> None:
    supervisor = started()
    supervisor.handle(Opened(), 0)
    asked = []
    for second in range(1, 1000):
        supervisor.watchdog.sign(second)
        step = supervisor.handle(Checked(), second)
        if step is not None:
            assert step == Resubscribe()
            asked.append(second)
    assert asked == [30, 60, 120, 240, 480, 960]


def test_a_line_lost_in_the_evening_is_left_until_shortly_before_the_opening() -> None:
    supervisor = started()
    supervisor.handle(Opened(), 0)
    step = supervisor.handle(Lost(LineLost("bye"), Market(None, opens_in_s=60_000)), 100)
    assert step == Wait(60_000 - 900)
    assert supervisor.state is State.CLOSED_FOR_DAY


def test_a_line_lost_shortly_before_the_opening_backs_off_as_usual() -> None:
    supervisor = started()
    step = supervisor.handle(Lost(LineLost("bye"), Market(None, opens_in_s=600)), 100)
    assert isinstance(step, Wait)
    assert step.seconds <= 0.5


def test_every_transition_is_told_with_its_reason() -> None:
    told: list[tuple[State, State, str]] = []
    supervisor = Supervisor(changed=lambda old, new, why: told.append((old, new, why)))
    supervisor.handle(Started(), 0)
    supervisor.handle(Opened(), 1)
    supervisor.handle(Lost(LineLost("cable cut")), 2)
    supervisor.handle(StopAsked(), 3)
    assert [(old.value, new.value) for old, new, _ in told] == [
        ("new", "connecting"),
        ("connecting", "live"),
        ("live", "backing_off"),
        ("backing_off", "closed"),
    ]
    assert told[2][2] == "cable cut"


def test_a_login_that_got_no_answer_is_tried_again_after_a_wait() -> None:
    supervisor = started()
    assert supervisor.handle(Lost(SessionExpired("dead token")), 1) == Login()
    for second in range(2, 9):
        assert isinstance(supervisor.handle(Lost(LineLost("the login page is down")), second), Wait)
        assert supervisor.state is State.BACKING_OFF
        assert supervisor.handle(Woke(), second) == Login()  # connecting with the dead session would be the end
    assert supervisor.handle(LoggedIn(), 10) == Connect()
    supervisor.handle(Lost(LineLost("gone")), 11)
    assert supervisor.handle(Woke(), 12) == Connect()


# --- a login on the socket ------------------------------------------------------------------------


def test_a_line_is_live_only_when_the_login_on_it_is_answered() -> None:
    supervisor = started()
    supervisor.handle(Opened(login_within_s=10), 1)
    assert supervisor.state is State.CONNECTING
    supervisor.watchdog.sign(8)
    assert supervisor.handle(Checked(), 10.9) is None
    assert supervisor.state is State.CONNECTING
    supervisor.handle(Answered(), 10.95)
    assert supervisor.state is State.LIVE
    supervisor.watchdog.sign(12)
    assert supervisor.handle(Checked(), 13) is None


def test_logins_that_are_never_answered_are_failed_attempts_with_ever_longer_waits() -> None:
    supervisor = started()
    now, waits = 1.0, []
    for _ in range(12):
        supervisor.handle(Opened(login_within_s=40), now)  # longer than a line must be up to earn a fresh back-off
        step = None
        while step is None:
            now += 0.25
            supervisor.watchdog.sign(now)  # pongs come, so the line is not dead
            step = supervisor.handle(Checked(), now)
        assert isinstance(step, Close)
        assert isinstance(step.error, LineLost)
        assert "did not answer the login on the socket within 40 s" in str(step.error)
        wait = supervisor.handle(Lost(step.error), now)
        assert isinstance(wait, Wait)
        assert supervisor.state is State.BACKING_OFF
        waits.append(wait.seconds)
        now += wait.seconds
        assert supervisor.handle(Woke(), now) == Connect()
    assert all(0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits[:7]))
    assert all(30 <= wait <= 60 for wait in waits[7:])
    assert now > 12 * 40


def test_a_line_without_a_sign_of_life_does_not_wait_for_its_login() -> None:
    supervisor = started()
    supervisor.handle(Opened(login_within_s=60), 1)
    step = supervisor.handle(Checked(), 6.5)
    assert isinstance(step, Close)
    assert "no sign of life" in str(step.error)


# --- a connection that somebody else takes --------------------------------------------------------


def test_two_programs_that_take_the_connection_from_each_other_come_to_rest() -> None:
    now, came = 0.0, []
    programs = [started(), started()]
    for number in range(60):  # each comes back after its wait and ends the other at once
        comer, other = programs[number % 2], programs[1 - number % 2]
        came.append(now)
        comer.handle(Opened(), now)
        if number:
            wait = other.handle(Lost(TakenOver("another session", wait_s=60)), now)
            assert isinstance(wait, Wait)
            assert wait.seconds >= 60
            now += wait.seconds
            assert other.handle(Woke(), now) == Connect()
        else:
            now += 60
    assert [late - early for early, late in pairwise(came)][-10:] == [900] * 10


def test_after_an_hour_in_peace_a_takeover_counts_as_the_first_one_again() -> None:
    supervisor = started()
    now = 0.0
    for up_s, least, most in ((40, 60, 60), (40, 120, 120), (3500, 240, 240), (3600, 60, 60)):
        supervisor.handle(Opened(), now)
        now += up_s
        step = supervisor.handle(Lost(TakenOver("another session", wait_s=60)), now)
        assert isinstance(step, Wait)
        assert least <= step.seconds <= most
        now += step.seconds
        supervisor.handle(Woke(), now)
