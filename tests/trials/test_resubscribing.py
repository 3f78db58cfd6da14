"""How long 3,000 instruments take to be back after a drop, and one that is subscribed at run time to be there."""

from __future__ import annotations

import time

import numpy as np
import pytest
from trials._report import Report
from waiting import until

from marketfeed import Feed
from marketfeed.sandbox import spawn_sandbox
from marketfeed.tokens import MemoryTokenStore

INSTRUMENTS = 3000
PATIENCE_S = 30.0


def back_after_drop(trials: int) -> list[float]:
    """Seconds from the cut until every instrument has ticked on the new line, the back-off included."""
    with spawn_sandbox("kite", instruments=INSTRUMENTS, ticks_per_second=500, rate_limits=False) as box:
        feed = Feed("kite", instruments=["*"], settings=box.settings(), tokens=MemoryTokenStore())
        with feed:
            wanted = len(feed.pipeline.wires[0].wanted)
            latest = feed.pipeline.latest
            until(lambda: np.count_nonzero(latest.newest) >= wanted - 1, PATIENCE_S, pause_s=0.002)
            found = []
            for trial in range(trials):
                if trial:
                    time.sleep(31)  # a line that was stable has a fresh back-off
                connects = feed.pipeline.wires[0].counts.connects
                begun, cut = time.monotonic(), feed.pipeline.journal.committed
                box.fault("drop")
                until(lambda: feed.pipeline.wires[0].counts.connects > connects, PATIENCE_S, pause_s=0.002)  # noqa: B023 - called here
                seen = feed.pipeline.journal.reader(start=cut)
                instruments: set[int] = set()
                while len(instruments) < wanted:
                    assert time.monotonic() - begun < PATIENCE_S, f"{len(instruments)} of {wanted} are back"
                    instruments |= set(seen.take(wait_s=0.05)["instrument"].tolist())
                found.append(time.monotonic() - begun)
                seen.close()
        assert wanted >= INSTRUMENTS * 0.99
        return found


def there_after_subscribe(trials: int) -> list[float]:
    """Seconds from the call until the first tick of an instrument, beside 2,900 others."""
    with spawn_sandbox("kite", instruments=INSTRUMENTS, ticks_per_second=500, rate_limits=False) as box:
        feed = Feed("kite", instruments=["*"], settings=box.settings(), tokens=MemoryTokenStore())
        with feed:
            wire = feed.pipeline.wires[0]
            chosen = [one.key for one in list(wire.wanted)][10 : 10 + trials]
            until(lambda: all(name in feed.latest for name in chosen), PATIENCE_S, pause_s=0.002)
            found = []
            for name in chosen:
                feed.unsubscribe([name])
                time.sleep(0.2)
                before = feed.latest[name].seq
                begun = time.monotonic()
                feed.subscribe([name])
                until(lambda: feed.latest[name].seq > before, PATIENCE_S, pause_s=0.002)  # noqa: B023 - called here
                found.append(time.monotonic() - begun)
            assert wire.counts.connects == 1
            return found


@pytest.mark.process
def test_three_thousand_instruments_are_back_after_a_drop() -> None:
    assert max(back_after_drop(1)) < 10  # the aim is 2 s, on a machine of its own


@pytest.mark.process
def test_an_instrument_is_there_after_a_call_at_run_time() -> None:
    assert max(there_after_subscribe(3)) < 5  # the aim is 1 s


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_how_long_resubscribing_takes(report: Report) -> None:
    back, there = back_after_drop(5), there_after_subscribe(30)
    report("8 3,000 instruments back after a drop", len(back), f"at most {max(back):.2f} s", aim="2 s")
    report("8 run-time subscribe", len(there), f"at most {max(there):.2f} s", aim="1 s")
    assert max(back) < 10
    assert max(there) < 5
