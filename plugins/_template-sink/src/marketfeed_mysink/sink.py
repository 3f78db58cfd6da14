"""Where the ticks go: a table of an SQLite file, until you put your own place here."""

from __future__ import annotations

import sqlite3
from itertools import repeat
from pathlib import Path
from typing import Any

import attrs

from marketfeed import Sink
from marketfeed.sinks.encode import TickEncoder


@attrs.define(slots=False)
class MysinkSink(Sink):
    """Writes ticks into an SQLite file, one JSON document a row."""

    path: Path = attrs.field(converter=Path)
    """The database file, made if missing"""

    _db: Any = attrs.field(init=False, default=None, repr=False)
    _encoder: TickEncoder = attrs.field(init=False, factory=TickEncoder, repr=False)

    def open(self) -> None:
        self._db = sqlite3.connect(self.path, timeout=1.0)
        self._db.execute("CREATE TABLE IF NOT EXISTS ticks (journal TEXT, seq INTEGER, document TEXT)")

    def write(self, batch: Any) -> None:
        rows = zip(repeat(batch.journal), batch.seq.tolist(), self._encoder.messages(batch))
        with self._db:  # one transaction: all of the batch or, with an error, nothing of it
            self._db.executemany("INSERT INTO ticks VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
