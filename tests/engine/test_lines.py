"""Which instrument is on which connection, and which session each connection uses."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from marketfeed.clock import NS, ManualClock
from marketfeed.contract import Session, Subscription, Vendor, VendorSettings
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.lines import LineLimits, Lines, spread
from marketfeed.engine.logs import get_log
from marketfeed.enums import Mode
from marketfeed.errors import LineLost, MarketFeedError, RequestRejected, SessionExpired
from marketfeed.instruments import Instrument, TokenMap

ALL = [Instrument(exchange="NSE", symbol=f"S{number}", token=str(number)) for number in range(9)]
START_NS = 1_700_000_000 * NS


def wanted(*numbers: int, mode: Mode = Mode.FULL) -> Subscription:
    return Subscription.of([ALL[number] for number in numbers], mode)


class Accounts:
    """Stands for an account whose streams are the names of their sessions."""

    def __init__(self) -> None:
        self.settings = attrs.make_class("Settings", {"proxy": attrs.field(default=None)})()
        info = Vendor(name="toy", title="Toy", settings=VendorSettings, dead_token_statuses=frozenset({502}))
        self.plugin = attrs.make_class("Plugin", {"info": attrs.field(default=info)})()
        self.now = self.named("first")

    def named(self, token: str) -> Session:
        return Session(vendor="toy", account="a", access_token=token, expires_ns=START_NS + 3600 * NS)

    def session(self) -> Session:
        return self.now

    def renew(self, dead: Session) -> Session:
        self.now = self.named("renewed")
        return self.now

    def stream(self, session: Session) -> str:
        return session.access_token


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_NS)


@pytest.fixture
def account() -> Any:
    return Accounts()


@pytest.fixture
def lines(account: Any, clock: ManualClock) -> Lines:
    """Two connections of three instruments at most, whose threads never run."""
    made = Lines(
        account=account,
        inbox=Inbox(2, clock),
        tokens=TokenMap(),
        register=lambda instruments: list(range(len(list(instruments)))),
        limits=LineLimits(2, 3),
        clock=clock,
        log=get_log(),
        emit=lambda kind, connection, data: None,
        run=lambda wire: None,
    )
    made.start(wanted(0, 1, 2, 3))
    return made


def on(lines: Lines) -> list[list[str]]:
    return [[one.token for one in wire.wanted] for wire in lines.wires]


def test_instruments_go_over_as_few_connections_as_hold_them() -> None:
    assert [len(part) for part in spread(wanted(*range(7)), LineLimits(3, 3))] == [3, 3, 1]
    with pytest.raises(MarketFeedError, match="7 instruments are more than this account carries"):
        spread(wanted(*range(7)), LineLimits(2, 3))


def test_new_instruments_fill_what_is_free(lines: Lines) -> None:
    lines.unsubscribe([ALL[1]])
    lines.subscribe(ALL[4:6], Mode.FULL)
    assert on(lines) == [["0", "2", "4"], ["3", "5"]]
    with pytest.raises(MarketFeedError, match="more than this account carries"):
        lines.subscribe(ALL[6:9], Mode.FULL)
    assert on(lines) == [["0", "2", "4"], ["3", "5"]]


def test_a_connection_that_was_given_up_takes_no_new_instruments(lines: Lines) -> None:
    lines.unsubscribe([ALL[1]])
    lines.wires[0].error = RequestRejected("this one is not for you")
    lines.subscribe(ALL[4:6], Mode.FULL)
    assert on(lines) == [["0", "2"], ["3", "4", "5"]]
    with pytest.raises(MarketFeedError, match="more than this account carries"):
        lines.subscribe(ALL[6:7], Mode.FULL)
    lines.unsubscribe(ALL[4:6])
    lines.subscribe([ALL[0]], Mode.FULL)  # asked for once more, it gets a place that works
    assert on(lines) == [["2"], ["3", "0"]]


def test_new_entries_of_the_master_are_taken_in_one_change(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[list[str], list[str]]] = []
    wire, change = lines.wires[0], type(lines.wires[0]).change

    def listen(self: Any, add: Subscription, remove: Any = ()) -> None:
        told.append(([one.token for one in add], [one.token for one in remove]))
        change(self, add, remove)

    monkeypatch.setattr(type(wire), "change", listen)
    swapped = [attrs.evolve(ALL[0], token="1"), attrs.evolve(ALL[1], token="0")]
    renamed = attrs.evolve(ALL[2], lot_size=7)
    lines.replace([(ALL[0], swapped[0]), (ALL[1], swapped[1]), (ALL[2], renamed)])
    assert told == [(["1", "0"], ["0", "1"])]
    assert set(wire.wanted) == {*swapped, renamed}


def test_what_is_subscribed_in_that_mode_is_left_alone(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []
    wire = lines.wires[0]
    monkeypatch.setattr(type(wire), "change", lambda self, add, remove=(): told.append([one.token for one in add]))
    lines.subscribe([ALL[0], ALL[3]], Mode.FULL)
    assert told == []
    lines.subscribe([ALL[0]], Mode.LTP)
    assert told == [["0"]]


def test_each_connect_uses_the_newest_session(lines: Lines, account: Accounts) -> None:
    first, second = lines.wires
    assert first.newer() is None
    stream: Any = first.renew()
    assert (stream, first.newer(), second.newer(), second.newer()) == ("renewed", None, "renewed", None)


def test_a_status_with_many_meanings_means_a_dead_token_once_its_time_is_over(lines: Lines, clock: ManualClock) -> None:
    meaning, refused = lines.wires[0].meaning, LineLost("no", http_status=502)
    assert meaning(refused) is refused
    clock.advance(3600)
    assert isinstance(meaning(refused), SessionExpired)
    for other in (LineLost("no", http_status=503), LineLost("no"), RequestRejected("no")):
        assert meaning(other) is other
