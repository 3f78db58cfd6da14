"""What a journal promises, whether it lies on disk or in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.dtypes import CANDLE, TICK, Rows
from marketfeed.errors import JournalError, Overrun
from marketfeed.journal import Journal, Reader

MakeRows = Callable[..., Rows]


def drain(reader: Reader) -> list[int]:
    """Everything that is there, as the numbers that the rows carry."""
    numbers: list[int] = []
    while len(batch := reader.take()):
        numbers += batch["volume"].tolist()
    return numbers


def test_rows_come_back_in_order_under_their_numbers(either: Journal, rows: MakeRows) -> None:
    reader = either.reader("sink")
    assert either.append(rows(30)) == 30
    assert either.append(rows(40, first=30)) == 70
    batch = reader.take()
    assert isinstance(batch, TickBatch)
    assert (batch.first_row, batch["volume"].tolist()) == (0, list(range(70)))
    assert (batch.journal, batch.origin.feed) == (either.name, "main")


def test_a_batch_is_read_only_and_not_a_copy(either: Journal, rows: MakeRows) -> None:
    either.append(rows(10))
    one, other = either.reader("one").take(), either.reader("other").take()
    assert not one.rows.flags.writeable
    assert np.shares_memory(one.rows, other.rows)


def test_a_batch_never_spans_two_segments(either: Journal, rows: MakeRows) -> None:
    reader = either.reader("sink")
    either.append(rows(250))
    assert [len(reader.take()) for _ in range(4)] == [100, 100, 50, 0]


def test_a_take_is_no_longer_than_asked(either: Journal, rows: MakeRows) -> None:
    reader = either.reader("sink")
    either.append(rows(10))
    assert [len(reader.take(max_rows=4)) for _ in range(4)] == [4, 4, 2, 0]


def test_an_append_of_many_segments_at_once_arrives_whole(either: Journal, rows: MakeRows) -> None:
    reader = either.reader("sink")
    either.append(rows(50))
    either.append(rows(333, first=50))
    assert drain(reader) == list(range(383))


def test_no_rows_are_no_append(either: Journal, rows: MakeRows) -> None:
    assert either.append(rows(0)) == 0


def test_rows_of_another_layout_are_refused(either: Journal) -> None:
    with pytest.raises(JournalError, match="layout"):
        either.append(np.zeros(3, CANDLE))


def test_a_read_only_array_is_appended_and_left_alone(either: Journal, rows: MakeRows) -> None:
    mine = rows(5)
    mine["received_ns"] = [5, 4, 3, 2, 1]
    before = mine.tobytes()
    mine.flags.writeable = False
    either.append(mine)
    assert mine.tobytes() == before
    assert either.reader(start="oldest").take()["received_ns"].tolist() == [5] * 5


def test_a_strided_array_is_appended(either: Journal, rows: MakeRows) -> None:
    either.append(rows(10)[::2])
    assert drain(either.reader(start="oldest")) == [0, 2, 4, 6, 8]


def test_received_times_never_step_back(either: Journal, rows: MakeRows) -> None:
    first, second = rows(4), rows(3)
    first["received_ns"] = [10, 30, 20, 40]
    second["received_ns"] = [35, 50, 45]
    either.append(first)
    either.append(second)
    assert either.reader(start="oldest").take()["received_ns"].tolist() == [10, 30, 30, 40, 40, 50, 50]


def test_position_is_start_plus_delivered_skipped_and_dead_lettered(either: Journal, rows: MakeRows) -> None:
    either.append(rows(20))
    reader = either.reader("sink", start=5)
    reader.take()
    reader.commit(15, skipped=2, dead_lettered=3)
    assert reader.counts == (5, 15, 5, 2, 3)
    assert (reader.position, reader.next_row, reader.lag) == (15, 20, 5)
    assert either.committed == 5 + 5 + 2 + 3 + reader.lag


def test_only_rows_that_were_taken_can_be_committed(either: Journal, rows: MakeRows) -> None:
    either.append(rows(20))
    reader = either.reader("sink", start="oldest")
    reader.take(10)
    with pytest.raises(JournalError, match="cannot commit row 11"):
        reader.commit(11)
    reader.commit()
    with pytest.raises(JournalError, match="cannot commit row 9"):
        reader.commit(9)


def test_a_cursor_goes_on_where_it_was_committed(either: Journal, rows: MakeRows) -> None:
    either.append(rows(20))
    with either.reader("sink", start="oldest") as reader:
        reader.take(8)
        reader.commit()
        reader.take(8)
    with either.reader("sink", start="newest") as again:
        assert again.take()["volume"].tolist() == list(range(8, 20))


def test_rewind_takes_uncommitted_rows_again(either: Journal, rows: MakeRows) -> None:
    either.append(rows(20))
    reader = either.reader("sink", start="oldest")
    reader.take(5)
    reader.commit()
    reader.take(5)
    reader.rewind()
    assert reader.take(5)["volume"].tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(("row", "counts"), [(15, (5, 15, 10, 0, 0)), (2, (2, 2, 0, 0, 0)), (99, (5, 20, 15, 0, 0))])
def test_seek_moves_to_what_the_consumer_stored(
    either: Journal, rows: MakeRows, row: int, counts: tuple[int, ...]
) -> None:
    either.append(rows(20))
    reader = either.reader("sink", start=5)
    reader.take(5)
    reader.seek(row)
    assert (reader.counts, reader.next_row) == (counts, counts[1])


@pytest.mark.parametrize(("start", "first"), [("oldest", 0), ("newest", 20), (7, 7), (50, 20)])
def test_a_new_cursor_begins_where_it_is_told(either: Journal, rows: MakeRows, start: int, first: int) -> None:
    either.append(rows(20))
    assert either.reader("sink", start=start).position == first


def test_a_new_cursor_begins_at_a_time(either: Journal, rows: MakeRows) -> None:
    either.append(rows(350))
    at = {ns: either.reader(start_ns=ns, keep=False).position for ns in (0, 1000, 120_500, 200_000, 350_000, 350_001)}
    assert at == {0: 0, 1000: 0, 120_500: 120, 200_000: 199, 350_000: 349, 350_001: 350}


def test_an_unknown_start_is_an_error_that_frees_the_name(either: Journal) -> None:
    with pytest.raises(JournalError, match="'run', 'oldest', 'newest'"):
        either.reader("sink", start="yesterday")  # type: ignore[arg-type]
    either.reader("sink").close()


def test_a_cursor_has_one_reader(either: Journal) -> None:
    with either.reader("sink"), pytest.raises(JournalError, match="'sink' is in use"):
        either.reader("sink")
    either.reader("sink").close()


def test_observers_share_a_name(either: Journal) -> None:
    with either.reader("web", keep=False) as one, either.reader("web", keep=False) as other:
        assert one.name == other.name


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "a b", "x" * 101, "é"])
def test_a_cursor_name_must_be_a_file_name_everywhere(either: Journal, name: str) -> None:
    with pytest.raises(JournalError, match="cannot name a cursor"):
        either.reader(name)


def test_a_closed_reader_says_so(either: Journal) -> None:
    reader = either.reader("sink")
    reader.close()
    reader.close()
    with pytest.raises(JournalError, match="'sink' is closed"):
        reader.take()


def test_a_closed_journal_takes_no_rows_but_can_be_drained(either: Journal, rows: MakeRows) -> None:
    reader = either.reader("sink")
    either.append(rows(3))
    either.close()
    with pytest.raises(JournalError, match="closed"):
        either.append(rows(3))
    assert (drain(reader), either.writer_alive) == ([0, 1, 2], False)


def test_lag_is_rows_and_the_time_between_them(either: Journal, rows: MakeRows) -> None:
    reader = either.reader("sink")
    assert (reader.lag, reader.lag_seconds) == (0, 0.0)
    mine = rows(3)
    mine["received_ns"] = [10**9, 2 * 10**9, 4 * 10**9]
    either.append(mine)
    assert (reader.lag, reader.lag_seconds) == (3, 3.0)
    reader.take(1)
    reader.commit()
    assert (reader.lag, reader.lag_seconds) == (2, 2.0)


# --- waiting --------------------------------------------------------------------------------


def test_an_append_wakes_a_waiting_reader(either: Journal, rows: MakeRows) -> None:
    reader = either.reader("sink")
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(len(reader.take(wait_s=30))))
    thread.start()
    while not reader.bell.asleep:
        time.sleep(0.001)
    either.append(rows(7))
    thread.join(10)
    assert got == [7]


def test_wake_ends_a_wait_at_once(either: Journal) -> None:
    reader = either.reader("sink")
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(len(reader.take(wait_s=30))))
    thread.start()
    while not reader.bell.asleep:
        time.sleep(0.001)
    reader.wake()
    thread.join(10)
    assert got == [0]


def test_wake_before_the_wait_counts_for_the_next_one_only(either: Journal) -> None:
    reader = either.reader("sink")
    reader.wake()
    begin = time.monotonic()
    assert len(reader.take(wait_s=30)) == 0
    assert time.monotonic() - begin < 10
    begin = time.monotonic()
    reader.take(wait_s=0.05)
    assert time.monotonic() - begin >= 0.05


def test_closing_the_journal_wakes_its_readers(either: Journal) -> None:
    reader = either.reader("sink")
    thread = threading.Thread(target=reader.take, kwargs={"wait_s": 30})
    thread.start()
    while not reader.bell.asleep:
        time.sleep(0.001)
    either.close()
    thread.join(10)
    assert not thread.is_alive()


def test_follow_gives_what_comes_and_ends_with_the_writer(either: Journal, rows: MakeRows) -> None:
    either.append(rows(5))
    batches = either.follow(wait_s=0.01, start="oldest")
    assert len(next(batches)) == 5
    either.append(rows(3, first=5))
    either.close()
    assert [batch["volume"].tolist() for batch in batches] == [[5, 6, 7]]


# --- loss -----------------------------------------------------------------------------------


def overrun(journal: Journal, rows: MakeRows) -> int:
    """Append until the first rows are gone; returns the oldest row."""
    for first in range(0, 1200, 100):
        journal.append(rows(100, first=first))
    retain = getattr(journal, "retain", None)
    if retain is not None:
        retain()
    return journal.oldest


@pytest.fixture(params=["disk", "memory"])
def narrow(request: pytest.FixtureRequest, folder: Path) -> Journal:
    """A journal that keeps four segments."""
    room = 100 * 4 * TICK.itemsize
    if request.param == "memory":
        return Journal.memory(max_bytes=room)
    return Journal.create(folder, rows_per_segment=100, keep_bytes=room, max_bytes=room, sync="os")


def test_a_laggard_loses_rows_which_are_counted_and_told(narrow: Journal, rows: MakeRows) -> None:
    with narrow as journal:
        reader = journal.reader("sink")
        oldest = overrun(journal, rows)
        assert oldest == 800
        batch = reader.take()
        assert batch.first_row == oldest
        assert (reader.overruns, reader.overrun and reader.overrun.missed) == (1, 800)
        assert len(reader.take()) == 100
        assert reader.overrun is None
        reader.commit()
        assert reader.counts == (0, 1000, 200, 800, 0)


def test_rows_taken_before_a_gap_are_delivered_and_the_gap_is_skipped(narrow: Journal, rows: MakeRows) -> None:
    with narrow as journal:
        reader = journal.reader("sink")
        journal.append(rows(100))
        kept = reader.take()
        overrun(journal, rows)  # rows 100 to 1299
        reader.take()
        assert reader.counts.skipped == 0  # nothing is known of the rows before the gap yet
        reader.commit(100)
        assert reader.counts == (0, 100, 100, 0, 0)
        reader.commit()
        assert reader.counts == (0, 1000, 200, 800, 0)
        assert kept["volume"].tolist() == list(range(100))  # still there, although its segment is gone


def test_an_observer_is_told_by_an_error_and_goes_on(narrow: Journal, rows: MakeRows) -> None:
    with narrow as journal:
        observer = journal.reader(start="oldest", keep=False)
        oldest = overrun(journal, rows)
        with pytest.raises(Overrun) as caught:
            observer.take()
        assert (caught.value.missed, caught.value.next_row) == (oldest, oldest)
        assert observer.take().first_row == oldest


# --- candles --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_candles_have_a_journal_of_their_own(where: str, folder: Path) -> None:
    candles = np.zeros(3, CANDLE)
    candles["start_ns"] = [3, 1, 2]
    disk = where == "disk"
    with Journal.create(folder, dtype=CANDLE) if disk else Journal.memory(dtype=CANDLE) as journal:
        journal.append(candles)
        batch = journal.reader(start="oldest").take()
        assert isinstance(batch, CandleBatch)
        assert batch["start_ns"].tolist() == [3, 1, 2]
        with pytest.raises(JournalError, match="no received_ns"):
            journal.reader(start_ns=0)


def test_names_are_of_one_journal_and_positions_are_found_again(either: Journal, rows: MakeRows) -> None:
    either.append(rows(10))
    identity, _, epoch = either.name.partition(".")
    assert (len(identity), epoch) == (32, "1")
    assert either.locate(either.name, 7) == 7
    assert either.locate(either.name, 70) == 10
    assert either.locate("0" * 32 + ".1", 7) is None
