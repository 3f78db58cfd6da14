"""A sink that never returns lags, and that is all: memory stays where it is and the other sinks do not notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("blocked_feed.py")
RATE = 9000


def blocked_for(seconds: float, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), str(folder), str(seconds), str(RATE)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 3 + 120)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    print(answer)
    return answer


def check(answer: dict[str, Any], seconds: float) -> None:
    assert answer["lag_rows"] > 0.5 * RATE * seconds  # it was blocked, and the feed went on
    assert answer["grown_mib"] < 64
    assert answer["delivered"] == [answer["appended"]] * 2  # and in the end everybody has everything
    assert answer["p50_blocked_ms"] <= 1.5 * max(answer["p50_control_ms"])


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs RssAnon of /proc")
def test_ten_seconds_of_a_blocked_sink_cost_no_memory_and_no_latency(tmp_path: Path) -> None:
    check(blocked_for(10, tmp_path), 10)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs RssAnon of /proc")
def test_two_minutes_of_a_blocked_sink_cost_no_memory_and_no_latency(tmp_path: Path) -> None:
    check(blocked_for(120, tmp_path), 120)
