"""``kill -9`` of a running feed at random moments: after ``--drain`` the files hold the journal's rows, each once.

Beside the feed a process of its own delivers the same journal, through all kills and now and then killed itself.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trials._report import Report

from marketfeed.batches import TickBatch
from marketfeed.journal import Journal, ticks_folder
from marketfeed.sandbox import spawn_sandbox
from marketfeed.sinks.encode import TickEncoder

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:*"]
sinks = ["jsonl", "csv", "apart"]
[vendors.kite]
{settings}
[sinks.jsonl]
path = "ticks.jsonl"
flush_every_s = 0.05
[sinks.csv]
path = "ticks.csv"
flush_every_s = 0.03
[sinks.apart]
type = "jsonl"
path = "apart.jsonl"
flush_every_s = 0.05
process = "own"
[journal]
folder = "journal"
segment_rows = 1024
[metrics]
port = false
"""


def start(folder: Path, *options: str, apart: bool = False) -> subprocess.Popen[bytes]:
    wanted = ["sink", "apart"] if apart else ["run", "feed.toml"]
    command = [sys.executable, "-m", "marketfeed", *wanted, *options]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def kill_at_random(folder: Path, draw: random.Random) -> None:
    """Start a feed, wait until its journal grows, kill it a little later."""
    child = start(folder)
    journal = ticks_folder(folder / "journal", "main")
    control = journal / "control"
    try:
        end = time.monotonic() + 30
        before = Journal.attach(journal).committed if control.exists() else 0
        while not control.exists() or Journal.attach(journal).committed == before:
            assert child.poll() is None, (folder / "log.txt").read_text()
            assert time.monotonic() < end, "no tick in 30 s"
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.25))
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()


def committed_batches(folder: Path) -> list[TickBatch]:
    reader = Journal.attach(ticks_folder(folder / "journal", "main")).reader(start="oldest")
    batches = []
    while len(batch := reader.take()):
        batches.append(batch)
    return batches


def run_trials(folder: Path, trials: int, seed: int) -> int:
    """The number of rows that survived ``trials`` kills; asserts that the files equal the journal."""
    draw = random.Random(seed)
    with spawn_sandbox("kite", instruments=40, ticks_per_second=4000, rate_limits=False) as box:
        settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in box.settings().items())
        (folder / "feed.toml").write_text(CONFIG.format(settings=settings))
        sink = start(folder, apart=True)
        try:
            for _ in range(trials):
                kill_at_random(folder, draw)
                assert sink.poll() is None, (folder / "log.txt").read_text()  # it feels nothing of the feed's death
                if draw.random() < 0.2:
                    sink.kill()
                    sink.wait()
                    sink = start(folder, apart=True)
        finally:
            sink.kill()
            sink.wait()
    for apart in (False, True):
        assert start(folder, "--drain", apart=apart).wait(60) == 0, (folder / "log.txt").read_text()
    batches = committed_batches(folder)
    rows = sum(map(len, batches))
    encoder = TickEncoder()
    whole = b"".join(encoder.lines(batch) for batch in batches)
    assert (folder / "ticks.jsonl").read_bytes() == whole
    assert (folder / "apart.jsonl").read_bytes() == whole
    with (folder / "ticks.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["seq"]) for row in table] == list(range(rows))
    prices = [price for batch in batches for price in batch["last_price"].tolist()]
    assert [float(row["last_price"]) for row in table] == prices
    return rows


@pytest.mark.process
@pytest.mark.timeout(240)
def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    assert run_trials(tmp_path, trials=20, seed=1) > 2000


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_two_hundred_kills_lose_nothing_and_repeat_nothing(tmp_path: Path, report: Report) -> None:
    rows = run_trials(tmp_path, trials=200, seed=2)
    found = f"{rows:,} rows in jsonl, csv and a second process: none missing, none twice"
    report("1 kill -9 of the feed", 200, found, aim="0 missing, 0 twice")
