"""The contract of sinks, as anybody's plugin would prove it, for the sinks that come with the core."""

from __future__ import annotations

import contextlib
import csv
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marketfeed.batches import TickBatch
from marketfeed.contract import Sink
from marketfeed.errors import SinkError
from marketfeed.sinks.csv import CsvSink
from marketfeed.sinks.embedding import CallableSink, MemorySink
from marketfeed.sinks.jsonl import JsonlSink
from marketfeed.sinks.stdout import StdoutSink
from marketfeed.testing import SinkContract
from marketfeed.testing.reading import documents_of

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "reference" / "sinks.md"


class FileContract(SinkContract):
    """What jsonl and csv share. The "server" that goes away is the disk: it is full, by the limit of the system
    for the size of files, which holds for this process alone."""

    options = {"path": "{folder}/rows"}
    documentation = DOCUMENTATION
    stores_position = True
    can_fail = sys.platform == "linux"
    can_be_hopeless = True

    def break_server(self, folder: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def mend_server(self, folder: Path) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def make_hopeless(self, folder: Path) -> Sink:
        (folder / "file").write_text("not a folder")
        return self.sink(path=folder / "file" / "rows")  # type: ignore[call-arg]


class TestJsonl(FileContract):
    sink = JsonlSink
    name = "jsonl"

    def read(self, folder: Path) -> list[dict[str, Any]]:
        file = folder / "rows"
        return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


class TestCsv(FileContract):
    sink = CsvSink
    name = "csv"
    schema = None

    def read(self, folder: Path) -> list[dict[str, Any]]:
        file = folder / "rows"
        if not file.exists():
            return []
        with file.open(encoding="utf-8", newline="") as lines:
            return [{name: plain(name, text) for name, text in row.items()} for row in csv.DictReader(lines)]


def plain(name: str, text: str) -> Any:
    """A field of a CSV file as a value; what is absent is None."""
    if name in ("journal", "symbol", "token"):
        return text
    number = float if name in ("last_price", "average_price", "close") else int
    return number(text) if text and name in ("seq", "start_ns", "last_price", "average_price", "close") else None


class ToFile(StdoutSink):
    """Standard output that leads into a file, as in ``marketfeed run > file``."""

    file: Path

    def open(self) -> None:
        self.output = self.file.open("a", encoding="utf-8")
        with contextlib.redirect_stdout(self.output):
            super().open()

    def close(self) -> None:
        super().close()
        if hasattr(self, "output"):
            self.output.close()


class TestStdout(SinkContract):
    sink = StdoutSink
    name = "stdout"
    documentation = DOCUMENTATION

    def make(self, folder: Path) -> Sink:
        sink = ToFile(format="json")
        sink.file = folder / "out"
        return sink

    def read(self, folder: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / "out").read_bytes().splitlines()]


class TestMemory(SinkContract):
    sink = MemorySink
    name = "memory"
    documentation = DOCUMENTATION
    survives_kill = False

    def setup_method(self) -> None:
        self.made: list[tuple[Path, MemorySink]] = []

    def make(self, folder: Path) -> Sink:
        sink = MemorySink()
        self.made.append((folder, sink))
        return sink

    def read(self, folder: Path) -> list[dict[str, Any]]:
        return documents_of(batch for place, sink in self.made if place == folder for batch in sink.batches)


class TestCallable(SinkContract):
    """The function decides what happens: this one keeps copies, and fails or refuses on request."""

    sink = CallableSink
    name = "callable"
    options = {"callable": "builtins:len"}
    documentation = DOCUMENTATION
    survives_kill = False
    can_fail = True
    can_refuse = True

    def setup_method(self) -> None:
        self.kept: dict[Path, list[Any]] = {}
        self.down = False
        self.refused: Sequence[int] = ()

    def make(self, folder: Path) -> Sink:
        kept = self.kept.setdefault(folder, [])

        def keep(batch: Any) -> None:
            if self.down:
                raise SinkError("the other program is gone", retryable=True)
            copy = type(batch)(batch.rows.copy(), batch.origin, batch.seq)
            refused, self.refused = self.refused, ()
            kept.extend(copy[row : row + 1] for row in range(len(copy)) if row not in refused)
            if refused:
                raise SinkError("not these", rejected=refused)

        return CallableSink(keep)

    def read(self, folder: Path) -> list[dict[str, Any]]:
        return documents_of(self.kept.get(folder, []))

    def break_server(self, folder: Path) -> None:
        self.down = True

    def mend_server(self, folder: Path) -> None:
        self.down = False

    def refused_ticks(self, folder: Path) -> tuple[TickBatch, Sequence[int]]:
        self.refused = (1, 5)
        return self.ticks(10)[0], self.refused
