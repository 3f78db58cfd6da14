"""The tutorial on sinks, followed to the letter: its commands are run, its files written, its fragments found.

Once in this environment, where an installation is a folder with metadata, and once (slow) as an author and a user
would: wheels, empty environments, pip.
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
import venv
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial" / "sink.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
AGAIN = ["marketfeed", "run", "feed.toml", "--sandbox", "--max-ticks", "500"]


class Reader:
    """Somebody who does what the page says, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MARKETFEED"))},
            "MARKETFEED_STATE_DIR": str(folder / "state"),
        }
        self.shown: list[str] = []

    def follow(self) -> None:
        """Every block of the page, in order."""
        prose, end = "", 0
        text = PAGE.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            prose += text[end : match.start()]
            end = match.end()
            language, block = match.groups()
            if language == "bash":
                for line in block.splitlines():
                    self.command(shlex.split(line))
            elif language == "toml":
                self.write(prose, block, "toml")
            elif block.startswith('"""'):  # a whole module
                self.write(prose, block, "py")
            else:
                self.find(block)

    def write(self, prose: str, block: str, kind: str) -> None:
        """A file, at the place that was named last."""
        place = re.findall(rf"`([\w/.-]+\.{kind})`", prose)[-1]
        if kind == "py":
            assert (self.folder / place).is_file(), f"{place} is not a file of the project"
        (self.folder / place).write_text(block, encoding="utf-8")

    def find(self, block: str) -> None:
        """A part of what the project holds already."""
        held = [file.read_text(encoding="utf-8") for file in self.folder.glob("marketfeed-archive/**/*.py")]
        assert any(block in one for one in held), f"no file of the project holds this:\n{block}"

    def command(self, words: list[str]) -> None:
        self.run(*self.program(words[0]), *words[1:])

    def program(self, name: str) -> list[str]:
        raise NotImplementedError

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=170, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        self.shown.append(done.stdout)
        return done.stdout

    def rows(self) -> list[tuple[str, int, str]]:
        with closing(sqlite3.connect(self.folder / "ticks.db")) as db:
            return db.execute("SELECT journal, seq, json_extract(document, '$.symbol') FROM ticks").fetchall()


class Here(Reader):
    """Runs everything with this interpreter. ``pip install`` leaves the metadata that discovery looks for;
    ``pip wheel`` needs an index and is left to the other reader."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        source = folder / "marketfeed-archive" / "src"
        self.environ |= {"PYTHONPATH": str(source), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def command(self, words: list[str]) -> None:
        if words[:2] == ["pip", "install"]:
            info = self.folder / "marketfeed-archive" / "src" / "marketfeed_archive-0.1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: marketfeed-archive\nVersion: 0.1.0\n")
            (info / "entry_points.txt").write_text("[marketfeed]\narchive = marketfeed_archive\n")
        elif words[0] != "pip":
            super().command(words)

    def program(self, name: str) -> list[str]:
        return [sys.executable] if name == "python" else [sys.executable, "-m", name]


class Installed(Reader):
    """Has an environment of their own, into which everything is installed from wheels."""

    def __init__(self, folder: Path, wheels: Path, environment: Path) -> None:
        super().__init__(folder)
        venv.create(environment, with_pip=True)
        self.bin = environment / ("Scripts" if sys.platform == "win32" else "bin")
        self.environ |= {"PIP_FIND_LINKS": str(wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def program(self, name: str) -> list[str]:
        return [str(self.bin / name)]


def check_rows(reader: Reader, least: int) -> None:
    rows = reader.rows()
    assert len(rows) >= least
    assert {symbol for _, _, symbol in rows} == {"RELIANCE", "INFY"}
    assert len({(journal, seq) for journal, seq, _ in rows}) == len(rows), "rows are doubled"


@pytest.mark.process
def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    reader = Here(tmp_path)
    reader.follow()
    assert any(re.fullmatch(r"\(5\d\d,\)\n", one) for one in reader.shown), reader.shown
    check_rows(reader, 500)
    reader.command(AGAIN)  # with the second form of the sink, which goes on in the same file
    check_rows(reader, 1000)


@pytest.mark.slow
@pytest.mark.process
def test_the_tutorial_works_from_wheels_in_empty_environments(tmp_path: Path) -> None:
    wheels, author, user = tmp_path / "wheels", tmp_path / "author", tmp_path / "user"
    author.mkdir()
    user.mkdir()
    projects = [str(ROOT), str(ROOT / "plugins" / "marketfeed-kite")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, *projects], check=True)
    writer = Installed(author, wheels, tmp_path / "author-env")
    writer.command(["pip", "install", "-q", "marketfeed[kite]"])
    writer.follow()
    check_rows(writer, 500)
    made = next((author / "dist").glob("marketfeed_archive-*.whl"))
    taker = Installed(user, wheels, tmp_path / "user-env")
    taker.command(["pip", "install", "-q", str(made), "marketfeed[kite]"])
    (user / "feed.toml").write_bytes((author / "feed.toml").read_bytes())
    taker.command(AGAIN)
    check_rows(taker, 500)
    assert "archive" in taker.run(*taker.program("marketfeed"), "plugins")
