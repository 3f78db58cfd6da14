"""The file sinks: every row once and in order, whatever happens to the process or the disk."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.errors import SinkError
from marketfeed.sinks.csv import CsvSink
from marketfeed.sinks.files import FileSink
from marketfeed.sinks.jsonl import JsonlSink

MakeTicks = Callable[..., TickBatch]
HERE = Path(__file__).parent
FORMATS: dict[str, type[FileSink]] = {"jsonl": JsonlSink, "csv": CsvSink}

pytestmark = pytest.mark.parametrize("kind", list(FORMATS))


def seqs(file: Path) -> list[int]:
    """Row numbers in a file, in file order; every line must be whole."""
    if file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8") as lines:
            return [int(row["seq"]) for row in csv.DictReader(lines, strict=True)]
    return [json.loads(line)["seq"] for line in file.read_bytes().splitlines()]


def outputs(folder: Path, kind: str) -> dict[str, list[int]]:
    return {file.name: seqs(file) for file in sorted(folder.glob(f"*.{kind}"))}


def opened(kind: str, path: Path, **options: Any) -> FileSink:
    sink = FORMATS[kind](path=path, **options)
    sink.open()
    return sink


def put(sink: FileSink, *batches: TickBatch) -> None:
    for batch in batches:
        sink.write(batch)
    sink.flush()


# --- one file -------------------------------------------------------------------------------------


def test_rows_stand_in_the_file_in_order(kind: str, tmp_path: Path, ticks: MakeTicks) -> None:
    file = tmp_path / "new" / "folder" / f"ticks.{kind}"
    sink = opened(kind, file)
    put(sink, ticks(3), ticks(700, 3), ticks(0, 703), ticks(1, 703))
    sink.close()
    assert seqs(file) == list(range(704))


def test_candles_are_taken_too(kind: str, tmp_path: Path, candles: Callable[..., CandleBatch]) -> None:
    file = tmp_path / f"candles.{kind}"
    sink = opened(kind, file)
    sink.write(candles(3))
    sink.flush()
    sink.close()
    assert seqs(file) == [0, 1, 2]


def test_a_restart_goes_on_after_the_last_flush(kind: str, tmp_path: Path, ticks: MakeTicks, journal: str) -> None:
    file = tmp_path / f"ticks.{kind}"
    first = opened(kind, file)
    assert first.position(journal) is None
    put(first, ticks(10))
    first.write(ticks(5, 10))  # written, not flushed: comes again
    first.close()
    second = opened(kind, file)
    assert second.position(journal) == 10
    assert seqs(file) == list(range(10))
    put(second, ticks(10, 10))
    second.close()
    assert seqs(file) == list(range(20))


def test_a_file_of_somebody_else_is_appended_to(kind: str, tmp_path: Path, ticks: MakeTicks, journal: str) -> None:
    file = tmp_path / f"ticks.{kind}"
    file.write_bytes(b"their last line has no end")
    sink = opened(kind, file)
    assert sink.position(journal) is None
    put(sink, ticks(2))
    sink.close()
    lines = file.read_bytes().splitlines()
    assert len(lines) == 3
    assert lines[0] == b"their last line has no end"


def test_rows_of_another_journal_stay_and_its_rows_follow(kind: str, tmp_path: Path, ticks: MakeTicks) -> None:
    file = tmp_path / f"ticks.{kind}"
    first = opened(kind, file)
    put(first, ticks(3, journal="aaaa.1"))
    first.write(ticks(2, 3, journal="aaaa.1"))  # a memory journal dies with its process: these never come again
    first.close()
    with file.open("ab") as torn:
        torn.write(b"half a li")
    second = opened(kind, file)
    assert second.position("bbbb.1") is None
    put(second, ticks(3, journal="bbbb.1"))
    second.close()
    assert seqs(file) == [0, 1, 2, 3, 4, 0, 1, 2]
    third = opened(kind, file)
    assert third.position("bbbb.1") == 3
    third.close()


def test_a_position_of_an_older_epoch_is_kept_under_its_own_name(kind: str, tmp_path: Path, ticks: MakeTicks) -> None:
    file = tmp_path / f"ticks.{kind}"
    first = opened(kind, file)
    put(first, ticks(10, journal="aaaa.1"))
    first.write(ticks(5, 10, journal="aaaa.1"))
    first.close()
    second = opened(kind, file)
    assert second.position("aaaa.2") is None  # the core asks for older epochs next, and clamps
    assert second.position("aaaa.1") == 10
    put(second, ticks(4, 8, journal="aaaa.2"))
    second.close()
    assert seqs(file) == [*range(10), *range(8, 12)]
    third = opened(kind, file)
    assert third.position("aaaa.2") == 12
    third.close()


def test_a_new_journal_counts_from_its_first_batch_on_even_without_a_flush(
    kind: str, tmp_path: Path, ticks: MakeTicks
) -> None:
    file = tmp_path / f"ticks.{kind}"
    first = opened(kind, file)
    first.write(ticks(5, 100))
    first.close()
    second = opened(kind, file)
    assert second.position(ticks(0).journal) == 100
    put(second, ticks(5, 100))
    second.close()
    assert seqs(file) == list(range(100, 105))


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_lost_output_is_a_loud_error_that_says_what_to_do(
    kind: str, tmp_path: Path, ticks: MakeTicks, damage: str
) -> None:
    file = tmp_path / f"ticks.{kind}"
    sink = opened(kind, file)
    put(sink, ticks(10))
    sink.close()
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 100)
    broken = FORMATS[kind](path=file)
    with pytest.raises(SinkError, match=rf"(?s)Put it back.*delete ticks\.{kind}\.position") as raised:
        broken.open()
    assert not raised.value.retryable
    broken.close()
    (tmp_path / f"ticks.{kind}.position").unlink()
    opened(kind, file).close()


def test_two_writers_of_one_file_are_refused(kind: str, tmp_path: Path, ticks: MakeTicks) -> None:
    file = tmp_path / f"ticks.{kind}"
    first = opened(kind, file)
    second = FORMATS[kind](path=file)
    with pytest.raises(SinkError, match="another process or sink") as raised:
        second.open()
    assert not raised.value.retryable
    second.close()
    put(first, ticks(1))
    first.close()
    opened(kind, file).close()


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sink = FORMATS[kind](path=tmp_path / "file" / "ticks.out")
    with pytest.raises(SinkError, match=r"cannot write .*ticks\.out") as raised:
        sink.open()
    assert not raised.value.retryable


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_folder_without_permission_is_an_error(kind: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SinkError, match="Permission denied"):
        FORMATS[kind](path=tmp_path / "ticks.out").open()
    tmp_path.chmod(0o700)


def test_a_durable_file_holds_the_same(kind: str, tmp_path: Path, ticks: MakeTicks, journal: str) -> None:
    file = tmp_path / f"ticks.{kind}"
    for first_row in (0, 10):
        sink = opened(kind, file, durable=True)
        assert sink.position(journal) == (first_row or None)
        put(sink, ticks(10, first_row))
        sink.close()
    assert seqs(file) == list(range(20))


def test_a_home_folder_is_found(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert FORMATS[kind](path="~/ticks.out").path == tmp_path / "ticks.out"


# --- rotation -------------------------------------------------------------------------------------

DAYS = [
    *["2026-11-19 23:59:59.999999", "2026-11-20 00:00:00", "2026-11-20 05:29:59", "2026-11-20 23:59:59"],
    *["2026-11-21 00:00:00", "2026-11-21 05:30:00"],
]


def test_a_row_stands_in_the_file_of_its_india_day(kind: str, tmp_path: Path, ticks: MakeTicks, journal: str) -> None:
    sink = opened(kind, tmp_path / f"ticks.{kind}", rotate="day")
    put(sink, ticks(6, received=DAYS))
    sink.close()
    assert outputs(tmp_path, kind) == {
        f"ticks-2026-11-19.{kind}": [0],
        f"ticks-2026-11-20.{kind}": [1, 2, 3],
        f"ticks-2026-11-21.{kind}": [4, 5],
    }
    again = opened(kind, tmp_path / f"ticks.{kind}", rotate="day")
    assert again.position(journal) == 6
    put(again, ticks(1, 6, received="2026-11-21 09:15:00"), ticks(1, 7, received="2026-11-22 09:15:00"))
    again.close()
    assert outputs(tmp_path, kind)[f"ticks-2026-11-21.{kind}"] == [4, 5, 6]
    assert outputs(tmp_path, kind)[f"ticks-2026-11-22.{kind}"] == [7]


def test_a_kill_after_a_rotation_loses_and_doubles_nothing(kind: str, tmp_path: Path, ticks: MakeTicks) -> None:
    first = opened(kind, tmp_path / f"ticks.{kind}", rotate="day")
    first.write(ticks(6, received=DAYS))
    first.close()  # without a flush, as a kill leaves it
    second = opened(kind, tmp_path / f"ticks.{kind}", rotate="day")
    assert second.position(ticks(0).journal) == 4
    put(second, ticks(6, received=DAYS)[4:])
    second.close()
    assert [one for rows in outputs(tmp_path, kind).values() for one in rows] == list(range(6))


def test_no_file_grows_beyond_its_size(kind: str, tmp_path: Path, ticks: MakeTicks, journal: str) -> None:
    path = tmp_path / f"ticks.{kind}"
    for first_row in range(0, 90, 30):
        sink = opened(kind, path, rotate="8KB")
        assert sink.position(journal) == (first_row or None)
        put(sink, ticks(25, first_row), ticks(5, first_row + 25))
        sink.close()
    files = sorted(tmp_path.glob(f"*.{kind}"))
    assert [one for file in files for one in seqs(file)] == list(range(90))
    assert files[0].name == f"ticks-000001.{kind}"
    sizes = [file.stat().st_size for file in files]
    assert len(sizes) > 2
    assert max(sizes) <= 8000
    # Full means full: the first row of the next file would not have fitted.
    row = max(len(line) for line in files[0].read_bytes().splitlines(keepends=True)[1:])
    assert all(size + row > 8000 for size in sizes[:-1])


def test_a_row_longer_than_the_size_gets_a_file_of_its_own(kind: str, tmp_path: Path, ticks: MakeTicks) -> None:
    sink = opened(kind, tmp_path / f"ticks.{kind}", rotate="1B")
    put(sink, ticks(3))
    sink.close()
    assert list(outputs(tmp_path, kind).values()) == [[0], [1], [2]]


def test_numbering_goes_on_when_the_position_is_gone(kind: str, tmp_path: Path, ticks: MakeTicks) -> None:
    path = tmp_path / f"ticks.{kind}"
    put(first := opened(kind, path, rotate="1B"), ticks(2))
    first.close()
    path.with_name(path.name + ".position").unlink()
    put(second := opened(kind, path, rotate="1B"), ticks(1, 2))
    second.close()
    assert outputs(tmp_path, kind) == {f"ticks-00000{number + 1}.{kind}": [number] for number in range(3)}


def test_another_rotation_in_the_configuration_begins_another_file(
    kind: str, tmp_path: Path, ticks: MakeTicks, journal: str
) -> None:
    path = tmp_path / f"ticks.{kind}"
    for first_row, rotate in enumerate(("never", "day", "1MB", "never")):
        sink = opened(kind, path, rotate=rotate)
        assert sink.position(journal) == (first_row or None)
        put(sink, ticks(1, first_row))
        sink.close()
    assert outputs(tmp_path, kind) == {
        f"ticks-000001.{kind}": [2],
        f"ticks-2026-11-20.{kind}": [1],
        f"ticks.{kind}": [0, 3],
    }


@pytest.mark.parametrize("text", ["weekly", "0MB", "-1MB", ""])
def test_a_rotation_that_makes_no_sense_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match="is no way to rotate"):
        FORMATS[kind](path="x", rotate=text)


# --- a full disk ----------------------------------------------------------------------------------

FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from conftest import make_ticks
from marketfeed.errors import SinkError
from marketfeed.sinks import marketfeed_sinks

kind, path, rotate = sys.argv[2:]
sink = marketfeed_sinks()[kind](path=path, rotate=rotate)
sink.open()
sink.write(make_ticks(20))
sink.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
batch = make_ticks(600, 20)
for _ in range(3):
    try:
        sink.write(batch)
    except SinkError as error:
        assert error.retryable, error
        assert sink._output.length == sink._output.path.stat().st_size
    else:
        raise AssertionError("the limit did not bite")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink.write(batch)
sink.flush()
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("rotate", ["never", "day", "60KB"])
def test_a_full_disk_is_retried_without_doubling_a_byte(kind: str, tmp_path: Path, rotate: str) -> None:
    path = tmp_path / f"ticks.{kind}"
    subprocess.run([sys.executable, "-c", FULL_DISK, HERE, kind, path, rotate], check=True, timeout=60)
    assert [one for rows in outputs(tmp_path, kind).values() for one in rows] == list(range(620))


# --- kill -9 --------------------------------------------------------------------------------------

WRITER = """
import random, sys
sys.path.insert(0, sys.argv[1])
from conftest import JOURNAL, make_ticks
from marketfeed.sinks import marketfeed_sinks

