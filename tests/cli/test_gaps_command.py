"""``marketfeed gaps``, in a pipe and on a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from marketfeed import cli
from marketfeed.cli import gaps as gaps_module
from marketfeed.clock import to_ns
from marketfeed.gaps import Closed, Happening, InstrumentSet, Opened, encode, gaps_file, repair
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal, ticks_folder

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "gap.schema.json"
TEN = to_ns("2026-11-20T10:00")
ELEVEN = to_ns("2026-11-20T11:00")
NAME = "ab.1"
CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:INFY"]
[vendors.kite]
api_key = "key"
[journal]
folder = "{folder}"
"""
EVENTS: list[Happening] = [
    InstrumentSet(1, ((0, 1),)),
    InstrumentSet(2, ((0, 3),)),
    Opened(1, TEN, TEN, "outage", "closed by the broker with code 1001", 1, "main", "kite", NAME, 4, 0),
    Closed(1, TEN, TEN + 7_250_000_000, 7.25, 4, 5),
    Opened(2, ELEVEN, ELEVEN, "skipped", "too slow", 2, "main", "kite", NAME, 8, None, "kafka"),
    Closed(2, ELEVEN, ELEVEN + 10**9, 1.0, 8, 20, 11),
    Opened(3, ELEVEN, ELEVEN, "mute", "no ticks for 5 s", 2, "main", "kite", NAME, 30, 1),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the journals."""
    root = tmp_path / "journal"
    with Journal.create(ticks_folder(root, "main"), vendor="kite", sync="os") as journal:
        journal.instruments.register(
            [Instrument(exchange="NSE", symbol=name, token=name, vendor="kite") for name in ("INFY", "TCS", "SBIN")]
        )
    gaps_file(root, "main").write_bytes(encode(EVENTS))
    return root


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli.main, [str(one) for one in ("gaps", *arguments)])
    assert result.exit_code == code, result.output
    return result.stdout if not code else result.stderr


def documents(*arguments: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments).splitlines()]


def numbers(*arguments: object) -> list[int]:
    return [one["gap"] for one in documents(*arguments)]


def test_in_a_pipe_each_gap_is_a_document_of_the_schema(root: Path) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    found = documents(root)
    for one in found:
        jsonschema.validate(one, schema)
    first, second, third = found
    assert (first["cause"], first["seconds"], first["instruments"]) == ("outage", 7.25, ["NSE:INFY"])
    assert (second["sink"], second["rows"], second["connection"]) == ("kafka", 11, None)
    assert (third["end_ns"], third["in_session_s"]) == (None, None)


def test_the_folder_of_the_feed_will_do_and_an_empty_one_has_none(root: Path, tmp_path: Path) -> None:
    assert numbers(root / "main") == [1, 2, 3]
    (tmp_path / "empty").mkdir()
    assert documents(tmp_path / "empty") == []
    assert "no ledger" in CliRunner().invoke(cli.main, ["gaps", str(tmp_path / "empty")]).stderr


def test_the_folder_one_stands_in_knows_the_names_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "main")
    assert run(".", "--instrument", "NSE:INFY") == run(root / "main", "--instrument", "NSE:INFY") != ""


def test_since_leaves_out_what_had_ended_by_then(root: Path) -> None:
    assert numbers(root, "--since", "2026-11-20T10:30") == [2, 3]
    assert numbers(root, "--since", "2026-11-20") == [1, 2, 3]
    assert numbers(root, "--since", "2099-01-01") == [3]  # one that is open has not ended
    assert "neither a span" in run(root, "--since", "teatime", code=2)


def test_open_shows_those_that_have_not_ended(root: Path) -> None:
    assert numbers(root, "--open") == [3]


@pytest.mark.parametrize(("pattern", "expected"), [("NSE:INFY", [1, 2, 3]), ("tcs", [2, 3]), ("NSE:X*", [])])
def test_instrument_shows_the_gaps_of_some(root: Path, pattern: str, expected: list[int]) -> None:
    found = documents(root, "--instrument", pattern)
    assert [one["gap"] for one in found] == expected
    assert all(len(one["instruments"]) == 1 for one in found)


def test_on_a_terminal_it_is_a_table(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps_module, "on_terminal", lambda: True)
    repair(gaps_file(root, "main"), 1, "backfill", TEN)
    head, *lines = run(root).splitlines()
    assert head.split()[:4] == ["gap", "feed", "start", "seconds"]
    assert "2026-11-20 10:00:00.000  7.250" in lines[0]
    assert "NSE:INFY" in lines[0]
    assert "4..5" in lines[0]
    assert "backfill" in lines[0]
    assert "sink kafka" in lines[1]
    assert "open" in lines[2]
    assert [json.loads(line)["gap"] for line in run(root, "--json").splitlines()] == [1, 2, 3]


def test_the_configuration_says_where_the_journals_are(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "feed.toml").write_text(CONFIG.format(folder=root))
    assert numbers("--config", tmp_path / "feed.toml") == [1, 2, 3]
    monkeypatch.chdir(tmp_path)
    assert numbers() == [1, 2, 3]


def test_a_ledger_without_its_journal_is_shown_with_numbers(root: Path) -> None:
    import shutil

    shutil.rmtree(ticks_folder(root, "main"))
    assert documents(root)[0]["instruments"] == ["0"]


def test_a_line_that_cannot_be_read_is_told_and_costs_no_other(root: Path) -> None:
    with gaps_file(root, "main").open("ab") as file:
        file.write(b'{"event":"clo')
    result = CliRunner().invoke(cli.main, ["gaps", str(root)])
    assert "1 lines cannot be read" in result.stderr
    assert result.stdout.count('"gap":') == 3
