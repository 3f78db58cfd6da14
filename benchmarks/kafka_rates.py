"""Kafka by the clock, beside a real broker on the same machine: how fast a backlog drains with the feed stopped, and
whether a minute of 18,000 full ticks a second is kept up with. Each driver and layout."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._blaster import blaster
from benchmarks._broker import broker
from benchmarks._feed import pipeline_on
from benchmarks._kite import START_S, full_frames, instruments
from benchmarks._ratio import Result
from marketfeed.contract import Frame
from marketfeed.engine.pipeline import SinkPlan
from marketfeed.instruments import TokenMap
from marketfeed.journal import Journal, ticks_folder

PEAK = 9000
"""Ticks a second that a backlog is compared with."""
RATE, SECONDS, PARTITIONS = 18_000, 60, 4
DRAIN = {("kafka-python", "full"): 1.5, ("confluent", "full"): 3.0, ("kafka-python", "arrow"): 10.0,
         ("confluent", "arrow"): 10.0}  # fmt: skip
SUSTAINED = (("kafka-python", "full"), ("confluent", "full"), ("kafka-python", "arrow"), ("confluent", "arrow"))
BACKLOG = {"full": 400_000, "arrow": 1_200_000}

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:INFY"]
sinks = ["kafka"]
[vendors.kite]
api_key = "k"
api_secret = "s"
[sinks.kafka]
servers = "{servers}"
topic = "{topic}"
driver = "{driver}"
layout = "{layout}"
start = "oldest"
[journal]
folder = "journal"
[metrics]
port = false
"""


def run() -> Iterator[Result]:
    with broker() as server:
        if server is None:
            return
        for (driver, layout), target in DRAIN.items():
            rate = _drain(server, driver, layout, BACKLOG[layout])
            name = f"backlog by --drain, {driver}, {layout}, of {PEAK:,} ticks/s"
            yield Result(name, rate / PEAK, target, note=f"{rate:,.0f} ticks/s, the start of the command included")
        for driver, layout in SUSTAINED:
            yield _sustained(server, driver, layout)


def _drain(server: Any, driver: str, layout: str, total: int) -> float:
    """Ticks per second from the start of the command to its end, everything acknowledged."""
    topic = server.topic(f"drain-{driver}-{layout}", PARTITIONS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _backlog(folder / "journal", total)
        text = CONFIG.format(servers=server.bootstrap, topic=topic, driver=driver, layout=layout)
        (folder / "feed.toml").write_text(text)
        start = time.perf_counter()
        command = [sys.executable, "-m", "marketfeed", "run", "feed.toml", "--drain"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        spent = time.perf_counter() - start
        assert f"{total:,} delivered, 0 left" in done.stderr + done.stdout, done.stderr
        return total / spent


def _backlog(folder: Path, total: int) -> None:
    """A journal that a feed left, with so many full ticks of 500 instruments."""
    from marketfeed_kite.parser import KiteParser

    known = instruments(500)
    journal = Journal.create(ticks_folder(folder, "main"), feed="main", vendor="kite")
    numbers = journal.instruments.register(known)
    parser = KiteParser(TokenMap({one.token: number for one, number in zip(known, numbers, strict=True)}))
    rows = parser([Frame(one, START_S * 10**9) for one in full_frames(20_000, 100)]).rows
    for _ in range(0, total, len(rows)):
        journal.append(rows)
    journal.close()


def _sustained(server: Any, driver: str, layout: str) -> Result:
    """How far behind the sink is when the last tick has come: rows that it has not flushed."""
    from marketfeed_kafka.sink import KafkaSink

    topic = server.topic(f"sustained-{driver}-{layout}", PARTITIONS)
    sink = KafkaSink(servers=server.bootstrap, topic=topic, driver=driver, layout=layout)
    total, lags = RATE * SECONDS, []
    with tempfile.TemporaryDirectory() as name, blaster(100, total, RATE) as port:
        plans = [SinkPlan(name="kafka", sink=sink)]
        with pipeline_on(port, plans, folder=Path(name) / "journal") as pipeline:
            start, cpu = time.perf_counter(), time.process_time()
            while pipeline.journal_rows() < total and time.perf_counter() - start < 2 * SECONDS:
                time.sleep(0.5)
                lags.append(pipeline.summary().sinks[0].left)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    note = f"{RATE - lags[-1] / wall:,.0f} ticks/s done, lag at most {max(lags):,} rows, {cpu / wall:.2f} cores"
    return Result(
        f"{RATE:,} ticks/s for {SECONDS} s, {driver}, {layout}: seconds behind", lags[-1] / RATE, 1, True, note
    )
