"""The tutorial on sinks, followed to the letter: its commands are run, its files written, its fragments found.

Once in this environment, where an installation is a folder with metadata, and once (slow) as an author and a user
would: wheels, empty environments, pip.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import venv
from contextlib import closing
from pathlib import Path

import pytest
from docs._reader import ROOT, Here, Reader

TUTORIAL = ("sink.md", "marketfeed-archive")
AGAIN = ["marketfeed", "run", "feed.toml", "--sandbox", "--max-ticks", "500"]


class Installed(Reader):
    """Has an environment of their own, into which everything is installed from wheels."""

    def __init__(self, folder: Path, wheels: Path, environment: Path) -> None:
        super().__init__(folder, *TUTORIAL)
        venv.create(environment, with_pip=True)
        self.bin = environment / ("Scripts" if sys.platform == "win32" else "bin")
        self.environ |= {"PIP_FIND_LINKS": str(wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def program(self, name: str) -> list[str]:
        return [str(self.bin / name)]


def check_rows(reader: Reader, least: int) -> None:
    with closing(sqlite3.connect(reader.folder / "ticks.db")) as db:
        rows = db.execute("SELECT journal, seq, json_extract(document, '$.symbol') FROM ticks").fetchall()
    assert len(rows) >= least
    assert {symbol for _, _, symbol in rows} == {"RELIANCE", "INFY"}
    assert len({(journal, seq) for journal, seq, _ in rows}) == len(rows), "rows are doubled"


@pytest.mark.process
def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    reader = Here(tmp_path, *TUTORIAL)
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
