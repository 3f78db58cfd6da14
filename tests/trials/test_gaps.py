"""Outages that are injected, and the ledger of gaps beside them: it says exactly what happened.

In virtual time a real connection, with its supervisor and its watchdog, reads from a line that does what a
script says; on sockets a whole feed reads from a sandbox with faults; processes are killed and restarted.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest
from trials._report import Report
from waiting import until

from marketfeed import Feed
from marketfeed.batches import TickBatch
from marketfeed.calendars import ALWAYS
from marketfeed.clock import NS, ManualClock, to_ns
from marketfeed.contract import DATA, Frame, Handshake, KeepAlive, Stream, Subscription
from marketfeed.dtypes import empty_ticks
from marketfeed.engine import wire as wire_module
from marketfeed.engine.frames import BINARY, Message
from marketfeed.engine.gaps import GapLedger
from marketfeed.engine.gapwriter import GapWriter
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.logs import get_log
from marketfeed.engine.retry import Backoff
from marketfeed.engine.supervisor import Supervisor
from marketfeed.engine.wire import Wire
from marketfeed.enums import Mode
from marketfeed.errors import LineLost
from marketfeed.gaps import Gap, gaps_file, read_book
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal, ticks_folder
from marketfeed.sandbox import Sandbox, SentFrame, spawn_sandbox
from marketfeed.tokens import MemoryTokenStore

INFY = Instrument(exchange="NSE", symbol="INFY", token="1")

# --- virtual time -----------------------------------------------------------------------------------


class Injected(NamedTuple):
    """One disturbance of the line, ``[start_ns, end_ns)``."""

    kind: str
    start_ns: int
    end_ns: int


class PassingClock(ManualClock):
    """Whoever waits lets the time pass."""

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        if not event.is_set():
            self.advance(timeout_s or 0.0)
        return event.is_set()


@attrs.define
class World:
    """A broker that ticks twice a second, and is disturbed as planned."""

    clock: PassingClock
    plan: Sequence[Injected]
    end_ns: int
    sent: list[int] = attrs.field(factory=list)
    """When ticks were received."""
    over: Callable[[], None] = lambda: None

    def now(self) -> Injected | None:
        at_ns = self.clock.wall_ns()
        return next((one for one in self.plan if one.start_ns <= at_ns < one.end_ns), None)

    def open_line(self, handshake: Handshake, **_: Any) -> ScriptedLine:
        self.clock.advance(0.05)
        acting = self.now()
        if acting is not None and acting.kind in ("drop", "half-open"):
            raise LineLost("refused")
        return ScriptedLine(self, self.clock.wall_ns())

    def expected(self) -> list[tuple[str, int, int]]:
        """First cause, last tick before, first tick after each disturbance that was not too short to matter."""
        causes = {"drop": "outage", "close": "outage", "mute": "mute", "half-open": "mute"}
        return [
            (
                causes[one.kind],
                max(at_ns for at_ns in self.sent if at_ns < one.start_ns),
                min(at_ns for at_ns in self.sent if at_ns >= one.end_ns and at_ns > one.start_ns),
            )
            for one in self.plan
            if one.kind != "blip"
        ]


@attrs.define
class ScriptedLine:
    """A socket of that world."""

    world: World
    opened_ns: int

    def receive(self) -> tuple[Sequence[Message], int]:
        world = self.world
        before_ns = world.clock.wall_ns()
        world.clock.advance(0.25)
        at_ns = world.clock.wall_ns()
        if at_ns >= world.end_ns:
            world.over()
        for one in world.plan:
            if one.kind in ("drop", "close") and before_ns < one.start_ns <= at_ns:
                raise LineLost("closed by the broker")
            if one.kind == "half-open" and self.opened_ns < one.start_ns <= at_ns:
                return (), 0  # this socket never says anything again
        acting = world.now()
        if acting is not None:
            return (), 2  # pongs, no ticks
        if round(at_ns / NS * 4) % 2:
            return (), 0
        world.sent.append(at_ns)
        return [Message(BINARY, b"tick")], 4

    def send(self, messages: Sequence[str | bytes]) -> None: ...
    def ping(self) -> None: ...
    def pong(self, payload: bytes) -> None: ...
    def wake(self) -> None: ...
    def close(self, *, goodbye: bool) -> None: ...


class DataStream:
    """Everything is data."""

    def handshake(self) -> Handshake:
        return Handshake(url="ws://localhost")

    def opened(self, wanted: Subscription) -> Sequence[str | bytes]:
        return ["subscribe"]

    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str | bytes]:
        return ["subscribe"]

    def received(self, data: str | bytes) -> Any:
        return DATA

    def keepalive(self) -> KeepAlive | None:
        return None


class IntoTheJournal(Inbox):
    """Parses at once: a row a frame."""

    def __init__(self, clock: ManualClock, journal: Journal, ledger: GapLedger) -> None:
        super().__init__(1, clock)
        self._journal, self._ledger = journal, ledger

    def put(self, connection: int, frames: Sequence[Frame]) -> None:
        rows = empty_ticks(len(frames))
        rows["received_ns"] = [frame.received_ns for frame in frames]
        self._journal.append(rows)
        self._ledger.settle()


def planned(count: int, draw: random.Random, start_ns: int) -> tuple[list[Injected], int]:
    """``count`` disturbances with at least 90 s of ticks between them, and some too short for a watchdog."""
    plan, at_ns = [], start_ns
    for _ in range(count):
        at_ns += round(draw.uniform(90, 200) * NS)
        if draw.random() < 0.3:
            plan.append(Injected("blip", at_ns, at_ns + round(draw.uniform(0.5, 3.5) * NS)))
            at_ns += 90 * NS
        kind = draw.choice(["drop", "close", "mute", "half-open"])
        seconds = {"drop": (0.1, 300), "close": (0.0, 0.0), "mute": (6.5, 120), "half-open": (6.5, 120)}[kind]
        end_ns = at_ns + round(draw.uniform(*seconds) * NS)
        plan.append(Injected(kind, at_ns, end_ns))
        at_ns = end_ns
    return plan, at_ns + 120 * NS


def outages_in_virtual_time(count: int, seed: int, monkeypatch: pytest.MonkeyPatch, path: Path) -> list[Gap]:
    """Injects ``count`` disturbances; asserts that the ledger equals them, in memory and read from its file."""
    draw = random.Random(seed)
    clock = PassingClock(to_ns("2026-11-20T09:15"))
    plan, end_ns = planned(count, draw, clock.wall_ns())
    world = World(clock, plan, end_ns)
    monkeypatch.setattr(wire_module, "open_line", world.open_line)
    with Journal.memory() as journal:
        writer = GapWriter("main", "test", journal, clock, get_log(), lambda *_: None, path)
        ledger = GapLedger(writer, row_patience_s=0.0)
        ledger.begin([[INFY]], ALWAYS)
        stream: Stream = DataStream()
        wire = Wire(
            number=0,
            stream=stream,
            wanted=Subscription.of([INFY], Mode.FULL),
            inbox=IntoTheJournal(clock, journal, ledger),
            clock=clock,
            log=get_log(),
            emit=lambda *_: None,
            renew=DataStream,
            listener=ledger,
            supervisor=Supervisor(Backoff(random=random.Random(seed))),
        )
        world.over = wire.stop
        wire.run()
        ledger.close()
        ledger.settle()
        gaps = list(ledger.all)
        assert [(gap.cause, gap.start_ns, gap.end_ns) for gap in gaps] == world.expected()
        assert sum(map(is_right, gaps, [journal] * len(gaps))) == count
    book = read_book(path)
    assert list(book.gaps.values()) == gaps
    assert book.stopped_ns is not None
    return gaps


def is_right(gap: Gap, journal: Journal) -> bool:
    """Its rows are the ones received at its ends, next to each other."""
    assert gap.row_before is not None
    assert gap.row_after == gap.row_before + 1
    assert received_ns(journal, gap.row_before) == gap.start_ns
    assert received_ns(journal, gap.row_after) == gap.end_ns
    assert gap.in_session_s == gap.seconds
    return True


def received_ns(journal: Journal, row: int) -> int:
    with journal.reader(start=row) as reader:
        return int(reader.take(1).rows["received_ns"][0])


def test_the_ledger_equals_ten_outages_in_virtual_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(outages_in_virtual_time(10, 1, monkeypatch, tmp_path / "gaps.jsonl")) == 10


@pytest.mark.chaos
def test_the_ledger_equals_a_hundred_outages_in_virtual_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: Report
) -> None:
    gaps = outages_in_virtual_time(100, 2, monkeypatch, tmp_path / "gaps.jsonl")
    seconds = sum(gap.seconds or 0.0 for gap in gaps)
    report("2 outages in virtual time", len(gaps), f"ledger equal, {seconds:,.0f} s of gaps", aim="all equal")


# --- sockets ----------------------------------------------------------------------------------------

COLUMNS = ("last_price", "last_quantity", "volume", "buy_quantity", "sell_quantity", "open", "high", "low", "close")
DEPTH = ("bid_price", "bid_quantity", "bid_orders", "ask_price", "ask_quantity", "ask_orders")
NAMES = ("NSE:RELIANCE", "NSE:INFY", "NSE:TCS", "NSE:SBIN")
Faults = Sequence[tuple[str, Mapping[str, Any]]]
SHORT: Faults = (("drop", {}), ("mute", {"seconds": 7.0}), ("close", {"code": 1001}))
# A mute that ends by itself would teach the watchdog that this line is quiet now and then; these make it reconnect.
LONG: Faults = (
    ("drop", {}),
    ("mute", {"seconds": 60.0}),
    ("close", {"code": 1001}),
    ("half-open", {"seconds": 60.0}),
    ("heartbeats-only", {"seconds": 60.0}),
)


def told(rows: Any, full: bool) -> list[Any]:
    """What a row says, in the precision of the wire: paise."""
    names = (*COLUMNS, *DEPTH) if full else COLUMNS
    return [np.round(rows[name].astype(float), 2).tolist() for name in names]


def sent_ticks(frames: Sequence[SentFrame], keys: Sequence[str]) -> Iterator[tuple[str, bool, list[Any]]]:
    for frame in frames:
        for row, mode in zip(frame.rows, frame.modes.tolist(), strict=True):
            full = mode >= Mode.FULL
            yield keys[int(row["instrument"])], full, told(row, full)


def all_batches(journal: Journal) -> Iterator[TickBatch]:
    with journal.reader(start="oldest", keep=False) as reader:
        while len(batch := reader.take()):
            yield batch


def assert_all_arrived(frames: Sequence[SentFrame], journal: Journal, keys: Sequence[str]) -> int:
    """Every tick that left the sandbox is in the journal, in order and unaltered; nothing else is."""
    batches = list(all_batches(journal))
    arrived = [(batch.origin.instruments[int(row["instrument"])].key, row) for batch in batches for row in batch.rows]
    sent = list(sent_ticks(frames, keys))
    assert [key for key, _ in arrived] == [key for key, _, _ in sent]
    for (_, row), (key, full, values) in zip(arrived, sent, strict=True):
        assert told(row, full) == values, key
    return len(sent)


def outages_on_sockets(faults: Faults, folder: Path) -> tuple[list[Gap], int]:
    with Sandbox("kite", seed=3, instruments=20, ticks_per_second=1000, rate_limits=False, log=True) as box:
        feed = Feed(
            "kite",
            instruments=NAMES,
            settings=box.settings(),
            tokens=MemoryTokenStore(),
            journal=folder,
            environ={},
        )
        with feed:
            for number, (kind, parameters) in enumerate(faults):
                enough = feed.pipeline.journal.committed + 200
                until(lambda enough=enough: feed.pipeline.journal.committed > enough)  # type: ignore[misc]
                box.fault(kind, **parameters)
                until(lambda number=number: [gap.is_open for gap in feed.gaps] == [False] * (number + 1))  # type: ignore[misc]
            box.set_rate(0)
            until(lambda: feed.pipeline.journal.committed == sum(len(frame.rows) for frame in box.log))
            gaps, log = list(feed.gaps), list(box.log)
            ticks = assert_all_arrived(log, feed.pipeline.journal, [one.key for one in box.instruments])
            for gap, injected in zip(gaps, box.injected, strict=True):
                start_ns = injected.start_ns - box.clock_offset_ns
                end_ns = (injected.end_ns or injected.start_ns) - box.clock_offset_ns
                sent_before = sum(len(frame.rows) for frame in log if frame.at_ns <= start_ns)
                assert (gap.row_before, gap.row_after) == (sent_before - 1, sent_before), injected
                assert gap.end_ns is not None
                after = next(frame for frame in log if frame.at_ns > start_ns)
                assert gap.end_ns >= (end_ns if after.connection in injected.connections else after.at_ns)
                assert gap.start_ns == received_ns(feed.pipeline.journal, sent_before - 1)
        assert list(read_book(gaps_file(folder, "main")).gaps.values()) == gaps
    return gaps, ticks


@pytest.mark.timeout(120)
def test_the_ledger_covers_three_outages_on_sockets_and_every_tick_sent_arrived(tmp_path: Path) -> None:
    gaps, _ = outages_on_sockets(SHORT, tmp_path)
    assert [gap.cause for gap in gaps] == ["outage", "mute", "outage"]


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_the_ledger_covers_ten_outages_on_sockets_and_every_tick_sent_arrived(tmp_path: Path, report: Report) -> None:
    # Two feeds, for one whose line breaks ten times in a minute backs off for minutes.
    found = [outages_on_sockets(LONG, tmp_path / name) for name in ("one", "two")]
    gaps, ticks = sum(len(gaps) for gaps, _ in found), sum(ticks for _, ticks in found)
    report("2 outages on sockets", gaps, f"all covered, {ticks:,} ticks unaltered", aim="all")


# --- processes --------------------------------------------------------------------------------------

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:*"]
[vendors.kite]
{settings}
[journal]
folder = "journal"
segment_rows = 1024
[metrics]
port = false
"""


