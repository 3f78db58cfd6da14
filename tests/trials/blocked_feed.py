"""A feed with one sink that can be made to block, run as a child by ``test_blocked_sink.py``: prints as JSON the
latency of the other sink with and without the block, and how much anonymous memory the block cost."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import attrs

from marketfeed import Feed, TickBatch
from marketfeed.batches import CandleBatch
from marketfeed.contract import Sink
from marketfeed.sandbox import spawn_sandbox
from marketfeed.tokens import MemoryTokenStore

INSTRUMENTS = 3000


@attrs.define
class Blocking(Sink):
    """Takes everything at once, unless it is blocked: then ``write`` does not return."""

    free: threading.Event = attrs.field(factory=threading.Event)

    def write(self, batch: TickBatch | CandleBatch) -> None:
        self.free.wait()


@attrs.define
class Timing(Sink):
    """Notes how old each batch's newest row is."""

    clock: Any
    ages_s: list[float] = attrs.field(factory=list)

    def write(self, batch: TickBatch | CandleBatch) -> None:
        self.ages_s.append((self.clock.wall_ns() - int(batch["received_ns"][-1])) / 1e9)


def anonymous_kib() -> int:
    """RssAnon of this process; mapped files (the journal) do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    raise RuntimeError("no RssAnon here")


def measure(timing: Timing, seconds: float) -> float:
    timing.ages_s.clear()
    time.sleep(seconds)
    return statistics.median(timing.ages_s)


def main(folder: str, blocked_s: float, ticks_per_second: float) -> None:
    sys.setswitchinterval(0.0005)  # as the command line does
    blocking = Blocking()
    blocking.free.set()
    with spawn_sandbox("kite", instruments=INSTRUMENTS, ticks_per_second=ticks_per_second, rate_limits=False) as box:
        feed = Feed(
            "kite",
            instruments=["NSE:*"],
            settings=box.settings(),
            tokens=MemoryTokenStore(),
            journal=folder,
            stop_timeout_s=60,
        )
        timing = Timing(feed.clock)
        feed.add_sink(timing)
        feed.add_sink(blocking)
        with feed:
            control_s = min(5.0, blocked_s)
            measure(timing, 2.0)  # warm up: the snapshot of all instruments, first segment
            before = measure(timing, control_s)
            rows, memory = feed.pipeline.journal_rows(), anonymous_kib()
            blocking.free.clear()
            blocked = measure(timing, blocked_s)
            grown = anonymous_kib() - memory
            rate = (feed.pipeline.journal_rows() - rows) / blocked_s
            lag = max(sink.left for sink in feed.pipeline.summary().sinks)
            blocking.free.set()
            while max(sink.left for sink in feed.pipeline.summary().sinks) > 10_000:
                time.sleep(0.05)
            after = measure(timing, control_s)
        summary = feed.stop()
    answer = {
        "p50_control_ms": [before * 1e3, after * 1e3],
        "p50_blocked_ms": blocked * 1e3,
        "grown_mib": grown / 1024,
        "ticks_per_second": rate,
        "lag_rows": lag,
        "appended": summary.appended,
        "delivered": [sink.delivered for sink in summary.sinks],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
