"""Sinks that are frozen for ten minutes at 9,000 ticks/s cost no memory, and not one row is unaccounted for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trials._report import Report

SCRIPT = Path(__file__).with_name("frozen_sinks.py")
RATE = 9000
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs RssAnon of /proc"),
]


def frozen_for(seconds: float, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), str(folder / "ticks"), str(seconds)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def check(answer: dict[str, Any], seconds: float) -> None:
    rows = answer["rows"]
    assert rows >= RATE * seconds
    assert answer["lags"]["wait"] > 0.9 * RATE * seconds  # it was frozen, and the feed went on
    assert answer["lags"]["moving"] == 0
    assert answer["grown_mib"] < 64
    assert answer["unaccounted"] == 0
    assert answer["broken"] == []
    assert answer["parsed"] == rows  # nothing of this stream is dropped or put aside
    for name, (delivered, skipped, dead_lettered, left) in answer["sinks"].items():
        assert delivered + skipped + dead_lettered + left == rows, name
        assert answer["written"][name] == delivered, name
        assert (dead_lettered, left) == (0, 0), name
        assert (skipped > 0) == (name in ("skip", "latest")), name


def test_twenty_seconds_of_frozen_sinks_cost_no_memory_and_no_row(tmp_path: Path) -> None:
    check(frozen_for(20, tmp_path), 20)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_ten_minutes_of_frozen_sinks_cost_no_memory_and_no_row(tmp_path: Path, report: Report) -> None:
    answer = frozen_for(600, tmp_path)
    report(
        "4 sinks frozen for 10 simulated minutes",
        answer["rows"],
        f"RssAnon {answer['grown_mib']:+.1f} MiB at most, {answer['unaccounted']} rows unaccounted for",
        aim="64 MiB, 0",
    )
    check(answer, 600)
