"""The position file: two slots, of which one is always whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketfeed.errors import SinkError
from marketfeed.sinks.positions import SLOT_BYTES, Position, PositionFile


def position(row: int) -> Position:
    return Position(journal="aa.1", next_row=row, file="ticks.jsonl", length=row * 10)


def stored(path: Path) -> Position | None:
    file = PositionFile(path)
    file.close()
    return file.current


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A position file in which rows 1, 2 and 3 were stored in turn."""
    path = tmp_path / "ticks.jsonl.position"
    file = PositionFile(path)
    assert file.current is None
    for row in (1, 2, 3):
        file.store(position(row))
    file.close()
    return path


def newest_slot(path: Path) -> int:
    """Offset of the slot with row 3."""
    return 0 if b'"next_row": 3' in path.read_bytes()[:SLOT_BYTES] else SLOT_BYTES


def test_the_newest_position_is_read_back(path: Path) -> None:
    assert stored(path) == position(3)


@pytest.mark.parametrize("kept", [0, 1, 8, 9, 20, 60])
def test_a_torn_slot_leaves_the_one_before(path: Path, kept: int) -> None:
    data, place = bytearray(path.read_bytes()), newest_slot(path)
    older = data[SLOT_BYTES - place : 2 * SLOT_BYTES - place]
    data[place + kept : place + SLOT_BYTES] = older[kept:]  # the beginning is new, the rest still old
    if kept:
        path.write_bytes(data)
        assert stored(path) == position(2)
    data[place : place + SLOT_BYTES] = bytes(SLOT_BYTES)
    path.write_bytes(data)
    assert stored(path) == position(2)


def test_after_a_torn_slot_storing_goes_on(path: Path) -> None:
    data, place = bytearray(path.read_bytes()), newest_slot(path)
    data[place + 5] ^= 1
    path.write_bytes(data)
    file = PositionFile(path)
    assert file.current == position(2)
    file.store(position(7))
    file.close()
    assert stored(path) == position(7)


def test_a_file_without_a_readable_slot_is_an_error_not_a_new_beginning(path: Path) -> None:
    path.write_bytes(b"x" * 2 * SLOT_BYTES)
    with pytest.raises(SinkError, match="neither of its two records"):
        PositionFile(path)


def test_the_lock_ends_with_the_file(path: Path) -> None:
    file = PositionFile(path)
    with pytest.raises(SinkError, match=r"ticks\.jsonl is being written"):
        PositionFile(path)
    file.close()
    PositionFile(path).close()


def test_names_in_any_script_are_kept(tmp_path: Path) -> None:
    file = PositionFile(tmp_path / "p")
    wanted = Position("aa.1", 1, "टिक ₹.jsonl", 2)
    file.store(wanted)
    file.close()
    assert stored(tmp_path / "p") == wanted


def test_a_name_that_has_no_room_is_refused_and_leaves_the_slots_alone(path: Path) -> None:
    file = PositionFile(path)
    with pytest.raises(SinkError, match="too long"):
        file.store(Position("aa.1", 1, "₹" * 500, 2))
    file.close()
    assert stored(path) == position(3)
