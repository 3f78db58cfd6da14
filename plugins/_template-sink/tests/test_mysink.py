"""The sink keeps the contract of all sinks."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from marketfeed_mysink.sink import MysinkSink

from marketfeed.testing import SinkContract


class TestMysink(SinkContract):
    sink = MysinkSink
    name = "mysink"
    options = {"path": "{folder}/ticks.db"}
    documentation = Path(__file__).resolve().parents[1] / "README.md"

    def read(self, folder: Path) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(folder / "ticks.db")) as db:
            return [json.loads(document) for (document,) in db.execute("SELECT document FROM ticks ORDER BY rowid")]
