"""Memory and disk: the same appends and takes give the same rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from marketfeed.dtypes import TICK, empty_ticks
from marketfeed.journal import Journal, Reader


class Twins(RuleBasedStateMachine):
    """A journal on disk and one in memory, treated alike."""

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        disk = Journal.create(Path(self.temporary.name) / "ticks", rows_per_segment=64, sync="os")
        self.journals: tuple[Journal, Journal] = (disk, Journal.memory(max_bytes=10**7))
        self.readers: tuple[Reader, ...] = self.opened("sink")
        self.appended: list[int] = []

    def opened(self, name: str) -> tuple[Reader, ...]:
        return tuple(journal.reader(name) for journal in self.journals)

    @rule(times=st.lists(st.integers(1, 10**6), max_size=150))
    def append(self, times: list[int]) -> None:
        for journal in self.journals:
            mine = empty_ticks(len(times))
            mine["received_ns"] = times
            mine["volume"] = range(len(self.appended), len(self.appended) + len(times))
            journal.append(mine)
        self.appended += times

    @rule(most=st.integers(1, 100))
    def take(self, most: int) -> None:
        columns = []
        for reader in self.readers:
            numbers: list[int] = []
            while len(numbers) < most and len(batch := reader.take(most - len(numbers))):
                numbers += batch["volume"].tolist()
            columns.append(numbers)
        first = int(columns[0][0]) if columns[0] else 0
        assert columns[0] == columns[1] == list(range(first, first + len(columns[0])))

    @rule(share=st.floats(0, 1), dead=st.booleans())
    def commit(self, share: float, dead: bool) -> None:
        for reader in self.readers:
            row = reader.position + int((reader.next_row - reader.position) * share)
            reader.commit(row, dead_lettered=int(dead and row > reader.position))

    @rule()
    def reopen(self) -> None:
        for reader in self.readers:
            reader.close()
        self.readers = self.opened("sink")

    @rule(share=st.floats(0, 1))
    def seek(self, share: float) -> None:
        for reader in self.readers:
            reader.seek(int(len(self.appended) * share))

    @precondition(lambda self: self.appended)
    @rule(data=st.data())
    def find_a_time(self, data: Any) -> None:
        moment = data.draw(st.integers(0, 10**6 + 1))
        rising = np.maximum.accumulate(self.appended)
        for journal in self.journals:
            assert journal.row_at(moment) == int(np.searchsorted(rising, moment))

    @invariant()
    def counts_agree(self) -> None:
        one, other = self.readers
        assert (one.counts, one.next_row, one.lag) == (other.counts, other.next_row, other.lag)
        assert one.position + one.lag == len(self.appended) == self.journals[0].committed
        counts = one.counts
        assert counts.position == counts.start + counts.delivered + counts.skipped + counts.dead_lettered

    def teardown(self) -> None:
        whole = [
            np.concatenate([*(batch.rows["received_ns"] for batch in _all(journal)), []]) for journal in self.journals
        ]
        expected = np.maximum.accumulate(self.appended) if self.appended else np.array([])
        for column in whole:
            assert column.tolist() == expected.tolist()
        for journal in self.journals:
            journal.close()
        self.temporary.cleanup()


def _all(journal: Journal) -> list[Any]:
    batches = []
    reader = journal.reader(start="oldest")
    while len(batch := reader.take()):
        batches.append(batch)
    return batches


Twins.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestTwins = Twins.TestCase


def test_a_row_is_the_documented_size() -> None:
    assert TICK.itemsize == 360
