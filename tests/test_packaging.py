"""What is released belongs together: versions, extras, entry points, and no path of a machine in the tree."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest

from marketfeed.plugins import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/marketfeed-*/pyproject.toml"))


def project(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def package(folder: Path) -> str:
    return folder.name.replace("-", "_")


CORE = project(ROOT)


def test_there_are_plugins() -> None:
    assert {"marketfeed-kite", "marketfeed-mstock", "marketfeed-flattrade"} <= {one.name for one in PLUGINS}


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_has_the_cores_version_and_asks_for_exactly_it(folder: Path) -> None:
    plugin = project(folder)
    assert plugin["name"] == folder.name
    assert plugin["version"] == CORE["version"]
    assert f"marketfeed=={CORE['version']}" in plugin["dependencies"]
    for same in ("license", "requires-python"):
        assert plugin[same] == CORE[same]


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_is_an_extra_of_the_core_at_the_same_version(folder: Path) -> None:
    name = folder.name.removeprefix("marketfeed-")
    assert CORE["optional-dependencies"][name] == [f"{folder.name}=={CORE['version']}"]
    assert name in CORE["optional-dependencies"]["all"][0]
    assert name in EXTRAS


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_has_a_readme_types_tests_and_one_entry_point(folder: Path) -> None:
    plugin = project(folder)
    assert plugin["readme"] == "README.md"
    first_screen = (folder / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert f"pip install marketfeed[{folder.name.removeprefix('marketfeed-')}]" in "\n".join(first_screen)
    assert (folder / "src" / package(folder) / "py.typed").is_file()
    assert list((folder / "tests").glob("test_*.py"))
    assert plugin["entry-points"] == {"marketfeed": {folder.name.removeprefix("marketfeed-"): package(folder)}}


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_what_is_installed_is_what_the_tree_says(folder: Path) -> None:
    assert version(folder.name) == version("marketfeed") == CORE["version"]
    module = import_module(package(folder))
    assert module.__doc__
    name = folder.name.removeprefix("marketfeed-")
    assert [one.value for one in entry_points(group="marketfeed", name=name)] == [package(folder)]


def test_the_core_has_types_a_licence_and_its_sinks_as_a_plugin() -> None:
    assert (ROOT / "src" / "marketfeed" / "py.typed").is_file()
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert CORE["license"] == "MIT"
    assert CORE["entry-points"]["marketfeed"] == {"sinks": "marketfeed.sinks"}
    assert CORE["scripts"] == {"marketfeed": "marketfeed.cli:main"}


def test_heavy_libraries_are_extras() -> None:
    needed = {re.split(r"[<>=\[]", one)[0] for one in CORE["dependencies"]}
    assert needed.isdisjoint({"pandas", "pyarrow", "kiteconnect"})


def test_every_fragment_of_the_changelog_is_a_few_sentences_of_a_known_kind() -> None:
    for file in ROOT.glob("changes/*.md"):
        assert re.fullmatch(r"[a-z0-9-]+\.(feature|fix|change|removal)\.md", file.name), file.name
        assert 20 < len(file.read_text(encoding="utf-8")) < 1000, file.name


_MACHINE = re.compile(r"(?<![\w.])/(?:root|work|home|Users|tmp|private|mnt)/[\w.-]+")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


@pytest.mark.process
def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked():
        if path == Path(__file__).resolve() or not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            text = data.decode("utf-8", "replace")
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in _MACHINE.finditer(text)]
    assert found == []
    assert _MACHINE.search("see " + "/home/" + "me")
