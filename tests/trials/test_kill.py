"""``kill -9`` of a running feed at random moments: after ``--drain`` the files hold the journal's rows, each once."""

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

from marketfeed.batches import TickBatch
from marketfeed.journal import Journal, ticks_folder
from marketfeed.sandbox import spawn_sandbox
from marketfeed.sinks.encode import TickEncoder

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:*"]
sinks = ["jsonl", "csv"]
[vendors.kite]
{settings}
[sinks.jsonl]
path = "ticks.jsonl"
flush_every_s = 0.05
[sinks.csv]
path = "ticks.csv"
flush_every_s = 0.03
[journal]
folder = "journal"
segment_rows = 1024
[metrics]
port = false
"""


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "marketfeed", "run", "feed.toml", *options]
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
        for _ in range(trials):
            kill_at_random(folder, draw)
    assert start(folder, "--drain").wait(60) == 0, (folder / "log.txt").read_text()
    batches = committed_batches(folder)
    rows = sum(map(len, batches))
    encoder = TickEncoder()
    assert (folder / "ticks.jsonl").read_bytes() == b"".join(encoder.lines(batch) for batch in batches)
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
@pytest.mark.timeout(1800)
def test_two_hundred_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    rows = run_trials(tmp_path, trials=200, seed=2)
    print(f"200 kills, {rows:,} rows, none missing, none twice")
