"""Starting and stopping the threads of a feed when something does not go as it should."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest
from waiting import until

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.clock import Clock
from marketfeed.contract import Frame, Parsed, Sink, Subscription
from marketfeed.deadletters import DeadLetters
from marketfeed.dtypes import empty_ticks
from marketfeed.engine.events import Events
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.lines import LineLimits
from marketfeed.engine.logs import get_log
from marketfeed.engine.pipeline import Pipeline, SinkPlan
from marketfeed.enums import Mode
from marketfeed.errors import LineLost, MarketFeedError, RequestRejected
from marketfeed.instruments import Instrument, TokenMap
from marketfeed.journal import Journal

Make = Callable[..., Pipeline]


@attrs.define
class Gate(Sink):
    """Lets nothing through one of its calls until it is opened."""

    at: str = "open"
    free: threading.Event = attrs.field(factory=threading.Event)
    reached: threading.Event = attrs.field(factory=threading.Event)
    rows: list[int] = attrs.field(factory=list)

    def _pass(self, call: str) -> None:
        if call == self.at:
            self.reached.set()
            self.free.wait(10)

    def open(self) -> None:
        self._pass("open")

    def write(self, batch: TickBatch | CandleBatch) -> None:
        self._pass("write")
        self.rows += batch.seq.tolist()


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes a pipeline of some sinks on a memory journal; each is stopped at the end."""
    made: list[Pipeline] = []

    def build(*plans: SinkPlan, stop_timeout_s: float = 1.0) -> Pipeline:
        journal = Journal.memory()
        journal.instruments.register([Instrument(exchange="NSE", symbol="INFY", token="1")])
        clock, log = Clock(), get_log()
        events = Events("main", "test", clock, log)
        letters = DeadLetters("main", clock)
        made.append(Pipeline("main", journal, plans, events, letters, clock, log, stop_timeout_s=stop_timeout_s))
        return made[-1]

    yield build
    for pipeline in made:
        pipeline.stop()


def append(pipeline: Pipeline, count: int) -> None:
    rows = empty_ticks(count)
    rows["instrument"] = 0
    pipeline.journal.append(rows)


def test_a_sink_that_never_opens_does_not_hold_up_a_stop(make: Make) -> None:
    gate = Gate()
    pipeline = make(SinkPlan(name="gate", sink=gate), stop_timeout_s=0.1)
    caught: list[Exception] = []

    def start() -> None:
        try:
            pipeline.wait_for_sinks()
        except MarketFeedError as error:
            caught.append(error)

    starter = threading.Thread(target=start)
    starter.start()
    assert gate.reached.wait(5)
    append(pipeline, 3)
    summary = pipeline.stop()
    starter.join(5)
    assert not starter.is_alive()
    assert "stopped while it started" in str(caught[0])
    assert summary.sinks[0].left == 3  # a sink that never opened hides nothing
    assert pipeline.stuck_threads == ["sink-gate"]
    gate.free.set()


def test_a_name_in_use_is_refused_instead_of_hiding_a_thread(make: Make) -> None:
    pipeline = make(SinkPlan(name="one", sink=Gate(at="")))
    with pytest.raises(MarketFeedError, match="'one' already"):
        pipeline.add_sink(SinkPlan(name="one", sink=Gate(at="")))
    assert len(pipeline.deliveries) == 1


def test_the_summary_shows_the_law_of_each_sink(make: Make) -> None:
    sink = Gate(at="")
    pipeline = make(SinkPlan(name="one", sink=sink))
    pipeline.wait_for_sinks()
    append(pipeline, 5)
    one = pipeline.stop().sinks[0]
    assert sink.rows == [0, 1, 2, 3, 4]
    assert one.position == one.start + one.delivered + one.skipped + one.dead_lettered == 5


def test_a_thread_that_breaks_fails_the_feed(make: Make) -> None:
    pipeline = make()

    def bug() -> None:
        raise ZeroDivisionError

    pipeline._thread("extra", bug)
    assert pipeline.finished.wait(5)
    assert isinstance(pipeline.error, ZeroDivisionError)


class SlowHandshake:
    """An account whose broker is slow to say where to connect."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()
        self.settings: Any = attrs.make_class("Settings", {"proxy": attrs.field(default=None)})()

    def session(self) -> None: ...
    def parser(self, tokens: Any) -> Any: ...
    def stream(self, session: Any) -> SlowHandshake:
        return self

    def handshake(self) -> Any:
        self.asked.set()
        self.go.wait(20)
        raise LineLost("too late")


def test_a_wire_that_hangs_in_its_handshake_does_not_hold_up_the_stop(make: Make) -> None:
    pipeline = make(stop_timeout_s=15.0)
    account: Any = SlowHandshake()
    wanted = Subscription.of(pipeline.journal.instruments, Mode.FULL)
    pipeline.connect(account, wanted, TokenMap({}), LineLimits(1, 10))
    assert account.asked.wait(5)
    started = time.monotonic()
    pipeline.stop()
    assert time.monotonic() - started < 8
    assert pipeline.stuck_threads == ["wire-0"]
    account.go.set()
    pipeline._join("wire-", pipeline.clock.monotonic() + 5)
    assert pipeline.stuck_threads == []
    assert pipeline.wires[0].counts.connects == 0


class Refusing(SlowHandshake):
    """An account whose broker refuses the first connections for good; the others wait."""

    def __init__(self, refused: int) -> None:
        super().__init__()
        self.left = refused

    def handshake(self) -> Any:
        if self.left:
            self.left -= 1
            raise RequestRejected("not for you")
        return super().handshake()


def test_the_feed_goes_on_without_one_of_its_connections_but_not_without_all(make: Make) -> None:
    for refused, goes_on in ((1, True), (2, False)):
        pipeline = make()
        more = Instrument(exchange="NSE", symbol="TCS", token="2")
        account: Any = Refusing(refused)
        wanted = Subscription.of([*pipeline.journal.instruments, more], Mode.FULL)
        pipeline.connect(account, wanted, TokenMap({}), LineLimits(2, 1))
        until(lambda: sum(wire.error is not None for wire in pipeline.wires) == refused)  # noqa: B023 - called here
        if goes_on:
            assert account.asked.wait(5)
            assert (pipeline.error, pipeline.finished.is_set(), pipeline.ready) == (None, False, False)
        else:
            assert pipeline.finished.wait(5)
            assert "not for you" in str(pipeline.error)
        account.go.set()


def test_frames_that_a_full_inbox_held_up_are_parsed_before_the_end(make: Make) -> None:
    pipeline = make(stop_timeout_s=5.0)
    busy, go = threading.Event(), threading.Event()
    seen: list[bytes] = []

    def parser(frames: Sequence[Frame]) -> Parsed:
        busy.set()
        go.wait(10)
        seen.extend(frame.data for frame in frames)
        return Parsed(empty_ticks(0))

    inbox = Inbox(1, pipeline.clock, max_bytes=1)
    pipeline.start_parsing(inbox, lambda: parser)
    inbox.put(0, [Frame(b"first", 1)])
    assert busy.wait(5)
    inbox.put(0, [Frame(b"second", 1)])
    last = threading.Thread(target=inbox.put, args=(0, [Frame(b"third", 1)]))  # waits for room
    pipeline._threads["wire-0"] = last
    last.start()
    threading.Timer(0.3, go.set).start()
    pipeline.stop()
    assert seen == [b"first", b"second", b"third"]
