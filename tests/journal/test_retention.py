"""Which segments go, who loses rows by it, and who is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.dtypes import TICK, Rows
from marketfeed.errors import JournalError
from marketfeed.journal import Journal
from marketfeed.journal.cursorfiles import remove_cursor
from marketfeed.journal.layout import Geometry, segment_firsts
from marketfeed.journal.retention import Bounds, kept_from, refuses

MakeRows = Callable[..., Rows]
SIZE = TICK.itemsize
HUNDREDS = Geometry(TICK, 100)


def bounds(keep: int, most: int, when_full: str = "skip") -> Bounds:
    return Bounds(keep_bytes=keep * SIZE, max_bytes=most * SIZE, when_full=when_full)


@pytest.mark.parametrize(
    ("positions", "keep", "most", "oldest"),
    [
        ([], 1000, 9000, 0),
        ([], 250, 9000, 200),  # 450 rows: only whole segments go
        ([], 0, 9000, 400),
        ([450, 120], 0, 9000, 100),  # a laggard in the second segment
        ([450, 120], 0, 200, 300),  # but not without limit
        ([0], 1000, 100, 400),  # the newest segment always stays
    ],
)
def test_segments_go_when_all_have_passed_or_the_bound_is_reached(
    positions: list[int], keep: int, most: int, oldest: int
) -> None:
    assert kept_from(0, 450, positions, HUNDREDS, bounds(keep, most)) == oldest


def test_stop_never_drops_what_a_laggard_needs() -> None:
    assert kept_from(0, 450, [120], HUNDREDS, bounds(0, 200, "stop")) == 100
    assert refuses(100, 500, HUNDREDS, bounds(0, 200, "stop"))
    assert not refuses(100, 500, HUNDREDS, bounds(0, 200, "skip"))


@given(
    st.integers(0, 5), st.integers(0, 2000), st.lists(st.integers(0, 2500)), st.integers(0, 900), st.integers(1, 900)
)
def test_whole_segments_below_the_newest_row_and_never_backwards(
    first: int, rows: int, positions: list[int], keep: int, most: int
) -> None:
    oldest, committed = first * 100, first * 100 + rows
    kept = kept_from(oldest, committed, positions, HUNDREDS, bounds(keep, most))
    assert oldest <= kept <= committed
    assert kept == oldest or kept % 100 == 0
    if kept > oldest and (committed - (kept - 100)) <= most:
        assert all(position >= kept for position in positions)


@pytest.mark.parametrize("wrong", [{"keep_bytes": -1}, {"keep_bytes": 1, "max_bytes": 0}])
def test_bounds_are_positive(wrong: dict[str, int]) -> None:
    with pytest.raises(JournalError, match="above 0"):
        Bounds(**wrong)  # type: ignore[arg-type]


def test_when_full_has_two_answers() -> None:
    with pytest.raises(JournalError, match="'skip' or 'stop'"):
        Bounds(keep_bytes=1, when_full="panic")


def test_files_of_passed_segments_are_removed_and_a_laggard_keeps_its_own(folder: Path, rows: MakeRows) -> None:
    with Journal.create(folder, rows_per_segment=100, keep_bytes=0, sync="os") as journal:
        slow, fast = journal.reader("slow"), journal.reader("fast")
        journal.append(rows(550))
        fast.seek(550)
        slow.take(100)
        slow.take(20)
        slow.commit()
        journal.retain()
        assert segment_firsts(folder) == [100, 200, 300, 400, 500]
        slow.close()
        remove_cursor(folder, "slow")
        journal.retain()
        assert (segment_firsts(folder), journal.oldest) == ([500], 500)


def test_the_second_thread_keeps_the_bound_by_itself(folder: Path, rows: MakeRows) -> None:
    room = 400 * SIZE
    with Journal.create(folder, rows_per_segment=100, keep_bytes=room, max_bytes=room) as journal:
        journal.reader("laggard")
        for first in range(0, 5000, 50):
            journal.append(rows(50, first=first))
        journal._upkeep.stop()
        journal._work()
        assert len(segment_firsts(folder)) <= 5


def test_stop_refuses_rows_until_the_laggard_moves(folder: Path, rows: MakeRows) -> None:
    with Journal.create(
        folder, rows_per_segment=100, keep_bytes=0, max_bytes=200 * SIZE, when_full="stop", sync="os"
    ) as journal:
        reader = journal.reader("slow")
        journal.append(rows(200))
        with pytest.raises(JournalError, match="'slow' stands at row 0"):
            journal.append(rows(1, first=200))
        assert journal.committed == 200
        reader.take()
        reader.commit()
        assert journal.append(rows(1, first=200)) == 201
        assert reader.counts.skipped == 0


def test_stop_without_a_laggard_goes_on_for_ever(folder: Path, rows: MakeRows) -> None:
    with Journal.create(
        folder, rows_per_segment=100, keep_bytes=200 * SIZE, max_bytes=200 * SIZE, when_full="stop", sync="os"
    ) as journal:
        for first in range(0, 2000, 70):
            journal.append(rows(70, first=first))
        assert journal.committed - journal.oldest <= 200


def test_narrow_bounds_make_small_segments(folder: Path) -> None:
    with Journal.create(folder, keep_bytes=10**6, max_bytes=10**6) as journal:
        assert journal.page.geometry.rows_per_segment == 10**6 // 4 // SIZE


def test_a_bound_below_two_segments_is_refused(folder: Path) -> None:
    with pytest.raises(JournalError, match="less than two segments"):
        Journal.create(folder, rows_per_segment=100, max_bytes=150 * SIZE)


def test_by_default_half_of_the_free_disk_is_the_bound(folder: Path) -> None:
    with Journal.create(folder) as journal:
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        assert journal.bounds.max_bytes == pytest.approx(free / 2, rel=0.2)


def test_a_cursor_that_comes_back_too_late_is_told(folder: Path, rows: MakeRows) -> None:
    with Journal.create(folder, rows_per_segment=100, keep_bytes=0, max_bytes=200 * SIZE, sync="os") as journal:
        journal.reader("slow").close()
        journal.append(rows(650))
        journal.retain()
        with journal.reader("slow") as reader:
            first = reader.take().first_row
            assert (first, reader.overruns, reader.counts.skipped) == (journal.oldest, 1, journal.oldest)
