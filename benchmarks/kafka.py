"""Ticks from frames to acknowledged messages per CPU second of this process, against the loop that a user writes.

The loop: ``producer.send(topic, json.dumps(tick).encode())`` over the dicts of the official client, kafka-python, to
the same broker with the same acks. Ours: parse, journal in memory, sink, flush. The broker is a process of its own
and does not count. Where Kafka cannot run there is nothing to compare.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks._broker import broker
from benchmarks._kite import START_S, as_text, full_frames, instruments, official_parser
from benchmarks._ratio import Result
from marketfeed.contract import Frame
from marketfeed.instruments import TokenMap

TARGETS = {
    ("kafka-python", "full"): 2.0,
    ("kafka-python", "compact"): 2.0,
    ("kafka-python", "arrow"): 20.0,
    ("confluent", "full"): 8.0,
    ("confluent", "compact"): 8.0,
    ("confluent", "arrow"): 20.0,
}
"""Driver and layout -> times the ticks per CPU second of the loop."""
TICKS, PER_FRAME, PARTITIONS, BATCH_ROWS = 40_000, 100, 4, 4096


def run() -> Iterator[Result]:
    with broker() as server:
        if server is not None:
            yield from _ratios(server)


def _ratios(server: Any) -> Iterator[Result]:
    frames = full_frames(TICKS, PER_FRAME)
    topic = server.topic("bench", PARTITIONS)
    loop = _loop(server.bootstrap, topic, frames)
    for (driver, layout), target in TARGETS.items():
        ours = _sink(server.bootstrap, topic, driver, layout, frames)
        pairs = [(_cpu_us(loop), _cpu_us(ours)) for _ in range(3)]
        ratio = statistics.median(rival / mine for rival, mine in pairs)
        mine, rival = (statistics.median(one) for one in ([b for _, b in pairs], [a for a, _ in pairs]))
        note = f"{mine:.1f} us of CPU a tick, the loop {rival:.1f}"
        yield Result(f"frame to acknowledged, {driver}, {layout}", ratio, target, note=note)


def _cpu_us(work: Callable[[], None]) -> float:
    """Microseconds of CPU a tick, all threads of this process."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / TICKS * 1e6


def _loop(bootstrap: str, topic: str, frames: list[bytes]) -> Callable[[], None]:
    from kafka import KafkaProducer

    parse, producer = official_parser(), KafkaProducer(bootstrap_servers=bootstrap, acks="all")

    def work() -> None:
        for frame in frames:
            for tick in parse(frame):
                producer.send(topic, json.dumps(tick, default=as_text).encode())
        producer.flush()

    return work


def _sink(bootstrap: str, topic: str, driver: str, layout: str, frames: list[bytes]) -> Callable[[], None]:
    from marketfeed_kafka.sink import KafkaSink
    from marketfeed_kite.parser import KiteParser

    from marketfeed.journal import Journal

    known = instruments(500)
    sink = KafkaSink(servers=bootstrap, topic=topic, driver=driver, layout=layout)
    sink.open()

    def work() -> None:
        journal = Journal.memory(vendor="kite")
        numbers = journal.instruments.register(known)
        parser = KiteParser(TokenMap({one.token: number for one, number in zip(known, numbers, strict=True)}))
        reader = journal.reader()
        for at, frame in enumerate(frames, 1):
            journal.append(parser([Frame(frame, START_S * 10**9 + at)]).rows)
            if at * PER_FRAME % BATCH_ROWS < PER_FRAME or at == len(frames):
                while len(batch := reader.take(BATCH_ROWS)):
                    sink.write(batch)
        sink.flush()
        reader.close()

    return work
