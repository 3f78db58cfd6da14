"""Thirty days on which the token dies every morning, twice: nobody restarts anything, and nobody storms the broker.

The connection, the account, the supervisor and the morning's reload of the instruments are the real ones; the
broker behind them is a toy whose clock is the trial's.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import attrs
import pytest
from trials._report import Report
from trials._virtual import NIGHT_READ_S, WANTED, RememberingCalendar, VirtualBroker, VirtualClock, Words, make_wire

from marketfeed.batches import Origin
from marketfeed.calendars import ALWAYS, MarketCalendar, TradingSession, india_day
from marketfeed.clock import NS, to_ns
from marketfeed.contract import Session, Stream, VendorSettings
from marketfeed.engine.account import MOST_REFUSALS, Account
from marketfeed.engine.latest import Latest
from marketfeed.engine.lines import LineLimits, Lines
from marketfeed.engine.logs import get_log
from marketfeed.engine.upkeep import Upkeep
from marketfeed.errors import AuthError, LineLost, MarketFeedError, SessionExpired
from marketfeed.instruments import InstrumentTable, TokenMap
from marketfeed.tokens import FileTokenStore

NSE = MarketCalendar.named("NSE")
EXPIRES = ((6, 0), (7, 30))
"""India time at which every token dies."""
DAY_S = 86_400.0


class Toy:
    """A vendor plugin and its broker in one."""

    class info:  # noqa: N801 - stands for an attribute
        name = "toy"

    def __init__(self, clock: VirtualClock, draw: random.Random, *, down: float = 0.0) -> None:
        self.clock = clock
        self.draw = draw
        self.down = down
        """How often a login gets no answer, from 0 to 1."""
        self.secret_is_right = True
        self.born_ns: dict[str, int] = {}
        self.logins: list[int] = []
        """When a session was given (UTC nanoseconds)."""
        self.refused: list[int] = []
        self.masters = 0
        self.calls = 0

    def alive(self, token: str) -> bool:
        born, now = self.born_ns[token], self.clock.wall_ns()
        midnight = to_ns(india_day(now))
        return not any(born < midnight + (hour * 60 + minute) * 60 * NS <= now for hour, minute in EXPIRES)

    def authenticate(self, settings: VendorSettings, tokens: FileTokenStore, http: Any, clock: Any) -> Session:
        kept = tokens.load("toy", "default")
        if kept is not None:
            return kept
        self.calls += 1
        if self.draw.random() < self.down:
            raise LineLost("the login page gave no answer")
        if not self.secret_is_right:
            self.refused.append(self.clock.wall_ns())
            raise AuthError("wrong secret")
        self.logins.append(self.clock.wall_ns())
        session = Session(vendor="toy", account="default", access_token=f"token-{len(self.logins)}")
        self.born_ns[session.access_token] = self.clock.wall_ns()
        tokens.save(session)
        return session

    def instruments(self, settings: VendorSettings, session: Session, http: Any) -> InstrumentTable:
        self.calls += 1
        if not self.alive(session.access_token):
            raise SessionExpired("the token is not accepted")
        self.masters += 1
        return InstrumentTable(list(WANTED))

    def connect(self, settings: VendorSettings, session: Session, http: Any) -> Stream:
        return Line(session.access_token)


@attrs.define
class Line(Words):
    token: str


def account_of(toy: Toy, clock: VirtualClock, folder: Path) -> Account:
    plugin: Any = toy
    http: Any = None
    settings = attrs.evolve(VendorSettings())
    object.__setattr__(settings, "rest_url", "http://127.0.0.1/")  # its instruments are never kept in the cache
    return Account(plugin, settings, FileTokenStore(folder), http, clock, get_log(), calls=lambda: toy.calls)


def ticking(calendar: MarketCalendar, start_ns: int, days: int) -> Iterator[float]:
    """A tick every ten seconds of each session."""
    for opens, closes in sessions(calendar, start_ns, days):
        yield from ((at - start_ns) / NS for at in range(opens, closes, 10 * NS) if at >= start_ns)


def sessions(calendar: MarketCalendar, start_ns: int, days: int) -> list[TradingSession]:
    first = india_day(start_ns)
    return [one for ahead in range(days) for one in calendar.sessions(date.fromordinal(first.toordinal() + ahead))]


def play(
    calendar: MarketCalendar, days: int, seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Toy, Any, int]:
    """The broker, the wire and how many ticks arrived; everything runs until the last day is over."""
    draw = random.Random(seed)
    start_ns = to_ns(date(2024, 10, 15)) + 8 * 3600 * NS  # Diwali, a holiday and two elections are ahead
    clock = VirtualClock(start_ns)
    toy = Toy(clock, draw, down=draw.choice([0.0, 0.3]))
    account = account_of(toy, clock, folder)
    cuts_when_dead = draw.random() < 0.5
    drops_a_day = draw.choice([0.0, 2.0, 20.0])
    broker = VirtualBroker(clock, ticking(calendar, start_ns, days), ends_s=days * DAY_S - 8 * 3600)
    broker.read_s = lambda: NIGHT_READ_S
    while True:
        try:
            session = account.session()
            break
        except LineLost:  # a person starts it, at eight in the morning, and tries again
            clock.advance(60)
    used = [session]

    def refuses() -> Exception | None:
        return None if toy.alive(used[0].access_token) else SessionExpired("the token is not accepted")

    def cuts(line: int, now: float) -> bool:
        if cuts_when_dead and not toy.alive(used[0].access_token):
            return True
        return draw.random() < drops_a_day * NIGHT_READ_S / DAY_S

    def renew() -> Stream:
        used[0] = account.renew(used[0])
        return account.stream(used[0])

    broker.refuses, broker.cuts = refuses, cuts
    hours = ALWAYS if calendar is ALWAYS else RememberingCalendar(calendar)
    wire = make_wire(broker, monkeypatch, calendar=hours, renew=renew)
    lines = Lines(
        account=account,
        inbox=wire.inbox,
        tokens=TokenMap({}),
        register=lambda instruments: [0 for _ in instruments],
        limits=LineLimits(1, 3000),
        clock=clock,
        log=get_log(),
        emit=lambda kind, connection, data: None,
        run=lambda wire: None,
        calendar=calendar,
        wires=[wire],
    )
    upkeep = Upkeep(
        account,
        lines,
        Latest(Origin(list(WANTED))),
        calendar,
        clock,
        get_log(),
        lambda kind, connection, data: None,
        threading.Event(),
    )
    clock.each_minute = upkeep.round
    wire.run()
    clock.each_minute = None
    assert clock.monotonic() >= days * DAY_S - 8 * 3600 - 1
    return toy, wire, len(broker.received_s)


def check_month(days: int, seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most logins of a day; asserts that nothing ended and nothing was missed."""
    calendar = ALWAYS if seed % 2 else NSE  # with the latter a line lost in the night is left alone until the morning
    toy, wire, received = play(calendar, days, seed, folder, monkeypatch)
    assert wire.error is None, f"seed {seed}: a person would have had to restart it: {wire.error}"
    per_day = Counter(india_day(at) for at in toy.logins)
    assert max(per_day.values()) <= 2, (seed, per_day)
    assert toy.masters >= days - 1
    seconds = sum((closes - opens) / NS for opens, closes in sessions(calendar, to_ns("2024-10-15"), days))
    if calendar is ALWAYS:
        seconds -= 8 * 3600  # it was started at eight
    assert received >= 0.97 * seconds / 10, f"seed {seed}: the feed was not there in market hours"
    return max(per_day.values())


