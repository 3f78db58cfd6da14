"""A sandbox in a process of its own, which ends when its parent ends."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from marketfeed.errors import MarketFeedError
from marketfeed.sandbox.box import READY_TOKEN

__all__ = ["ChildSandbox", "spawn_sandbox"]

START_S = 30.0


@attrs.frozen(kw_only=True)
class ChildSandbox:
    """A running child, as its port file describes it."""

    pid: int
    port: int
    url: str
    clock_offset_ns: int
    _settings: dict[str, Any] = attrs.field(repr=False, alias="settings")

    def settings(self) -> dict[str, Any]:
        """Vendor settings that make a feed use this sandbox."""
        return dict(self._settings)

    def fault(self, kind: str, **parameters: Any) -> dict[str, Any]:
        """Let a fault act from now on, as ``Sandbox.fault`` does; returns its record. Raises ``ValueError``."""
        given = {"kind": kind, **parameters} if parameters else {"fault": kind}
        return self._control("fault", json.dumps(given).encode())

    @property
    def injected(self) -> list[dict[str, Any]]:
        """Every fault that was started, oldest first."""
        found: list[dict[str, Any]] = self._control("faults")["injected"]
        return found

    def _control(self, name: str, body: bytes | None = None) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/sandbox/{name}", data=body)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
        try:
            with opener.open(request, timeout=30) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None


@contextlib.contextmanager
def spawn_sandbox(vendor: str, **options: Any) -> Iterator[ChildSandbox]:
    """Run ``marketfeed sandbox VENDOR`` as a child process for the length of a ``with`` block.

    ``options`` are those of the command, with underscores: ``seed=1, ticks_per_second=500``; a boolean
    is a flag (False: ``--no-...``), a list repeats an option, None leaves it out. A ready access token is given unless
    ``access_token=None``.
    The child watches its standard input, so it ends with its parent however that ends.
    Raises ``MarketFeedError`` when it does not start.
    """
    options.setdefault("access_token", READY_TOKEN)
    with tempfile.TemporaryDirectory(prefix="marketfeed-sandbox-") as folder:
        port_file = Path(folder, "port.json")
        errors = Path(folder, "errors.txt")
        command = [sys.executable, "-m", "marketfeed", "sandbox", vendor, *_arguments(options)]
        command += ["--port-file", str(port_file), "--until-stdin-closes"]
        with errors.open("wb") as sink:
            # A session of its own: Ctrl-C in the terminal is for the parent, whose feed need not see an outage first.
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=sink, start_new_session=True
            )
        try:
            yield _wait_for(child, port_file, errors)
        finally:
            _end(child)


def _arguments(options: dict[str, Any]) -> list[str]:
    arguments: list[str] = []
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, list | tuple):
            arguments += [part for one in value for part in (f"--{option}", str(one))]
        elif value is not None:
            arguments += [f"--{option}", str(value)]
    return arguments


def _wait_for(child: subprocess.Popen[bytes], port_file: Path, errors: Path) -> ChildSandbox:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if port_file.exists():  # it is moved into place, so it is whole
            return ChildSandbox(**json.loads(port_file.read_text(encoding="utf-8")))
        if child.poll() is not None:
            text = errors.read_text(encoding="utf-8", errors="replace").strip()
            raise MarketFeedError(f"the sandbox ended with status {child.returncode}: {text[-2000:]}")
        time.sleep(0.02)
    raise MarketFeedError(f"the sandbox did not open its port within {START_S:.0f} s")


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
