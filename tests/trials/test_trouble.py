"""What the page "Trouble" promises: a real feed on a disk that is full, on a folder that cannot be written, under
a clock that is set."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import until

from marketfeed import Feed
from marketfeed.clock import NS, Clock
from marketfeed.errors import JournalError
from marketfeed.journal import Journal, ticks_folder
from marketfeed.overview import look
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:*"]
sinks = ["jsonl"]
stop_timeout_s = {stop_s}
[vendors.kite]
{settings}
[sinks.jsonl]
path = "ticks.jsonl"
flush_every_s = 0.05
[journal]
folder = "{journal}"
keep_bytes = "100kB"
segment_rows = 1024
[metrics]
port = 0
"""


class Child:
    """``marketfeed run`` in a process of its own."""

    def __init__(self, folder: Path, box: Sandbox, journal: str = "journal", stop_s: float = 10.0) -> None:
        settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in box.settings().items())
        (folder / "feed.toml").write_text(CONFIG.format(settings=settings, journal=journal, stop_s=stop_s))
        command = [sys.executable, "-m", "marketfeed", "run", "feed.toml"]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        self.log = ""
        self._reader = threading.Thread(target=self._read)  # a log file could not be written, either
        self._reader.start()
        self.until(lambda: "metrics on http://" in self.log)
        self.url = self.log.split("metrics on ")[1].split("/metrics")[0]

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log += line

    def over(self) -> str:
        """Wait for the end, by force if need be; the whole log."""
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        return self.log

    def until(self, true: Callable[[], object], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def health(self) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/health", timeout=10) as answer:
            feeds = json.load(answer)["feeds"]
        return feeds[0] if feeds else {"parse": None, "journal": {"committed": 0}}

    def stuck(self) -> str | None:
        parse = self.health()["parse"]
        return parse["stuck"] if parse else None

    def fill_disk(self, full: bool) -> None:
        """No file of this process may be written at all: what a full disk is to it, in every write."""
        hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (0 if full else hard, hard))

    def end(self) -> str:
        self.process.send_signal(signal.SIGINT)
        log = self.over()
        assert self.process.returncode == 0, log
        return log


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox("kite", instruments=40, ticks_per_second=1000, rate_limits=False) as box:
        yield box


def check_nothing_lost(folder: Path, journal: Path, box: Sandbox, log: str) -> None:
    standing = look(ticks_folder(journal, "main"))
    assert standing.holds
    assert standing.totals is not None
    assert standing.totals.lost == 0
    assert "every row is accounted for" in log
    rows = [json.loads(line)["seq"] for line in (folder / "ticks.jsonl").read_text().splitlines()]
    assert rows == list(range(standing.rows))
    # Everything that the broker sent up to the end; it may have sent a little more to a socket nobody read any longer.
    assert 0 <= box.counts["ticks"] - standing.rows < 500


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
@pytest.mark.timeout(90)
def test_a_full_disk_makes_the_feed_wait_and_loses_nothing(tmp_path: Path, box: Sandbox) -> None:
    child = Child(tmp_path, box)
    try:
        child.until(lambda: child.health()["journal"]["committed"] > 500)
        child.fill_disk(full=True)
        child.until(child.stuck)
        before = child.health()
        time.sleep(6)  # longer than a line may be silent: the watch must not take this for the broker's silence
        during = child.health()
        assert during["journal"]["committed"] == before["journal"]["committed"]
        assert "File too large" in during["parse"]["stuck"]
        assert during["ready"] is False
        assert during["laws"]["on_the_way"] > 0
        assert during["laws"]["hold"] is True
        child.fill_disk(full=False)
        child.until(lambda: not child.stuck())
        child.until(lambda: child.health()["sinks"][0]["left"] < 500)
        assert child.health()["connections"][0]["connects"] == 1
        log = child.end()
    finally:
        child.process.kill()
        child.over()
    assert log.count("the journal cannot be written; trying again") >= 1
    assert "the journal can be written again" in log
    check_nothing_lost(tmp_path, tmp_path / "journal", box, log)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        sys.platform != "linux"
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.process
@pytest.mark.timeout(90)
def test_a_small_disk_that_something_else_fills_is_waited_for(tmp_path: Path, box: Sandbox, small_disk: Path) -> None:
    child = Child(tmp_path, box, journal="disk/journal")
    try:
        child.until(lambda: child.health()["journal"]["committed"] > 500)
        with (small_disk / "other").open("wb", buffering=0) as other:
            while True:
                try:
                    other.write(b"x" * 4096)
                except OSError:
                    break
        child.until(child.stuck)
        assert "No space left" in (child.stuck() or "")
        (small_disk / "other").unlink()
        child.until(lambda: not child.stuck())
        child.until(lambda: child.health()["sinks"][0]["left"] < 500)
        log = child.end()
    finally:
        child.process.kill()
        child.over()
    check_nothing_lost(tmp_path, small_disk / "journal", box, log)


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
@pytest.mark.timeout(90)
def test_a_feed_that_is_stopped_on_a_full_disk_counts_what_it_lost(tmp_path: Path, box: Sandbox) -> None:
    child = Child(tmp_path, box, stop_s=1.0)
    try:
        child.until(lambda: child.health()["journal"]["committed"] > 500)
        child.fill_disk(full=True)
        child.until(child.stuck)
        child.process.send_signal(signal.SIGINT)
        log = child.over()
    finally:
        child.process.kill()
        child.over()
    assert " lost" in log
    assert "every row is accounted for" in log  # lost, but not in silence
    parsed, appended, lost = (
        int(log.split(word)[0].rsplit(" ", 1)[1].replace(",", "")) for word in (" parsed", " appended", " lost")
    )
    assert parsed == appended + lost
    assert lost > 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, box: Sandbox) -> None:
    (tmp_path / "journal").write_text("a file where the folder should be")
    feed = Feed(
        "kite",
        instruments=["NSE:INFY"],
        settings=box.settings(),
        tokens=MemoryTokenStore(),
        journal=tmp_path / "journal",
    )
    with pytest.raises(
        JournalError, match=f"the journal in {tmp_path}/journal/main/ticks cannot be opened: .*Not a dir"
    ):
        feed.start()


