"""``marketfeed status`` and what the other commands say of sinks with processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import pytest

from marketfeed import Feed
from marketfeed.cli import main
from marketfeed.dtypes import empty_ticks
from marketfeed.journal import Journal, ticks_folder
from marketfeed.monitoring import Monitor
from marketfeed.overview import ask_health, look
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:INFY"]
sinks = ["apart"]
[vendors.kite]
api_key = { env = "NOT_SET_ANYWHERE" }
[sinks.apart]
type = "jsonl"
path = "apart.jsonl"
process = "own"
[journal]
folder = "journal"
"""


def invoke(*arguments: str, status: int = 0) -> str:
    result = click.testing.CliRunner().invoke(main, arguments)
    assert result.exit_code == status, result.output
    return result.output


def append(folder: Path, count: int) -> None:
    rows = empty_ticks(count)
    rows["received_ns"] = range(1_000_000_000, (count + 1) * 1_000_000_000, 1_000_000_000)
    with Journal.create(ticks_folder(folder, "main"), rows_per_segment=1024) as journal:
        journal.append(rows)


def test_a_feed_that_ran_is_told_from_its_folder_alone(tmp_path: Path) -> None:
    with Sandbox("kite", instruments=5, ticks_per_second=500, rate_limits=False) as box:
        for _ in range(2):
            with Feed(
                "kite",
                instruments=["NSE:*"],
                settings=box.settings(),
                tokens=MemoryTokenStore(),
                journal=tmp_path,
                sinks=["memory"],
            ) as feed:
                for batch in feed:
                    if batch.first_row > 50:
                        break
                running = look(ticks_folder(tmp_path, "main"))
                assert running.writer == "running"
                assert running.holds
                assert running.rate > 0
            summary = feed.stop()
    (document,) = map(json.loads, invoke("status", str(tmp_path)).splitlines())
    assert document["writer"] == "stopped"
    assert document["law"] is True
    assert document["totals"]["runs"] == 2
    assert document["totals"]["appended"] == document["rows"]
    assert summary.totals is not None
    assert summary.totals.appended == document["rows"]
    (sink,) = document["sinks"]
    assert (sink["name"], sink["lag"], sink["law"], sink["in_use"]) == ("memory", 0, True, False)
    assert sink["delivered"] + sink["skipped"] + sink["dead_lettered"] == document["rows"]


def test_lag_is_in_rows_and_seconds(tmp_path: Path) -> None:
    append(tmp_path, 100)
    with Journal.attach(ticks_folder(tmp_path, "main")) as journal, journal.reader("late", start="oldest") as reader:
        reader.take(max_rows=40)
        reader.commit(dead_lettered=3)
        (sink,) = look(ticks_folder(tmp_path, "main")).sinks
    assert (sink.position, sink.delivered, sink.dead_lettered, sink.lag, sink.lag_s) == (40, 37, 3, 60, 59.0)
    assert sink.in_use


def test_rows_that_no_run_accounts_for_are_told(tmp_path: Path) -> None:
    append(tmp_path, 10)
    books = tmp_path / "main" / "runs.jsonl"
    journal = Journal.attach(ticks_folder(tmp_path, "main"))
    wrong = {"parsed": 10, "appended": 9}  # one is neither appended nor anything else
    line = {"run": "x", "journal": journal.id, "started_ns": 1, "at_ns": 2, "first_row": 0, "end": "stopped"}
    books.write_text(json.dumps({**line, "counts": wrong, "sums": {**wrong, "runs": 1, "others": 1}}) + "\n")
    document = json.loads(invoke("status", str(tmp_path), status=1))
    assert document["law"] is False


def test_a_running_feed_is_asked_for_its_health(tmp_path: Path) -> None:
    with Sandbox("kite", instruments=5, ticks_per_second=500, rate_limits=False) as box:
        feed = Feed("kite", instruments=["NSE:*"], settings=box.settings(), tokens=MemoryTokenStore(), journal=tmp_path)
        with feed:
            next(iter(feed))
            monitor = Monitor([feed], port=0)
            try:
                health = ask_health("127.0.0.1", monitor.port)["main"]
            finally:
                monitor.close()
    assert health["laws"]["hold"] is True
    assert health["laws"]["totals"]["runs"] == 1
    assert ask_health("127.0.0.1", monitor.port, timeout_s=0.5) == {}  # nobody there any more


def test_without_a_journal_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "feed.toml").write_text(CONFIG)
    assert "there is no journal yet" in invoke("status", status=1)
    append(tmp_path / "journal", 3)
    assert json.loads(invoke("status"))["rows"] == 3  # needs no credentials


def test_check_shows_a_feed_whose_sinks_all_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOT_SET_ANYWHERE", "k")
    (tmp_path / "feed.toml").write_text(CONFIG)
    assert "apart (own process)" in invoke("check")


def test_a_feed_keeps_rows_for_a_sink_that_runs_elsewhere(tmp_path: Path) -> None:
    from marketfeed import config as configuration
    from marketfeed.plugins import Plugins
    from marketfeed.sinkprocess import SinkProcess

    plugins = Plugins.discover(environ={})
    with Sandbox("kite", instruments=5, ticks_per_second=500, rate_limits=False) as box:
        tables = {
            "feeds": {"main": {"vendor": "kite", "instruments": ["NSE:*"], "sinks": ["apart"]}},
            "vendors": {"kite": box.settings()},
            "sinks": {"apart": {"type": "jsonl", "path": str(tmp_path / "apart.jsonl"), "process": "own"}},
            "journal": {"folder": str(tmp_path)},
        }
        config = configuration.build(tables, plugins, {})
        with Feed.from_config(config, "main", plugins=plugins, tokens=MemoryTokenStore()) as feed:
            for batch in feed:
                if batch.first_row > 50:
                    break
            (shown,) = feed.status()["sinks"]
            assert shown["elsewhere"] is True
            assert shown["state"] == "own process, not running"
            assert shown["left"] > 0
        summary = feed.stop()
    assert summary.sinks[0].left == summary.appended
    assert any("(own process, not running)" in line for line in summary.lines())
    delivered = SinkProcess(config, "apart", plugins=plugins).drain().sinks[0].delivered
    assert delivered == summary.appended  # from the first row of the run on, hours later
    assert len((tmp_path / "apart.jsonl").read_bytes().splitlines()) == delivered
