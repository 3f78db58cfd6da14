"""The feed as users meet it, against a real sandbox broker: consuming, failing, stopping."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marketfeed import Feed
from marketfeed.batches import TickBatch
from marketfeed.contract import Event
from marketfeed.engine.summary import Summary
from marketfeed.errors import ConfigError, JournalError, MarketFeedError, SessionExpired, VendorError
from marketfeed.sandbox import Sandbox, spawn_sandbox
from marketfeed.sinks.embedding import MemorySink
from marketfeed.tokens import MemoryTokenStore

NAMES = ["NSE:RELIANCE", "NSE:INFY"]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox("kite", seed=1, instruments=50, ticks_per_second=500, rate_limits=False) as box:
        yield box


def feed_on(box: Sandbox, instruments: list[str] | None = None, **options: Any) -> Feed:
    return Feed(
        "kite",
        instruments=NAMES if instruments is None else instruments,
        settings={**box.settings(), **options.pop("settings", {})},
        tokens=MemoryTokenStore(),
        environ={},
        **options,
    )


def test_batches_name_their_instruments_and_latest_follows(box: Sandbox) -> None:
    seen: set[str] = set()
    with feed_on(box) as feed:
        for batch in feed:
            seen |= set(batch.symbols)
            tick = batch[-1]
            assert feed.latest[f"NSE:{tick.symbol}"].seq >= tick.seq
            if len(seen) == 2:
                break
    assert seen == set(NAMES)


def test_sequence_numbers_have_no_hole_and_begin_with_the_run(box: Sandbox) -> None:
    rows: list[int] = []
    with feed_on(box) as feed:
        for batch in feed:
            rows += batch.seq.tolist()
            if len(rows) > 100:
                break
    assert rows == list(range(len(rows)))


def test_two_iterators_and_a_callback_see_the_same(box: Sandbox) -> None:
    called: list[int] = []

    def keep(batch: TickBatch) -> None:
        called.extend(batch.seq.tolist())

    feed = feed_on(box)
    feed.on_batch(keep)
    with feed:
        first, second = feed.batches(), feed.batches()
        one, two = next(first), next(second)
        assert one.first_row == two.first_row == 0
        first.close()
        second.close()
    assert called == list(range(len(called)))
    assert feed.stop().sinks[0].delivered == feed.stop().appended == len(called)


def test_a_callback_that_raises_costs_its_batch_and_not_the_feed(box: Sandbox) -> None:
    broke = threading.Event()
    after = threading.Event()

    def callback(batch: TickBatch) -> None:
        if not broke.is_set():
            broke.set()
            raise ValueError("my bug")
        after.set()

    feed = feed_on(box)
    feed.on_batch(callback)
    with feed:
        assert after.wait(10)
    summary = feed.stop()
    sink = summary.sinks[0]
    assert sink.dead_lettered > 0
    assert sink.delivered + sink.dead_lettered == summary.appended
    assert feed.error is None


def test_on_error_stop_ends_the_feed_with_the_callbacks_error(box: Sandbox) -> None:
    def callback(batch: TickBatch) -> None:
        raise ValueError("my bug")

    feed = feed_on(box, on_error="stop")
    feed.on_batch(callback)
    with feed, pytest.raises(ValueError, match="my bug"):
        for _ in feed:
            pass


def test_sink_objects_and_names_go_together(box: Sandbox) -> None:
    sink = MemorySink()
    with feed_on(box, sinks=[sink, "memory"]) as feed:
        for batch in feed:
            if batch.first_row > 20:
                break
    summary = feed.stop()
    assert [one.name for one in summary.sinks] == ["memory", "MemorySink-1"]
    assert {one.delivered for one in summary.sinks} == {summary.appended}
    assert len(sink.rows()) == summary.appended


def test_it_works_inside_a_running_event_loop(box: Sandbox) -> None:
    async def consume() -> int:
        async with feed_on(box) as feed:
            async for batch in feed:
                return len(batch)
        return 0

    assert asyncio.run(consume()) > 0


def test_several_feeds_live_in_one_process(box: Sandbox) -> None:
    with feed_on(box, ["NSE:TCS"], name="one") as one, feed_on(box, ["NSE:SBIN"], name="two") as two:
        assert set(next(iter(one)).symbols) == {"NSE:TCS"}
        assert set(next(iter(two)).symbols) == {"NSE:SBIN"}


def test_a_drop_is_followed_by_a_reconnect_and_a_resubscription(box: Sandbox) -> None:
    events: list[Event] = []
    back = threading.Event()

    def listen(event: Event) -> None:
        events.append(event)
        if [one.kind for one in events].count("connected") == 2:
            back.set()

    feed = feed_on(box)
    feed.on_event(listen)
    with feed:
        batches = feed.batches()
        next(batches)
        assert box.drop() >= 1
        assert back.wait(10)
        before = feed.pipeline.journal.committed
        while next(batches).first_row <= before:
            pass
    kinds = [event.kind for event in events if event.kind not in ("line", "gap")]
    states = [event.data["now"] for event in events if event.kind == "line"]
    assert states[:6] == ["connecting", "live", "backing_off", "connecting", "live", "closed"]
    lines = [kind for kind in kinds if kind in ("connected", "disconnected")]
    assert lines[:3] == ["connected", "disconnected", "connected"]
    assert kinds[-1] == "stopped"


def test_every_unknown_instrument_is_named(box: Sandbox) -> None:
    with pytest.raises(ConfigError) as caught:
        feed_on(box, ["NSE:RELIANC", "NSE:INFYY", "NSE:TCS"]).start()
    text = str(caught.value)
    assert "did you mean 'NSE:RELIANCE'" in text
    assert "did you mean 'NSE:INFY'" in text
    assert [problem.path for problem in caught.value.problems] == ["feeds.main.instruments"] * 2


def test_a_dead_token_is_a_clear_error_that_does_not_loop(box: Sandbox) -> None:
    with pytest.raises(VendorError) as caught, feed_on(box, settings={"access_token": "wrong-token-value"}) as feed:
        for _ in feed:
            pass
    assert isinstance(caught.value, SessionExpired)
    assert "wrong-token-value" not in str(caught.value)


def test_use_before_start_says_how_to_start(box: Sandbox) -> None:
    with pytest.raises(MarketFeedError, match="with Feed"):
        next(iter(feed_on(box)))


def test_a_disk_journal_goes_on_where_it_stopped(box: Sandbox, tmp_path: Path) -> None:
    first = feed_on(box, journal=tmp_path)
    with first:
        next(iter(first))
    second = feed_on(box, journal=tmp_path)
    with second:
        batch = next(iter(second))
        assert batch.first_row == first.stop().appended
        assert batch.journal == first.pipeline.journal.name


def census() -> tuple[int, int]:
    """Threads and open descriptors of this process."""
    descriptors = Path("/proc/self/fd")
    return threading.active_count(), len(list(descriptors.iterdir())) if descriptors.is_dir() else 0


def cycle_feeds(times: int) -> None:
    # The broker is a child process: the descriptors counted here are the feed's alone.
    with spawn_sandbox("kite", instruments=5, ticks_per_second=500, rate_limits=False) as child:

        def cycle() -> None:
            with Feed("kite", instruments=NAMES, settings=child.settings(), tokens=MemoryTokenStore()) as feed:
                next(iter(feed))

        cycle()
        before = census()
        for _ in range(times):
            cycle()
        threads, descriptors = census()
        assert threads <= before[0]
        assert descriptors <= before[1]  # fewer: a socket of an earlier test was closed meanwhile


@pytest.mark.process
def test_start_and_stop_leave_nothing_behind() -> None:
    cycle_feeds(20)


@pytest.mark.slow
def test_a_thousand_cycles_leave_nothing_behind() -> None:
    cycle_feeds(1000)


def test_a_callback_may_stop_the_feed(box: Sandbox) -> None:
    calls: list[int] = []

    def callback(batch: TickBatch) -> None:
        calls.append(len(batch))
        feed.stop()

    feed = feed_on(box)
    feed.on_batch(callback)
    started = time.monotonic()
    with feed:
        assert feed.wait(10)
    assert time.monotonic() - started < 8
    summary = feed.stop()
    assert summary.sinks[0].delivered == summary.appended == sum(calls)


def test_two_threads_that_stop_get_one_summary(box: Sandbox) -> None:
    stopped: list[Event] = []
    feed = feed_on(box)
    feed.on_event(lambda event: stopped.append(event) if event.kind == "stopped" else None)
    summaries: list[Summary] = []
    with feed:
        threads = [threading.Thread(target=lambda: summaries.append(feed.stop())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(15)
    assert len(summaries) == 4
    assert all(one is summaries[0] for one in summaries)
    assert len(stopped) == 1


def test_a_sink_added_at_run_time_misses_nothing_from_that_moment_on(box: Sandbox) -> None:
    class Slow(MemorySink):
        def open(self) -> None:
            time.sleep(0.3)

    sink = Slow()
    with feed_on(box) as feed:
        batches = feed.batches()
        next(batches)
        before = feed.pipeline.journal.committed
        feed.add_sink(sink)
        after = feed.pipeline.journal.committed
        while next(batches).first_row < after + 200:
            pass
    assert before <= sink.rows()[0].seq <= after
    assert feed.stop().sinks[0].left == 0


def test_a_name_that_two_sinks_would_share_is_refused(box: Sandbox) -> None:
    feed = feed_on(box, sinks=["memory"])
    with pytest.raises(MarketFeedError, match="'memory' already"):
        feed.add_sink(MemorySink(), name="memory")
    feed.http.close()


def test_a_start_that_fails_before_the_journal_leaves_no_connection_open(box: Sandbox) -> None:
    feed = feed_on(box, ["NSE:NOTHING"])
    with pytest.raises(ConfigError):
        feed.start()
    pools = [adapter.poolmanager.pools for adapter in feed.http.session.adapters.values()]  # type: ignore[attr-defined]
    assert [len(pool) for pool in pools] == [0, 0]
    with pytest.raises(ConfigError):  # and may be tried again
        feed.start()


def test_two_feeds_of_one_name_do_not_share_a_journal(box: Sandbox, tmp_path: Path) -> None:
    with feed_on(box, journal=tmp_path) as feed:
        with pytest.raises(JournalError, match="one writer"):
            feed_on(box, journal=tmp_path).start()
        next(iter(feed))
