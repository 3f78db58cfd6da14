"""``marketfeed init``: what it writes can be checked and used."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from marketfeed import cli
from marketfeed.plugins import Plugins

VENDORS = sorted(Plugins.discover(environ={}).vendors)
VARIABLES = {
    "kite": {"KITE_API_KEY", "KITE_API_SECRET", "KITE_ACCESS_TOKEN"},
    "mstock": {"MSTOCK_API_KEY", "MSTOCK_CLIENT_CODE", "MSTOCK_PASSWORD", "MSTOCK_TOTP_SECRET"},
}
COMMON = {"INGESTION_PORT", "BATCH_SIZE", "BATCH_TIMEOUT", "INSTRUMENTS", "LOG_LEVEL"}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in set().union(*VARIABLES.values()) | COMMON:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli.main, list(arguments), env=environ)


def variables(text: str) -> set[str]:
    """The names in a ``.env.example``."""
    names = (line.removeprefix("# ").partition("=")[0] for line in text.splitlines() if "=" in line)
    return {name for name in names if name.isupper()}


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_it_writes_passes_check_with_the_variables_set(vendor: str, empty_folder: Path) -> None:
    written = invoke("init", "--vendor", vendor, "--sink", "stdout", "--sink", "jsonl", "--sink", "csv")
    assert written.exit_code == 0, written.output
    names = variables((empty_folder / ".env.example").read_text())
    assert names >= COMMON | VARIABLES.get(vendor, set())
    values = dict.fromkeys(names, "value")
    values |= {"INSTRUMENTS": "NSE:A,NSE:B", "BATCH_SIZE": "7", "BATCH_TIMEOUT": "0.5", "LOG_LEVEL": "DEBUG"}
    checked = invoke("check", "--json", **{**values, "INGESTION_PORT": "3005"})
    assert checked.exit_code == 0, checked.output
    for expected in (
        '"port": 3005',
        '"batch_rows": 7',
        '"batch_timeout_s": 0.5',
        '"level": "debug"',
        '["NSE:A", "NSE:B"]',
    ):
        assert expected in checked.stdout


def test_the_env_file_made_from_the_example_is_enough(empty_folder: Path) -> None:
    assert invoke("init", "--vendor", "kite").exit_code == 0
    assert invoke("check").exit_code == 2, "the key is missing"
    text = (empty_folder / ".env.example").read_text()
    (empty_folder / ".env").write_text(text.replace("KITE_API_KEY=", "KITE_API_KEY=abc"))
    assert invoke("check").exit_code == 0


def test_a_sink_that_was_installed_is_used(empty_folder: Path) -> None:
    assert invoke("init").exit_code == 0
    installed = [name for name in ("kafka",) if name in Plugins.discover(environ={}).sinks]
    sinks = tomllib.loads((empty_folder / "feed.toml").read_text())["feeds"]["main"]["sinks"]
    assert sinks == ["stdout", "jsonl", *installed]


def test_every_option_is_there_with_its_explanation(empty_folder: Path) -> None:
    invoke("init", "--vendor", "kite", "--sink", "jsonl")
    text = (empty_folder / "feed.toml").read_text()
    assert '# Base URL of the REST API\n# rest_url = "https://api.kite.trade"' in text
    assert '# keep_bytes = "4GB"' in text
    assert "# Seconds between flushes; the cursor moves after each\n# flush_every_s = 1.0" in text


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("sink", sorted({"jsonl", "csv", "stdout", "kafka"} & set(Plugins.discover(environ={}).sinks)))
def test_every_commented_default_is_one_that_check_accepts(vendor: str, sink: str, empty_folder: Path) -> None:
    invoke("init", "--vendor", vendor, "--sink", sink)
    file = empty_folder / "feed.toml"
    lines = file.read_text().splitlines()
    active = [line.removeprefix("# ") if " = " in line and line.startswith("# ") else line for line in lines]
    text = "\n".join(line for line in active if not line.startswith("{ env"))
    assert len(tomllib.loads(text)["journal"]) == 8
    file.write_text(text)
    checked = invoke("check", KITE_API_KEY="abc")
    assert checked.exit_code == 0, checked.output


def test_nothing_is_replaced_without_force(empty_folder: Path) -> None:
    (empty_folder / "feed.toml").write_text("mine")
    refused = invoke("init")
    assert refused.exit_code == 1
    assert "feed.toml exists; --force replaces it" in refused.stderr
    assert (empty_folder / "feed.toml").read_text() == "mine"
    assert not (empty_folder / ".env.example").exists()
    assert invoke("init", "--force").exit_code == 0


def test_an_unknown_vendor_or_sink_writes_nothing(empty_folder: Path) -> None:
    vendor, sink = invoke("init", "--vendor", "kitee"), invoke("init", "--sink", "kafkaa")
    assert (vendor.exit_code, sink.exit_code) == (1, 1)
    assert "no installed plugin has a vendor 'kitee'; did you mean 'kite'?" in vendor.stderr
    assert "no installed plugin has a sink 'kafkaa'; did you mean 'kafka'?" in sink.stderr
    assert list(empty_folder.iterdir()) == []


def test_no_credential_is_written_although_it_is_set(empty_folder: Path) -> None:
    invoke("init", "--vendor", "kite", KITE_API_KEY="s3cret", KITE_ACCESS_TOKEN="s3cret")
    assert all("s3cret" not in file.read_text() for file in empty_folder.iterdir())
