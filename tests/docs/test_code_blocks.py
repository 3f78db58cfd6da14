"""Every block of code in README, CONTRIBUTING, docs and the plugins' READMEs is run or checked.

Python is executed, a page's blocks one after the other as a reader would (what is substituted: ``conftest.py``). TOML
is loaded as a configuration. Of shell blocks the ``marketfeed`` and ``make`` commands must exist with their options;
other programs must be known. The rest must be what it says it is.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import shlex
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from marketfeed import config
from marketfeed.cli import main
from marketfeed.plugins import Plugins

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
FOLLOWED = {ROOT / "docs" / "tutorial" / name for name in ("sink.md", "vendor.md")}
"""Every block of them is done in order by the tests of that name; here their commands are looked at."""
READMES = sorted(ROOT.glob("plugins/marketfeed-*/README.md"))
SHELL = ("bash", "console")
OTHER_PROGRAMS = {"pip", "export", "curl", "tail", "systemctl", "journalctl", ".venv/bin/tox", "python", "pytest"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    page: Path
    line: int
    """Of the fence, from 1."""
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])


BLOCKS = [block for page in [*PAGES, *READMES] for block in blocks_of(page)]


def blocks(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def named(block: Block) -> str:
    return block.where


def test_every_block_says_its_language() -> None:
    known = {"python", "toml", "json", "text", "ini", *SHELL}
    assert [block.where for block in BLOCKS if block.language not in known] == []
    assert {"python", "toml", "json", "bash"} <= {block.language for block in BLOCKS}


@pytest.mark.parametrize(
    "page",
    sorted({block.page for block in blocks("python")} - FOLLOWED),
    ids=lambda page: str(page.relative_to(ROOT)),
)
@pytest.mark.filterwarnings("default::UserWarning")
def test_the_python_of_a_page_runs(page: Path, stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks_of(page):
        if block.language == "python":
            # Newlines in front: a traceback then shows the line of the page.
            code = compile("\n" * block.line + block.text, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if re.search(r"^(?:async )?def test_", block.text, re.MULTILINE):
                continue  # a test needs its fixtures: that it compiles must do
            result = eval(code, module.__dict__)
            if inspect.iscoroutine(result):
                asyncio.run(result)


@pytest.mark.parametrize("block", [one for one in blocks("toml") if one.page not in FOLLOWED], ids=named)
def test_a_configuration_can_be_used(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tomllib.loads(block.text)
    if "project" in tables:
        assert set(tables["project"]["entry-points"]) == {"marketfeed"}
        return
    text = block.text
    if "feeds" not in tables:  # a part of a file: the sinks that it defines, in a feed
        names = json.dumps(list(tables["sinks"]))
        text = f'[feeds.main]\nvendor = "kite"\ninstruments = ["NSE:INFY"]\nsinks = {names}\n{text}'
    file = tmp_path / "feed.toml"
    file.write_text(text, encoding="utf-8")
    loaded = config.load(file, Plugins.discover(environ={}), {}, placeholder="given")
    assert loaded.feeds
    assert list(loaded.warnings) == []


@pytest.mark.parametrize("block", blocks("json"), ids=named)
def test_json_is_json(block: Block) -> None:
    assert json.loads(block.text)


def commands_of(block: Block) -> Iterator[list[str]]:
    """Each command as its words: comments, prompts, pipes and leading variables removed."""
    for line in block.text.splitlines():
        if block.language == "console":
            if not line.startswith("$ "):
                continue
            line = line[2:]
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("|") if "|" in words else len(words)
            command = words[:end]
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                command = command[1:]
            if command:
                yield command
            words = words[end + 1 :]


def options_missing(words: list[str]) -> list[str]:
    """Options, and the first word that should be a command, which ``marketfeed`` does not know."""
    command: click.Command = main
    context = click.Context(main)
    known = {"--help", "-h"}
    missing = []
    for word in words:
        if isinstance(command, click.Group):
            known |= {name for option in command.params for name in option.opts}
            if word.startswith("-"):
                missing += [word] if word.partition("=")[0] not in known else []
                continue
            found = command.get_command(context, word)
            if found is None:
                return [word]
            command = found
        elif word.startswith("--"):
            names = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            missing += [word] if word.partition("=")[0] not in names | known else []
    return missing


@pytest.mark.parametrize("block", blocks(*SHELL), ids=named)
def test_commands_exist_with_their_options(block: Block) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = list(commands_of(block))
    assert commands
    for program, *words in commands:
        if program == "marketfeed":
            assert options_missing(words) == [], f"{block.where}: marketfeed {' '.join(words)}"
        elif program == "make":
            targets = [word for word in words if "=" not in word]
            assert all(re.search(rf"^[\w ]*\b{target}\b[\w ]*:", makefile, re.MULTILINE) for target in targets)
        elif "/" in program and not program.startswith("."):
            assert (ROOT / program).is_file(), f"{block.where}: {program}"
        else:
            assert program in OTHER_PROGRAMS, f"{block.where}: {program}"


def test_an_option_that_is_not_there_is_noticed() -> None:
    assert options_missing(["run", "feed.toml", "--sandbocks"]) == ["--sandbocks"]
    assert options_missing(["journal", "destroy"]) == ["destroy"]
    assert options_missing(["--debug", "journal", "forget", "data", "x", "--hepl"]) == ["--hepl"]
