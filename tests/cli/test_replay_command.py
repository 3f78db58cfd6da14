"""``marketfeed replay``: what it says, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from waiting import until

from marketfeed import Feed
from marketfeed.cli import main
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small capture file of a Kite feed."""
    folder = tmp_path_factory.mktemp("capture")
    with Sandbox("kite", instruments=20, ticks_per_second=500, rate_limits=False) as box:
        names = [one.key for one in box.instruments][:3]
        with Feed(
            "kite",
            instruments=names,
            settings=box.settings(),
            tokens=MemoryTokenStore(),
            environ={},
            capture=folder,
        ) as feed:
            for batch in feed:
                if batch.first_row > 50:
                    break
    return next((folder / "main").iterdir())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["replay", *map(str, arguments)])


def test_info_tells_what_a_file_holds(capture: Path) -> None:
    result = run(capture.parent, "--info")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["vendor"] == "kite"
    assert told["mode"] == "full"
    assert told["sockets"] == 1
    assert told["frames"] > 1
    assert len(told["instruments"]) == 3
    assert told["damage"] == []


def test_options_of_a_sink_are_set_on_the_command_line(capture: Path, tmp_path: Path) -> None:
    path = tmp_path / "ticks.jsonl"
    result = run(capture, "--sink", "jsonl", "--set", f"jsonl.path={path}", "--set", "jsonl.layout=compact")
    assert result.exit_code == 0, result.output
    ticks = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(ticks) > 50
    assert set(ticks[0]) == {"token", "ltp", "volume", "timestamp"}
    assert f"sink jsonl: {len(ticks):,} delivered, 0 left" in result.stderr


def test_a_configuration_gives_the_sinks(capture: Path, tmp_path: Path) -> None:
    path, config = tmp_path / "ticks-{feed}.csv", tmp_path / "feed.toml"
    config.write_text(
        f"""
[feeds.other]
vendor = "kite"
instruments = ["NSE:INFY"]
sinks = ["archive"]
[sinks.archive]
type = "csv"
path = {json.dumps(str(path))}
[vendors.kite]
api_key = {{ env = "A_VARIABLE_THAT_IS_NOT_SET" }}
"""
    )
    result = run(capture, "--config", config)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ticks-main.csv").read_text().count("\n") > 50


def test_sinks_may_come_from_the_environment(capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "feed.toml"
    config.write_text(
        '[feeds.main]\nvendor = "kite"\ninstruments = ["NSE:INFY"]\nsinks = { env = "MY_SINKS" }\n'
        '[vendors.kite]\napi_key = "k"\n[sinks.jsonl]\npath = "' + str(tmp_path / "ticks.jsonl") + '"\n'
    )
    monkeypatch.setenv("MY_SINKS", "jsonl")
    result = run(capture, "--config", config)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ticks.jsonl").read_text().count("\n") > 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--speed", "fast"], "'fast' is neither a number above 0 nor max"),
        (["--speed", "0"], "'0' is neither a number above 0 nor max"),
        (["--set", "path"], "'path' is not SINK.OPTION=VALUE"),
        (["--set", "jsonl.path=x"], "no such sink in this replay (stdout)"),
        (["--sink", "nowhere"], "there is no table [sinks.nowhere]"),
    ],
)
def test_a_wrong_command_line_is_told_and_ends_with_2(capture: Path, arguments: list[str], said: str) -> None:
    result = run(capture, *arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_file_that_is_no_capture_ends_with_1(tmp_path: Path) -> None:
    path = tmp_path / "ticks.mfc"
    path.write_text("symbol,timestamp\n")
    result = run(path)
    assert result.exit_code == 1
    assert "is not a capture file" in result.output


@pytest.mark.process
def test_serve_is_a_broker_until_it_is_told_to_stop(capture: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "marketfeed", "replay", str(capture), "--serve", "--speed", "max"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        url = child.stdout.readline().split(" on ")[1].split(" ")[0]
        settings = {"rest_url": url, "stream_url": url.replace("http", "ws"), "api_key": "testkey"}
        settings["access_token"] = "sandbox-access-token"
        with Feed("kite", instruments=["NSE:*"], settings=settings, tokens=MemoryTokenStore(), environ={}) as feed:
            until(lambda: feed.pipeline.journal_rows() > 50)
    finally:
        child.terminate()
        child.communicate(timeout=20)
    assert child.returncode == 0