kind, path, rotate, seed, total = sys.argv[2:]
days = ["2026-11-19 23:59:59", "2026-11-20 10:00:00", "2026-11-21 10:00:00", "2026-11-22 10:00:00"]
chance = random.Random(int(seed))
sink = marketfeed_sinks()[kind](path=path, rotate=rotate)
sink.open()
row, total = sink.position(JOURNAL) or 0, int(total)
while row < total:
    day = row * len(days) // total  # a row keeps its day over restarts
    count = min(chance.randint(1, 600), -(-(day + 1) * total // len(days)) - row)
    sink.write(make_ticks(count, row, received=days[day]))
    row += count
    if chance.random() < 0.4:
        sink.flush()
sink.flush()
print("done", flush=True)
"""


@pytest.mark.process
@pytest.mark.parametrize("rotate", ["never", "day", "700KB"])
def test_kills_at_any_moment_leave_every_row_exactly_once(kind: str, tmp_path: Path, rotate: str) -> None:
    chance, total = random.Random(f"{kind} {rotate}"), 16_000
    killed = 0
    while True:
        options = [kind, str(tmp_path / f"ticks.{kind}"), rotate, str(killed), str(total)]
        child = subprocess.Popen([sys.executable, "-c", WRITER, HERE, *options], stdout=subprocess.PIPE)
        if killed < 5:
            _kill_after(child, tmp_path, kind, chance.randint(1, 2_000_000))
        out, _ = child.communicate(timeout=60)
        if out == b"done\n":
            break
        killed += 1
    assert killed >= 2
    assert [one for rows in outputs(tmp_path, kind).values() for one in rows] == list(range(total))


def _kill_after(child: subprocess.Popen[bytes], folder: Path, kind: str, more: int) -> None:
    """Kill the writer once its files have grown by so many bytes, unless it ends before."""

    def size() -> int:
        return sum(file.stat().st_size for file in folder.glob(f"*.{kind}"))

    before = size()
    while child.poll() is None and size() < before + more:
        time.sleep(0.001)
    child.kill()
