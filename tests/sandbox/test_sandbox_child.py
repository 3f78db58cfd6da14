"""The sandbox as a child process, and the command that it runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from marketfeed.cli import main
from marketfeed.errors import MarketFeedError
from marketfeed.sandbox import READY_TOKEN, spawn_sandbox

pytest.importorskip("marketfeed_kite")


def reachable(url: str) -> bool:
    try:
        with requests.Session() as session:
            return bool(session.get(url + "/sandbox/clock", timeout=5).ok)
    except requests.ConnectionError:
        return False


def gone(url: str) -> bool:
    end = time.monotonic() + 15
    while reachable(url) and time.monotonic() < end:
        time.sleep(0.05)
    return not reachable(url)


@pytest.mark.process
def test_a_child_tells_where_it_is_and_ends_with_the_block() -> None:
    with spawn_sandbox("kite", seed=3, instruments=20, start="2026-11-20 12:00:00", rate_limits=False) as box:
        with requests.Session() as session:
            clock = session.get(box.url + "/sandbox/clock", timeout=10).json()
            state = session.get(box.url + "/sandbox/state", timeout=10).json()
        settings = box.settings()
    assert clock["offset_ns"] == box.clock_offset_ns
    assert (state["seed"], state["instruments"]) == (3, 20)
    assert settings["rest_url"] == box.url
    assert settings["access_token"] == READY_TOKEN
    assert READY_TOKEN not in repr(box)
    assert not reachable(box.url)


@pytest.mark.process
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from marketfeed.sandbox import spawn_sandbox\n"
        "with spawn_sandbox('kite') as box:\n"
        "    print(box.url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert reachable(url)
        parent.kill()
    assert gone(url)


@pytest.mark.process
def test_sigterm_ends_the_command_in_good_order(tmp_path: Path) -> None:
    port_file, log = tmp_path / "port.json", tmp_path / "events.jsonl"
    command = [sys.executable, "-m", "marketfeed", "sandbox", "kite", "--port-file", str(port_file), "--log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        end = time.monotonic() + 30
        while not port_file.exists() and time.monotonic() < end:
            time.sleep(0.02)
        facts = json.loads(port_file.read_text())
        assert facts["pid"] == child.pid
        assert reachable(facts["url"])
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=15) == 0
    assert json.loads(log.read_text().splitlines()[0])["kind"] == "start"


@pytest.mark.process
def test_a_child_that_cannot_start_says_why() -> None:
    with pytest.raises(MarketFeedError, match="no-such-vendor"), spawn_sandbox("no-such-vendor"):
        pass


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["no-such-vendor"], "no-such-vendor"),
        (["kite", "--instruments", "no-such-file"], "neither a number nor a file"),
        (["kite", "--speed", "fast"], "neither a number nor max"),
        (["kite", "--ticks-per-second", "-1"], "ticks_per_second"),
        (["kite", "--start", "noon"], "noon"),
        (["kite", "--log-kinds", "all"], "all"),
    ],
)
def test_a_wrong_command_line_is_answered_with_the_reason(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(main, ["sandbox", *arguments])
    assert result.exit_code in (1, 2)
    assert complaint in result.output


def test_a_file_may_name_the_instruments(tmp_path: Path) -> None:
    from marketfeed.sandbox import Sandbox

    names = tmp_path / "names.csv"
    names.write_text("# ours\nNSE:INFY,1500\nMYSHARE,42.5\nNSE:NIFTY 50\n")
    with Sandbox("kite", instruments=names) as box:
        assert [one.key for one in box.instruments] == ["NSE:INFY", "NSE:MYSHARE", "NSE:NIFTY 50"]


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.process
def test_a_child_plays_its_schedule_and_takes_faults(tmp_path: Path) -> None:
    schedule = tmp_path / "faults.txt"
    schedule.write_text("expire@1h  # not in this test\n")
    with spawn_sandbox("kite", fault=["refuse@0s for 60s", "drop@2h"], faults=schedule, ticks_per_second=10) as box:
        with requests.Session() as session:
            listed = session.get(box.url + "/sandbox/faults", timeout=10).json()
        assert listed["planned"] == ["drop@2h", "expire@1h"]
        assert box.fault("http-error", attempts=2)["parameters"] == {"attempts": 2}
        assert box.fault("http-slow for 5s")["end_ns"] is None
        assert [one["kind"] for one in box.injected] == ["refuse", "http-error", "http-slow"]
        with pytest.raises(ValueError, match="unknown fault 'wobble'; choose from drop"):
            box.fault("wobble")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fault", "wobble@5s"], "unknown fault 'wobble'; choose from drop"),
        (["--fault", "mute@soon"], "'soon' is not a time"),
        (["--ca-file", "ca.pem"], "ca_file means nothing without tls"),
    ],
)
def test_the_command_explains_a_wrong_fault_in_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["sandbox", "kite", *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
