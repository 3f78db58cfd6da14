"""One commit of a cursor is whole or did not happen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.dtypes import Rows
from marketfeed.errors import JournalError
from marketfeed.journal import Journal
from marketfeed.journal.cursorfiles import CursorFile, read_state, remove_cursor, stored_cursors
from marketfeed.journal.cursors import SIZE, SLOT_BYTES, SLOTS, CursorState, pack, unpack
from marketfeed.journal.disk import DiskJournal

MakeRows = Callable[..., Rows]
WORD = st.integers(0, 2**62)


@given(st.builds(CursorState, WORD, WORD, WORD, WORD, WORD, st.integers(0, 2**31)))
def test_a_state_survives_packing(state: CursorState) -> None:
    page = bytearray(SIZE)
    page[:8] = (1).to_bytes(8, "little")
    page[SLOTS[1] : SLOTS[1] + SLOT_BYTES] = pack(state)
    assert unpack(bytes(page)) == state


def written(*positions: int) -> bytearray:
    page = bytearray(SIZE)
    for commits, position in enumerate(positions, 1):
        slot = SLOTS[commits & 1]
        page[slot : slot + SLOT_BYTES] = pack(CursorState(0, position))
        page[:8] = commits.to_bytes(8, "little")
    return page


@given(st.integers(0, SLOT_BYTES), st.lists(st.integers(0, 10**6), min_size=1, max_size=5), st.integers(0, 10**6))
def test_a_kill_in_the_middle_of_a_commit_leaves_the_old_state(cut: int, positions: list[int], new: int) -> None:
    page = written(*positions)
    slot = SLOTS[len(positions) + 1 & 1]
    page[slot : slot + cut] = pack(CursorState(0, new))[:cut]  # and the selector is not stored
    state = unpack(bytes(page))
    assert state is not None
    assert state.position == positions[-1]


def test_a_slot_that_a_power_cut_tore_leaves_the_one_before() -> None:
    page = written(10, 20, 30)
    page[SLOTS[1] + 8] ^= 1
    state = unpack(bytes(page))
    assert state is not None
    assert state.position == 20


def test_a_new_file_has_no_state() -> None:
    assert unpack(bytes(SIZE)) is None


def test_when_both_slots_are_damaged_rows_come_twice_rather_than_never(
    journal: DiskJournal, folder: Path, rows: MakeRows, caplog: pytest.LogCaptureFixture
) -> None:
    journal.append(rows(20))
    with journal.reader("sink", start="oldest") as reader:
        for _ in range(3):
            reader.take(5)
            reader.commit()
    path = folder / "cursors" / "sink"
    page = bytearray(path.read_bytes())
    page[64:192] = bytes(128)
    path.write_bytes(page)
    with journal.reader("sink", start="newest") as reader:
        assert reader.position == 0
    assert "'sink' is damaged" in caplog.text


def test_anyone_may_look_while_the_reader_commits(journal: DiskJournal, folder: Path, rows: MakeRows) -> None:
    journal.append(rows(50))
    reader = journal.reader("sink", start="oldest")
    reader.take(30)
    reader.commit(30, skipped=1, dead_lettered=2)
    state = read_state(folder / "cursors" / "sink")
    assert state is not None
    assert state.counts == (0, 30, 27, 1, 2)
    assert state.updated_ns > 0
    assert [(one.name, one.in_use) for one in stored_cursors(folder)] == [("sink", True)]
    reader.close()
    assert [(one.name, one.in_use) for one in stored_cursors(folder)] == [("sink", False)]


def test_a_cursor_in_use_is_not_removed(journal: DiskJournal, folder: Path) -> None:
    with journal.reader("sink"), pytest.raises(JournalError, match="in use"):
        remove_cursor(folder, "sink")
    remove_cursor(folder, "sink")
    with pytest.raises(JournalError, match="there are: none"):
        remove_cursor(folder, "sink")


def test_two_attached_readers_of_one_cursor_are_refused(journal: DiskJournal, folder: Path) -> None:
    with journal.reader("sink"), pytest.raises(JournalError, match="'sink' is in use"):
        Journal.attach(folder).reader("sink")


def test_a_cursor_file_half_made_is_a_new_cursor(journal: DiskJournal, folder: Path) -> None:
    (folder / "cursors" / "sink").write_bytes(b"")
    cursor = CursorFile(folder, "sink")
    assert (cursor.state, cursor.damaged) == (None, False)
    cursor.close()
