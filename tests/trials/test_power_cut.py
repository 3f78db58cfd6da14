"""A machine that stopped: what was not on the disk yet is gone, zeroed or garbage. And a large journal after a kill."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from trials._report import Report

from marketfeed.dtypes import TICK, Rows
from marketfeed.journal import Journal
from marketfeed.journal.admin import verify
from marketfeed.journal.control import ControlPage
from marketfeed.journal.layout import PAGE, segment_firsts, segment_name

SIZE = TICK.itemsize
SEGMENT = 100
WRITER = """
import os, sys, signal
from pathlib import Path
import numpy as np
from marketfeed.dtypes import TICK
from marketfeed.journal import Journal
journal = Journal.create(Path(sys.argv[1]), sync="os", keep_bytes=10**11, max_bytes=10**11)
rows = np.zeros(65536, TICK)
rows["received_ns"] = 1
while journal.committed * TICK.itemsize < float(sys.argv[2]):
    journal.append(rows)
    rows["received_ns"] += 1
os.kill(os.getpid(), signal.SIGKILL)
"""


def make_rows(count: int) -> Rows:
    rows = np.zeros(count, TICK)
    rows["received_ns"] = rows["volume"] = np.arange(count) + 1
    return rows


def damage(folder: Path, row: int, draw: random.Random) -> str:
    """Spoil everything from a row on, in one of the ways in which disks do."""
    how = draw.choice(["truncated", "zeroed", "garbled", "segments gone"])
    first = row - row % SEGMENT
    path = folder / segment_name(first)
    data = path.read_bytes()
    place = PAGE + row % SEGMENT * SIZE
    torn = draw.randrange(1, SIZE)  # bytes of the row that are still right
    for later in [one for one in segment_firsts(folder) if one > first]:
        gone = folder / segment_name(later)
        if how in ("truncated", "segments gone"):
            gone.unlink()
        else:
            size = gone.stat().st_size
            gone.write_bytes(bytes(size) if how == "zeroed" else draw.randbytes(size))
    if how == "truncated":
        path.write_bytes(data[: place + torn])
    elif how == "zeroed":
        path.write_bytes(data[: place + torn] + bytes(len(data) - place - torn))
    elif how == "garbled":
        path.write_bytes(data[:place] + draw.randbytes(len(data) - place))
    elif first == 0 or row % SEGMENT:
        path.write_bytes(data[:place])
    else:
        path.unlink()
    return how


def cut_power(folder: Path, synced: int) -> None:
    """Make a journal that was closed in order look like one whose machine stopped."""
    page = ControlPage(folder, writable=True)
    page.set_synced(synced)
    page._words[320 // 8] = 4242


def trial(folder: Path, draw: random.Random) -> str:
    """One power cut; asserts that the journal is cut at the first row that is not whole, and says so."""
    count = draw.randrange(150, 600)
    synced = draw.randrange(0, count - 1)
    rows = make_rows(count)
    with Journal.create(folder, rows_per_segment=SEGMENT, sync="os") as journal:
        journal.append(rows)
        name = journal.name
    cut_power(folder, synced)
    row = draw.randrange(synced, count)
    how = damage(folder, row, draw)
    with Journal.create(folder, sync="os") as journal:
        left = journal.committed
        # A row of which only the end is zeroed may be whole by chance: ours end in zeros.
        assert row <= left <= row + (how == "zeroed"), (how, row, left)
        assert journal.recovery.lost == count - left
        assert journal.recovery.new_epoch == (left < count)
        assert (journal.name != name) == (left < count)
        journal.append(make_rows(50))
        reader = journal.reader(start="oldest")
        seen: list[int] = []
        while len(batch := reader.take()):
            seen += batch["volume"].tolist()
        reader.close()
    assert seen == [*range(1, left + 1), *range(1, 51)]
    assert verify(folder).good
    return how


def run_trials(folder: Path, trials: int, seed: int) -> dict[str, int]:
    draw = random.Random(seed)
    found: dict[str, int] = {}
    for _ in range(trials):
        how = trial(folder / "ticks", draw)
        found[how] = found.get(how, 0) + 1
        shutil.rmtree(folder / "ticks")
    return found


def test_forty_power_cuts_leave_whole_rows_and_a_new_name(tmp_path: Path) -> None:
    assert len(run_trials(tmp_path, trials=40, seed=1)) == 4


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_two_hundred_power_cuts_leave_whole_rows_and_a_new_name(tmp_path: Path, report: Report) -> None:
    found = run_trials(tmp_path, trials=200, seed=2)
    words = ", ".join(f"{count} {how}" for how, count in sorted(found.items()))
    report("1 power cuts", 200, f"{words}: no torn row", aim="no torn row")


def reopening(folder: Path, size: float) -> tuple[float, float]:
    """Seconds until a journal of so many bytes is ready after its writer was killed, and again after a power cut
    that left nothing of the last 0.1 s."""
    writer = subprocess.run([sys.executable, "-c", WRITER, str(folder), str(size)], check=False, timeout=300)
    assert writer.returncode == -9
    times = []
    for _ in range(2):
        begun = time.monotonic()
        with Journal.create(folder, sync="os", keep_bytes=10**11, max_bytes=10**11) as journal:
            times.append(time.monotonic() - begun)
            assert journal.committed * SIZE >= size
            synced = journal.committed - 2000
        cut_power(folder, synced)
    return times[0], times[1]


def test_a_killed_writers_journal_is_ready_soon(tmp_path: Path) -> None:
    assert max(reopening(tmp_path / "ticks", 1e8)) < 5


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_journal_of_two_gigabytes_is_ready_soon(tmp_path: Path, report: Report) -> None:
    killed, cut = reopening(tmp_path / "ticks", 2e9)
    report(
        "1 restart with a journal of 2 GB",
        2,
        f"ready in {killed:.2f} s after a kill, {cut:.2f} s after a cut",
        aim="2 s",
    )
    assert max(killed, cut) < 20
