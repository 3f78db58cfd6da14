"""Socket -> journal on disk -> JSON file, as fast as it goes, against the program a user writes today:
websocket-client, the official parser, per-tick checks, ``json.dumps``, one write per tick."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import websocket

from benchmarks._blaster import blaster
from benchmarks._feed import pipeline_on
from benchmarks._kite import as_text, check_and_enrich, instruments, official_parser
from benchmarks._ratio import Result
from marketfeed.engine.pipeline import Pipeline, SinkPlan
from marketfeed.sinks.jsonl import JsonlSink

ROUNDS = 3
TARGETS = {1: 3.0, 10: 7.0, 100: 11.0}


def json_file(folder: Path) -> SinkPlan:
    return SinkPlan(name="jsonl", sink=JsonlSink(path=folder / "ticks.jsonl"), flush_every_s=0.2)


def wait_for(pipeline: Pipeline, total: int) -> None:
    """Until so many ticks are parsed and the first sink has what it gets of them."""
    while (now := pipeline.summary()).parsed < total or now.sinks[0].left:
        time.sleep(0.005)


def ours(port: int, total: int) -> float:
    """Ticks per second until the sink has them all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        with pipeline_on(port, [json_file(folder)], folder=folder / "journal") as pipeline:
            wait_for(pipeline, total)
            return total / (time.perf_counter() - start)


def naive(port: int, total: int) -> float:
    """The same for the loop that users write."""
    parse = official_parser()
    names = {int(one.token): one.symbol for one in instruments(500)}
    previous: dict[int, object] = {}
    seen = 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, (Path(name) / "ticks.jsonl").open("wb") as file:
        connection = websocket.create_connection(f"ws://127.0.0.1:{port}/")
        while seen < total:
            for tick in parse(connection.recv()):
                seen += 1
                good = check_and_enrich(tick, names, previous)
                if good is not None:
                    file.write(json.dumps(good, default=as_text).encode() + b"\n")
        connection.close()
        return total / (time.perf_counter() - start)


def run() -> Iterator[Result]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # as the command line does
    try:
        for per_frame, target in TARGETS.items():
            few, many = (20_000, 60_000) if per_frame == 1 else (20_000, 200_000)
            ratios = []
            for _ in range(ROUNDS):
                with blaster(per_frame, few) as port:
                    slow = naive(port, few)
                with blaster(per_frame, many) as port:
                    fast = ours(port, many)
                ratios.append(fast / slow)
            ratio = statistics.median(ratios)
            yield Result(f"socket -> journal -> JSON, {per_frame} a frame", ratio, target, note=f"{fast:,.0f} ticks/s")
    finally:
        sys.setswitchinterval(before)
