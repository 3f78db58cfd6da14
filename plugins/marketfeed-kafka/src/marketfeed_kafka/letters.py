"""Refused rows in a topic: one message a row, its value a line that ``marketfeed deadletters import`` reads."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from marketfeed.batches import TickBatch
from marketfeed.deadletters import DeadLetter
from marketfeed.deadletters.exchange import export_line
from marketfeed_kafka.chunks import Chunk, Refused

__all__ = ["letter_chunk", "letters_in"]

_LONGEST, _NAME = 1000, 100
"""Letters of an error and of a name: the letter itself must not be too large."""
SOURCE = "kafka"
"""Stands for the sink's name, which a sink does not know; whoever reads the topic puts it in."""


def letter_chunk(refused: Refused, topic: str) -> Chunk:
    """The messages for partition 0 of the dead-letter topic; the reason stands in their headers, too."""
    batch, index, error = refused.batch, refused.places, refused.error
    assert isinstance(batch, TickBatch)
    letters = [_letter(batch, int(row), error) for row in index]
    headers = [
        [
            ("journal", batch.journal.encode()),
            ("seq", b"%d" % (letter.first_row or 0)),
            ("feed", batch.origin.feed.encode()),
            ("schema", b"dead-letter.1"),
            ("reason", letter.reason.encode()),
            ("error", letter.error.encode()),
        ]
        for letter in letters
    ]
    keys: list[bytes | None] = [letter.symbol.encode() for letter in letters]
    return Chunk(topic, 0, keys, [export_line(letter).rstrip() for letter in letters], headers, batch, index)


def _letter(batch: TickBatch, row: int, error: Exception) -> DeadLetter:
    seq, number, origin = int(batch.seq[row]), int(batch.rows["instrument"][row]), batch.origin
    known = origin.instruments[number] if 0 <= number < len(origin.instruments) else None
    run = hashlib.blake2b(f"{origin.feed}/{batch.journal}".encode(), digest_size=5).hexdigest()
    return DeadLetter(
        kind="refused",
        reason=type(error).__name__.strip("_"),
        at_ns=time.time_ns(),
        feed=origin.feed,
        source=SOURCE,
        id=f"{run}-{seq}",  # the same when the row is refused again after a restart
        vendor=origin.vendor,
        error=str(error)[:_LONGEST],
        journal=batch.journal,
        first_row=seq,
        symbol=known.key[:_NAME] if known else "",
        token=known.token[:_NAME] if known else "",
        raw=np.ascontiguousarray(batch.rows[row : row + 1]).tobytes(),
    )


def letters_in(topic: str, options: dict[str, Any], source: str) -> Iterator[bytes]:
    """Every letter that the topic holds now, as export lines, each once. ``options`` are those of kafka-python."""
    import msgspec
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(**options, auto_offset_reset="earliest", enable_auto_commit=False)
    seen: set[str] = set()
    try:
        partitions = [TopicPartition(topic, one) for one in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions) if partitions else {}
        consumer.seek_to_beginning(*partitions)
        while any(consumer.position(one) < ends[one] for one in partitions):
            for records in consumer.poll(500).values():
                for record in records:
                    fields = msgspec.json.decode(record.value, type=dict)
                    if fields.get("id") not in seen:
                        seen.add(fields.get("id", ""))
                        yield msgspec.json.encode({**fields, "source": source or fields["source"]}) + b"\n"
    finally:
        consumer.close()
