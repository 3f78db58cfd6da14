"""Logging in: once for everybody, counted when refused, over restarts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from marketfeed.clock import ManualClock, to_ns
from marketfeed.contract import Session, VendorSettings
from marketfeed.engine.account import MOST_LOGINS, MOST_REFUSALS, Account
from marketfeed.engine.logs import get_log
from marketfeed.errors import AuthError, LineLost, RateLimited, SessionExpired
from marketfeed.tokens import FileTokenStore


class Broker:
    """A vendor plugin and its broker in one: knows whether the secret is right, and counts."""

    class info:  # noqa: N801 - stands for an attribute
        name = "toy"

    def __init__(self, *, right: bool) -> None:
        self.right = right
        self.asked = 0

    def authenticate(self, settings: VendorSettings, tokens: Any, http: Any, clock: Any) -> Session:
        self.asked += 1
        if not self.right:
            raise AuthError("wrong secret")
        return Session(vendor="toy", account="default", access_token=f"token-{self.asked}")


def account_on(broker: Broker, folder: Path, clock: ManualClock) -> Account:
    plugin: Any = broker
    http: Any = None
    tokens = FileTokenStore(folder)
    return Account(plugin, VendorSettings(), tokens, http, clock, get_log(), calls=lambda: broker.asked)


class Patient(ManualClock):
    """Waits in no time."""

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        self.advance(timeout_s or 0.0)
        return event.is_set()


@pytest.fixture
def clock() -> ManualClock:
    return Patient(to_ns("2026-11-20 09:00:00"))


def test_connections_that_lost_the_same_session_share_one_login(tmp_path: Path, clock: ManualClock) -> None:
    broker = Broker(right=True)
    account = account_on(broker, tmp_path, clock)
    first = account.session()
    assert account.session() is first
    second = account.renew(first)
    assert account.renew(first) is second
    assert broker.asked == 2


def test_a_session_of_a_login_beside_it_survives_the_renewal(tmp_path: Path, clock: ManualClock) -> None:
    account = account_on(Broker(right=True), tmp_path, clock)
    dead, other = account.session(), Session(vendor="toy", account="default", access_token="of another program")
    tokens = FileTokenStore(tmp_path)
    tokens.save(dead)
    account.renew(dead)
    assert tokens.load("toy", "default") is None  # nobody tries a dead one again
    tokens.save(other)
    account.renew(account.session())
    assert tokens.load("toy", "default") == other


def test_refused_logins_stop_at_ten_an_hour_also_over_restarts(tmp_path: Path, clock: ManualClock) -> None:
    broker = Broker(right=False)
    for _ in range(60):  # a service manager that restarts for ever, every minute
        with pytest.raises(AuthError):
            account_on(broker, tmp_path, clock).session()
        clock.advance(60)
    assert broker.asked == MOST_REFUSALS
    clock.advance(3600)
    with pytest.raises(AuthError, match="wrong secret"):
        account_on(broker, tmp_path, clock).session()


def test_a_login_that_works_forgives_the_others(tmp_path: Path, clock: ManualClock) -> None:
    broker = Broker(right=False)
    for _ in range(MOST_REFUSALS - 1):
        with pytest.raises(AuthError):
            account_on(broker, tmp_path, clock).session()
    broker.right = True
    account_on(broker, tmp_path, clock).session()
    broker.right = False
    with pytest.raises(AuthError, match="wrong secret"):
        account_on(broker, tmp_path, clock).session()


def test_what_never_reached_the_broker_is_not_counted(tmp_path: Path, clock: ManualClock) -> None:
    broker = Broker(right=False)
    for _ in range(MOST_REFUSALS + 5):
        account = account_on(broker, tmp_path, clock)
        account.calls = lambda: 0
        with pytest.raises(AuthError, match="wrong secret"):
            account.session()


def test_a_call_waits_as_long_as_the_broker_asks_for_and_goes_on(tmp_path: Path, clock: ManualClock) -> None:
    account = account_on(Broker(right=True), tmp_path, clock)
    answers: list[Exception | str] = [RateLimited("slow down", 7.0), SessionExpired("dead"), "rows"]
    asked: list[tuple[str, float]] = []

    def call(session: Session) -> str:
        asked.append((session.access_token, clock.monotonic()))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    start = clock.monotonic()
    assert account.ask(call) == "rows"
    assert [(token, at - start) for token, at in asked] == [("token-1", 0.0), ("token-1", 7.0), ("token-2", 7.0)]


def test_a_call_that_waits_ends_with_the_account(tmp_path: Path, clock: ManualClock) -> None:
    account = account_on(Broker(right=True), tmp_path, clock)
    account.closed.set()

    def call(session: Session) -> None:
        raise RateLimited("slow down", 3600.0)

    with pytest.raises(RateLimited):
        account.ask(call)


def test_a_call_is_tried_as_often_as_said(tmp_path: Path, clock: ManualClock) -> None:
    account = account_on(Broker(right=True), tmp_path, clock)
    asked: list[Session] = []

    def call(session: Session) -> None:
        asked.append(session)
        raise LineLost("no answer")

    with pytest.raises(LineLost):
        account.ask(call, tries=4, again=(LineLost,))
    assert len(asked) == 4
    with pytest.raises(LineLost):
        account.ask(call)
    assert len(asked) == 5, "a lost line is tried again only where that is wished"


class OneTime(Broker):
    """A broker whose new session ends the one before, with a plugin that looks into the store first, as all do."""

    def __init__(self) -> None:
        super().__init__(right=True)
        self.together = threading.Barrier(2)

    def authenticate(self, settings: VendorSettings, tokens: Any, http: Any, clock: Any) -> Session:
        kept: Session | None = tokens.load("toy", "default")
        if kept is None:
            kept = super().authenticate(settings, tokens, http, clock)
            tokens.save(kept)
        return kept


def test_two_feeds_that_lost_one_session_together_share_one_login(tmp_path: Path, clock: ManualClock) -> None:
    broker = OneTime()
    accounts = [account_on(broker, tmp_path, clock) for _ in range(2)]
    dead = accounts[0].session()
    assert accounts[1].session() == dead
    found: list[str] = []

    def lose(account: Account) -> None:
        used = account.session()
        broker.together.wait(10)
        found.append(account.renew(used).access_token)

    threads = [threading.Thread(target=lose, args=(account,)) for account in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (found, broker.asked) == (["token-2", "token-2"], 2)


def test_sessions_that_end_at_once_are_no_storm_of_logins(tmp_path: Path, clock: ManualClock) -> None:
    broker = Broker(right=True)
    account = account_on(broker, tmp_path, clock)
    session = account.session()
    for _ in range(MOST_LOGINS - 1):
        clock.advance(30)
        session = account.renew(session)
    with pytest.raises(RateLimited, match="who else logs in") as caught:
        account.renew(session)
    assert (broker.asked, caught.value.retry_after_s) == (MOST_LOGINS, 3600 - 30 * (MOST_LOGINS - 1))
    clock.advance(caught.value.retry_after_s)
    assert account.renew(session) is not session