def test_three_days_of_dying_tokens_need_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(2):
        check_month(3, seed, tmp_path / str(seed), monkeypatch)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_thirty_days_of_dying_tokens_need_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    most = [check_month(30, seed, tmp_path / str(seed), monkeypatch) for seed in range(100, 110)]
    report("5 months of 30 days, virtual", len(most), f"0 restarts, at most {max(most)} logins a day", aim="0, 2")


# --- a wrong secret -------------------------------------------------------------------------------


def storm(seed: int, hours: float, folder: Path) -> Sequence[int]:
    """When a broker was asked by a service that is restarted for ever (UTC nanoseconds)."""
    draw = random.Random(seed)
    clock = VirtualClock(to_ns("2024-10-15 08:00:00") + draw.randrange(3600) * NS)
    toy = Toy(clock, draw)
    toy.secret_is_right = False
    end = clock.monotonic() + hours * 3600
    pause_s = draw.choice([2.0, 10.0, 100.0, 700.0])
    while clock.monotonic() < end:
        account = account_of(toy, clock, folder)  # a new process: nothing but the file is known
        for _ in range(draw.randrange(1, 4)):  # some programs try again by themselves
            with pytest.raises(MarketFeedError):
                account.session()
        clock.advance(draw.uniform(0.5, 1.5) * pause_s)
    return toy.refused


def check_storm(seed: int, hours: float, folder: Path) -> int:
    """The most attempts within any hour."""
    refused = storm(seed, hours, folder)
    most = max(sum(begin <= at < begin + 3600 * NS for at in refused) for begin in refused)
    assert most <= MOST_REFUSALS, f"seed {seed}: {most} attempts within an hour"
    assert len(refused) >= hours * 4  # it is tried again when the hour is over
    return most


def test_a_wrong_secret_is_tried_ten_times_an_hour_at_most_whatever_restarts(tmp_path: Path) -> None:
    for seed in range(5):
        check_storm(seed, 2.5, tmp_path / str(seed))


@pytest.mark.chaos
def test_days_of_restarts_with_a_wrong_secret(tmp_path: Path, report: Report) -> None:
    most = max(check_storm(seed, 24, tmp_path / str(seed)) for seed in range(100, 120))
    report("5 wrong secret, restarted for a day", 20, f"at most {most} attempts an hour", aim="10")


def test_a_secret_that_turned_wrong_overnight_stops_the_feed_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualClock(to_ns("2024-10-15 10:00:00"))
    toy = Toy(clock, random.Random(1))
    account = account_of(toy, clock, tmp_path)
    used = [account.session()]
    broker = VirtualBroker(clock, iter(()), ends_s=2 * DAY_S)
    broker.cuts = lambda line, now: not toy.alive(used[0].access_token)
    broker.refuses = lambda: None if toy.alive(used[0].access_token) else SessionExpired("dead")

    def renew() -> Stream:
        used[0] = account.renew(used[0])
        return account.stream(used[0])

    toy.secret_is_right = False
    wire = make_wire(broker, monkeypatch, calendar=RememberingCalendar(NSE), renew=renew)
    wire.run()
    assert isinstance(wire.error, AuthError)
    assert len(toy.refused) == 1
    assert FileTokenStore(tmp_path).failures_since("toy", "default", 0) == 1
