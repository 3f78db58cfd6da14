"""A sink that lags: waits for everything, skips, or gets the newest row of each instrument."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.batches import CandleBatch, Origin, TickBatch
from marketfeed.clock import Clock
from marketfeed.contract import Sink
from marketfeed.dtypes import empty_ticks
from marketfeed.engine.behind import Lag, WhenBehind, newest_of_each
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.delivery import Delivery
from marketfeed.engine.logs import get_log
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal

ORIGIN = Origin([Instrument(exchange="NSE", symbol=f"S{number}", token=str(number)) for number in range(5)])


def batch_of(numbers: list[int], first_row: int) -> TickBatch:
    rows = empty_ticks(len(numbers))
    rows["instrument"] = numbers
    rows["last_price"] = np.arange(first_row, first_row + len(numbers))
    return TickBatch(rows, ORIGIN, first_row)


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=5))
def test_the_newest_of_each_is_the_last_row_of_each_instrument_in_order(parts: list[list[int]]) -> None:
    batches, row = [], 0
    for part in parts:
        batches.append(batch_of(part, row))
        row += len(part)
    flat = [number for part in parts for number in part]
    expected = sorted({number: place for place, number in enumerate(flat)}.values())
    newest = newest_of_each(batches)
    assert newest is not None
    assert newest.seq.tolist() == expected
    assert newest["last_price"].tolist() == [float(place) for place in expected]


class Slow(Sink):
    """Blocks in the first write until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.free = threading.Event()
        self.seen: list[int] = []

    def write(self, batch: TickBatch | CandleBatch) -> None:
        self.seen += batch.seq.tolist()
        self.entered.set()
        self.free.wait(10)


def deliver(lag: Lag) -> tuple[Slow, Delivery, list[tuple[str, int, int]]]:
    """Ten rows arrive while the first one blocks the sink; then it is let go and all is delivered."""
    journal = Journal.memory()
    journal.instruments.register(ORIGIN.instruments)
    sink, clock = Slow(), Clock()
    missed: list[tuple[str, int, int]] = []
    delivery = Delivery(
        name="slow",
        sink=sink,
        open_reader=lambda: journal.reader("slow", start="oldest"),
        clock=clock,
        deadletters=DeadLetters("test", clock),
        log=get_log(),
        emit=lambda kind, data: None,
        lag=lag,
        missed=lambda name, first, end, rows, why: missed.append((name, first, end)),
    )
    journal.append(batch_of([0], 0).rows.copy())
    thread = threading.Thread(target=delivery.run)
    thread.start()
    assert sink.entered.wait(5)
    for row in range(1, 11):
        journal.append(batch_of([row % 3], row).rows.copy())
    sink.free.set()
    delivery.stop()
    thread.join(5)
    return sink, delivery, missed


@pytest.mark.parametrize(
    ("policy", "seen", "skipped"),
    [
        (WhenBehind.WAIT, list(range(11)), 0),
        (WhenBehind.SKIP, [0], 10),
        (WhenBehind.LATEST, [0, 8, 9, 10], 7),
    ],
)
def test_each_policy_delivers_what_it_says_and_counts_the_rest(
    policy: WhenBehind, seen: list[int], skipped: int
) -> None:
    sink, delivery, missed = deliver(Lag(policy, rows=5))
    assert sink.seen == seen
    assert delivery.reader is not None
    counts = delivery.reader.counts
    assert (counts.skipped, counts.delivered) == (skipped, len(seen))
    assert counts.position == counts.start + counts.delivered + counts.skipped + counts.dead_lettered == 11
    assert missed == ([] if policy is WhenBehind.WAIT else [("slow", 1, 11)])


def test_below_the_limit_nothing_is_skipped() -> None:
    sink, _, _ = deliver(Lag(WhenBehind.SKIP, rows=10, seconds=3600))
    assert sink.seen == list(range(11))


def test_a_limit_in_seconds_holds_too() -> None:
    journal = Journal.memory()
    journal.instruments.register(ORIGIN.instruments)
    rows = batch_of([0, 1, 2], 0).rows.copy()
    rows["received_ns"] = [1_000_000_000, 2_000_000_000, 8_000_000_000]
    journal.append(rows)
    reader = journal.reader("slow", start="oldest")
    assert Lag(WhenBehind.SKIP, seconds=6.9).exceeded(reader)
    assert not Lag(WhenBehind.SKIP, seconds=7.1).exceeded(reader)
