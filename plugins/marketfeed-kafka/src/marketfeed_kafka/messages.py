"""Batches as messages: topic, partition, key, headers, value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.instruments import Instrument
from marketfeed_kafka.chunks import Batch, Chunk, Headers

__all__ = ["OVERHEAD_BYTES", "Layout", "Messages", "partition_of", "topics_without_instrument"]

Layout = Literal["full", "compact", "arrow"]
OVERHEAD_BYTES = 512
"""What headers and framing add to key and value at most, generously."""
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]")
_NAMELESS = Instrument(exchange="", symbol="", token="")
_FIRST_ARROW_ROWS = 2048


class _Place(NamedTuple):
    """Where the rows of an instrument go."""

    key: bytes
    topic: str
    partition: int


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's own clients choose for a key (murmur2), so that any producer agrees."""
    from kafka.partitioner.default import murmur2

    number: int = (murmur2(key) & 0x7FFFFFFF) % partitions
    return number


def topics_without_instrument(*templates: str) -> list[str]:
    """Those that name one topic, whatever the instrument."""
    return [one for one in templates if one and "{exchange}" not in one and "{symbol}" not in one]


class Messages:
    """Makes chunks of batches. Remembers the place of each instrument as long as it lives: a key that changed its
    partition while it runs would lose its order."""

    def __init__(
        self, layout: Layout, tick_topic: str, candle_topic: str, partitions: Callable[[str], int], max_bytes: int
    ) -> None:
        from marketfeed.sinks.encode import CandleEncoder, TickEncoder

        self._layout = layout
        self._templates = {"ticks": tick_topic, "candles": candle_topic}
        self._partitions = partitions
        self._max_bytes = max_bytes
        self._ticks = TickEncoder("compact" if layout == "compact" else "full")
        self._candles = CandleEncoder()
        self._arrow_rows = _FIRST_ARROW_ROWS
        self._known: Any = None
        self._kind = ""
        self._places: dict[int, _Place] = {}

    def chunks(self, batch: Batch) -> list[Chunk]:
        """The messages of a batch, in order for each partition. Raises ``SinkError`` for a topic without partitions."""
        if self._layout == "arrow" and isinstance(batch, TickBatch):
            return [
                part for topic, number, index in self._lanes(batch) for part in self._arrow(batch, topic, number, index)
            ]
        values = self._candles.messages(batch) if isinstance(batch, CandleBatch) else self._ticks.messages(batch)
        keys = [self._places[number].key for number in batch.rows["instrument"].tolist()] if self._learn(batch) else []
        headers = self._headers(batch)
        return [
            self._json(batch, topic, number, index, keys, values, headers)
            for topic, number, index in self._lanes(batch)
        ]

    def split(self, chunk: Chunk) -> list[Chunk]:
        """A message of columns as two of half the rows; the same when it holds one row."""
        middle = chunk.rows // 2
        if not middle or not isinstance(chunk.batch, TickBatch):
            return [chunk]
        halves = chunk.index[:middle], chunk.index[middle:]
        return [self._arrow_message(chunk.batch, chunk.topic, chunk.partition, half) for half in halves]

    # --- where ----------------------------------------------------------------------------------

    def _learn(self, batch: Batch) -> bool:
        """Know the place of each row's instrument."""
        origin, kind = batch.origin, "candles" if isinstance(batch, CandleBatch) else "ticks"
        if self._known is not origin.instruments or self._kind != kind:
            self._known, self._kind, self._places = origin.instruments, kind, {}
        for number in set(batch.rows["instrument"].tolist()) - self._places.keys():
            known = 0 <= number < len(origin.instruments)
            self._places[number] = self._place(origin.instruments[number] if known else _NAMELESS, origin.feed, kind)
        return True

    def _place(self, one: Instrument, feed: str, kind: str) -> _Place:
        topic = self._templates[kind].replace("{feed}", feed).replace("{kind}", kind)
        topic = topic.replace("{exchange}", one.exchange or "none").replace("{symbol}", one.symbol or "none")
        topic, key = _ILLEGAL.sub("_", topic), one.key.encode()
        return _Place(key, topic, partition_of(key, self._partitions(topic)))

    def _lanes(self, batch: Batch) -> list[tuple[str, int, NDArray[np.intp]]]:
        """Topic, partition, and the rows that go there, ascending."""
        self._learn(batch)
        numbers, inverse = np.unique(batch.rows["instrument"], return_inverse=True)
        places = [self._places[number] for number in numbers.tolist()]
        lanes = list(dict.fromkeys((one.topic, one.partition) for one in places))
        if len(lanes) == 1:
            return [(*lanes[0], np.arange(len(batch)))]
        lane_of = np.array([lanes.index((one.topic, one.partition)) for one in places])[inverse]
        order = np.argsort(lane_of, kind="stable")
        borders = np.searchsorted(lane_of[order], np.arange(1, len(lanes)))
        return [(*lane, index) for lane, index in zip(lanes, np.split(order, borders), strict=True)]

    # --- what -----------------------------------------------------------------------------------

    def _schema(self, batch: Batch) -> bytes:
        """Kind, layout and version of the value."""
        return b"candle.full.1" if isinstance(batch, CandleBatch) else b"tick.%s.1" % self._layout.encode()

    def _headers(self, batch: Batch) -> list[Headers]:
        journal, feed = ("journal", batch.journal.encode()), ("feed", batch.origin.feed.encode())
        schema = ("schema", self._schema(batch))
        return [[journal, ("seq", b"%d" % seq), feed, schema] for seq in batch.seq.tolist()]

    def _json(
        self,
        batch: Batch,
        topic: str,
        partition: int,
        index: NDArray[np.intp],
        keys: list[bytes],
        values: list[bytes],
        headers: list[Headers],
    ) -> Chunk:
        if len(index) == len(values):
            return Chunk(topic, partition, list(keys), values, headers, batch, index)
        rows = index.tolist()
        return Chunk(
            topic,
            partition,
            [keys[row] for row in rows],
            [values[row] for row in rows],
            [headers[row] for row in rows],
            batch,
            index,
        )

    def _arrow(self, batch: TickBatch, topic: str, partition: int, index: NDArray[np.intp]) -> list[Chunk]:
        made: list[Chunk] = []
        while len(index):
            one = self._arrow_message(batch, topic, partition, index[: self._arrow_rows])
            if len(one.values[0]) + OVERHEAD_BYTES > self._max_bytes and one.rows > 1:
                self._arrow_rows = max(1, one.rows // 2)  # remembered: the next batches are alike
                continue
            made.append(one)
            index = index[one.rows :]
        return made

    def _arrow_message(self, batch: TickBatch, topic: str, partition: int, index: NDArray[np.intp]) -> Chunk:
        from marketfeed_kafka.columns import record_batch

        whole = len(index) == len(batch)
        seq = batch.seq if whole else batch.seq[index]
        part = batch if whole else TickBatch(batch.rows[index], batch.origin, seq)
        headers = [
            ("journal", batch.journal.encode()),
            ("seq", b"%d" % seq[0]),
            ("feed", batch.origin.feed.encode()),
            ("schema", self._schema(batch)),
        ]
        return Chunk(topic, partition, [None], [record_batch(part)], [headers], batch, index, columns=True)
