"""Writers and readers in processes of their own, killed without mercy."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketfeed.dtypes import TICK, empty_ticks
from marketfeed.journal import Journal
from marketfeed.journal.admin import verify
from marketfeed.journal.layout import PAGE, segment_name

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform == "win32", reason="journals on disk need Linux or macOS"),
]
Child = subprocess.Popen[bytes]
Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a role of ``children.py``; whatever still runs at the end is killed."""
    children: list[Child] = []

    def begin(role: str, *arguments: object) -> Child:
        command = [sys.executable, str(Path(__file__).with_name("children.py")), role, *map(str, arguments)]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def heard(child: Child) -> dict[str, Any]:
    assert child.stdout is not None
    found: dict[str, Any] = json.loads(child.stdout.readline())
    return found


def ended(child: Child) -> dict[str, Any]:
    """Close the child's standard input and hear its last word."""
    assert child.stdin is not None
    child.stdin.close()
    found = heard(child)
    assert child.wait(60) == 0
    return found


def bytes_beyond(folder: Path) -> bool:
    """Whether the kill hit between writing rows and publishing them."""
    journal = Journal.attach(folder)
    row = journal.committed
    path = folder / segment_name(row - row % 1000)
    if not path.exists():
        return False
    with path.open("rb") as file:
        file.seek(PAGE + row % 1000 * TICK.itemsize)
        return any(file.read(TICK.itemsize))


def kill_writers(start: Start, folder: Path, trials: int, seed: int) -> int:
    """Kill a writer at random moments under the eyes of a reader; returns how many kills hit inside an append."""
    chance = random.Random(seed)
    Journal.create(folder, rows_per_segment=1000).close()
    watcher = start("watch", folder)
    heard(watcher)
    inside = published = 0
    for trial in range(trials):
        writer = start("write", folder, f"{seed}-{trial}")
        begun = heard(writer)
        assert begun["committed"] >= published
        assert (begun["epoch"], begun["lost"]) == (1, 0)
        time.sleep(chance.random() * 0.08)
        writer.kill()
        writer.wait()
        published = Journal.attach(folder).committed
        inside += bytes_beyond(folder)
    with Journal.create(folder) as journal:
        assert journal.committed >= published
        seen = ended(watcher)
        assert (seen["bad"], seen["cut"], seen["next_row"]) == (0, 0, journal.committed)
        assert seen["rows"] + seen["skipped"] == journal.committed
        assert seen["rows"] > 0
    assert verify(folder).good
    return inside


def test_a_killed_writer_loses_nothing_and_shows_no_reader_half_a_row(start: Start, folder: Path) -> None:
    kill_writers(start, folder, trials=6, seed=1)


@pytest.mark.slow
def test_two_hundred_kills_of_the_writer(start: Start, folder: Path) -> None:
    inside = 0
    for seed in range(10):
        inside += kill_writers(start, folder, trials=20, seed=seed)
        shutil.rmtree(folder)
    # Measured on a shared machine: 12 to 25 of 100 kills hit between writing rows and publishing them. The bar
    # only tells a trial that bites from one that does not; what must hold is asserted for every kill above.
    assert inside >= 10, f"only {inside} of 200 kills hit where it hurts: this trial proves nothing"


def kill_sinks(start: Start, folder: Path, output: Path, trials: int) -> None:
    chance = random.Random(trials)
    with Journal.create(folder, rows_per_segment=1000) as journal:
        for _ in range(trials):
            child = start("sink", folder, output)
            heard(child)
            end = time.monotonic() + 0.02 + chance.random() * 0.06
            while time.monotonic() < end:
                journal.append(empty_ticks(chance.randrange(1, 200)))
                time.sleep(0.001)
            child.kill()
            child.wait()
        with journal.reader("sink") as reader:
            position = reader.position
    seq = np.fromfile(output, "i8")
    assert sorted(set(seq.tolist()))[:position] == list(range(position))
    assert len(seq) - len(set(seq.tolist())) <= 50 * trials, "more than one batch a kill came twice"


def test_a_killed_sink_goes_on_at_its_cursor(start: Start, folder: Path, tmp_path: Path) -> None:
    kill_sinks(start, folder, tmp_path / "out", trials=3)


@pytest.mark.slow
def test_a_hundred_and_fifty_kills_of_a_sink(start: Start, folder: Path, tmp_path: Path) -> None:
    kill_sinks(start, folder, tmp_path / "out", trials=150)


def test_another_process_follows_live_with_names(start: Start, folder: Path) -> None:
    Journal.create(folder, rows_per_segment=1000).close()
    heard(start("write", folder, 1))
    follower = start("follow", folder, 5000)
    heard(follower)
    found = heard(follower)
    assert found["rows"] >= 5000
    assert (found["bad"], found["symbols"], found["alive"]) == (0, ["NSE:INFY"], True)


def test_a_second_process_is_refused_by_the_first_ones_number(start: Start, folder: Path) -> None:
    with Journal.create(folder):
        assert f"process {os.getpid()}" in heard(start("second", folder))["error"]


def test_a_dead_writer_frees_the_journal_at_once(start: Start, folder: Path) -> None:
    writer = start("write", folder, 1)
    heard(writer)
    attached = Journal.attach(folder)
    assert attached.writer_alive
    writer.kill()
    writer.wait()
    Journal.create(folder).close()
    assert not attached.writer_alive


def test_a_forked_child_writes_nothing_and_does_not_keep_the_locks(start: Start, folder: Path) -> None:
    parent = start("fork", folder)
    found = heard(parent)
    parent.wait(30)  # its child lives on until our end of its standard input closes
    assert [len(found["errors"]), found["committed"], found["alive"]] == [3, 5, True]
    with Journal.create(folder) as journal, journal.reader("sink") as reader:
        assert (journal.committed, reader.position, len(journal.instruments)) == (5, 5, 0)


def test_a_full_disk_publishes_nothing_and_the_rows_can_be_appended_later(start: Start, folder: Path) -> None:
    found = heard(start("limit", folder))
    assert found == {
        "steps": [[0, 10], [errno.EFBIG, 10], [errno.EFBIG, 10], [0, 300]],
        "rows": 300,
        "bad": 0,
    }
