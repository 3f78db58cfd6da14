"""Blocks of a memory journal: used again when nobody looks, never while somebody does."""

from __future__ import annotations

import random

from marketfeed.dtypes import empty_ticks
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal
from marketfeed.journal.memory import MemoryJournal

BLOCK = 16


def journal_of(blocks: int) -> MemoryJournal:
    journal = Journal.memory(max_bytes=blocks * BLOCK * 360)
    journal.instruments.register([Instrument(exchange="NSE", symbol="INFY", token="1")])
    return journal


def append(journal: MemoryJournal, count: int) -> None:
    rows = empty_ticks(count)
    rows["instrument"] = 0
    rows["received_ns"] = rows["volume"] = range(journal.committed, journal.committed + count)
    journal.append(rows)


def test_dropped_blocks_are_written_again() -> None:
    journal = journal_of(4)
    memory: set[int] = set()
    for _ in range(40):
        append(journal, BLOCK)
        block = journal.block(journal.committed - 1)
        assert block is not None
        memory.add(block.rows.__array_interface__["data"][0])
        del block
    assert len(memory) <= 6


def test_a_batch_that_is_kept_never_changes() -> None:
    draw = random.Random(3)
    journal = journal_of(4)
    reader = journal.reader("slow", start="oldest")
    kept = []
    for _ in range(400):
        append(journal, draw.randint(1, 2 * BLOCK))
        batch = reader.take(draw.randint(1, BLOCK))
        if draw.random() < 0.2:
            kept.append(batch if draw.random() < 0.5 else batch[: len(batch) // 2])
        reader.commit()
    assert all(batch["volume"].tolist() == batch.seq.tolist() for batch in kept)
    columns = [(batch["volume"], batch.seq) for batch in kept]
    kept.clear()  # a column alone keeps its block, too
    append(journal, 20 * BLOCK)
    assert all(column.tolist() == seq.tolist() for column, seq in columns)
