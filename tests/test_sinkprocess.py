"""One sink on an attached journal: what it needs of the configuration, of the journal, and of nobody else."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marketfeed import config as configuration
from marketfeed.clock import Clock
from marketfeed.config import Config
from marketfeed.deadletters import DeadLetters, LetterFolder, letters_folder
from marketfeed.dtypes import Rows, empty_ticks
from marketfeed.engine.delivery import DeliveryState
from marketfeed.errors import ConfigError, JournalError, MarketFeedError
from marketfeed.gaps import find_ledgers, read_book
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal, ticks_folder
from marketfeed.journal.disk import DiskJournal
from marketfeed.plugins import Plugins
from marketfeed.sinkprocess import SinkProcess

PLUGINS = Plugins.discover(environ={})


def config_of(folder: Path, **changes: Any) -> Config:
    tables: dict[str, Any] = {
        "feeds": {"main": {"vendor": "kite", "instruments": ["NSE:INFY"], "sinks": ["apart"]}},
        "vendors": {"kite": {"api_key": "k"}},
        "sinks": {"apart": {"type": "jsonl", "path": str(folder / "apart.jsonl"), "process": "own", "start": "oldest"}},
        "journal": {"folder": str(folder / "journal"), "segment_rows": 1024},
    }
    for section, values in changes.items():
        for name, table in values.items():
            tables[section][name] = {**tables[section].get(name, {}), **table} if isinstance(table, dict) else table
    return configuration.build(tables, PLUGINS, {})


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[DiskJournal]:
    with Journal.create(ticks_folder(tmp_path / "journal", "main"), rows_per_segment=1024) as journal:
        journal.instruments.register([Instrument(exchange="NSE", symbol="INFY", token="1")])
        yield journal


def ticks(count: int) -> Rows:
    rows = empty_ticks(count)
    rows["instrument"] = 0
    rows["received_ns"] = 1
    rows["last_price"] = range(1, count + 1)
    return rows


def lines(folder: Path) -> list[int]:
    return [json.loads(line)["seq"] for line in (folder / "apart.jsonl").read_text().splitlines()]


# --- which sink of which feed ---------------------------------------------------------------------


def test_a_sink_that_no_feed_names_is_refused_with_those_that_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no feed names the sink 'other'; they name: apart"):
        SinkProcess(config_of(tmp_path), "other", plugins=PLUGINS)


def test_a_sink_of_two_feeds_needs_the_feed(tmp_path: Path) -> None:
    second = {"vendor": "kite", "instruments": ["NSE:TCS"], "sinks": ["apart"]}
    path = str(tmp_path / "{feed}.jsonl")
    config = config_of(tmp_path, feeds={"second": second}, sinks={"apart": {"path": path}})
    with pytest.raises(ConfigError, match="main, second name the sink 'apart'; say which one with --feed"):
        SinkProcess(config, "apart", plugins=PLUGINS)
    assert SinkProcess(config, "apart", "second", plugins=PLUGINS).folder == tmp_path / "journal" / "second" / "ticks"
    with pytest.raises(ConfigError, match="there is no feed 'third'"):
        SinkProcess(config, "apart", "third", plugins=PLUGINS)


def test_own_needs_a_journal_on_disk(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'needs \[journal\] kind = "disk"'):
        config_of(tmp_path, journal={"kind": "memory"})
    config = config_of(tmp_path, journal={"kind": "memory"}, sinks={"apart": {"process": "feed"}})
    with pytest.raises(ConfigError, match="no other process can read"):
        SinkProcess(config, "apart", plugins=PLUGINS)


# --- delivering -----------------------------------------------------------------------------------


def test_a_drain_delivers_what_the_journal_holds_while_it_is_written(tmp_path: Path, writer: DiskJournal) -> None:
    writer.append(ticks(3000))
    summary = SinkProcess(config_of(tmp_path), "apart", plugins=PLUGINS).drain()
    assert lines(tmp_path) == list(range(3000))
    assert (summary.sinks[0].delivered, summary.sinks[0].left, summary.broken) == (3000, 0, ())
    writer.append(ticks(5))
    assert SinkProcess(config_of(tmp_path), "apart", plugins=PLUGINS).drain().sinks[0].delivered == 3005
    assert lines(tmp_path) == list(range(3005))


@pytest.mark.parametrize("count", [1, 500])
def test_instruments_that_come_after_it_has_attached_have_their_names(tmp_path: Path, count: int) -> None:
    with Journal.create(ticks_folder(tmp_path / "journal", "main"), rows_per_segment=1024) as writer:
        process = SinkProcess(config_of(tmp_path), "apart", plugins=PLUGINS).start()
        for symbol in ("INFY", "TCS"):
            writer.instruments.register([Instrument(exchange="NSE", symbol=symbol, token=symbol)])
            rows = ticks(count)
            rows["instrument"] = len(writer.instruments) - 1
            writer.append(rows)
        process.stop()
    written = [json.loads(line)["symbol"] for line in (tmp_path / "apart.jsonl").read_text().splitlines()]
    assert written == ["INFY"] * count + ["TCS"] * count


def test_a_drain_without_a_journal_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal in"):
        SinkProcess(config_of(tmp_path), "apart", plugins=PLUGINS).drain()


def test_the_second_one_on_a_sink_is_refused_and_the_first_goes_on(tmp_path: Path, writer: DiskJournal) -> None:
    first = SinkProcess(config_of(tmp_path), "apart", plugins=PLUGINS).start()
    try:
        with pytest.raises(MarketFeedError, match="somebody else delivers to it: cursor 'apart' is in use"):
            SinkProcess(config_of(tmp_path), "apart", plugins=PLUGINS).start()
        writer.append(ticks(10))
    finally:
        assert first.stop().sinks[0].delivered == 10


def test_it_can_read_the_journal_and_not_write_it(tmp_path: Path, writer: DiskJournal) -> None:
    process = SinkProcess(config_of(tmp_path), "apart", plugins=PLUGINS).start()
    try:
        with pytest.raises(JournalError, match="attached read-only"):
            process.pipeline.journal.append(ticks(1))
        writer.append(ticks(1))
        block = process.pipeline.journal.block(0)
        assert block is not None
        with pytest.raises(ValueError, match="read-only"):
            block.rows["last_price"] = 0
        with pytest.raises(JournalError, match="only the process that writes the journal"):
            process.pipeline.journal.instruments.register([Instrument(exchange="NSE", symbol="TCS", token="2")])
    finally:
        process.stop()


def test_a_journal_that_is_replaced_ends_it(tmp_path: Path) -> None:
    folder = ticks_folder(tmp_path / "journal", "main")
    Journal.create(folder, rows_per_segment=1024).close()
    process = SinkProcess(config_of(tmp_path), "apart", plugins=PLUGINS).start()
    try:
        assert process.watch(0)
        shutil.rmtree(folder)
        Journal.create(folder, rows_per_segment=1024).close()
        with pytest.raises(MarketFeedError, match="removed or replaced"):
            process.watch(0)
    finally:
        process.stop()


def test_a_sink_that_fails_ends_it(tmp_path: Path, writer: DiskJournal) -> None:
    sinks = {"odd": {"type": "callable", "callable": "builtins:int"}}  # int(batch) raises
    config = config_of(tmp_path, feeds={"main": {"sinks": ["odd"]}}, sinks=sinks)
    process = SinkProcess(config, "odd", plugins=PLUGINS).start()
    try:
        writer.append(ticks(1))
        while process.pipeline.deliveries[0].state is DeliveryState.DELIVERING:
            time.sleep(0.01)
        with pytest.raises(MarketFeedError, match="sink 'odd' failed"):
            process.watch(0)
    finally:
        assert process.stop().sinks[0].left == 1  # it waits in the journal


def test_what_a_laggard_passes_over_is_in_a_ledger_of_its_own(tmp_path: Path, writer: DiskJournal) -> None:
    writer.append(ticks(2000))
    config = config_of(tmp_path, sinks={"apart": {"when_behind": "latest", "lag_limit_rows": 100}})
    summary = SinkProcess(config, "apart", plugins=PLUGINS).drain()
    assert (summary.sinks[0].delivered, summary.sinks[0].skipped) == (1, 1999)
    ledgers = find_ledgers(tmp_path / "journal")
    assert [one.name for one in ledgers] == ["gaps-apart.jsonl"]
    gap = read_book(ledgers[0]).gaps[1]
    assert (gap.sink, gap.rows, gap.cause) == ("apart", 1999, "skipped")
    assert gap.instruments == (0,)


# --- dead letters of two processes ----------------------------------------------------------------


def test_two_writers_of_one_store_remove_nothing_that_the_other_writes(tmp_path: Path) -> None:
    """The bound is kept by whole segments of those that nobody writes any more."""
    folder = letters_folder(tmp_path, "main")
    first = DeadLetters("main", Clock(), folder, 1_000_000)
    second = DeadLetters("main", Clock(), folder, 1_000_000)
    first.put("packet", "early", "connection 0", raw=b"x" * 1000)
    assert first.settle()
    for _ in range(3000):  # 3 MB: three times what may be
        second.put("packet", "many", "connection 1", raw=b"y" * 1000)
    assert second.settle()
    first.put("packet", "late", "connection 0", raw=b"x" * 1000)
    first.close()
    second.close()
    store = LetterFolder(folder)
    reasons = [letter.reason for letter in store]
    assert reasons.count("early") == reasons.count("late") == 1
    assert store.size <= 1_000_000 * 9 / 8
    assert second.overflowed + reasons.count("many") == 3000
    assert len({letter.id for letter in store}) == len(reasons)
