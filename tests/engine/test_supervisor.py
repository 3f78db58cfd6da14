"""One connection's mind, told what happened at which second."""

from __future__ import annotations

import random

import pytest

from marketfeed.engine.retry import Backoff
from marketfeed.engine.supervisor import (
    Close,
    Connect,
    LoggedIn,
    Login,
    Lost,
    Opened,
    Started,
    State,
    StopAsked,
    Supervisor,
    Wait,
    Woke,
)
from marketfeed.errors import AuthError, LineLost, RateLimited, SessionExpired


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
