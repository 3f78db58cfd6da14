"""What a feed writes down while it runs: checkpoints between batches only, and a clock that is set is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from marketfeed.clock import NS, Clock, ManualClock
from marketfeed.engine.bookkeeping import Bookkeeper, ClockWatch
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.latest import Latest
from marketfeed.engine.logs import get_log
from marketfeed.engine.metrics import Histogram
from marketfeed.engine.parsing import ParseLoop
from marketfeed.journal import Journal
from marketfeed.runs import RunBook, Tally, read_totals

JOURNAL = "a" * 32


class SetClock(ManualClock):
    """One whose wall time can be set, as by a person or by NTP."""

    shift_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.shift_ns


def keeper(folder: Path | None, clock: Clock, told: list[Mapping[str, Any]] | None = None) -> Bookkeeper:
    journal = Journal.memory()
    loop = ParseLoop(
        inbox=Inbox(1, clock),
        make_parser=lambda: pytest.fail("nothing is parsed here"),
        journal=journal,
        deadletters=DeadLetters("main", clock),
        latest=Latest(journal.origin),
        clock=clock,
        log=get_log(),
        fail=lambda error: None,
    )
    book = RunBook(folder, JOURNAL) if folder else None
    events = [] if told is None else told
    return Bookkeeper(loop, book, 0, clock, get_log(), lambda kind, connection, data: events.append({kind: data}))


def test_a_checkpoint_is_taken_between_two_batches_only(tmp_path: Path) -> None:
    books = keeper(tmp_path, ManualClock())
    books.begin()
    books.parse.counts.parsed = 10
    books.checkpoint()  # ten rows are on their way
    assert read_totals(tmp_path, JOURNAL, 0)[0].parsed == 0
    books.parse.counts.appended = 9
    books.parse.counts.dropped = 1
    books.checkpoint()
    running = read_totals(tmp_path, JOURNAL, 9, alive=True)[1]
    assert running is not None
    assert running.counts == Tally(parsed=10, appended=9, dropped=1)


def test_the_end_is_written_once_and_not_with_a_batch_on_its_way(tmp_path: Path) -> None:
    books = keeper(tmp_path, ManualClock())
    books.begin()
    books.parse.counts.parsed = 3
    books.close()
    assert not (tmp_path / "runs.jsonl").exists()
    books.parse.counts.appended = 3
    books.close()
    books.close()
    assert len((tmp_path / "runs.jsonl").read_bytes().splitlines()) == 1
    total = books.totals()
    assert total is not None
    assert (total.runs, total.parsed, total.rows) == (1, 3, 3)


def test_books_that_cannot_be_written_do_not_end_the_feed_and_are_begun_later(tmp_path: Path) -> None:
    place = tmp_path / "feed"
    place.write_text("a file where a folder should be")
    books = keeper(place, ManualClock())
    books.begin()
    assert "exists" in books.trouble.lower()
    assert books.totals() is None
    place.unlink()
    books.parse.counts.parsed = books.parse.counts.appended = 5
    books.checkpoint()
    assert books.trouble == ""
    books.close()
    assert read_totals(place, JOURNAL, 5)[0].parsed == 5


def test_a_journal_in_memory_has_no_books() -> None:
    books = keeper(None, ManualClock())
    books.begin()
    books.checkpoint()
    books.close()
    assert books.totals() is None


@pytest.mark.parametrize("step_s", [-3600.0, -1.5, 2.0, 86_400.0])
def test_a_clock_that_is_set_is_told_once(step_s: float) -> None:
    clock = SetClock(wall_ns=1_800_000_000 * NS)
    watch = ClockWatch(clock)
    assert watch.stepped_s() == 0
    clock.advance(10)
    assert watch.stepped_s() == 0  # time that goes by is no step
    clock.shift_ns += round(step_s * NS)
    clock.advance(1)
    assert watch.stepped_s() == pytest.approx(step_s)
    clock.advance(1)
    assert watch.stepped_s() == 0


def test_a_clock_that_is_slewed_is_not_told() -> None:
    clock = SetClock(wall_ns=1_800_000_000 * NS)
    watch = ClockWatch(clock)
    watch.stepped_s()
    for _ in range(100):
        clock.shift_ns -= NS // 2000  # 500 ppm, the most that NTP does
        clock.advance(1)
        assert watch.stepped_s() == 0


def test_latencies_are_never_below_zero() -> None:
    histogram = Histogram()
    histogram.observe(-3600.0)
    histogram.observe(0.5)
    assert histogram.total == 0.5
    assert histogram.buckets[0] == 1
