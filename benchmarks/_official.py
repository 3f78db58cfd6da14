"""Official clients as rivals: each in a folder of its own, because they overwrite one another's files."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["official", "quiet"]

_FOLDER = Path(__file__).resolve().parents[1] / "build" / "official"


def official(requirement: str, module: str, *also: str) -> Any:
    """The module of an official client at that version, or None (said on stderr) when it cannot be had.

    ``also`` are packages that the client imports without declaring them. What is installed here already
    takes precedence over the copies beside the client.
    """
    folder = _FOLDER / requirement.replace("=", "-")
    try:
        if not folder.is_dir():
            command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), requirement, *also]
            subprocess.run(command, check=True)
        sys.path.append(str(folder))
        with _elsewhere():  # mStock's client opens a log file where it is imported
            return importlib.import_module(module)
    except (OSError, subprocess.CalledProcessError, ImportError) as problem:
        print(f"left out, no {requirement}: {problem}", file=sys.stderr)
        return None


@contextmanager
def _elsewhere() -> Iterator[None]:
    here = Path.cwd()
    os.chdir(tempfile.mkdtemp(prefix="official-"))
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def quiet() -> Iterator[None]:
    """No log records are made inside: a rival is not charged for its logging."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
