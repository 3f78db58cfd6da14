"""The largest account that Kite allows, at its peak: 3 connections x 3,000 instruments, 18,000 full ticks a second,
journal on disk and a JSON file, for a minute. No loss, bounded lag, and how much of a core it takes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._blaster import blaster
from benchmarks._feed import pipeline_on
from benchmarks._ratio import Result
from marketfeed.engine.pipeline import Pipeline, SinkPlan
from marketfeed.sinks.jsonl import JsonlSink

CONNECTIONS, INSTRUMENTS, RATE, SECONDS = 3, 9000, 18_000, 60


def _taken(pipeline: Pipeline) -> int:
    reader = pipeline.deliveries[0].reader
    return reader.next_row if reader else 0


def run() -> Iterator[Result]:
    each = RATE // CONNECTIONS * SECONDS
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # as the command line does
    with tempfile.TemporaryDirectory() as name, blaster(100, each, RATE / CONNECTIONS, INSTRUMENTS) as port:
        folder = Path(name)
        plans = [SinkPlan(name="jsonl", sink=JsonlSink(path=folder / "ticks.jsonl"))]
        lags = []
        with pipeline_on(
            port, plans, folder=folder / "journal", universe=INSTRUMENTS, connections=CONNECTIONS
        ) as pipeline:
            start, cpu = time.perf_counter(), time.process_time()
            while pipeline.journal_rows() < each * CONNECTIONS and time.perf_counter() - start < 2 * SECONDS:
                time.sleep(0.5)
                lags.append(pipeline.journal.committed - (_taken(pipeline)))
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        with (folder / "ticks.jsonl").open("rb") as file:
            written = sum(1 for _ in file)
    sys.setswitchinterval(before)
    note = f"{written:,} of {each * CONNECTIONS:,} written, lag at most {max(lags):,} rows"
    yield Result("18,000 ticks/s, 3 x 3,000 instruments: cores used", cpu / wall, 0.30, at_most=True, note=note)
    lost = each * CONNECTIONS - written
    yield Result("ticks lost", lost, 0, at_most=True)
