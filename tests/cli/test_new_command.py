"""``marketfeed new``: a project with the name put in everywhere, and nothing overwritten."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from marketfeed._shipped import shipped
from marketfeed.cli import main

ROOT = Path(__file__).resolve().parents[2]


def new(*words: str) -> Result:
    return CliRunner().invoke(main, ["new", *words])


def test_a_sink_project_has_the_name_everywhere(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    result = new("sink", "time-series", "--output", str(folder))
    assert result.exit_code == 0, result.output
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert set(files) == {
        "README.md",
        "pyproject.toml",
        "src/marketfeed_time_series/__init__.py",
        "src/marketfeed_time_series/py.typed",
        "src/marketfeed_time_series/sink.py",
        "tests/test_time_series.py",
    }
    assert [name for name, text in files.items() if "mysink" in text.lower()] == []
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == "marketfeed-time-series"
    assert project["entry-points"] == {"marketfeed": {"time-series": "marketfeed_time_series"}}
    classes = [
        node.name
        for node in ast.walk(ast.parse(files["src/marketfeed_time_series/sink.py"]))
        if isinstance(node, ast.ClassDef)
    ]
    assert classes == ["TimeSeriesSink"]


def test_the_folder_is_named_after_the_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new("sink", "archive").exit_code == 0
    assert (tmp_path / "marketfeed-archive" / "src" / "marketfeed_archive" / "sink.py").is_file()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    result = new("sink", "archive", "--output", str(tmp_path))
    assert result.exit_code == 1
    assert "is there and not empty" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize("name", ["Archive", "my sink", "../up", "a_b", "-x", "1st", "a--b", ""])
@pytest.mark.parametrize("kind", ["sink", "vendor"])
def test_a_name_that_cannot_be_one_is_refused(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = new(kind, "--", name)
    assert result.exit_code == 2
    assert "cannot be a plugin's name" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_vendor_project_has_the_name_everywhere(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    result = new("vendor", "acme-one", "--output", str(folder))
    assert result.exit_code == 0, result.output
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert "src/marketfeed_acme_one/sandbox.py" in files
    assert [name for name, text in files.items() if "myvendor" in text.lower()] == []
    assert "ACME_ONE_API_KEY" in files["README.md"]


def test_the_template_and_the_schemas_are_those_of_the_repository() -> None:
    assert shipped("_templates/sink") == ROOT / "plugins" / "_template-sink"
    assert shipped("schemas") == ROOT / "schemas"
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    homes = {"schemas": "schemas", **{f"plugins/_template-{kind}": f"_templates/{kind}" for kind in ("sink", "vendor")}}
    assert table["force-include"] == {home: f"marketfeed/{name}" for home, name in homes.items()}
    with pytest.raises(FileNotFoundError, match="has no _templates/nothing"):
        shipped("_templates/nothing")
