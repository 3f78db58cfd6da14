"""Secrets of the configuration, given as words that can be found again: they are nowhere else.

And certificates: one that is self-signed or made out to somebody else is refused, for REST and for the stream.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from trials._report import Report
from waiting import until

from marketfeed.framelog import read_frames
from marketfeed.sandbox import Sandbox

KITE: dict[str, Any] = {
    "api_key": "canarykey7f3a91",
    "api_secret": "canarysecret52c08e",
    "access_token": "canarytoken9d4b6610",
}
PROXY = "canaryproxyb71d"
FLATTRADE: dict[str, Any] = {
    "password": "canarypass-e04f",
    "totp_secret": "KNQW4YLSPEZDGNBV",
    "api_key": "canaryfkey3b2c",
    "api_secret": "canaryfsecret81d0",
}
SINK = "canarysinkword-6a6f"
CANARIES = [*KITE.values(), PROXY, *FLATTRADE.values(), SINK]
CONFIG = """
[feeds.first]
vendor = "kite"
instruments = ["NSE:INFY", "NSE:TCS"]
sinks = ["jsonl", "csv", "talkative"]
[feeds.second]
vendor = "flattrade"
instruments = ["NSE:INFY"]
sinks = ["csv"]
[vendors.kite]
proxy = "http://user:{proxy}@127.0.0.1:9"
{kite}
[vendors.flattrade]
{flattrade}
[sinks.talkative]
password = "{sink}"
[sinks.jsonl]
path = "{{feed}}.jsonl"
[sinks.csv]
path = "{{feed}}.csv"
[journal]
folder = "journal"
[capture]
folder = "capture"
[metrics]
port = {port}
[log]
level = "debug"
format = "{form}"
"""
PLUGIN = """
import logging
import attrs
from marketfeed import Sink, hookimpl
from marketfeed.contract import secret
from marketfeed.errors import SinkError

class Client:
    def __init__(self, password):
        self.password = password
    def send(self, rows):
        raise ConnectionError(f"cannot log in as {self.password!r}")

@attrs.define(slots=False)
class Talkative(Sink):
    password: str = secret()
    _turn: int = attrs.field(init=False, default=0)

    def write(self, batch):
        self._turn += 1
        if self._turn == 1:
            raise SinkError(f"the server at db://user:{self.password}@host is busy")
        if self._turn == 2:
            raise SinkError(f"row 0 is refused for {self.password}", rejected=[0])
        if self._turn == 3:
            try:
                Client(self.password).send(batch)
            except ConnectionError:
                logging.getLogger("marketfeed.talkative").exception("what now, %s?", self.password)
        if self._turn == 50:
            Client(self.password).send(batch)

@hookimpl
def marketfeed_sinks():
    return {"talkative": Talkative}
