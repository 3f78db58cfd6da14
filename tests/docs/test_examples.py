"""The examples: configurations pass ``marketfeed check``, scripts run against the sandbox."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from marketfeed.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda file: file.name)
def test_a_configuration_passes_check(file: Path, stage: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(file)])
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_a_script_runs(
    file: Path, stage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(file)])
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(file), run_name="__main__")
    shown = capsys.readouterr().out
    alerts = stage / "alerts.txt"
    assert shown.count("\n") > 1 or (alerts.exists() and "NSE:" in alerts.read_text(encoding="utf-8"))
