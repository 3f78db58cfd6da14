"""``marketfeed check``, and the exit codes and messages that all commands share."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from marketfeed import cli
from marketfeed.errors import AuthError, LineLost

GOOD = """\
[feeds.main]
vendor = "kite"
instruments = ["NSE:RELIANCE"]
sinks = ["stdout", "archive"]

[vendors.kite]
api_key = { env = "KITE_API_KEY" }

[sinks.archive]
type = "jsonl"
path = "data/{feed}.jsonl"
"""
KEY = {"KITE_API_KEY": "s3cret-key", "KITE_API_SECRET": "s3cret-secret"}
NO_KEY: dict[str, str | None] = {"KITE_API_KEY": None, "KITE_API_SECRET": None}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "feed.toml"
    file.write_text(GOOD)
    return file


def test_a_good_file_is_ok_and_summarized(file: Path) -> None:
    result = CliRunner().invoke(cli.main, ["check", str(file)], env=KEY)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"ok: {file}\n")
    assert "main  kite    full  1            stdout, archive" in result.stdout
    assert "Zerodha Kite" in result.stdout
    assert "archive  jsonl   marketfeed.sinks.jsonl.JsonlSink" in result.stdout
    assert "s3cret" not in result.output


def test_every_problem_is_told_on_standard_error(file: Path) -> None:
    file.write_text(GOOD.replace('"kite"', '"kit"', 1).replace("path", "paht"))
    result = CliRunner().invoke(cli.main, ["check", str(file)], env=KEY)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"error: {file}: 3 problems\n"
        "  feeds.main.vendor (line 2): there is no table [vendors.kit]; did you mean 'kite'?\n"
        "  sinks.archive.path (line 9): is missing; write path = ...\n"
        "  sinks.archive.paht (line 11): is not an option here; did you mean 'path'?\n"
    )


def test_json_tells_the_same_to_programs(file: Path) -> None:
    good = CliRunner().invoke(cli.main, ["check", "--json", str(file)], env=KEY)
    document = json.loads(good.stdout)
    assert (good.exit_code, document["ok"], document["problems"]) == (0, True, [])
    assert document["config"]["vendors"]["kite"]["api_secret"] == "***"
    assert "s3cret-secret" not in good.output
    bad = CliRunner().invoke(cli.main, ["check", "--json", str(file)], env=NO_KEY)
    assert bad.exit_code == 2
    assert json.loads(bad.stdout) == {
        "ok": False,
        "problems": [
            {
                "path": "vendors.kite.api_key",
                "line": 7,
                "message": "the environment variable KITE_API_KEY is not set; set it, or write it to .env",
            }
        ],
    }


def test_a_warning_does_not_fail(file: Path) -> None:
    file.write_text(GOOD.replace(', "archive"', ""))
    result = CliRunner().invoke(cli.main, ["check", str(file)], env=KEY)
    assert result.exit_code == 0
    assert "warning: sinks.archive (line 9): no feed uses it" in result.stderr


def test_the_example_that_make_run_starts_needs_no_variable() -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "feed.toml"
    result = CliRunner().invoke(cli.main, ["check", str(example)], env=NO_KEY)
    assert result.exit_code == 0, result.output
    assert "main  kite    full  12           stdout, archive" in result.stdout


# --- what all commands share --------------------------------------------------------------------


def test_commands_are_listed_in_the_order_of_use() -> None:
    result = CliRunner().invoke(cli.main, ["-h"])
    names = [line.split()[0] for line in result.stdout.split("Commands:\n")[1].splitlines()]
    assert names[:4] == ["run", "check", "init", "login"]


def test_the_version_is_shown() -> None:
    from importlib.metadata import version

    assert CliRunner().invoke(cli.main, ["--version"]).stdout == f"marketfeed {version('marketfeed')}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(cli.main, ["chek"])
    assert result.exit_code == 2
    assert "No such command 'chek'" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (AuthError("the broker refuses the password"), 3, "error: the broker refuses the password\n"),
        (LineLost("no answer"), 1, "error: no answer\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_error_becomes_one_message_and_an_exit_code(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr("marketfeed.cli.check.command", failing)
    result = CliRunner().invoke(cli.main, ["check"])
    assert (result.exit_code, result.stderr.lstrip("\n")) == (code, message)


def test_debug_shows_the_traceback_and_keeps_the_exit_code(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.main, ["--debug", "check", str(tmp_path / "none.toml")])
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert "there is no such file" in result.stderr
