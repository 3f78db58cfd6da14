"""A recording goes through the whole feed: sandbox, Kite's wire format, parser, journal, file. Nothing is missing,
nothing is altered, and the host's time zone changes nothing."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marketfeed.clock import IST, NS, to_ns
from marketfeed.journal import Journal, ticks_folder
from marketfeed.sandbox import Sandbox

Row = tuple[str, int, float, int]
"""symbol, exchange time (UTC seconds, 0 = none), last price, cumulative volume"""

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = {instruments}
sinks = ["jsonl"]
[vendors.kite]
{settings}
[sinks.jsonl]
path = "ticks.jsonl"
[journal]
folder = "journal"
[metrics]
port = false
"""
ZONES = ("UTC", "Asia/Kolkata", "America/New_York")


def dirty_rows(count: int, seed: int) -> list[tuple[str, str, str, str]]:
    """A recording of our own making, as dirty as real ones: repeats, steps back in time and volume, a
    zero epoch shown in India time, rows after the close."""
    draw = random.Random(seed)
    rows = []
    for symbol, price in (("NIFTY 50", 14_600.0), ("INFY", 1_400.0), ("RELIANCE", 1_930.0)):
        now, volume = datetime(2021, 4, 16, 9, 15), 0
        for _ in range(count // 3):
            now += timedelta(seconds=draw.choice([0, 1, 1, 1, 2, -3]))
            price = round(price + draw.choice([-0.05, 0, 0.05, 0.1]), 2)
            volume += draw.choice([0, 10, 250, -40]) if symbol != "NIFTY 50" else 0
            stamp = "1970-01-01 05:30:00" if draw.random() < 0.05 else f"{now:%Y-%m-%d %H:%M:%S}"
            rows.append((symbol, stamp, f"{price}", f"{max(volume, 0)}"))
            if draw.random() < 0.05:
                rows.append(rows[-1])
    return rows


def write_recording(path: Path, rows: list[tuple[str, str, str, str]]) -> None:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("symbol", "timestamp", "ltp", "volume"))
        writer.writerows(rows)


def expected(rows: list[tuple[str, str, str, str]]) -> list[Row]:
    return [
        (symbol, max(0, to_ns(datetime.fromisoformat(stamp).replace(tzinfo=IST)) // NS), float(ltp), int(volume))
        for symbol, stamp, ltp, volume in rows
    ]


def replayed(folder: Path, recording: Path, rows: int, zone: str, names: list[str]) -> list[dict[str, Any]]:
    """What a feed in a process of its own, living in ``zone``, wrote of the recording."""
    folder.mkdir()
    with Sandbox("kite", replay=recording, speed=1e6, rate_limits=False) as box:
        settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in box.settings().items())
        (folder / "feed.toml").write_text(CONFIG.format(settings=settings, instruments=json.dumps(names)))
        with (folder / "log.txt").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "marketfeed", "run", "feed.toml"],
                cwd=folder,
                env={**os.environ, "TZ": zone},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 120
        while box.counts["ticks"] < rows or committed(folder) < box.counts["ticks"]:
            assert child.poll() is None, (folder / "log.txt").read_text()
            assert time.monotonic() < end, f"{rows} rows, {box.counts} sent, {committed(folder)} arrived"
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0, (folder / "log.txt").read_text()
    ticks = [json.loads(line) for line in (folder / "ticks.jsonl").read_text().splitlines()]
    assert len(ticks) - rows <= 2 * len(names)  # before the recording: what a subscription is answered with
    return ticks[-rows:]


def committed(folder: Path) -> int:
    """Rows in the journal of the child's feed so far."""
    journal = ticks_folder(folder / "journal", "main")
    return Journal.attach(journal).committed if (journal / "control").exists() else 0


def seen(tick: dict[str, Any]) -> Row:
    return (tick["symbol"], tick.get("exchange_ns", 0) // NS, tick["last_price"], tick.get("volume", 0))


def without_the_run(ticks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what differs between two runs by its nature: the journal's name and the time of receipt."""
    kept = []
    for tick in ticks:
        gone = {"journal", "received_ns"} | ({"timestamp"} if "time_source" in tick else set())
        kept.append({key: value for key, value in tick.items() if key not in gone})
    return kept


def check(folder: Path, rows: list[tuple[str, str, str, str]], zones: tuple[str, ...]) -> None:
    recording = folder / "recording.csv.gz"
    write_recording(recording, rows)
    names = [f"NSE:{symbol}" for symbol in dict.fromkeys(row[0] for row in rows)]
    outputs = []
    for zone in zones:
        ticks = replayed(folder / zone.replace("/", "-"), recording, len(rows), zone, names)
        assert [seen(tick) for tick in ticks] == expected(rows)
        outputs.append(without_the_run(ticks))
    assert all(output == outputs[0] for output in outputs)


def read(path: Path, until: str | None = None) -> list[tuple[str, str, str, str]]:
    """A recording of others; ``until`` is the last India time taken, ``HH:MM:SS``."""
    with gzip.open(path, "rt", newline="") as file:
        rows = [(row["symbol"], row["timestamp"], row["ltp"], row["volume"]) for row in csv.DictReader(file)]
    return [row for row in rows if until is None or row[1][11:] <= until]


@pytest.mark.process
def test_a_dirty_recording_arrives_unaltered_in_every_time_zone(tmp_path: Path) -> None:
    check(tmp_path, dirty_rows(3000, seed=5), ZONES)


@pytest.mark.process
def test_ten_minutes_of_a_real_recording_arrive_unaltered(tmp_path: Path, shared: Path) -> None:
    rows = read(shared / "data" / "ticks" / "aliceblue_2021-04-13.csv.gz", until="09:25:00")
    assert len(rows) > 1000
    check(tmp_path, rows, ZONES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("day", ["2021-04-13", "2021-04-15", "2021-04-16_dirty"])
def test_a_whole_real_day_arrives_unaltered(tmp_path: Path, shared: Path, day: str) -> None:
    rows = read(shared / "data" / "ticks" / f"aliceblue_{day}.csv.gz")
    check(tmp_path, rows, ZONES)
    print(f"{day}: {len(rows):,} rows, three time zones, nothing missing, nothing altered")
