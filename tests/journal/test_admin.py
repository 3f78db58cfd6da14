"""Looking after journals from outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from marketfeed.dtypes import CANDLE, TICK, Rows
from marketfeed.errors import JournalError
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal
from marketfeed.journal.admin import Damage, find, forget, info, only, verify
from marketfeed.journal.control import ControlPage
from marketfeed.journal.disk import DiskJournal
from marketfeed.journal.layout import PAGE, segment_name

MakeRows = Callable[..., Rows]
SIZE = TICK.itemsize


def test_info_describes_a_journal_in_use(journal: DiskJournal, folder: Path, rows: MakeRows) -> None:
    journal.instruments.register([Instrument(exchange="NSE", symbol="INFY", token="1")])
    journal.append(rows(250))
    reader = journal.reader("sink", start="oldest")
    reader.take(100)
    reader.commit(100, dead_lettered=1)
    found = info(folder)
    assert (found.name, found.feed, found.kind) == (journal.name, "main", "ticks")
    assert (found.rows, found.oldest, found.committed, found.segments, found.instruments) == (250, 0, 250, 3, 1)
    assert (found.first_received_ns, found.last_received_ns) == (1000, 250_000)
    assert (found.writer_pid, found.writer_alive) == (os.getpid(), True)
    assert found.disk_bytes > 0
    (cursor,) = found.cursors
    assert (cursor.name, cursor.position, cursor.lag, cursor.in_use) == ("sink", 100, 150, True)
    assert (cursor.delivered, cursor.skipped, cursor.dead_lettered) == (99, 0, 1)


def test_info_of_an_empty_journal_of_candles(folder: Path) -> None:
    Journal.create(folder, dtype=CANDLE, feed="second", vendor="kite").close()
    found = info(folder)
    assert (found.kind, found.feed, found.vendor, found.rows) == ("candles", "second", "kite", 0)
    assert (found.first_received_ns, found.writer_pid, found.writer_alive) == (0, 0, False)


def test_a_writer_that_died_is_told_from_one_that_closed(folder: Path) -> None:
    Journal.create(folder).close()
    page = ControlPage(folder, writable=True)
    page._words[320 // 8] = 4242
    page.beat(0)
    found = info(folder)
    assert (found.writer_pid, found.writer_alive) == (4242, False)


def test_verify_finds_every_damaged_row_and_joins_neighbours(
    journal: DiskJournal, folder: Path, rows: MakeRows
) -> None:
    journal.append(rows(350))
    for row in (99, 100, 101, 250):
        path = folder / segment_name(row - row % 100)
        with path.open("r+b") as file:
            file.seek(PAGE + row % 100 * SIZE + 8)
            file.write(b"\xff")
    (folder / segment_name(300)).unlink()
    steps: list[tuple[int, int]] = []
    result = verify(folder, lambda done, total: steps.append((done, total)))
    assert not result.good
    assert result.damage == (Damage(99, 3, "damaged"), Damage(250, 1, "damaged"), Damage(300, 50, "missing"))
    assert (result.rows, steps[-1]) == (350, (350, 350))


def test_verify_begins_where_the_journal_does(folder: Path, rows: MakeRows) -> None:
    with Journal.create(folder, rows_per_segment=100, keep_bytes=0, sync="os") as journal:
        journal.append(rows(250))
        journal.retain()
        result = verify(folder)
        assert (result.good, result.first_row, result.rows) == (True, 200, 50)


def test_forget_frees_what_a_cursor_held_back(folder: Path, rows: MakeRows) -> None:
    with Journal.create(folder, rows_per_segment=100, keep_bytes=0, sync="os") as journal:
        journal.reader("gone").close()
        journal.append(rows(250))
        journal.retain()
        assert journal.oldest == 0
        forget(folder, "gone")
        journal.retain()
        assert journal.oldest == 200


@pytest.mark.parametrize("name", ["", "..", "a/b", "unknown"])
def test_forget_of_what_is_no_cursor_is_an_error(journal: DiskJournal, folder: Path, name: str) -> None:
    with pytest.raises(JournalError, match="cursor"):
        forget(folder, name)
    assert (folder / "cursors").is_dir()


def test_journals_are_found_below_a_folder(tmp_path: Path) -> None:
    assert find(tmp_path) == []
    with pytest.raises(JournalError, match="no journal"):
        only(tmp_path)
    for feed, kind in (("a", "ticks"), ("a", "candles"), ("b", "ticks")):
        Journal.create(tmp_path / feed / kind, dtype=TICK if kind == "ticks" else CANDLE).close()
    assert len(find(tmp_path)) == 3
    assert only(tmp_path / "a") == tmp_path / "a" / "ticks"
    assert only(tmp_path / "a" / "candles") == tmp_path / "a" / "candles"
    with pytest.raises(JournalError, match="3 journals"):
        only(tmp_path)
