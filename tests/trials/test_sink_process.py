"""A sink in a process of its own: killed and restarted, beside a writer that is killed and restarted. In the end it
has the journal's rows, each once, and the feed has noticed nothing."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from trials._report import Report

from marketfeed.journal import Journal, ticks_folder
from marketfeed.overview import look
from marketfeed.sandbox import spawn_sandbox
from marketfeed.sinks.encode import TickEncoder

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:*"]
sinks = ["here", "apart"]
[vendors.kite]
{settings}
[sinks.here]
type = "jsonl"
path = "here.jsonl"
flush_every_s = 0.05
[sinks.apart]
process = "own"
flush_every_s = 0.05
{apart}
[journal]
folder = "journal"
segment_rows = 1024
[metrics]
port = false
"""
JSONL = 'type = "jsonl"\npath = "apart.jsonl"'
HOG = """
import time
held = []
def eat(batch):
    held.append(bytearray(20_000_000))
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
"""


class Desk:
    """A folder with a configuration, and the processes that run in it."""

    def __init__(self, folder: Path, settings: dict[str, object], apart: str = JSONL) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []
        text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        (folder / "feed.toml").write_text(CONFIG.format(settings=text, apart=apart))

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log.txt").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "marketfeed", *command], cwd=self.folder, stdout=log, stderr=log
            )
        self.children.append(child)
        return child

    def end(self, child: subprocess.Popen[bytes], number: signal.Signals, status: int = 0) -> None:
        child.send_signal(number)
        assert child.wait(30) == status, self.log

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    @property
    def ticks(self) -> Path:
        return ticks_folder(self.folder / "journal", "main")

    def committed(self) -> int:
        return Journal.attach(self.ticks).committed if (self.ticks / "control").exists() else 0

    def position(self) -> int:
        """Where the sink's cursor stands."""
        if not (self.ticks / "control").exists():
            return 0
        return next((one.state.position for one in Journal.attach(self.ticks).cursors() if one.name == "apart"), 0)

    def wait_until_moves(self, what: str, child: subprocess.Popen[bytes]) -> None:
        """Until ``committed`` or ``position`` is beyond what it is now."""
        look_at = getattr(self, what)
        before, end = look_at(), time.monotonic() + 30
        while look_at() <= before:
            assert child.poll() is None, self.log
            assert time.monotonic() < end, f"{what} stays at {before}"
            time.sleep(0.01)

    def check(self) -> int:
        """The number of rows; both files equal the journal and each other."""
        reader = Journal.attach(self.ticks).reader(start="oldest")
        encoder, rows, lines = TickEncoder(), 0, []
        while len(batch := reader.take()):
            rows += len(batch)
            lines.append(encoder.lines(batch))
        whole = b"".join(lines)
        assert (self.folder / "here.jsonl").read_bytes() == whole
        assert (self.folder / "apart.jsonl").read_bytes() == whole
        return rows


@pytest.fixture
def desks() -> Iterator[list[Desk]]:
    made: list[Desk] = []
    yield made
    for desk in made:
        for child in desk.children:
            if child.poll() is None:
                child.kill()
            child.wait()


def kill_sinks(desk: Desk, trials: int, seed: int) -> int:
    draw = random.Random(seed)
    feed = desk.start("run", "feed.toml")
    desk.wait_until_moves("committed", feed)
    for _ in range(trials):
        sink = desk.start("sink", "apart")
        desk.wait_until_moves("position", sink)
        time.sleep(draw.uniform(0, 0.2))
        desk.kill(sink)
    desk.end(feed, signal.SIGINT)
    assert desk.start("sink", "apart", "--drain").wait(60) == 0, desk.log
    return desk.check()


@pytest.mark.process
@pytest.mark.timeout(120)
def test_three_kills_of_a_sink_lose_nothing_and_repeat_nothing(tmp_path: Path, desks: list[Desk]) -> None:
    with spawn_sandbox("kite", instruments=40, ticks_per_second=3000, rate_limits=False) as box:
        desks.append(Desk(tmp_path, box.settings()))
        assert kill_sinks(desks[0], trials=3, seed=1) > 1000


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_fifty_kills_of_a_sink_lose_nothing_and_repeat_nothing(
    tmp_path: Path, desks: list[Desk], report: Report
) -> None:
    with spawn_sandbox("kite", instruments=40, ticks_per_second=3000, rate_limits=False) as box:
        desks.append(Desk(tmp_path, box.settings()))
        rows = kill_sinks(desks[0], trials=50, seed=2)
    report("1 kills of a sink's own process", 50, f"{rows:,} rows, none missing, none twice", aim="0 missing, 0 twice")


@pytest.mark.process
@pytest.mark.timeout(120)
def test_a_sink_goes_on_over_kills_of_the_writer(tmp_path: Path, desks: list[Desk]) -> None:
    draw = random.Random(3)
    with spawn_sandbox("kite", instruments=40, ticks_per_second=3000, rate_limits=False) as box:
        desk = Desk(tmp_path, box.settings())
        desks.append(desk)
        sink = desk.start("sink", "apart")
        end = time.monotonic() + 30
        while "there is no journal yet; waiting for the feed" not in desk.log:
            assert sink.poll() is None, desk.log
            assert time.monotonic() < end
            time.sleep(0.02)
        for _ in range(3):
            feed = desk.start("run", "feed.toml")
            desk.wait_until_moves("committed", feed)
            time.sleep(draw.uniform(0, 0.3))
            desk.kill(feed)
        feed = desk.start("run", "feed.toml")
        desk.wait_until_moves("committed", feed)
        desk.end(feed, signal.SIGTERM)
        assert sink.poll() is None, desk.log
        desk.end(sink, signal.SIGTERM)
    assert desk.check() > 1000
    standing = look(desk.ticks)
    assert standing.holds
    assert standing.totals is not None
    assert (standing.totals.runs, standing.totals.crashes) == (4, 3)


@pytest.mark.process
@pytest.mark.timeout(120)
def test_a_sink_that_eats_memory_and_time_ends_alone(tmp_path: Path, desks: list[Desk]) -> None:
    (tmp_path / "hog.py").write_text(HOG)
    with spawn_sandbox("kite", instruments=40, ticks_per_second=1000, rate_limits=False) as box:
        desk = Desk(tmp_path, box.settings(), apart='type = "callable"\ncallable = "hog:eat"')
        desks.append(desk)
        feed = desk.start("run", "feed.toml")
        desk.wait_until_moves("committed", feed)
        sink = desk.start("sink", "apart")
        resource.prlimit(sink.pid, resource.RLIMIT_AS, (2**30, 2**30))
        assert sink.wait(60) == 1, desk.log
        desk.wait_until_moves("committed", feed)
        desk.end(feed, signal.SIGINT)
    assert "sink 'apart' failed" in desk.log
    assert "NOT ACCOUNTED" not in desk.log
    standing = look(desk.ticks)
    assert standing.holds
    here, apart = sorted(standing.sinks, key=lambda one: -one.delivered)
    assert (here.name, here.lag, here.delivered) == ("here", 0, standing.rows)
    assert apart.position + apart.lag == standing.rows  # what it did not take waits for it
