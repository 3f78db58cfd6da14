"""``marketfeed run`` in a process of its own: limits, signals, drain, errors and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from waiting import until

if TYPE_CHECKING:
    from marketfeed.sandbox import Sandbox

pytestmark = pytest.mark.process

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:INFY", "NSE:TCS"]
sinks = ["stdout", "archive"]
[vendors.kite]
api_key = {{ env = "KITE_API_KEY", default = "k" }}
{more}
[sinks.archive]
type = "jsonl"
path = "ticks.jsonl"
[journal]
folder = "journal"
[metrics]
port = false
"""


def run(
    folder: Path, *options: str, more: str = "", timeout: float = 60, **environ: str
) -> subprocess.CompletedProcess[str]:
    (folder / "feed.toml").write_text(CONFIG.format(more=more))
    return subprocess.run(
        [sys.executable, "-m", "marketfeed", "run", "feed.toml", *options],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_the_sandbox_needs_no_credentials_and_max_ticks_ends_it(tmp_path: Path) -> None:
    result = run(tmp_path, "--sandbox", "--max-ticks", "20")
    assert result.returncode == 0, result.stderr
    ticks = [json.loads(line) for line in result.stdout.splitlines()]
    assert [tick["seq"] for tick in ticks] == list(range(len(ticks)))
    assert len(ticks) >= 20
    assert (tmp_path / "ticks.jsonl").read_text() == result.stdout
    assert f"sink archive: {len(ticks)} delivered, 0 left" in result.stderr


def test_duration_ends_it(tmp_path: Path) -> None:
    result = run(tmp_path, "--sandbox", "--duration", "0.5")
    assert result.returncode == 0, result.stderr
    assert "parsed" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_tells(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "feed.toml").write_text(CONFIG.format(more=""))
    errors = tmp_path / "errors.txt"
    command = [sys.executable, "-m", "marketfeed", "run", "feed.toml", "--sandbox"]
    with (
        errors.open("wb") as sink,
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=sink, text=True) as child,
    ):
        assert child.stdout is not None
        child.stdout.readline()  # it runs
        child.send_signal(number)
        rest = child.stdout.read()
    assert child.returncode == 0, errors.read_text()
    lines = 1 + len(rest.splitlines())
    assert len((tmp_path / "ticks.jsonl").read_text().splitlines()) == lines
    assert f"sink stdout: {lines} delivered, 0 left" in errors.read_text()


def test_drain_delivers_what_is_left_and_connects_to_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, "--sandbox", "--max-ticks", "50").returncode == 0
    lines = (tmp_path / "ticks.jsonl").read_bytes()
    for name in ("ticks.jsonl", "ticks.jsonl.position"):
        (tmp_path / name).unlink()
    (tmp_path / "journal" / "main" / "ticks" / "cursors" / "archive").unlink()
    start = '[sinks.archive]\nstart = "oldest"'
    text = CONFIG.format(more="").replace("[sinks.archive]", start)
    (tmp_path / "feed.toml").write_text(text)
    result = subprocess.run(
        [sys.executable, "-m", "marketfeed", "run", "feed.toml", "--drain"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "ticks.jsonl").read_bytes() == lines
    assert result.stdout == ""  # stdout had everything


def test_a_wrong_file_is_one_list_of_problems_and_exit_code_2(tmp_path: Path) -> None:
    result = run(tmp_path, more='api_sekret = "x"')
    assert result.returncode == 2
    assert "vendors.kite.api_sekret (line 8)" in result.stderr
    assert "Traceback" not in result.stderr


def test_refused_credentials_are_exit_code_3_without_a_loop_or_a_secret(tmp_path: Path) -> None:
    from marketfeed.sandbox import Sandbox

    with Sandbox("kite", access_token=None) as box:
        lines = [
            f"{key} = {json.dumps(value)}"
            for key, value in box.settings().items()
            if key in ("rest_url", "stream_url", "login_url")
        ]
        started = time.monotonic()
        result = run(tmp_path, more="\n".join([*lines, 'access_token = "canary-token-1234"']), KITE_API_KEY="testkey")
        assert time.monotonic() - started < 30
    assert result.returncode != 0
    assert "canary-token-1234" not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


@contextmanager
def good_and_bad(folder: Path, instruments: str = "NSE:*") -> Iterator[Sandbox]:
    """A file of two feeds, each with a broker of its own; gives the bad one's. ``instruments`` are its own."""
    from marketfeed.sandbox import Sandbox

    options = {"instruments": 4, "ticks_per_second": 100.0}
    with Sandbox("kite", **options) as good, Sandbox("kite", **options) as bad:
        config = '[feeds.{0}]\nvendor = "{0}"\ninstruments = ["{1}"]\ncalendar = "always"\nsinks = ["{0}"]\n'
        config += (
            '[sinks.{0}]\ntype = "jsonl"\npath = "{0}.jsonl"\nflush_every_s = 0.05\n[vendors.{0}]\ntype = "kite"\n'
        )
        text = '[metrics]\nport = 0\n[journal]\nfolder = "journal"\n'
        for name, box in (("bad", bad), ("good", good)):
            text += config.format(name, instruments if name == "bad" else "NSE:*")
            kept = {key: value for key, value in box.settings().items() if key != "api_secret"}  # nobody logs in anew
            text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in kept.items())
        (folder / "feed.toml").write_text(text)
        yield bad