def run_until_ticks(folder: Path, end: signal.Signals) -> tuple[int, int]:
    """Run a feed until it has ticks of its own, end it by a signal; the run's first row and the next run's."""
    journal = ticks_folder(folder / "journal", "main")
    before = Journal.attach(journal).committed if (journal / "control").exists() else 0
    with (folder / "log.txt").open("ab") as log:
        child = subprocess.Popen([sys.executable, "-m", "marketfeed", "run"], cwd=folder, stdout=log, stderr=log)
    try:
        until(lambda: (journal / "control").exists() and Journal.attach(journal).committed > before + 100, 60)
    finally:
        os.kill(child.pid, end)
        code = child.wait(30)
    assert code == (-end if end == signal.SIGKILL else 0), (folder / "log.txt").read_text()
    attached = Journal.attach(journal)
    return attached.run_start, attached.committed


@pytest.mark.process
@pytest.mark.timeout(180)
def test_a_kill_and_a_restart_are_one_gap_each_from_the_last_row_to_the_first(tmp_path: Path) -> None:
    with spawn_sandbox("kite", instruments=10, ticks_per_second=2000, rate_limits=False) as box:
        settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in box.settings().items())
        (tmp_path / "feed.toml").write_text(CONFIG.format(settings=settings))
        run_until_ticks(tmp_path, signal.SIGKILL)
        after_kill, _ = run_until_ticks(tmp_path, signal.SIGINT)
        after_stop, _ = run_until_ticks(tmp_path, signal.SIGINT)
    gaps = read_book(gaps_file(tmp_path / "journal", "main")).gaps.values()
    journal = Journal.attach(ticks_folder(tmp_path / "journal", "main"))
    assert [(gap.cause, gap.row_before, gap.row_after) for gap in gaps] == [
        ("crash", after_kill - 1, after_kill),
        ("restart", after_stop - 1, after_stop),
    ]
    for gap in gaps:
        assert is_right(gap, journal)
        assert gap.seconds is not None
        assert gap.seconds > 0
        assert len(gap.instruments) == len(journal.instruments)
