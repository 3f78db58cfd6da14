"""Refused rows in a topic: one message a row, its value a line that ``marketfeed deadletters import`` reads."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from marketfeed.batches import TickBatch
from marketfeed.deadletters import DeadLetter
from marketfeed.deadletters.exchange import export_line
from marketfeed_kafka.chunks import Chunk, Refused
from marketfeed_kafka.settings import Cluster

__all__ = ["letter_chunk", "letters_in"]

_log = logging.getLogger(__name__)
_PATIENCE_S = 30.0
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
    values = [export_line(letter).rstrip() for letter in letters]
    return Chunk(topic, 0, keys, values, headers, batch, index, letter=error)


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


def _fields(value: bytes | None) -> dict[str, Any]:
    """A letter's fields; none for a message of somebody else."""
    import msgspec

    try:
        found: dict[str, Any] = msgspec.json.decode(value or b"", type=dict)
    except msgspec.MsgspecError:
        return {}
    return found if isinstance(found.get("id"), str) else {}


def _named(letter: str, source: str) -> dict[str, str]:
    """Two sinks may have refused the same row: the letter's id tells them apart, and is the same in every dump."""
    if not source:
        return {}
    return {"source": source, "id": hashlib.blake2b(f"{source}/{letter}".encode(), digest_size=10).hexdigest()}


def letters_in(topic: str, cluster: Cluster, source: str) -> Iterator[bytes]:
    """Every letter that the topic holds now, as export lines of the sink ``source``, each once."""
    import msgspec
    from kafka import KafkaConsumer, TopicPartition

    options = {**cluster.python_options(), **cluster.others(KafkaConsumer.DEFAULT_CONFIG)}
    consumer = KafkaConsumer(**options, auto_offset_reset="earliest", enable_auto_commit=False)
    seen: set[str] = set()
    try:
        partitions = [TopicPartition(topic, one) for one in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions) if partitions else {}
        consumer.seek_to_beginning(*partitions)
        deadline, foreign = time.monotonic() + _PATIENCE_S, 0
        while any(consumer.position(one) < ends[one] for one in partitions):
            found = [record for records in consumer.poll(500).values() for record in records]
            deadline = time.monotonic() + _PATIENCE_S if found else deadline
            if time.monotonic() > deadline:
                raise TimeoutError(f"no message for {_PATIENCE_S:g} s, though the topic has more")
            for record in found:
                fields = _fields(record.value)
                if not fields:
                    foreign += 1
                elif fields["id"] not in seen:
                    seen.add(fields["id"])
                    yield msgspec.json.encode({**fields, **_named(fields["id"], source)}) + b"\n"
        if foreign:
            _log.warning("%d messages of %s are no letters of marketfeed and were left out", foreign, topic)
    finally:
        consumer.close()
