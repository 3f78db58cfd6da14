"""The file of the ledger of gaps: what its lines amount to, torn lines, repairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketfeed.errors import MarketFeedError
from marketfeed.gaps import (
    Closed,
    Happening,
    InstrumentSet,
    Joined,
    Opened,
    Repaired,
    Run,
    Stopped,
    Subscribed,
    encode,
    find_ledgers,
    gaps_file,
    read_book,
    repair,
)

EVENTS: list[Happening] = [
    Run(1, "ab.1"),
    InstrumentSet(1, ((0, 3), (7, 1))),
    Subscribed(2, 0, 1),
    Opened(1, 11, 10, "mute", "silence", 1, "main", "kite", "ab.1", 4, 0),
    Joined(1, 12, "outage", "closed"),
    Closed(1, 21, 20, 0.5, 4, 5),
    Opened(2, 31, 30, "outage", "closed", 1, "main", "kite", "ab.1", 8, 0),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = gaps_file(tmp_path, "main")
    path.parent.mkdir()
    path.write_bytes(encode(EVENTS))
    return path


def test_a_book_is_what_its_events_amount_to(path: Path) -> None:
    book = read_book(path)
    first, second = book.gaps.values()
    assert (first.causes, first.why, first.start_ns, first.end_ns) == (("mute", "outage"), "silence; closed", 10, 20)
    assert (first.row_before, first.row_after, first.in_session_s, first.instruments) == (4, 5, 0.5, (0, 1, 2, 7))
    assert second.is_open
    assert second.seconds is None
    assert (book.wanted, book.stopped_ns, book.damaged) == ({0: (0, 1, 2, 7)}, None, 0)


def test_a_thousand_gaps_of_a_thousand_instruments_are_a_small_file() -> None:
    events: list[Happening] = [InstrumentSet(1, ((0, 1000),))]
    for number in range(1, 1001):
        events.append(Opened(number, 1, 1, "outage", "closed", 1, "main", "kite", "ab.1", 4, 0))
        events.append(Closed(number, 1, 2, 0.5, 4, 5))
    assert len(encode(events)) < 300_000


def test_a_stop_ends_the_run_and_a_run_begins_another(path: Path) -> None:
    with path.open("ab") as file:
        file.write(encode([Stopped(50)]))
    assert read_book(path).stopped_ns == 50
    with path.open("ab") as file:
        file.write(encode([Run(60, "ab.1")]))
    assert (read_book(path).stopped_ns, read_book(path).wanted) == (None, {})


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_passed_over_and_does_not_spoil_the_next(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    book = read_book(path)
    assert (list(book.gaps), book.damaged) == ([1, 2] if cut == 1 else [1], 0 if cut == 1 else 1)
    repair(path, 1, "backfill", 99)
    assert read_book(path).gaps[1].repaired_by == "backfill"


def test_a_damaged_line_in_the_middle_costs_what_it_said(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"\x00\xff nonsense\n", *lines[4:]]))
    book = read_book(path)
    assert (list(book.gaps), book.damaged) == ([2], 1)


def test_a_repair_names_who_did_it_and_when(path: Path) -> None:
    gap = repair(path, 1, "backfill of kite candles", 99)
    assert (gap.repaired_by, gap.repaired_ns, gap.end_ns) == ("backfill of kite candles", 99, 20)
    assert read_book(path).gaps[1] == gap
    assert encode([Repaired(1, 99, "backfill of kite candles")]) == path.read_bytes().splitlines(keepends=True)[-1]


@pytest.mark.parametrize(("number", "why"), [(2, "still open"), (3, "no gap 3")])
def test_a_gap_that_is_open_or_not_there_cannot_be_repaired(path: Path, number: int, why: str) -> None:
    before = path.read_bytes()
    with pytest.raises(MarketFeedError, match=why):
        repair(path, number, "wishful thinking", 99)
    assert path.read_bytes() == before


def test_ledgers_are_found_at_a_feed_and_above_it(path: Path, tmp_path: Path) -> None:
    assert find_ledgers(path.parent) == find_ledgers(tmp_path) == [path]
    assert find_ledgers(tmp_path / "main" / "nowhere") == []
