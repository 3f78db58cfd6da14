"""The engine's real threads on a socket, without REST: what the socket benchmarks run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marketfeed_kite.parser import KiteParser
from marketfeed_kite.settings import KiteSettings
from marketfeed_kite.stream import KiteStream

from benchmarks._kite import instruments
from marketfeed.clock import Clock
from marketfeed.contract import Parser, Session, Stream, Subscription
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.events import Events
from marketfeed.engine.lines import LineLimits
from marketfeed.engine.logs import get_log
from marketfeed.engine.pipeline import Pipeline, SinkPlan
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument, TokenMap
from marketfeed.journal import Journal

__all__ = ["PortAccount", "pipeline_of", "pipeline_on"]


class PortAccount:
    """An account whose broker is a port of this machine."""

    def __init__(self, port: int) -> None:
        url = f"http://127.0.0.1:{port}"
        self.settings = KiteSettings(rest_url=url, login_url=url, stream_url=f"ws://127.0.0.1:{port}", api_key="k")
        self._session = Session(vendor="kite", account="k", access_token="t")

    def session(self) -> Session:
        return self._session

    def renew(self, dead: Session) -> Session:
        return dead

    def stream(self, session: Session) -> Stream:
        return KiteStream(self.settings, session)

    def parser(self, tokens: TokenMap) -> Parser:
        return KiteParser(tokens)


@contextmanager
def pipeline_on(
    port: int, plans: list[SinkPlan], *, folder: Path | None = None, universe: int = 500, connections: int = 1
) -> Iterator[Pipeline]:
    """A running Kite pipeline; the journal is in memory, or on disk in ``folder``."""
    known = instruments(universe)
    with pipeline_of(PortAccount(port), known, plans, folder=folder, connections=connections) as pipeline:
        yield pipeline


@contextmanager
def pipeline_of(
    account: Any,
    known: Sequence[Instrument],
    plans: list[SinkPlan],
    *,
    folder: Path | None = None,
    connections: int = 1,
) -> Iterator[Pipeline]:
    """A running pipeline of any account that has the four methods of ``PortAccount``."""
    clock, log = Clock(), get_log()
    journal: Any = Journal.create(folder) if folder else Journal.memory()
    numbers = journal.instruments.register(known)
    tokens = TokenMap({one.token: number for one, number in zip(known, numbers, strict=True)})
    events = Events("bench", known[0].vendor, clock, log)
    pipeline = Pipeline("bench", journal, plans, events, DeadLetters("bench", clock), clock, log)
    try:
        pipeline.wait_for_sinks()
        pipeline.connect(
            account,
            Subscription.of(known, Mode.FULL),
            tokens,
            LineLimits(connections, -(-len(known) // connections)),
        )
        yield pipeline
    finally:
        pipeline.stop()
        journal.close()
