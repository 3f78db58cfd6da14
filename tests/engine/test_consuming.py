"""Loops over a feed, on a pipeline without a broker: too slow, cancelled, many at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from marketfeed.clock import Clock
from marketfeed.contract import Event
from marketfeed.deadletters import DeadLetters
from marketfeed.dtypes import empty_ticks
from marketfeed.engine.consuming import Observer
from marketfeed.engine.events import Events
from marketfeed.engine.logs import get_log
from marketfeed.engine.pipeline import Pipeline
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def pipeline(told: list[Event]) -> Iterator[Pipeline]:
    """A running pipeline whose memory journal keeps a few hundred rows."""
    journal = Journal.memory(max_bytes=360 * 256)
    journal.instruments.register([Instrument(exchange="NSE", symbol="INFY", token="1")])
    clock, log = Clock(), get_log()
    events = Events("main", "test", clock, log)
    events.listeners = [told.append]
    pipeline = Pipeline("main", journal, [], events, DeadLetters("main", clock), clock, log, stop_timeout_s=1.0)
    yield pipeline
    pipeline.stop()


def append(pipeline: Pipeline, count: int) -> None:
    for _ in range(count // 32):
        rows = empty_ticks(32)
        rows["instrument"] = 0
        pipeline.journal.append(rows)


def test_a_loop_that_is_too_slow_goes_on_behind_the_gap_which_is_counted_and_told(
    pipeline: Pipeline, told: list[Event]
) -> None:
    append(pipeline, 32)
    batches = Observer(pipeline, "slow", 16).batches()
    rows = next(batches).seq.tolist()
    append(pipeline, 1024)
    pipeline.finished.set()
    for batch in batches:
        rows += batch.seq.tolist()
    assert rows[-1] == 1055
    missed = sum(after - before - 1 for before, after in pairwise(rows))
    assert missed == pipeline.rows_missed > 0
    assert pipeline.status()["rows_missed"] == missed
    pipeline.stop()
    assert [event.data for event in told if event.kind == "overrun"] == [{"reader": "slow", "missed": missed}]


def test_rows_that_were_gone_before_the_loop_began_are_counted_too(pipeline: Pipeline) -> None:
    append(pipeline, 1024)
    first = next(Observer(pipeline, "late", 16).batches())
    assert first.first_row == pipeline.rows_missed > 0


def test_a_cancelled_wait_frees_its_reader_and_its_thread(pipeline: Pipeline) -> None:
    async def wait_for_ever() -> None:
        async for _ in Observer(pipeline, "quiet", 16).stream():
            raise AssertionError("there are no rows")

    async def main() -> None:
        task = asyncio.create_task(wait_for_ever())
        await asyncio.sleep(0.05)
        assert len(pipeline.journal._readers) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    end = time.monotonic() + 5
    while time.monotonic() < end and (
        pipeline.journal._readers or any("quiet" in thread.name for thread in threading.enumerate())
    ):
        time.sleep(0.01)
    assert pipeline.journal._readers == ()
    assert not any("quiet" in thread.name for thread in threading.enumerate())


def test_many_quiet_loops_leave_the_event_loops_pool_free(pipeline: Pipeline) -> None:
    async def consume(number: int) -> int:
        return sum([len(batch) async for batch in Observer(pipeline, f"loop-{number}", 16).stream()])

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        tasks = [asyncio.create_task(consume(number)) for number in range(5)]
        await asyncio.sleep(0.05)
        append(pipeline, 64)
        await asyncio.wait_for(asyncio.to_thread(pipeline.stop), 10)  # as `async with feed` does at its end
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [64] * 5
