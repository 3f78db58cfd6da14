"""Builds every wheel, installs ``marketfeed[kite]`` from them into an empty environment as a user would type
it, and runs a feed there against the sandbox; then adds ``[kafka]`` and does the same with a Kafka on this machine.
Run by ``tox -e wheels``."""

from __future__ import annotations

import json
import os
import re
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


READ = """
options = dict(auto_offset_reset="earliest", consumer_timeout_ms=5000)
print(sum(1 for message in ticks(servers={servers!r}, **options)))
"""


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Run a command; show it and its output when it fails."""
    print("+", *command, flush=True)
    words, environment = [str(part) for part in command], {**os.environ, **environ}
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
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
        install = [scripts / "python", "-m", "pip", "install", "-q", "--find-links", dist]
        run(*install, "marketfeed[kite]", cwd=folder)
        file_of_ticks(scripts, folder)
        run(*install, "marketfeed[kite,kafka]", cwd=folder)
        kafka_of_ticks(scripts, folder / "second")
        print(f"{len(PROJECTS)} wheels built and installed: ok")


def file_of_ticks(scripts: Path, folder: Path) -> None:
    """A feed into a file."""
    (folder / "feed.toml").write_text(CONFIG)
    print(run(scripts / "marketfeed", "plugins", cwd=folder))
    run(scripts / "marketfeed", "run", "feed.toml", "--sandbox", "--max-ticks", "100", cwd=folder)
    ticks = [json.loads(line) for line in (folder / "ticks.jsonl").read_text().splitlines()]
    if len(ticks) < 100 or {tick["symbol"] for tick in ticks} != {"INFY", "RELIANCE"}:
        sys.exit(f"expected at least 100 ticks of two instruments, got {len(ticks)}")
    print(f"{len(ticks)} ticks through a feed into a file: ok")


def kafka_of_ticks(scripts: Path, folder: Path) -> None:
    """What a newcomer with a Kafka types, and the consumer of the page that he reads."""
    sys.path.append(str(ROOT / "tests"))
    from servers.servers import KafkaServer, ServerUnavailable

    server = KafkaServer.at(folder / "kafka")
    try:
        server.start()
        environ = {"KAFKA_BROKERS": server.bootstrap}
        run(scripts / "marketfeed", "init", cwd=folder, **environ)
        run(scripts / "marketfeed", "run", "--sandbox", "--max-ticks", "100", cwd=folder, **environ)
        page = (ROOT / "docs" / "how-to" / "consume-kafka.md").read_text(encoding="utf-8")
        code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0] + READ.format(servers=server.bootstrap)
        count = int(run(scripts / "python", "-c", code, cwd=folder))
    except ServerUnavailable as unavailable:
        if os.environ.get("MARKETFEED_REQUIRE_SERVERS"):
            sys.exit(f"Kafka is required: {unavailable}")
        print(f"left out, no Kafka: {unavailable}")
        return
    finally:
        server.wipe()
    if count < 100:
        sys.exit(f"expected at least 100 ticks in Kafka, got {count}")
    print(f"{count} ticks through a feed into Kafka, and out again: ok")


if __name__ == "__main__":
    main()
