"""Refused rows offered to their sink again: what it refuses once more, and when, does not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.clock import Clock
from marketfeed.contract import Sink
from marketfeed.deadletters import DeadLetter
from marketfeed.deadletters.ledger import Ledger
from marketfeed.dtypes import empty_ticks
from marketfeed.engine.redo.outcome import Outcome
from marketfeed.engine.redo.sinks import Redelivery
from marketfeed.errors import SinkError
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal


class Late(Sink):
    """Learns in ``flush`` what it cannot take."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.got: list[tuple[str, int]] = []
        self._waiting: list[TickBatch] = []

    def write(self, batch: TickBatch | CandleBatch) -> None:
        assert isinstance(batch, TickBatch)
        self._waiting.append(batch)

    def flush(self) -> None:
        while self._waiting:
            batch = self._waiting[0]
            bad = np.isin(batch.seq, list(self.bad))
            if bad.any():
                self._waiting[0] = batch[~bad]
                raise SinkError("too large", refused=batch[bad])
            self.got += [(batch.journal, seq) for seq in batch.seq.tolist()]
            self._waiting.pop(0)


class Positioned(Late):
    """Stores where it is with its rows."""

    def position(self, journal: str) -> int | None:
        return max((seq + 1 for name, seq in self.got if name == journal), default=None)


class ByNumber(Late):
    read_by_number: ClassVar[bool] = True


@pytest.fixture
def journal() -> Any:
    made = Journal.memory()
    made.instruments.register([Instrument(exchange="NSE", symbol="INFY", token="1")])
    return made


def letter_of(journal: Any) -> DeadLetter:
    rows = empty_ticks(3)
    rows["volume"], rows["instrument"] = [1, 2, 3], 0
    return DeadLetter(
        kind="refused", reason="x", at_ns=1, feed="main", source="s", id="1", vendor="toy",
        journal=journal.origin.journal, first_row=10, rows=3, raw=rows.tobytes(),
    )  # fmt: skip


def offer(sink: Sink, journal: Any, folder: Path) -> Outcome:
    redelivery = Redelivery(None, "main", Clock())  # type: ignore[arg-type]
    return redelivery._offer(letter_of(journal), sink, "s", journal, Ledger(folder / "replayed.jsonl"))


@pytest.mark.parametrize("kind", [Late, Positioned, ByNumber])
def test_rows_refused_at_flush_are_left_over_and_the_others_are_done_with(
    kind: type[Late], journal: Any, tmp_path: Path
) -> None:
    sink = kind(11)
    found = [offer(sink, journal, tmp_path) for _ in range(2)]
    assert [(one.result, one.rows, one.left) for one in found] == [("partly", 2, 1), ("still-bad", 0, 1)]
    sink.bad.clear()
    assert offer(sink, journal, tmp_path).result == "replayed"
    assert [seq for _, seq in sink.got] == [10, 12, 11]


def test_readers_that_go_by_numbers_get_the_rows_under_another_journal_name(journal: Any, tmp_path: Path) -> None:
    for sink, own in ((Late(), True), (ByNumber(), False), (Positioned(), False)):
        folder = tmp_path / type(sink).__name__
        folder.mkdir()
        offer(sink, journal, folder)
        assert {name == journal.origin.journal for name, _ in sink.got} == {own}


def test_a_sink_that_refuses_rows_of_somebody_else_is_no_endless_loop(journal: Any, tmp_path: Path) -> None:
    sink = Late(11)
    foreign = TickBatch(empty_ticks(1), journal.origin, np.array([99]))
    sink.flush = lambda: (_ for _ in ()).throw(SinkError("what?", refused=foreign))  # type: ignore[method-assign]
    assert offer(sink, journal, tmp_path).result == "failed"
