"""A simulated week, with its nights, a weekend, a holiday and a special session: a healthy line is never left.

The instruments are as illiquid as it gets: together they tick from once in ten minutes to fifty times a second,
three times as much after the opening, a fifth over lunch, not at all between the pre-open and the opening.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta

import pytest
from trials._report import Report
from trials._virtual import NIGHT_READ_S, READ_S, RememberingCalendar, VirtualBroker, VirtualClock, make_wire

from marketfeed.calendars import MarketCalendar, TradingSession
from marketfeed.clock import NS, to_ns

NSE = MarketCalendar.named("NSE")
WEEKS = {
    "special Saturday and Monday's holiday": (date(2024, 1, 17), 7),  # Saturday the 20th traded, Monday the 22nd not
    "muhurat trading on a holiday": (date(2024, 10, 30), 7),  # Friday, November 1st: 18:00 to 19:00
    "two sessions on a Saturday": (date(2024, 2, 29), 6),  # March 2nd, a disaster recovery drill
}
NEAR_S = 1200.0
"""So long before and after a session the line is looked at as closely as within it."""


def activity(second: float, session: TradingSession) -> float:
    """How much of the usual rate there is at a moment of a session, counted from its opening; negative is before."""
    length = (session.close_ns - session.open_ns) / NS
    if second < 0:
        return 0.3 if -900 <= second < -420 else 0.0  # pre-open orders are matched, then nothing until the opening
    if second >= length:
        return 0.1 if second < length + 900 else 0.0
    if length < 2 * 3600:
        return 0.3  # a special session has few guests
    if second < 900:
        return 3.0
    if 9900 <= second < 15_300:  # 12:00 to 13:30
        return 0.2
    return 2.0 if second >= length - 1800 else 1.0


def market(draw: random.Random, rate: float, start_ns: int, days: int) -> Iterator[float]:
    """Poisson arrivals in seconds since ``start_ns``."""
    for session in sessions(start_ns, days):
        opens = (session.open_ns - start_ns) / NS
        now, most = opens - 900, 3.0 * rate
        end = (session.close_ns - start_ns) / NS + 900
        while (now := now + draw.expovariate(most)) < end:
            if now > 0 and draw.random() * 3.0 < activity(now - opens, session):
                yield now


def sessions(start_ns: int, days: int) -> list[TradingSession]:
    first = date.fromordinal(date(1970, 1, 1).toordinal() + (start_ns // NS + 19_800) // 86_400)
    return [one for ahead in range(days) for one in NSE.sessions(first + timedelta(days=ahead))]


def play_week(name: str, rate: float, seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Reconnects, repeated subscriptions and reads with ticks of one line over the week."""
    day, days = WEEKS[name]
    draw = random.Random(f"{name} {rate} {seed}")
    start_ns = to_ns(day) + 8 * 3600 * NS
    clock = VirtualClock(start_ns)
    edges = [((one.open_ns - start_ns) / NS, (one.close_ns - start_ns) / NS) for one in sessions(start_ns, days)]

    def read_s() -> float:
        now = clock.monotonic()
        while edges and now > edges[0][1] + NEAR_S:
            del edges[0]
        return READ_S if edges and now > edges[0][0] - NEAR_S else NIGHT_READ_S

    broker = VirtualBroker(
        clock,
        market(draw, rate, start_ns, days),
        ends_s=days * 86_400.0 - 8 * 3600,
        read_s=read_s,
        snapshots=draw.random() < 0.5,
        coalesce_s=0.1 if rate > 2 else 0.0,
    )
    wire = make_wire(broker, monkeypatch, calendar=RememberingCalendar(NSE))
    wire.run()
    assert wire.error is None
    assert clock.monotonic() >= days * 86_400 - 8 * 3600
    return len(broker.opened_s) - 1, len(broker.asked_s), len(broker.received_s)


@pytest.mark.parametrize(("name", "rate"), [(list(WEEKS)[1], 0.5), (list(WEEKS)[-3], 1 / 60)])
def test_a_healthy_line_is_never_left_over_a_week(name: str, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    reconnects, _, received = play_week(name, rate, 1, monkeypatch)
    assert reconnects == 0
    assert received > 4 * 22_500 * rate * 0.5  # it did tick, on at least four days


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_weeks_of_lines_of_every_rate(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    rates = (1 / 600, 1 / 120, 1 / 30, 0.1, 0.3, 1.0, 3.0, 10.0, 50.0)
    weeks = left = asked = reads = 0
    worst: list[str] = []
    for name in WEEKS:
        for rate in rates:
            for seed in range(3 if rate < 10 else 1):
                reconnects, resubscribes, received = play_week(name, rate, seed, monkeypatch)
                weeks, left, asked, reads = weeks + 1, left + reconnects, asked + resubscribes, reads + received
                if reconnects:
                    worst.append(f"{name}, {rate:.3g} a second, seed {seed}: {reconnects}")
    report(
        "3 healthy weeks, virtual",
        weeks,
        f"{left} reconnects, {asked} repeated subscriptions, {reads:,} reads",
        aim="0",
    )
    assert not worst, "\n".join(worst)
