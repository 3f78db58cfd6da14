"""Somebody who follows a tutorial to the letter: its commands are run, its files written, its fragments found."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "Here", "Reader"]

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Reader:
    """Does what ``page`` says, which makes ``project``, in a folder of their own."""

    def __init__(self, folder: Path, page: str, project: str) -> None:
        self.folder = folder
        self.page = ROOT / "docs" / "tutorial" / page
        self.project = project
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MARKETFEED"))},
            "MARKETFEED_STATE_DIR": str(folder / "state"),
        }
        self.shown: list[str] = []

    def follow(self) -> None:
        """Every block of the page, in order."""
        prose, end = "", 0
        text = self.page.read_text(encoding="utf-8")
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
        held = [file.read_text(encoding="utf-8") for file in self.folder.glob(f"{self.project}/**/*.py")]
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


class Here(Reader):
    """Runs everything with this interpreter. ``pip install`` leaves the metadata that discovery looks for;
    ``pip wheel`` needs an index and is left to the other reader."""

    def __init__(self, folder: Path, page: str, project: str) -> None:
        super().__init__(folder, page, project)
        source = folder / project / "src"
        self.environ |= {"PYTHONPATH": str(source), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def command(self, words: list[str]) -> None:
        if words[:2] == ["pip", "install"]:
            module = self.project.replace("-", "_")
            info = self.folder / self.project / "src" / f"{module}-0.1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {self.project}\nVersion: 0.1.0\n")
            (info / "entry_points.txt").write_text(f"[marketfeed]\n{module.partition('_')[2]} = {module}\n")
        elif words[0] != "pip":
            super().command(words)

    def program(self, name: str) -> list[str]:
        return [sys.executable] if name == "python" else [sys.executable, "-m", name]
