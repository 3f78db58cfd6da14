"""FlatTrade from the socket to a JSON file of whole ticks, as fast as it goes: our feed, journal on disk, against the
official client with a callback that merges, turns text into numbers, checks, and writes ``json.dumps``."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marketfeed_flattrade.parser import FlattradeParser
from marketfeed_flattrade.settings import FlattradeSettings
from marketfeed_flattrade.stream import FlattradeStream

from benchmarks import wire
from benchmarks._blaster import child
from benchmarks._feed import pipeline_of
from benchmarks._flattrade import User, client, scrips
from benchmarks._ratio import Result
from marketfeed.contract import Parser, Session, Stream
from marketfeed.instruments import TokenMap

TOTAL, ROUNDS = 60_000, 5


class _Account:
    """An account whose broker is a port of this machine."""

    def __init__(self, port: int) -> None:
        self.settings = FlattradeSettings(stream_url=f"ws://127.0.0.1:{port}/", user_id="U")
        self._session = Session(vendor="flattrade", account="U", access_token="t")

    def session(self) -> Session:
        return self._session

    def renew(self, dead: Session) -> Session:
        return dead

    def stream(self, session: Session) -> Stream:
        return FlattradeStream(self.settings, session)

    def parser(self, tokens: TokenMap) -> Parser:
        return FlattradeParser(tokens)


def ours(port: int) -> float:
    """Ticks per second until the sink has them all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        with pipeline_of(_Account(port), scrips(), [wire.json_file(folder)], folder=folder / "journal") as pipeline:
            wire.wait_for(pipeline, TOTAL)
            return TOTAL / (time.perf_counter() - start)


def official(port: int, module: Any) -> float:
    """The same for a user of the official client."""
    done = threading.Event()
    with tempfile.TemporaryDirectory() as name, (Path(name) / "ticks.jsonl").open("wb") as file:
        user = User(module, f"ws://127.0.0.1:{port}/")
        left = TOTAL

        def take(message: dict[str, Any]) -> None:
            nonlocal left
            left -= 1
            user.take(message)
            if user.checked():
                file.write(json.dumps(user.tick).encode() + b"\n")
            if not left:
                done.set()

        user.client.set_session("U", "", "t")
        start = time.perf_counter()
        user.client.start_websocket(subscribe_callback=take)
        assert done.wait(300), f"{left} messages did not come"
        spent = time.perf_counter() - start
        user.client.close_websocket()
        return TOTAL / spent


def run() -> Iterator[Result]:
    module = client()
    if module is None:
        return
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # as the command line does
    try:
        ratios = []
        for _ in range(ROUNDS):
            with child("benchmarks._flattrade", TOTAL) as port:
                slow = official(port, module)
                fast = ours(port)
            ratios.append(fast / slow)
        yield Result("socket -> JSON file", statistics.median(ratios), 2.0, note=f"{fast:,.0f} ticks/s")
    finally:
        sys.setswitchinterval(before)