"""
"""A sink that says what it should not, in errors, records and tracebacks, and in the end breaks."""


def install_plugin(folder: Path) -> None:
    """As pip would, into a folder of its own."""
    info = folder / "talkative-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "talkative_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: talkative\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[marketfeed]\ntalkative = talkative_plugin\n")


@contextmanager
def brokers() -> Iterator[tuple[Sandbox, Sandbox]]:
    """Two brokers who know the canaries."""
    kite = Sandbox("kite", seed=1, instruments=20, ticks_per_second=200, rate_limits=False, **KITE)
    flattrade = Sandbox(
        "flattrade", seed=1, instruments=20, ticks_per_second=200, rate_limits=False, access_token=None, **FLATTRADE
    )
    with kite, flattrade:
        yield kite, flattrade


def toml(settings: dict[str, object]) -> str:
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items() if value is not None)


def page(port: int, path: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            return error.read()


def titles(pid: int) -> bytes:
    """Command lines and thread names of a process and its children."""
    found = b""
    for process in [pid, *children(pid)]:
        proc = Path(f"/proc/{process}")
        for file in [proc / "cmdline", *proc.glob("task/*/comm")]:
            found += file.read_bytes() + b"\n"
    return found


def children(pid: int) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(file.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(file.parent.name), *children(int(file.parent.name))]
    return found


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def trouble(kite: Sandbox, flattrade: Sandbox) -> None:
    """All that makes a feed say something: damage, words of the broker that quote secrets, outages, refusals."""
    for how in ("garbage", "truncate", "bad-count"):
        kite.fault("damage", how=how, count=3)
        flattrade.fault("damage", how=how, count=3)
    secrets = " ".join(CANARIES)
    query = f"wss://ws/?api_key={KITE['api_key']}&access_token={KITE['access_token']}"
    for words in (
        json.dumps({"type": "error", "data": f"bad session {secrets}"}),
        json.dumps({"type": "message", "data": query}),
        f"not JSON: {secrets}",
    ):
        kite.fault("say", text=words)
        flattrade.fault("say", text=words)
    raw = secrets.encode()
    frame = b"\x00\x01" + len(raw).to_bytes(2, "big") + raw  # one packet, of a length that means nothing
    kite.fault("say", hex=frame.hex())
    flattrade.fault("say", hex=raw.hex())
    time.sleep(0.5)
    kite.fault("refuse", status=502, attempts=1)
    flattrade.fault("refuse", status=429, attempts=1, retry_after_s=0.1)
    for box in (kite, flattrade):
        box.fault("http-error", status=502, body="html", attempts=1)
        box.drop()
    time.sleep(2)


def hits(places: dict[str, bytes]) -> list[str]:
    return [f"{word} in {where}" for where, data in places.items() for word in CANARIES if word.encode() in data]


def files(folder: Path) -> dict[str, bytes]:
    """All that the feeds wrote, captures also unpacked."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "feed.toml" and "/state/" not in str(path):
            found[str(path.relative_to(folder))] = path.read_bytes()
            if "capture" in path.parts and path.parent != folder:
                found[f"{path.name}, unpacked"] = b"\n".join(frame.data for frame in read_frames(path))
    return found


def run(folder: Path, form: str) -> dict[str, bytes]:
    """Everything that can be seen of a run in which much goes wrong, until the tokens die and it fails."""
    port = free_port()
    install_plugin(folder / "plugins")
    with brokers() as (kite, flattrade):
        settings = kite.settings()
        del settings["user_id"]  # without it the account is told apart by its key
        values = {
            "proxy": PROXY,
            "kite": toml(settings),
            "sink": SINK,
            "flattrade": toml(flattrade.settings()),
            "port": port,
        }
        (folder / "feed.toml").write_text(CONFIG.format(form=form, **values))
        with (folder / "log.txt").open("wb") as log:
            environ = os.environ | {
                "MARKETFEED_STATE_DIR": str(folder / "state"),
                "PYTHONPATH": str(folder / "plugins"),
            }
            command = [sys.executable, "-m", "marketfeed", "run", "feed.toml"]
            child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environ)
        try:
            end = time.monotonic() + 30
            while kite.counts["ticks"] < 100 or flattrade.counts["ticks"] < 100:
                assert child.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < end, "no ticks"
                time.sleep(0.05)
            trouble(kite, flattrade)
            seen = {one: page(port, one) for one in ("metrics", "health", "ready")}
            seen["titles"] = titles(child.pid)
            kite.expire()  # an access token of the configuration cannot be renewed: the feed fails, and says why
            kite.drop()
            until(lambda: b"token is not accepted" in (folder / "log.txt").read_bytes())
            child.terminate()  # the feed of the other broker goes on until it is told to stop
            child.wait(30)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                child.wait()
        assert child.returncode == 1
    return seen | files(folder)


def check_run(folder: Path, form: str) -> int:
    """The number of places that were looked at."""
    places = run(folder, form)
    assert b"token is not accepted" in places["log.txt"]
    assert any("unpacked" in where and len(data) > 1000 for where, data in places.items())
    assert any("deadletters" in where for where in places), "nothing was put aside, so nothing was tried"
    assert b"marketfeed_dead_letters_total" in places["metrics"]
    assert hits(places) == []
    return len(places)


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_canaries_of_the_configuration_are_found_nowhere(tmp_path: Path) -> None:
    check_run(tmp_path, "json")


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_canaries_in_five_runs(tmp_path: Path, report: Report) -> None:
    places = 0
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        places += check_run(folder, "text" if number % 2 else "json")
    report("7 canary secrets", 5, f"0 hits of {len(CANARIES)} words in {places} files, pages and titles", aim="0")
