"""Checks of every sink: its life from open to close, and what it makes of rows."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import numpy as np

from marketfeed.batches import TickBatch
from marketfeed.clock import Clock
from marketfeed.contract import Sink
from marketfeed.dtypes import Flag, empty_ticks
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.delivery import Delivery, DeliveryState
from marketfeed.engine.logs import get_log
from marketfeed.engine.retry import Backoff
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal
from marketfeed.testing.case import SinkCase, needs
from marketfeed.testing.driving import Driver
from marketfeed.testing.samples import INSTRUMENTS, START_NS, sample_candles, sample_ticks, tick_batch
from marketfeed.testing.schemas import validator

__all__ = ["ContentChecks", "LifeChecks", "delivery_of"]


class LifeChecks(SinkCase):
    """Open, write, flush, close."""

    def test_rows_are_there_after_open_write_flush_close(self, tmp_path: Path) -> None:
        batches = self.ticks(10, 25)
        with self.driven(tmp_path) as sink:
            sink.write(*batches)
            sink.flush()
        self.expect(tmp_path, batches)

    def test_flushed_rows_are_there_before_close(self, tmp_path: Path) -> None:
        batches = self.ticks(10)
        with self.driven(tmp_path) as sink:
            sink.write(*batches)
            sink.flush()
            self.expect(tmp_path, batches)

    def test_making_it_does_nothing(self, tmp_path: Path) -> None:
        threads = set(threading.enumerate())
        self.make(tmp_path)
        assert list(tmp_path.iterdir()) == [], "the class made files before open()"
        assert set(threading.enumerate()) <= threads, "the class started threads before open()"

    def test_a_flush_with_nothing_written_returns(self, tmp_path: Path) -> None:
        with self.driven(tmp_path) as sink:
            sink.flush()
        self.expect(tmp_path, [])

    def test_a_second_flush_writes_nothing_again(self, tmp_path: Path) -> None:
        batches = self.ticks(5, 5)
        with self.driven(tmp_path) as sink:
            for batch in batches:
                sink.write(batch)
                sink.flush()
                sink.flush()
        self.expect(tmp_path, batches)

    def test_closing_what_was_never_opened_is_harmless(self, tmp_path: Path) -> None:
        driver = Driver(self.make(tmp_path), self.patience_s)
        driver.close()
        driver.__exit__(None, None, None)

    def test_closing_twice_is_harmless(self, tmp_path: Path) -> None:
        batches = self.ticks(5)
        with self.driven(tmp_path) as sink:
            sink.write(*batches)
            sink.flush()
            sink.close()
            sink.close()
        self.expect(tmp_path, batches)

    def test_a_second_run_adds_to_the_first(self, tmp_path: Path) -> None:
        batches = self.ticks(10, 10, 10)
        for batch in batches:
            with self.driven(tmp_path) as sink:
                sink.write(batch)
                sink.flush()
        self.expect(tmp_path, batches)

    def test_two_sinks_of_one_type_share_nothing(self, tmp_path: Path) -> None:
        folders = [tmp_path / "one", tmp_path / "two"]
        rows = {}
        for folder, other in zip(folders, ("ab" * 16 + ".1", "cd" * 16 + ".1"), strict=True):
            folder.mkdir()
            rows[folder] = self.ticks(5, 5, journal=other)
        with self.driven(folders[0]) as first, self.driven(folders[1]) as second:
            for number in range(2):
                first.write(rows[folders[0]][number])
                second.write(rows[folders[1]][number])
            first.flush()
            second.flush()
            for folder in folders:
                self.expect(folder, rows[folder])

    def test_everything_is_there_when_a_feed_stops(self, tmp_path: Path) -> None:
        journal = Journal.memory()
        delivery = delivery_of(self.make(tmp_path), journal)
        thread = threading.Thread(target=delivery.run, name="sink under test", daemon=True)
        thread.start()
        batches = [append_sample(journal, 50) for _ in range(20)]
        delivery.stop()
        thread.join(self.patience_s)
        assert not thread.is_alive(), f"the sink did not end within {self.patience_s:g} s of the feed's stop"
        assert delivery.state is DeliveryState.DONE, delivery.error
        self.expect(tmp_path, batches)


class ContentChecks(SinkCase):
    """What becomes of rows."""

    def test_an_empty_batch_writes_nothing(self, tmp_path: Path) -> None:
        first, nothing, second = self.ticks(3, 0, 3)
        self._round(tmp_path, nothing, first, nothing, second, nothing)

    def test_batches_of_one_row(self, tmp_path: Path) -> None:
        self._round(tmp_path, *self.ticks(*[1] * 40))

    def test_a_very_large_batch(self, tmp_path: Path) -> None:
        self._round(tmp_path, *self.ticks(1, self.large_rows, 1))

    @needs("candles")
    def test_candles(self, tmp_path: Path) -> None:
        self._round(tmp_path, sample_candles(60), sample_candles(0, 60), sample_candles(1, 60))

    def test_absent_fields_stay_absent(self, tmp_path: Path) -> None:
        rows = empty_ticks(5)
        rows["received_ns"] = START_NS + np.arange(5)
        rows["instrument"] = 0
        rows["last_price"] = [100.0, np.nan, 0.05, 2500.5, 99_999_999.95]
        rows["flags"] = [Mode.LTP, 0, Mode.LTP | Flag.EXCHANGE_TIME, Mode.QUOTE | Flag.VOLUME, Mode.LTP]
        rows["exchange_ns"][2] = START_NS
        batch = tick_batch(rows)
        self._round(tmp_path, batch)
        for document in self.read(tmp_path):
            absent = document.get("average_price")
            assert absent is None or absent != absent, f"an absent average_price was published as {absent!r}"

    def test_numbers_that_are_not_finite_do_not_stop_it(self, tmp_path: Path) -> None:
        rows = sample_ticks(40).rows.copy()
        rows["last_price"][::4], rows["open"][1::4], rows["average_price"][2::4] = np.nan, np.inf, -np.inf
        rows["bid_price"][3::4, 2] = np.nan
        self._round(tmp_path, tick_batch(rows))

    def test_prices_read_back_as_the_same_number(self, tmp_path: Path) -> None:
        prices = [0.05, 0.1 + 0.2, 1 / 3, 2500.05, 1e-7, 123_456_789.123_456_78, 5e15]
        rows = sample_ticks(len(prices)).rows.copy()
        rows["last_price"] = prices
        self._round(tmp_path, tick_batch(rows))

    def test_symbols_in_any_script(self, tmp_path: Path) -> None:
        names = ["टाटा ₹", "M&M", "中文", "😀", "é", "a" * 200, "CON", "L'Oréal", "semi;colon", "per%cent", "{feed}"]
        listed = [Instrument(exchange="NSE", symbol=name, token=str(place)) for place, name in enumerate(names)]
        self._round(tmp_path, sample_ticks(44, instruments=listed))

    def test_symbols_with_separators_in_them(self, tmp_path: Path) -> None:
        names = ['quo"te', "com,ma", "back\\slash", "ta\tb", "#", "/", "*", "..", "--", "%s", "$1"]
        listed = [Instrument(exchange="NSE", symbol=name, token=str(place)) for place, name in enumerate(names)]
        if self.schema == "tick":  # a form of its own may have to put something else for these
            self._round(tmp_path, sample_ticks(44, instruments=listed))
            return
        with self.driven(tmp_path) as sink:
            sink.write(sample_ticks(44, instruments=listed))
            sink.flush()
        assert [row["seq"] for row in sorted(self.read(tmp_path), key=lambda row: row["seq"])] == list(range(44))

    def test_an_unknown_instrument_does_not_stop_it(self, tmp_path: Path) -> None:
        rows = sample_ticks(9).rows.copy()
        rows["instrument"][::3] = -1
        self._round(tmp_path, tick_batch(rows))

    def test_each_instrument_is_in_order(self, tmp_path: Path) -> None:
        many = [Instrument(exchange="NSE", symbol=f"S{place}", token=str(place)) for place in range(50)]
        batches = [sample_ticks(130, first, instruments=many) for first in range(0, 1300, 130)]
        self._round(tmp_path, *batches)

    def test_rows_that_were_skipped_leave_the_numbers_of_the_others_alone(self, tmp_path: Path) -> None:
        whole = sample_ticks(90, 1000)
        self._round(tmp_path, whole[whole.seq % 3 == 0], whole[whole.seq % 3 == 1][:0], *self.ticks(5, first_row=2000))

    def test_it_keeps_no_view_of_the_journal(self, tmp_path: Path) -> None:
        wanted = self.ticks(40)
        buffer = wanted[0].rows.copy()
        with self.driven(tmp_path) as sink:
            sink.write(TickBatch(buffer, wanted[0].origin, 0))
            buffer["last_price"] = -1.0  # a journal in memory reuses its room
            buffer["volume"] = 0
            sink.flush()
        self.expect(tmp_path, wanted)

    def test_it_leaves_the_batch_alone(self, tmp_path: Path) -> None:
        batch = sample_ticks(40)
        before = batch.rows.copy()
        self._round(tmp_path, batch)
        assert batch.rows.tobytes() == before.tobytes(), "other sinks read the same rows"

    @needs("schema")
    def test_what_is_published_keeps_to_the_schema(self, tmp_path: Path) -> None:
        rows = empty_ticks(2)
        rows["instrument"], rows["received_ns"], rows["last_price"] = 0, START_NS, 1.0
        self._round(tmp_path, *self.ticks(30), tick_batch(rows, 30))
        self._validate(str(self.schema), tmp_path)

    @needs("schema", "candles")
    def test_published_candles_keep_to_the_schema(self, tmp_path: Path) -> None:
        self._round(tmp_path, sample_candles(10))
        self._validate("candle", tmp_path)

    def _validate(self, schema: str, folder: Path) -> None:
        judge: jsonschema.Draft202012Validator = validator(schema)
        for document in self.read(folder):
            published = {name: value for name, value in document.items() if name not in self.envelope}
            for problem in judge.iter_errors(published):
                raise AssertionError(f"seq {document.get('seq')} is not a {schema}: {problem.message}")

    def _round(self, folder: Path, *batches: Any) -> None:
        with self.driven(folder) as sink:
            sink.write(*batches)
            sink.flush()
        self.expect(folder, batches)


def delivery_of(sink: Sink, journal: Journal) -> Delivery:
    """The feed's own delivery into the sink, with short pauses."""
    clock = Clock()
    return Delivery(
        name="sink",
        sink=sink,
        open_reader=lambda: journal.reader("sink", start="oldest"),
        clock=clock,
        deadletters=DeadLetters("main", clock),
        log=get_log(),
        emit=lambda kind, data: None,
        batch_rows=64,
        flush_every_s=0.05,
        backoff=Backoff(0.01, 0.1),
    )


def append_sample(journal: Journal, count: int) -> TickBatch:
    """Put sample rows at the end of a journal; the batch that its readers see."""
    numbers = journal.instruments.register([attrs.evolve(one, vendor="sample") for one in INSTRUMENTS])
    assert numbers == list(range(len(INSTRUMENTS)))
    first = journal.committed
    batch = sample_ticks(count, first, journal=journal.name, feed=journal.origin.feed)
    journal.append(batch.rows)
    time.sleep(0)  # let the sink's thread have a look
    return TickBatch(batch.rows, journal.origin, first)
