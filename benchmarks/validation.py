"""What validation costs: its share of the pipeline's CPU, and what a stream with 1 % bad packets still gets done
against a clean one: frame -> rows -> validation -> journal and dead letters -> JSON on one thread in memory, and the
whole way from a socket to the journal on disk and a JSON file."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator

from marketfeed_kite.parser import KiteParser

from benchmarks import wire
from benchmarks._blaster import blaster
from benchmarks._kite import START_S, frames_of, full_packets, instruments
from benchmarks._poison import poisoned
from benchmarks._ratio import Result
from marketfeed.clock import NS, Clock
from marketfeed.contract import Frame
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.validation import Validator
from marketfeed.instruments import TokenMap
from marketfeed.journal import Journal
from marketfeed.sinks.encode import TickEncoder

PACKETS, PER_SECOND, ROUNDS = 50_000, 10_000, 7


def run() -> Iterator[Result]:
    known = instruments(500)
    tokens = TokenMap({one.token: number for number, one in enumerate(known)})
    clock = Clock()

    def work(frames: list[bytes]) -> tuple[float, float]:
        """The whole way of all frames: seconds of CPU, and those of validation among them.

        The first tenth is not counted: there every instrument shows its first price.
        """
        journal = Journal.memory()
        journal.instruments.register(known)
        parser, encoder, reader = KiteParser(tokens), TickEncoder(), journal.reader("bench")
        validator, letters = Validator(instruments=journal.instruments), DeadLetters("bench", clock)
        begun, checking = 0.0, 0.0
        for number, data in enumerate(frames):
            if number == len(frames) // 10:
                begun, checking = time.thread_time(), 0.0
            rows = parser([Frame(data, START_S * NS + number * PACKETS // len(frames) * NS // PER_SECOND)]).rows
            start = time.thread_time()
            rows, rejected = validator.check(rows, consume=True)
            checking += time.thread_time() - start
            for reason, bad in rejected.items():
                letters.put_rows("row", str(reason.name), "connection 0", bad)
            journal.append(rows)
            while len(batch := reader.take()):
                encoder.lines(batch)
            reader.commit()
        return time.thread_time() - begun, checking

    packets = full_packets(PACKETS)
    for per_frame, target in ((100, 0.15), (10, 0.3)):
        frames = frames_of(packets, per_frame)
        rounds = [work(frames) for _ in range(ROUNDS)]
        share = statistics.median(checking / whole for whole, checking in rounds)
        yield Result(f"share of the pipeline's CPU, {per_frame} rows a batch", share, target, at_most=True)

    for per_frame in (1000, 100):
        clean, bad = frames_of(packets, per_frame), frames_of(poisoned(packets), per_frame)
        work(clean), work(bad)
        ratio = statistics.median(work(clean)[0] / work(bad)[0] for _ in range(ROUNDS))
        yield Result(f"one thread's throughput with 1 % bad packets / without, {per_frame} rows a batch", ratio, 0.95)
    yield from _from_socket()


def _from_socket() -> Iterator[Result]:
    """Enough ticks for the sink's last wait for a flush not to count; a feed alone still differs by a tenth or two
    from one round to the next, so what is given is the median."""
    total, before = 600_000, sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # as the command line does
    try:
        ratios = []
        for _ in range(ROUNDS):
            with blaster(100, total, poison=0.0) as port:
                clean = wire.ours(port, total)
            with blaster(100, total, poison=0.01) as port:
                ratios.append(wire.ours(port, total) / clean)
        note = f"{min(ratios):.2f} to {max(ratios):.2f}"
        yield Result("socket -> JSON file with 1 % bad packets / without", statistics.median(ratios), 0.95, note=note)
    finally:
        sys.setswitchinterval(before)
