"""Ticks to send, sinks of either driver, and a consumer that reads back what a topic holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import attrs
import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition
from marketfeed_kafka.sink import KafkaSink
from servers.servers import KafkaServer

from marketfeed.batches import Origin, TickBatch
from marketfeed.clock import to_ns
from marketfeed.dtypes import Flag, empty_ticks
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument

JOURNAL = "00ff" * 8 + ".1"
ALL_GROUPS = sum(flag for flag in Flag if flag < Flag.NOT_FINITE)
INSTRUMENTS = tuple(
    Instrument(exchange=exchange, symbol=f"{exchange}{number}", token=str(1000 + number))
    for exchange in ("NSE", "NFO")
    for number in range(6)
)


def make_ticks(count: int, first_row: int = 0, instruments: tuple[Instrument, ...] = INSTRUMENTS) -> TickBatch:
    """Full ticks, the instruments in turn."""
    rows: Any = empty_ticks(count)
    seq = np.arange(first_row, first_row + count)
    rows["received_ns"] = to_ns("2026-11-20 10:00:00")
    rows["exchange_ns"] = rows["received_ns"] // 10**9 * 10**9
    rows["last_trade_ns"] = rows["exchange_ns"]
    for place, name in enumerate(("last_price", "average_price", "open", "high", "low", "close")):
        rows[name] = 2500 + place + seq % 100 / 20
    rows["lower_circuit"], rows["upper_circuit"] = 2250.45, 2750.0
    for name in ("last_quantity", "buy_quantity", "sell_quantity", "open_interest", "oi_day_high", "oi_day_low"):
        rows[name] = 75 + seq
    rows["volume"] = seq
    for side, step in (("bid", -0.05), ("ask", 0.05)):
        rows[f"{side}_price"] = np.round(2500 + np.arange(1, 6) * step, 2)
        rows[f"{side}_quantity"] = np.arange(1, 6) * 100
        rows[f"{side}_orders"] = np.arange(1, 6)
    rows["instrument"] = seq % len(instruments)
    rows["flags"] = Mode.FULL | ALL_GROUPS
    return TickBatch(rows, Origin(instruments=instruments, feed="main", vendor="kite", journal=JOURNAL), first_row)


@attrs.frozen
class Message:
    """A record as a consumer sees it."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]

    @property
    def seq(self) -> int:
        return int(self.headers["seq"])

    @property
    def tick(self) -> Any:
        return json.loads(self.value)


def read_topic(kafka: KafkaServer, *topics: str) -> list[Message]:
    """Everything in these topics, partition by partition, each in the order of its offsets."""
    found: list[Message] = []
    with closing(KafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")) as consumer:
        for topic in topics:
            for number in sorted(consumer.partitions_for_topic(topic) or ()):
                place = TopicPartition(topic, number)
                consumer.assign([place])
                consumer.seek_to_beginning(place)
                end = consumer.end_offsets([place])[place]
                while consumer.position(place) < end:
                    records = consumer.poll(500, max_records=5000).get(place, [])
                    found += [Message(topic, number, one.key, one.value, dict(one.headers)) for one in records]
    return found


def without_repeats(messages: list[Message]) -> list[Message]:
    """What a consumer keeps that drops each ``seq`` not above the last one of its journal and partition."""
    last: dict[tuple[str, int, bytes], int] = {}
    kept = []
    for one in messages:
        place = one.topic, one.partition, one.headers["journal"]
        if one.seq > last.get(place, -1):
            last[place] = one.seq
            kept.append(one)
    return kept


@pytest.fixture(params=["kafka-python", "confluent"])
def driver(request: pytest.FixtureRequest) -> str:
    if request.param == "confluent":
        pytest.importorskip("confluent_kafka")
    return str(request.param)


@pytest.fixture
def sink(kafka: KafkaServer, driver: str) -> Iterator[Callable[..., KafkaSink]]:
    """An open sink of either driver; options as in the configuration."""
    opened: list[KafkaSink] = []

    def make(**options: Any) -> KafkaSink:
        made = KafkaSink(**{"servers": kafka.bootstrap, "driver": driver, **options})
        made.open()
        opened.append(made)
        return made

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def ticks() -> Callable[..., TickBatch]:
    return make_ticks


@pytest.fixture
def read(kafka: KafkaServer) -> Callable[..., list[Message]]:
    return lambda *topics: read_topic(kafka, *topics)


@pytest.fixture
def kept() -> Callable[[list[Message]], list[Message]]:
    return without_repeats
