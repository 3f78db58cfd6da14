"""``marketfeed plugins``: what is there, and what does not work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from marketfeed import cli


def test_a_pipe_gets_json_lines() -> None:
    result = CliRunner().invoke(cli.main, ["plugins"])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"kind": "vendor", "name": "kite", "distribution": "marketfeed-kite"}.items() <= lines[1].items()
    assert ("sink", "jsonl", "marketfeed") in {(one["kind"], one["name"], one["distribution"]) for one in lines}
    assert result.exit_code == 0


def test_people_get_a_table() -> None:
    result = CliRunner().invoke(cli.main, ["plugins", "--text"])
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["kind", "name", "distribution", "version"]
    assert ["vendor", "kite", "marketfeed-kite"] in [row[:3] for row in rows]


@pytest.mark.process
def test_a_broken_plugin_is_shown_with_its_error_and_the_command_succeeds(tmp_path: Path) -> None:
    (tmp_path / "acme_feed.py").write_text("import not_there_at_all\n")
    info = tmp_path / "acme_feed-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-feed\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[marketfeed]\nacme = acme_feed\n")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}

    def plugins(*options: str) -> str:
        command = [sys.executable, "-c", "from marketfeed.cli import main; main()", "plugins", *options]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    error = "import failed: ModuleNotFoundError: No module named 'not_there_at_all'"
    assert json.loads(plugins().splitlines()[-1]) == {
        "kind": "broken",
        "name": "acme",
        "distribution": "acme-feed",
        "version": "1.2",
        "error": error,
    }
    assert f"acme (acme-feed 1.2): {error}" in plugins("--text")
