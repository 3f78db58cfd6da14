"""Environments of their own for official SDKs, which conflict with each other and with ours.

Made once, kept under ``.tox``; a test is skipped by name where an SDK cannot be installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["environment", "run_driver"]

_ROOT = Path(__file__).resolve().parents[1]


def environment(name: str, *packages: str) -> Path:
    """The interpreter of an environment that has exactly these packages."""
    folder = _ROOT / ".tox" / f"official-{name}-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready, wanted = folder / "ready", " ".join(packages)
    folder.parent.mkdir(exist_ok=True)
    with _only_one(folder.with_suffix(".lock")):
        if not ready.exists() or ready.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            done = subprocess.run(install, capture_output=True, text=True, timeout=500, check=False)
            if done.returncode:
                pytest.skip(f"{packages[0]} could not be installed: {done.stderr.strip()[-300:]}")
            ready.write_text(wanted)
    return python


def run_driver(python: Path, driver: Path, folder: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """What ``driver TASK.json RESULT.json`` wrote. It runs in ``folder``: some SDKs write logs."""
    (folder / "task.json").write_text(json.dumps(task))
    command = [str(python), str(driver), str(folder / "task.json"), str(folder / "result.json")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """One process at a time; a lock older than ten minutes was left by a dead one."""
    end = time.monotonic() + 600
    while True:
        try:
            lock.touch(exist_ok=False)
            break
        except FileExistsError:
            age = time.time() - lock.stat().st_mtime if lock.exists() else 0
            if age > 600 or time.monotonic() > end:
                lock.unlink(missing_ok=True)
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
