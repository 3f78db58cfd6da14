"""Dead letters and the threads of a feed: nothing is between a letter and a row that comes again."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.clock import Clock
from marketfeed.contract import Sink
from marketfeed.deadletters import DeadLetters, LetterFolder
from marketfeed.dtypes import empty_ticks
from marketfeed.engine.delivery import Delivery
from marketfeed.engine.logs import get_log
from marketfeed.errors import SinkError
from marketfeed.journal import Journal


class Picky(Sink):
    """Refuses every third row."""

    def write(self, batch: TickBatch | CandleBatch) -> None:
        refused = [place for place, seq in enumerate(batch.seq.tolist()) if seq % 3 == 0]
        if refused:
            raise SinkError("no multiples of three", rejected=refused)


def test_the_cursor_passes_refused_rows_only_when_their_letters_are_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.memory()
    rows = empty_ticks(100)
    rows["received_ns"] = 1
    journal.append(rows)
    reader = journal.reader("picky", start="oldest")
    letters = DeadLetters("main", Clock(), tmp_path, journal=journal)
    seen: list[tuple[int, int]] = []
    commit = reader.commit

    def watched(row: int | None = None, *, skipped: int = 0, dead_lettered: int = 0) -> None:
        seen.append((dead_lettered, sum(letter.rows for letter in LetterFolder(tmp_path))))
        commit(row, skipped=skipped, dead_lettered=dead_lettered)

    monkeypatch.setattr(reader, "commit", watched)
    delivery = Delivery(
        name="picky",
        sink=Picky(),
        open_reader=lambda: reader,
        clock=Clock(),
        deadletters=letters,
        log=get_log(),
        emit=lambda kind, data: None,
        batch_rows=10,
    )
    delivery.stop()
    delivery.run()
    letters.close()
    assert seen == [(34, 34)]
    counts = reader.counts
    assert (counts.delivered, counts.dead_lettered) == (66, 34)
    assert [letter.first_row for letter in LetterFolder(tmp_path)] == list(range(0, 100, 3))
