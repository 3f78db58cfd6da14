"""Receipt to a sink's write at a steady 20,000 ticks/s in frames of 100: how far the tail is from the middle."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np

from benchmarks._blaster import blaster
from benchmarks._feed import pipeline_on
from benchmarks._ratio import Result
from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.contract import Sink
from marketfeed.engine.pipeline import SinkPlan
from marketfeed.sinks.encode import TickEncoder

RATE, SECONDS, RUNS = 20_000, 5, 5


@attrs.define
class Timed(Sink):
    """Encodes as JSON and notes how long ago each batch's oldest row was received."""

    ages_ns: list[int] = attrs.field(factory=list)
    encoder: TickEncoder = attrs.field(factory=TickEncoder)

    def write(self, batch: TickBatch | CandleBatch) -> None:
        assert isinstance(batch, TickBatch)
        self.encoder.lines(batch)
        self.ages_ns.append(time.time_ns() - int(batch["received_ns"][0]))


def percentiles() -> tuple[float, float]:
    """p50 and p99 of one run, milliseconds."""
    sink = Timed()
    with (
        tempfile.TemporaryDirectory() as name,
        blaster(100, RATE * SECONDS, RATE) as port,
        pipeline_on(port, [SinkPlan(name="timed", sink=sink)], folder=Path(name)) as pipeline,
    ):
        while pipeline.journal_rows() < RATE * SECONDS:
            time.sleep(0.05)
    settled = np.array(sink.ages_ns[len(sink.ages_ns) // 10 :]) / 1e6
    return float(np.percentile(settled, 50)), float(np.percentile(settled, 99))


def run() -> Iterator[Result]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # as the command line does
    try:
        runs = [percentiles() for _ in range(RUNS)]
    finally:
        sys.setswitchinterval(before)
    ratio = statistics.median(p99 / p50 for p50, p99 in runs)
    middle = statistics.median(p50 for p50, _ in runs)
    yield Result(
        "p99 / p50, receipt -> JSON sink, 20,000 ticks/s", ratio, 8.0, at_most=True, note=f"p50 {middle:.2f} ms"
    )
