"""The store of what could not be delivered: bounded in every direction."""

from __future__ import annotations

import json
from pathlib import Path

from marketfeed.clock import ManualClock
from marketfeed.engine.deadletters import DeadLetters


def test_the_newest_letters_stay_in_memory_within_a_bound_of_bytes() -> None:
    letters = DeadLetters("main", ManualClock())
    for number in range(20):
        letters.put("packet", "short", f"connection {number}", raw=bytes(2**20))
    assert [letter.source for letter in letters.recent] == [f"connection {number}" for number in (16, 17, 18, 19)]
    letters.put("packet", "short", "connection 20", raw=bytes(2**23))
    assert [letter.source for letter in letters.recent] == ["connection 20"]
    assert letters.counts["packet", "short"] == 21


def test_reasons_that_never_repeat_do_not_make_endless_metrics() -> None:
    letters = DeadLetters("main", ManualClock())
    for number in range(1000):
        letters.put("packet", f"offset {number}", "connection 0")
    assert len(letters.counts) == 201
    assert letters.counts["packet", "other"] == 800


def test_letters_are_lines_of_a_file_that_does_not_grow_beyond_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    letters = DeadLetters("main", ManualClock(5), path, max_bytes=600)
    for _ in range(10):
        letters.put("refused", "SinkError", "archive", raw=b"abc", first_row=7, error="too large")
    lines = path.read_text().splitlines()
    assert len(path.read_bytes()) <= 600
    assert len(lines) + letters.overflowed == 10
    first = json.loads(lines[0])
    assert (first["reason"], first["error"], first["first_row"], first["at_ns"]) == ("SinkError", "too large", 7, 5)