def test_a_read_only_file_system_is_named(tmp_path: Path, box: Sandbox, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    feed = Feed(
        "kite", instruments=["NSE:INFY"], settings=box.settings(), tokens=MemoryTokenStore(), journal=small_disk
    )
    with pytest.raises(JournalError, match=f"the journal in {small_disk}/main/ticks cannot be opened: .*Read-only"):
        feed.start()


class SetClock(Clock):
    """The host's clock, with a person at it."""

    shift_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.shift_ns


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set_costs_no_tick_and_no_reconnect(tmp_path: Path, box: Sandbox, step_s: int) -> None:
    clock = SetClock()
    feed = Feed(
        "kite",
        instruments=["NSE:*"],
        settings=box.settings(),
        tokens=MemoryTokenStore(),
        journal=tmp_path,
        sinks=["memory"],
        clock=clock,
    )
    steps: list[float] = []
    feed.on_event(lambda event: steps.append(event.data["seconds"]) if event.kind == "clock_stepped" else None)
    with feed:
        until(lambda: feed.pipeline.journal_rows() >= 300)
        clock.shift_ns = step_s * NS
        rows = feed.pipeline.journal_rows()
        end = time.monotonic() + 10
        while not steps and time.monotonic() < end:
            time.sleep(0.05)
        until(lambda: feed.pipeline.journal_rows() >= rows + 500)
        assert feed.status()["connections"][0]["connects"] == 1
        histograms = [feed.pipeline.parse.receive_to_journal] if feed.pipeline.parse else []
        histograms += [one.journal_to_sink for one in feed.pipeline.deliveries]
        assert all(one.total >= 0 for one in histograms)
        assert sum(sum(one.buckets) for one in histograms) > 10
    assert steps == [pytest.approx(step_s, abs=0.5)]
    summary = feed.stop()
    assert summary.broken == ()
    batch = Journal.attach(ticks_folder(tmp_path, "main")).reader(start="oldest").take(max_rows=10**6)
    received = batch["received_ns"]
    assert (np.diff(received) >= 0).all()
    after = int(received[-1] - received[0])
    assert (after > 3600 * NS) == (step_s > 0)  # forward it follows the clock, back it waits for it
    assert len(batch) == summary.appended == summary.parsed
