"""Builds every wheel, installs ``marketfeed[kite]`` from them into an empty environment as a user would type
it, and runs a feed there against the sandbox. Run by ``tox -e wheels``."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/marketfeed-*/pyproject.toml"))]

CONFIG = """
[feeds.main]
vendor = "kite"
instruments = ["NSE:INFY", "NSE:RELIANCE"]
sinks = ["jsonl"]
[sinks.jsonl]
path = "ticks.jsonl"
[metrics]
port = false
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command; show it and its output when it fails."""
    print("+", *command, flush=True)
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{result.stdout}{result.stderr}\nexit code {result.returncode}")
    return result.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dist = folder / "dist"
        for project in PROJECTS:
            run(sys.executable, "-m", "build", "--wheel", "--outdir", dist, project, cwd=folder)
        venv.create(folder / "env", with_pip=True)
        scripts = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
        run(scripts / "python", "-m", "pip", "install", "-q", "--find-links", dist, "marketfeed[kite]", cwd=folder)
        (folder / "feed.toml").write_text(CONFIG)
        print(run(scripts / "marketfeed", "plugins", cwd=folder))
        run(scripts / "marketfeed", "run", "feed.toml", "--sandbox", "--max-ticks", "100", cwd=folder)
        ticks = [json.loads(line) for line in (folder / "ticks.jsonl").read_text().splitlines()]
        if len(ticks) < 100 or {tick["symbol"] for tick in ticks} != {"INFY", "RELIANCE"}:
            sys.exit(f"expected at least 100 ticks of two instruments, got {len(ticks)}")
        print(f"{len(PROJECTS)} wheels built and installed; {len(ticks)} ticks through a feed: ok")


if __name__ == "__main__":
    main()
