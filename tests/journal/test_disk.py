"""The files of a journal, and the rules that its writer keeps."""

from __future__ import annotations

import gc
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from marketfeed.dtypes import CANDLE, TICK, Rows
from marketfeed.errors import JournalError
from marketfeed.journal import Journal, Reader, candles_folder, ticks_folder
from marketfeed.journal.attached import attach
from marketfeed.journal.control import ControlPage
from marketfeed.journal.disk import DiskJournal
from marketfeed.journal.layout import PAGE, segment_firsts, segment_name
from marketfeed.journal.segments import SegmentWriter

MakeRows = Callable[..., Rows]


def test_a_segment_opens_with_numpy_load(journal: DiskJournal, folder: Path, rows: MakeRows) -> None:
    journal.append(rows(150))
    full = np.load(folder / segment_name(0), mmap_mode="r")
    active = np.load(folder / segment_name(100))
    assert (full.dtype, full["volume"].tolist()) == (TICK, list(range(100)))
    assert (len(active), active["received_ns"][50:].any()) == (100, np.False_)
    assert (folder / segment_name(0)).stat().st_size == PAGE + 100 * TICK.itemsize


def test_the_control_page_has_the_documented_layout(journal: DiskJournal, folder: Path, rows: MakeRows) -> None:
    journal.append(rows(7))
    page = (folder / "control").read_bytes()
    assert len(page) == 4096
    assert page[:4] == b"MFJ1"
    assert [int.from_bytes(page[place : place + 4], "little") for place in (4, 8, 12, 272)] == [1, 360, 100, 1]
    assert int.from_bytes(page[64:72], "little") == 7
    assert int.from_bytes(page[320:328], "little") == os.getpid()
    assert page[256:272].hex() == journal.id


def test_folders_of_a_feed(tmp_path: Path) -> None:
    assert ticks_folder(tmp_path, "main") == tmp_path / "main" / "ticks"
    assert candles_folder(str(tmp_path), "main") == tmp_path / "main" / "candles"
    with pytest.raises(JournalError, match="cannot name a feed"):
        ticks_folder(tmp_path, "../main")


def test_a_journal_goes_on_under_its_name_after_closing(folder: Path, rows: MakeRows) -> None:
    with Journal.create(folder, rows_per_segment=100) as first:
        first.append(rows(130))
    with Journal.create(folder, rows_per_segment=999) as second:
        assert (second.name, second.committed, second.run_start) == (first.name, 130, 130)
        assert second.append(rows(130, first=130)) == 260
        assert second.reader("late").position == 130  # the first row of this run
        assert drain(second.reader(start="oldest")) == list(range(260))


def drain(reader: Reader) -> list[int]:
    numbers: list[int] = []
    while len(batch := reader.take()):
        numbers += batch["volume"].tolist()
    return numbers


def test_received_times_do_not_step_back_over_a_restart(folder: Path, rows: MakeRows) -> None:
    with Journal.create(folder) as journal:
        journal.append(rows(1, first=999))
    with Journal.create(folder) as journal:
        journal.append(rows(1))
        assert journal.reader(start="oldest").take()["received_ns"].tolist() == [10**6, 10**6]


def test_a_second_writer_is_refused_by_name_of_the_first(journal: DiskJournal, folder: Path) -> None:
    with pytest.raises(JournalError, match=f"being written by process {os.getpid()}"):
        Journal.create(folder)


def test_another_layout_is_refused(folder: Path) -> None:
    Journal.create(folder).close()
    with pytest.raises(JournalError, match="another layout"):
        Journal.create(folder, dtype=CANDLE)
    Journal.create(folder).close()  # and the lock was given back