def begin(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "marketfeed", "run", "feed.toml"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def read_until(child: subprocess.Popen[str], words: str) -> str:
    """What the command said, up to the line with these words."""
    assert child.stderr is not None
    said = ""
    while words not in said:
        line = child.stderr.readline()
        assert line, said
        said += line
    return said


def test_a_feed_that_cannot_go_on_leaves_the_others_alone(tmp_path: Path) -> None:
    with good_and_bad(tmp_path) as bad:
        child = begin(tmp_path)
        until((tmp_path / "bad.jsonl").exists)
        bad.fault("expire", cut=True)
        said = read_until(child, "the others go on")
        address = said.partition("metrics on ")[2].split()[0]
        before = (tmp_path / "good.jsonl").stat().st_size
        until(lambda: (tmp_path / "good.jsonl").stat().st_size > before)
        assert 'feed="good"' in requests.get(address, timeout=10).text
        ready, health = (requests.get(address.replace("metrics", page), timeout=10) for page in ("ready", "health"))
        child.send_signal(signal.SIGINT)
        said += child.communicate(timeout=20)[1]
    assert ready.status_code == 503
    assert [one["error"] is None for one in health.json()["feeds"]] == [False, True]
    assert child.returncode not in (0, 130), said
    assert "feed bad has ended" in said
    assert said.count("every row is accounted for") == 2
    assert "Traceback" not in said


def test_a_feed_that_cannot_start_leaves_the_others_alone(tmp_path: Path) -> None:
    with good_and_bad(tmp_path, "NSE:NOSUCH"):
        child = begin(tmp_path)
        said = read_until(child, "cannot start, the others go on")
        address = said.partition("metrics on ")[2].split()[0]
        until((tmp_path / "good.jsonl").exists)
        ready, health = (requests.get(address.replace("metrics", page), timeout=10) for page in ("ready", "health"))
        child.send_signal(signal.SIGINT)
        said += child.communicate(timeout=20)[1]
        assert (ready.status_code, health.json()["not_started"]) == (503, ["bad"])
        assert child.returncode == 2, said
        assert "feed bad cannot start" in said
        assert "Traceback" not in said
        # Nothing was journaled for it, so there is nothing to drain; the other one's rows are delivered.
        done = subprocess.run(
            [sys.executable, "-m", "marketfeed", "run", "feed.toml", "--drain"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_help_reads_well() -> None:
    result = subprocess.run([sys.executable, "-m", "marketfeed", "run", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    for option in ("--sandbox", "--duration", "--max-ticks", "--drain"):
        assert option in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_start_that_hangs(tmp_path: Path, number: signal.Signals) -> None:
    text = CONFIG.format(more="").replace('vendor = "kite"', 'vendor = "kite"\nstop_timeout_s = 0.1')
    (tmp_path / "feed.toml").write_text(text)
    code = (
        "import time\n"
        "from marketfeed.sinks.jsonl import JsonlSink\n"
        "def hang(self):\n    print('opening', flush=True)\n    time.sleep(1000)\n"
        "JsonlSink.open = hang\n"
        "from marketfeed.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", code, "run", "feed.toml", "--sandbox"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "opening\n"
        child.send_signal(number)
        _, errors = child.communicate(timeout=20)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("background", [False, True])
def test_a_second_interrupt_does_not_wait_for_a_sink_that_is_stuck(tmp_path: Path, background: bool) -> None:
    (tmp_path / "feed.toml").write_text(
        CONFIG.format(more="").replace('vendor = "kite"', 'vendor = "kite"\nstop_timeout_s = 60')
    )
    command = [sys.executable, "-m", "marketfeed", "run", "feed.toml", "--sandbox", "--ticks-per-second", "5000"]
    errors = tmp_path / "errors.txt"
    with (
        errors.open("wb") as sink,
        subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command] if background else command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
        ) as child,
    ):
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(1)  # nobody reads: the pipe is full and the sink is stuck in its write
        child.send_signal(signal.SIGINT)
        until(lambda: "stopping" in errors.read_text())  # two signals at once would be one
        time.sleep(0.5)
        assert child.poll() is None
        started = time.monotonic()
        child.send_signal(signal.SIGINT)
        child.wait(20)
        assert time.monotonic() - started < 10
        child.stdout.close()
    assert child.returncode == 130, errors.read_text()
    assert "Traceback" not in errors.read_text()
    assert "Fatal" not in errors.read_text()


def test_a_drain_that_leaves_rows_says_so_with_its_exit_code(tmp_path: Path) -> None:
    assert run(tmp_path, "--sandbox", "--max-ticks", "20").returncode == 0
    (tmp_path / "journal" / "main" / "ticks" / "cursors" / "archive").unlink()
    refusing = 'start = "oldest"\ntype = "callable"\ncallable = "builtins:int"'  # int(batch) raises
    text = CONFIG.format(more="").replace('type = "jsonl"\npath = "ticks.jsonl"', refusing)
    (tmp_path / "feed.toml").write_text(text)
    result = subprocess.run(
        [sys.executable, "-m", "marketfeed", "run", "feed.toml", "--drain"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode != 0
    assert "left over: archive (" in result.stderr
