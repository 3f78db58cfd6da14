"""The books of a feed: every row of every run, however the runs ended."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from marketfeed.runs import RunBook, Tally, Totals, has_books, read_totals

JOURNAL = "a" * 32


def run(folder: Path, first_row: int, tally: Tally) -> Totals:
    """A run that ends in order."""
    book = RunBook(folder, JOURNAL)
    book.begin(first_row, 1)
    return book.end(tally, 2)


def test_runs_that_end_in_order_add_up(tmp_path: Path) -> None:
    run(tmp_path, 0, Tally(parsed=10, appended=7, dropped=2, dead_lettered=1))
    total = run(tmp_path, 7, Tally(parsed=5, appended=4, lost=1, bad_packets=3))
    assert total == Totals(runs=2, parsed=15, appended=11, dropped=2, dead_lettered=1, lost=1, bad_packets=3)
    assert read_totals(tmp_path, JOURNAL, 11) == (total, None)
    assert total.holds
    assert total.rows == 11


def test_a_crash_leaves_what_the_journal_knows(tmp_path: Path) -> None:
    book = RunBook(tmp_path, JOURNAL)
    book.begin(0, 1)
    book.checkpoint(Tally(parsed=10, appended=8, dropped=2), 2)
    total = run(tmp_path, 20, Tally(parsed=3, appended=3))  # twelve rows came after the checkpoint
    assert total == Totals(runs=2, crashes=1, parsed=25, appended=23, dropped=2, unseen=12)
    assert total.holds


def test_a_run_that_goes_on_is_no_crash(tmp_path: Path) -> None:
    book = RunBook(tmp_path, JOURNAL)
    book.begin(0, 1)
    book.checkpoint(Tally(parsed=10, appended=10), 2)
    total, running = read_totals(tmp_path, JOURNAL, 14, alive=True)
    assert total == Totals(runs=1, parsed=14, appended=14)
    assert running is not None
    assert running.counts.appended == 10
    assert read_totals(tmp_path, JOURNAL, 14)[0].crashes == 1


def test_rows_of_others_and_rows_that_a_power_cut_took_are_told_apart(tmp_path: Path) -> None:
    run(tmp_path, 5, Tally(parsed=10, appended=10))
    total = run(tmp_path, 12, Tally(parsed=1, appended=1))
    assert (total.others, total.cut, total.rows) == (5, 3, 13)
    assert run(tmp_path, 20, Tally()).others == 12


def test_another_journal_begins_anew(tmp_path: Path) -> None:
    run(tmp_path, 0, Tally(parsed=10, appended=10))
    assert read_totals(tmp_path, "b" * 32, 0) == (Totals(), None)


def test_a_kill_between_the_line_and_the_removal_counts_once(tmp_path: Path) -> None:
    book = RunBook(tmp_path, JOURNAL)
    book.begin(0, 1)
    book.checkpoint(Tally(parsed=4, appended=4), 2)
    left = (tmp_path / "run.json").read_bytes()
    total = book.end(Tally(parsed=4, appended=4), 3)
    (tmp_path / "run.json").write_bytes(left)
    assert read_totals(tmp_path, JOURNAL, 4) == (total, None)


@pytest.mark.parametrize("torn", [b"", b'{"run":"x"', b"\x00" * 100])
def test_a_torn_checkpoint_is_a_crash_without_one(tmp_path: Path, torn: bytes) -> None:
    run(tmp_path, 0, Tally(parsed=10, appended=10))
    RunBook(tmp_path, JOURNAL).begin(10, 1)
    (tmp_path / "run.json").write_bytes(torn)
    total = run(tmp_path, 25, Tally())
    assert total.rows == 25
    assert total.unseen == 15
    assert total.holds


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    run(tmp_path, 0, Tally(parsed=10, appended=10))
    with (tmp_path / "runs.jsonl").open("ab") as file:
        file.write(b'{"run":"abc","jour')
    assert run(tmp_path, 10, Tally(parsed=2, appended=2)).rows == 12
    assert read_totals(tmp_path, JOURNAL, 12)[0].runs == 2


def test_ending_twice_is_the_same_as_once(tmp_path: Path) -> None:
    book = RunBook(tmp_path, JOURNAL)
    book.begin(0, 1)
    book.end(Tally(parsed=1, appended=1), 2)
    book.end(Tally(parsed=1, appended=1), 2)
    assert len((tmp_path / "runs.jsonl").read_bytes().splitlines()) == 1


def test_a_folder_without_books_has_none(tmp_path: Path) -> None:
    assert not has_books(tmp_path)
    assert read_totals(tmp_path / "nothing", JOURNAL, 0) == (Totals(), None)
    run(tmp_path, 0, Tally())
    assert has_books(tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_both_laws_hold_after_any_row_of_stops_crashes_and_power_cuts(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows = true_appended = true_others = 0
    for _ in range(30):
        if draw.random() < 0.2:
            added = draw.randrange(50)  # a replay of dead letters
            rows, true_others = rows + added, true_others + added
        book = RunBook(tmp_path, JOURNAL)
        book.begin(rows, 1)
        tally = Tally()
        for _ in range(draw.randrange(5)):
            counts = [draw.randrange(100) for _ in range(4)]
            tally = Tally(
                parsed=tally.parsed + sum(counts),
                appended=tally.appended + counts[0],
                dropped=tally.dropped + counts[1],
                dead_lettered=tally.dead_lettered + counts[2],
                lost=tally.lost + counts[3],
            )
            rows, true_appended = rows + counts[0], true_appended + counts[0]
            if draw.random() < 0.6:
                book.checkpoint(tally, 2)
        if draw.random() < 0.5:
            book.end(tally, 3)
        elif draw.random() < 0.2:
            rows -= min(rows, draw.randrange(30))
        total, _running = read_totals(tmp_path, JOURNAL, rows)
        assert total.holds
        assert total.rows == rows
        assert total.appended - total.unseen <= true_appended  # after a crash nobody can tell whose rows they are
        assert total.others <= true_others
