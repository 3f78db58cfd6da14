"""What the engine adds to its parts: dead letters, metrics, retry, flush and commit around three null sinks, against
the same parser, validation, newest-tick table, journal and readers called by hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from marketfeed_kite.parser import KiteParser

from benchmarks._kite import full_frames, instruments
from benchmarks._ratio import Result, seconds
from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.clock import Clock
from marketfeed.contract import Frame, Sink
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.delivery import Delivery
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.latest import Latest
from marketfeed.engine.logs import get_log
from marketfeed.engine.parsing import ParseLoop
from marketfeed.engine.validation import Validator
from marketfeed.instruments import TokenMap
from marketfeed.journal import Journal

FRAMES, PER_FRAME, SINKS, ROUNDS = 200, 100, 3, 9


class Null(Sink):
    """Takes everything and does nothing."""

    def write(self, batch: TickBatch | CandleBatch) -> None:
        pass


def run() -> Iterator[Result]:
    known = instruments(500)
    frames = full_frames(FRAMES * PER_FRAME, PER_FRAME)
    clock, log = Clock(), get_log()

    def fresh() -> tuple[Journal, TokenMap]:
        journal = Journal.memory()
        numbers = journal.instruments.register(known)
        return journal, TokenMap({one.token: number for one, number in zip(known, numbers, strict=True)})

    def engine() -> None:
        journal, tokens = fresh()
        inbox, letters = Inbox(1, clock), DeadLetters("bench", clock)
        parser = KiteParser(tokens)
        loop = ParseLoop(
            inbox, lambda: parser, journal, letters, Latest(journal.origin), clock, log, fail=lambda error: None
        )
        for data in frames:  # one at a time, as on a quiet day: nothing to gain from draining
            loop._accept(0, [Frame(data, time.time_ns())])
        for number in range(SINKS):
            name = f"null-{number}"
            delivery = Delivery(
                name=name,
                sink=Null(),
                open_reader=lambda name=name: journal.reader(name, start="oldest"),
                clock=clock,
                deadletters=letters,
                log=log,
                emit=lambda kind, data: None,
                batch_rows=PER_FRAME,
            )
            delivery.stop()
            delivery.run()

    def by_hand() -> None:
        journal, tokens = fresh()
        parser, latest, validator = KiteParser(tokens), Latest(journal.origin), Validator()
        for data in frames:
            rows = validator.check(parser([Frame(data, time.time_ns())]).rows).rows
            latest.update(rows, journal.append(rows) - len(rows))
        for number in range(SINKS):
            sink = Null()
            with journal.reader(f"null-{number}", start="oldest") as reader:
                while len(batch := reader.take(PER_FRAME)):
                    sink.write(batch)
                reader.commit()

    engine(), by_hand()
    ratio = statistics.median(seconds(engine, 0.05) / seconds(by_hand, 0.05) for _ in range(ROUNDS))
    yield Result("engine with three null sinks / the same steps by hand", ratio, 1.15, at_most=True)
