"""After a kill nothing is lost; after a power cut every row that is left is whole, and the name says so."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from marketfeed.dtypes import TICK, Rows
from marketfeed.journal import Journal, Reader
from marketfeed.journal import control as control_module
from marketfeed.journal.control import ControlPage
from marketfeed.journal.disk import DiskJournal
from marketfeed.journal.layout import PAGE, segment_firsts, segment_name

MakeRows = Callable[..., Rows]
SIZE = TICK.itemsize
SYNCED, ROWS = 120, 370
"""Rows on the disk for certain, and rows written before the power went."""


def drain(reader: Reader) -> list[int]:
    numbers: list[int] = []
    while len(batch := reader.take()):
        numbers += batch["volume"].tolist()
    return numbers


def cut_power(folder: Path, synced: int = SYNCED) -> None:
    """Make a journal that was closed in order look like one whose machine stopped."""
    page = ControlPage(folder, writable=True)
    page.set_synced(synced)
    page._words[320 // 8] = 4242


@pytest.fixture
def stopped(folder: Path, rows: MakeRows) -> Path:
    """A journal of 370 rows in segments of 100, of which 120 are known to be on the disk."""
    with Journal.create(folder, rows_per_segment=100, sync="os") as journal:
        journal.append(rows(ROWS))
    cut_power(folder)
    return folder


def reopen(folder: Path) -> DiskJournal:
    return Journal.create(folder, sync="os")


def edit(folder: Path, row: int, change: Callable[[bytearray], None], count: int = 1) -> None:
    """Change the bytes of ``count`` rows in place."""
    path = folder / segment_name(row - row % 100)
    data = bytearray(path.read_bytes())
    start = PAGE + row % 100 * SIZE
    piece = data[start : start + count * SIZE]
    change(piece)
    data[start : start + count * SIZE] = piece
    path.write_bytes(data)


def test_an_undamaged_journal_loses_nothing_and_keeps_its_name(stopped: Path) -> None:
    name = Journal.attach(stopped).name
    with reopen(stopped) as journal:
        assert (journal.committed, journal.recovery.lost, journal.recovery.new_epoch) == (ROWS, 0, False)
        assert journal.name == name


def test_whole_rows_that_were_not_published_yet_are_kept(stopped: Path) -> None:
    ControlPage(stopped, writable=True).publish(333)
    with reopen(stopped) as journal:
        assert (journal.committed, journal.recovery.found, journal.recovery.new_epoch) == (ROWS, 37, False)
        assert drain(journal.reader(start="oldest")) == list(range(ROWS))


def _zeroed(data: bytearray) -> None:
    data[:] = bytes(len(data))


def _garbled(data: bytearray) -> None:
    data[:] = random.Random(len(data)).randbytes(len(data))


def _one_bit(data: bytearray) -> None:
    data[17] ^= 4


@pytest.mark.parametrize("damage", [_zeroed, _garbled, _one_bit])
@pytest.mark.parametrize("row", [120, 199, 200, 250, 369])
def test_the_cut_is_exactly_at_the_first_damaged_row(
    stopped: Path, row: int, damage: Callable[[bytearray], None]
) -> None:
    edit(stopped, row, damage)
    with reopen(stopped) as journal:
        found = journal.recovery
        assert (journal.committed, found.lost, found.new_epoch) == (row, ROWS - row, True)
        assert drain(journal.reader(start="oldest")) == list(range(row))


@pytest.mark.parametrize("size", [0, 100, PAGE, PAGE + 30 * SIZE, PAGE + 30 * SIZE + 17])
def test_a_segment_that_lost_its_end_is_cut_and_grows_again(stopped: Path, rows: MakeRows, size: int) -> None:
    path = stopped / segment_name(200)
    path.write_bytes(path.read_bytes()[:size])
    whole = 200 + max(0, size - PAGE) // SIZE
    with reopen(stopped) as journal:
        assert journal.committed == whole
        journal.append(rows(ROWS - whole, first=whole))
        assert drain(journal.reader(start="oldest")) == list(range(ROWS))
    assert np.load(path)["volume"].tolist() == list(range(200, 300))


def test_a_segment_that_is_gone_cuts_at_its_beginning(stopped: Path) -> None:
    (stopped / segment_name(200)).unlink()
    with reopen(stopped) as journal:
        assert journal.committed == 200
        assert segment_firsts(stopped) == [0, 100]


def test_rows_of_another_place_are_not_accepted(stopped: Path) -> None:
    stale = (stopped / segment_name(100)).read_bytes()[PAGE : PAGE + 10 * SIZE]

    def put(data: bytearray) -> None:
        data[:] = stale

    edit(stopped, 200, put, count=10)
    with reopen(stopped) as journal:
        assert journal.committed == 200


def test_rows_beyond_a_cut_never_come_back_under_new_numbers(stopped: Path, rows: MakeRows) -> None:
    edit(stopped, 250, _zeroed)  # rows 251 to 369 are whole, and lie beyond the cut
    with reopen(stopped) as journal:
        journal.append(rows(1, first=250))
    cut_power(stopped, synced=250)
    with reopen(stopped) as journal:
        assert journal.committed == 251


def test_a_random_power_cut_is_cut_at_the_first_row_that_is_not_whole(folder: Path, rows: MakeRows) -> None:
    with Journal.create(folder, rows_per_segment=100, sync="os") as journal:
        journal.append(rows(ROWS))
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    chance = random.Random(7)
    for _ in range(60):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        cut_power(folder)
        row, count = chance.randrange(SYNCED, ROWS), chance.randrange(1, 30)
        count = min(count, 100 - row % 100, ROWS - row)
        edit(folder, row, chance.choice([_zeroed, _garbled]), count)
        with reopen(folder) as journal:
            assert (journal.committed, journal.epoch) == (row, 2)


# --- names and positions --------------------------------------------------------------------


def test_each_loss_has_a_new_epoch_and_positions_are_clamped_to_the_lowest_cut(stopped: Path, rows: MakeRows) -> None:
    first = Journal.attach(stopped).name
    edit(stopped, 250, _zeroed)
    with reopen(stopped) as journal:
        second = journal.name
        journal.append(rows(100, first=250))
    cut_power(stopped, synced=260)
    edit(stopped, 300, _zeroed)
    with reopen(stopped) as journal:
        journal.append(rows(500, first=300))
        assert [name.rpartition(".")[2] for name in (first, second, journal.name)] == ["1", "2", "3"]
        assert [journal.locate(name, 340) for name in (first, second, journal.name)] == [250, 300, 340]
        assert journal.locate(first, 100) == 100


def test_a_machine_that_was_booted_anew_may_have_forgotten_rows_so_the_name_changes(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketfeed.journal.recovery.boot_identity", lambda: b"another boot ..!")
    with reopen(stopped) as journal:
        assert (journal.recovery.lost, journal.recovery.new_epoch, journal.epoch) == (0, True, 2)
        assert journal.locate(f"{journal.id}.1", ROWS + 50) == ROWS


def test_a_boot_after_closing_in_order_changes_nothing(
    folder: Path, rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.create(folder) as journal:
        journal.append(rows(5))
    monkeypatch.setattr("marketfeed.journal.recovery.boot_identity", lambda: b"another boot ..!")
    with reopen(folder) as journal:
        assert journal.epoch == 1


def test_where_the_system_does_not_tell_its_boot_the_worst_is_assumed(
    folder: Path, rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("control", "recovery"):
        monkeypatch.setattr(f"marketfeed.journal.{module}.boot_identity", lambda: bytes(16))
    with Journal.create(folder) as journal:
        journal.append(rows(5))
    cut_power(folder, synced=0)
    with reopen(folder) as journal:
        assert (journal.committed, journal.epoch) == (5, 2)


def test_the_boot_is_told_where_linux_tells_it() -> None:
    assert len(control_module.boot_identity()) == 16


def test_a_cursor_beyond_the_cut_is_clamped_even_when_new_rows_have_passed_it(stopped: Path, rows: MakeRows) -> None:
    with Journal.attach(stopped).reader("sink", start=100) as reader:
        while len(reader.take()):
            reader.commit()
        assert reader.counts == (100, ROWS, ROWS - 100, 0, 0)
    edit(stopped, 250, _zeroed)
    with reopen(stopped) as journal:
        journal.append(rows(300, first=250))
        with journal.reader("sink") as reader:
            assert reader.counts == (100, 250, 150, 0, 0)
            assert drain(reader) == list(range(250, 550))


def test_a_reader_that_was_attached_meanwhile_is_clamped_and_told(stopped: Path, rows: MakeRows) -> None:
    attached = Journal.attach(stopped)
    reader = attached.reader("sink", start="oldest")
    seen = drain(reader)
    reader.commit(300)
    before = attached.name
    edit(stopped, 250, _zeroed)
    with reopen(stopped) as journal:
        journal.append(rows(200, first=250))  # the count is beyond the reader's position again
        assert (seen, drain(reader)) == (list(range(ROWS)), list(range(250, 450)))
        assert reader.cut == ROWS - 250
        assert attached.name == journal.name != before
        reader.commit()
        assert reader.counts == (0, 450, 450, 0, 0)


# --- a control page that is older than the files --------------------------------------------


def test_segments_that_retention_removed_are_not_missed(stopped: Path) -> None:
    for first in (0, 100):
        (stopped / segment_name(first)).unlink()
    with reopen(stopped) as journal:
        assert (journal.oldest, journal.committed) == (200, ROWS)
        assert drain(journal.reader(start="oldest")) == list(range(200, ROWS))


def test_segments_that_a_kill_left_half_removed_go(stopped: Path) -> None:
    ControlPage(stopped, writable=True).set_oldest(200)
    with reopen(stopped) as journal:
        assert (journal.oldest, segment_firsts(stopped)) == (200, [200, 300])


def test_a_hole_below_the_rows_that_are_safe_makes_the_rest_the_oldest(folder: Path, rows: MakeRows) -> None:
    with Journal.create(folder, rows_per_segment=100, sync="os") as journal:
        journal.append(rows(ROWS))
    (folder / segment_name(100)).unlink()
    with reopen(folder) as journal:
        assert (journal.oldest, journal.committed, journal.epoch) == (200, ROWS, 1)


def test_a_journal_that_lost_every_segment_goes_on_after_its_last_number(stopped: Path, rows: MakeRows) -> None:
    for first in segment_firsts(stopped):
        (stopped / segment_name(first)).unlink()
    with reopen(stopped) as journal:
        assert (journal.oldest, journal.committed, journal.epoch) == (SYNCED, SYNCED, 2)
        journal.append(rows(100, first=SYNCED))
        assert drain(journal.reader(start="oldest")) == list(range(SYNCED, SYNCED + 100))


def test_an_unfinished_line_of_epochs_is_written_over(stopped: Path) -> None:
    (stopped / "epochs.jsonl").write_bytes(b'{"epoch":2,"first')
    edit(stopped, 300, _zeroed)
    with reopen(stopped) as journal:
        assert journal.epoch == 2
    assert (stopped / "epochs.jsonl").read_bytes().count(b"\n") == 1