def test_a_folder_without_a_journal_cannot_be_attached(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no journal"):
        Journal.attach(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x" * 4096, b"MFJ1" + b"\x02" + bytes(4091)])
def test_a_foreign_control_page_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "control").write_bytes(content)
    with pytest.raises(JournalError, match=r"control page|format 2"):
        Journal.attach(tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal.create(tmp_path / "main")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "main").write_text("")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal.create(tmp_path / "main")


def test_windows_is_told_what_works_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(JournalError, match=r"Journal\.memory"):
        Journal.create(tmp_path)
    with pytest.raises(JournalError, match=r"Journal\.memory"):
        Journal.attach(tmp_path)


def test_the_memory_journal_needs_nothing_of_posix() -> None:
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from marketfeed.journal import Journal, ticks_folder\n"
        "from marketfeed.dtypes import empty_ticks\n"
        "journal = Journal.memory(); reader = journal.reader('a'); journal.append(empty_ticks(3))\n"
        "assert len(reader.take()) == 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- attached -------------------------------------------------------------------------------


def test_an_attached_journal_follows_its_writer(journal: DiskJournal, folder: Path, rows: MakeRows) -> None:
    attached = Journal.attach(folder)
    reader = attached.reader("elsewhere")
    journal.append(rows(5))
    assert reader.take(wait_s=10)["volume"].tolist() == [0, 1, 2, 3, 4]
    assert (attached.name, attached.writer_alive, attached.dtype is TICK) == (journal.name, True, True)
    with pytest.raises(JournalError, match="only its writer appends"):
        attached.append(rows(1))
    journal.close()
    assert not attached.writer_alive


def test_an_attached_reader_can_be_woken(journal: DiskJournal, folder: Path) -> None:
    reader = Journal.attach(folder).reader("elsewhere")
    thread = threading.Thread(target=reader.take, kwargs={"wait_s": 60})
    thread.start()
    reader.wake()
    thread.join(10)
    assert not thread.is_alive()


def test_readers_of_one_process_share_one_mapping_which_goes_with_them(
    journal: DiskJournal, folder: Path, rows: MakeRows
) -> None:
    from marketfeed.journal import segments

    gc.collect()
    before = len(segments._maps)
    journal.append(rows(250))
    readers = [Journal.attach(folder).reader(start="oldest") for _ in range(3)]
    held = [reader.take() for reader in readers]
    assert len(segments._maps) == before + 1
    for reader in readers:
        reader.take()  # crosses into the next segment
    assert len(segments._maps) == before + 2
    held.clear()
    gc.collect()
    assert len(segments._maps) == before + 1
    for reader in readers:
        reader.close()
    gc.collect()
    assert len(segments._maps) == before


def test_nothing_beyond_the_count_is_looked_at(journal: DiskJournal, folder: Path, rows: MakeRows) -> None:
    reader = journal.reader("sink")
    mine = rows(50)
    journal._check.fill(mine, 0)
    journal._segments.write(0, mine.view("u1").data)
    assert len(reader.take()) == 0
    journal.page.publish(20)
    assert len(reader.take()) == 20


def test_where_stores_may_be_seen_out_of_order_a_row_that_is_not_whole_is_not_there_yet(
    journal: DiskJournal, folder: Path, rows: MakeRows
) -> None:
    attached = attach(folder)
    attached._verify_reads = True
    reader = attached.reader("arm", start="oldest")
    mine = rows(30)
    journal._check.fill(mine, 0)
    journal._segments.write(0, mine[:10].view("u1").data)
    journal.page.publish(30)
    assert [len(reader.take()), len(reader.take())] == [10, 0]
    journal._segments.write(10, mine[10:].view("u1").data)
    assert reader.take()["volume"].tolist() == list(range(10, 30))


def test_damage_is_an_error_there_and_not_an_endless_wait(
    journal: DiskJournal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marketfeed.journal import reader as module

    monkeypatch.setattr(module, "DAMAGED_AFTER_S", 0.0)
    attached = attach(folder)
    attached._verify_reads = True
    reader = attached.reader("arm", start="oldest")
    journal._segments.write(0, memoryview(bytes(TICK.itemsize)))
    journal.page.publish(1)
    assert len(reader.take()) == 0
    with pytest.raises(JournalError, match="row 0 is damaged"):
        reader.take()


def test_a_missing_segment_is_an_error(journal: DiskJournal, folder: Path, rows: MakeRows) -> None:
    journal.append(rows(250))
    (folder / segment_name(100)).unlink()
    reader = journal.reader("sink", start=100)
    with pytest.raises(JournalError, match="row 100 is missing"):
        reader.take()


# --- sync -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", ["os", "100ms", "batch"])
def test_closing_leaves_every_row_on_the_disk(folder: Path, rows: MakeRows, sync: str) -> None:
    with Journal.create(folder, rows_per_segment=100, sync=sync) as journal:  # type: ignore[arg-type]
        journal.append(rows(250))
        if sync == "batch":
            assert journal.synced == 250
    assert (journal.synced, journal.page.pid) == (250, 0)


def test_an_unknown_sync_is_an_error(folder: Path) -> None:
    with pytest.raises(JournalError, match="os, 100ms, batch"):
        Journal.create(folder, sync="often")  # type: ignore[arg-type]


def test_rows_are_on_the_disk_soon(journal: DiskJournal, rows: MakeRows) -> None:
    journal.append(rows(250))
    for _ in range(500):
        if journal.synced == 250:
            break
        threading.Event().wait(0.02)
    assert journal.synced == 250


def test_after_a_failed_sync_nothing_more_is_promised(
    journal: DiskJournal, rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marketfeed.journal import segments

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(segments, "force", fail)
    journal.append(rows(10))
    with pytest.raises(OSError, match="Input/output"):
        journal._force(10)
    monkeypatch.undo()
    journal._force(10)
    assert (journal.sync_failed, journal.synced, journal.committed) == (True, 0, 10)


def test_a_failed_write_publishes_nothing_and_can_be_repeated(
    journal: DiskJournal, rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = journal.reader("sink")
    journal.append(rows(90))
    real, calls = os.pwrite, []

    def fills_up(fd: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        return real(fd, data[: max(1, len(data) // 2)], offset)

    mine = rows(30, first=90)
    monkeypatch.setattr(os, "pwrite", fills_up)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            journal.append(mine)
    assert (journal.committed, len(reader.take())) == (90, 90)
    monkeypatch.undo()
    assert journal.append(mine) == 120
    batches = [reader.take() for _ in range(2)]
    assert [n for batch in batches for n in batch["volume"].tolist()] == list(range(90, 120))
    assert batches[0]["received_ns"].tolist() == [91_000 + 1000 * n for n in range(10)]  # as they were


def test_leftovers_of_a_kill_during_creation_are_removed(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "control.12345.new").write_bytes(b"half")
    Journal.create(folder).close()
    assert sorted(one.name for one in folder.iterdir()) == ["control", "cursors", "instruments.jsonl"]
    assert segment_firsts(folder) == []


def test_rows_that_are_forced_one_by_one_stay_durable_over_many_segments(folder: Path, rows: MakeRows) -> None:
    with Journal.create(folder, rows_per_segment=64, sync="batch", keep_bytes=10**6) as journal:
        for number in range(2000):  # the second thread closes a full segment every 64 rows
            journal.append(rows(1, first=number))
        assert not journal.sync_failed
        assert journal.page.synced == 2000


class FullDisk:
    """No room for a new segment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        usual = SegmentWriter._open

        def open_(writer: SegmentWriter, first_row: int) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return usual(writer, first_row)

        monkeypatch.setattr(SegmentWriter, "_open", open_)


def test_rows_of_an_append_that_failed_are_not_there_after_closing(
    folder: Path, rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    with Journal.create(folder, rows_per_segment=64) as journal:
        journal.append(rows(50))
        disk.full = True
        with pytest.raises(OSError, match="No space"):
            journal.append(rows(30, first=50))  # 14 of them found room
        disk.full = False
    with Journal.create(folder) as journal:
        assert (journal.committed, journal.recovery.found) == (50, 0)
        journal.append(rows(30, first=50))
        assert drain(journal.reader(start="oldest")) == list(range(80))


def test_a_shorter_append_leaves_nothing_of_a_failed_one_behind_it(
    folder: Path, rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    journal = Journal.create(folder, rows_per_segment=64)
    journal.append(rows(50))
    disk.full = True
    with pytest.raises(OSError, match="No space"):
        journal.append(rows(30, first=50))
    journal.append(rows(3, first=900))
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)  # as a kill would leave it
    journal.close()
    with Journal.create(copy) as after:
        assert drain(after.reader(start="oldest")) == [*range(50), 900, 901, 902]


def test_a_run_is_known_on_the_disk_before_its_first_row(
    folder: Path, rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[int] = []
    usual = ControlPage.sync

    def sync(page: ControlPage) -> None:
        forced.append(page.pid)
        usual(page)

    monkeypatch.setattr(ControlPage, "sync", sync)
    with Journal.create(folder):
        assert forced == [os.getpid()]
