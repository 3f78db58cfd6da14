"""Minutes of ticks go through a pipeline with frozen sinks, faster than in life; run as a child by
``test_frozen_sinks.py``. Prints as JSON the counts of each sink and how much anonymous memory the freeze cost."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
from marketfeed_kite.sandbox import KiteBroker, KiteTicker
from marketfeed_kite.settings import KiteSettings

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.clock import ManualClock
from marketfeed.contract import Frame, Sink
from marketfeed.deadletters import DeadLetters
from marketfeed.engine.behind import Lag, WhenBehind
from marketfeed.engine.events import Events
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.logs import get_log
from marketfeed.engine.pipeline import Pipeline, SinkPlan
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap
from marketfeed.journal import Journal
from marketfeed.plugins import Plugins
from marketfeed.sandbox import Sandbox

INSTRUMENTS = 3000
TICKS, FRAMES_A_SECOND = 450, 20
"""In a frame, and frames a second: 9,000 ticks."""
DISTINCT = 200
"""Frames that are made before; then they come again with a new time of receipt."""


@attrs.define(slots=False)
class Frozen(Sink):
    """``write`` does not return while it is frozen."""

    free: threading.Event
    rows: int = 0

    def write(self, batch: TickBatch | CandleBatch) -> None:
        self.free.wait()
        self.rows += len(batch)


def anonymous_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    raise RuntimeError("no RssAnon here")


def make_frames(box: Sandbox) -> Iterator[bytes]:
    """As the sandbox's broker would send them."""
    assert isinstance(box.broker, KiteBroker)
    connection = KiteTicker(box.broker)
    connection.modes[:] = int(Mode.FULL)
    for number in range(DISTINCT):
        lines = (np.arange(TICKS) + number * TICKS) % INSTRUMENTS
        rows = box.world.simulated.advance(np.sort(lines), box.world.now_ns())
        (encoded,) = connection.encode(rows, snapshot=False)
        assert isinstance(encoded.data, bytes)
        yield encoded.data


def main(folder: str, seconds: float) -> None:
    box = Sandbox("kite", seed=1, instruments=INSTRUMENTS, ticks_per_second=0)
    clock = ManualClock(box.world.now_ns())
    journal = Journal.create(Path(folder), sync="os")
    vendor = Plugins.discover().vendor("kite")
    instruments = [attrs.evolve(one, token=box.broker.token(line)) for line, one in enumerate(box.instruments)]
    numbers = journal.instruments.register(instruments)
    tokens = TokenMap({one.token: number for one, number in zip(instruments, numbers, strict=True)})
    frames = list(make_frames(box))
    free = threading.Event()
    free.set()
    lag = 5 * TICKS * FRAMES_A_SECOND
    sinks = {"moving": Frozen(threading.Event()), **{one.value: Frozen(free) for one in WhenBehind}}
    sinks["moving"].free.set()
    plans = [
        SinkPlan(name=name, sink=sink, lag=Lag(WhenBehind(name) if name != "moving" else WhenBehind.WAIT, lag, None))
        for name, sink in sinks.items()
    ]
    log = get_log()
    real = RealWaits(clock)
    letters = DeadLetters("main", real)
    pipeline = Pipeline("main", journal, plans, Events("main", "kite", real, log), letters, real, log, 60.0)
    pipeline.wait_for_sinks()
    inbox = Inbox(1, real)
    pipeline.start_parsing(inbox, lambda: vendor.parser(KiteSettings(api_key="testkey"), tokens))
    push(inbox, pipeline, frames, clock, 5 * FRAMES_A_SECOND)  # warm up
    before = anonymous_kib()
    free.clear()
    begun = time.monotonic()
    most = push(inbox, pipeline, frames, clock, round(seconds * FRAMES_A_SECOND))
    took = time.monotonic() - begun
    grown = max(most, anonymous_kib()) - before
    while _left(pipeline, "moving"):  # the others do not notice that some are frozen
        assert time.monotonic() - begun < 60 + seconds, "the sink that moves does not catch up"
        time.sleep(0.01)
    lags = {sink.name: sink.left for sink in pipeline.summary().sinks}
    free.set()
    summary = pipeline.stop()
    parse = pipeline.parse
    assert parse is not None
    journal.close()
    answer = {
        "grown_mib": grown / 1024,
        "rows": summary.appended,
        "took_s": took,
        "lags": lags,
        "broken": list(summary.broken),
        "unaccounted": parse.counts.unaccounted,
        "parsed": parse.counts.parsed,
        "sinks": {one.name: [one.delivered, one.skipped, one.dead_lettered, one.left] for one in summary.sinks},
        "written": {name: sink.rows for name, sink in sinks.items()},
    }
    print(json.dumps(answer))


def _left(pipeline: Pipeline, name: str) -> int:
    return next(sink.left for sink in pipeline.summary().sinks if sink.name == name)


class RealWaits(ManualClock):
    """The trial's time for stamps, the host's for waiting."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def wall_ns(self) -> int:
        return self._clock.wall_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        return event.wait(timeout_s)


def push(inbox: Inbox, pipeline: Pipeline, frames: list[bytes], clock: ManualClock, count: int) -> int:
    """A wire that is never ahead of the parser by more than a megabyte; ends when all is in the journal, and gives
    the most anonymous memory that was seen meanwhile (KiB)."""
    most = 0
    for number in range(count):
        if number % 100 == 0:
            most = max(most, anonymous_kib())
        while inbox.waiting_bytes(0) > 2**20:
            time.sleep(0.001)
        clock.advance(1 / FRAMES_A_SECOND)
        inbox.put(0, [Frame(frames[number % len(frames)], clock.wall_ns())])
    parse = pipeline.parse
    assert parse is not None
    while inbox.waiting_bytes(0) or parse.counts.unaccounted:
        time.sleep(0.005)
    time.sleep(0.2)
    return most


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
