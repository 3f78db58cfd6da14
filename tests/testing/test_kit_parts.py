"""The parts of the kit: sample batches, schemas, the thread that drives a sink, the comparison, the kill."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import numpy as np
import pytest

from marketfeed.contract import Sink
from marketfeed.dtypes import empty_ticks
from marketfeed.errors import SinkError
from marketfeed.testing import sample_candles, sample_ticks, schema, tick_batch
from marketfeed.testing.driving import CAN_KILL, Driver, killed
from marketfeed.testing.reading import compare, documents_of, without_repeats
from marketfeed.testing.samples import INSTRUMENTS


def check(found: list[dict[str, Any]], *batches: Any, repeats: bool = False) -> None:
    compare(found, batches, whole=True, envelope=frozenset(), repeats=repeats)


# --- samples and schemas --------------------------------------------------------------------------


def test_a_sample_row_is_the_same_however_the_rows_are_cut() -> None:
    whole = sample_ticks(3000)
    parts = [sample_ticks(1), sample_ticks(2000, 1), sample_ticks(999, 2001)]
    assert np.concatenate([part.rows for part in parts]).tobytes() == whole.rows.tobytes()
    assert [int(seq) for part in parts for seq in part.seq] == whole.seq.tolist()


def test_samples_keep_to_the_published_schemas() -> None:
    for name, batch in (("tick", sample_ticks(30)), ("candle", sample_candles(30))):
        for document in documents_of([batch]):
            jsonschema.validate(document, schema(name))


def test_rows_of_ones_own_become_a_batch() -> None:
    rows = empty_ticks(2)
    rows["instrument"] = [1, -1]
    batch = tick_batch(rows, 7)
    assert batch.symbols == [INSTRUMENTS[1].key, ":UNKNOWN"]
    assert batch.seq.tolist() == [7, 8]


def test_instruments_must_be_different() -> None:
    with pytest.raises(ValueError, match="must all be different"):
        sample_ticks(2, instruments=[INSTRUMENTS[0], INSTRUMENTS[0]])


def test_an_unknown_schema_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="there are candle, dead-letter, gap, tick, tick-compact"):
        schema("tock")


# --- comparing ------------------------------------------------------------------------------------


def test_lost_doubled_foreign_and_disordered_rows_are_told_apart() -> None:
    batch = sample_ticks(9)
    rows = documents_of([batch])
    check(rows, batch)
    for found, message in (
        (rows[:-2], "2 of 9 rows are lost: seq 7, seq 8"),
        ([*rows, rows[0]], "1 rows came more than once: seq 0"),
        ([*rows, {**rows[0], "seq": 99}], "1 rows were never written here: seq 99"),
        ([rows[3], *rows[:3], *rows[4:]], "RELIANCE: seq 0 comes after 3"),
        ([{**rows[0], "last_price": 1.0}, *rows[1:]], "row 0: last_price is 1.0, not 2500.0"),
        ([{"seq": 0}], "without journal, symbol"),
    ):
        with pytest.raises(AssertionError, match=message):
            check(found, batch)


def test_repeats_are_dropped_as_a_consumer_drops_them_and_hide_no_loss() -> None:
    batch = sample_ticks(9)
    rows = documents_of([batch])
    again = [*rows[:6], *rows[3:]]
    check(again, batch, repeats=True)
    assert list(without_repeats(again)) == rows
    with pytest.raises(AssertionError, match="rows are lost: seq 0"):
        check([*rows[3:], *rows[:3]], batch, repeats=True)  # too late: a consumer takes them for repeats


def test_rows_of_any_order_between_instruments_pass() -> None:
    batch = sample_ticks(9)
    rows = documents_of([batch])
    check(sorted(rows, key=lambda row: (row["symbol"], row["seq"])), batch)


# --- driving --------------------------------------------------------------------------------------


@attrs.define(slots=False)
class Watched(Sink):
    threads: list[str] = attrs.field(factory=list)
    failures: int = 0
    seconds: float = 0.0

    def open(self) -> None:
        self.threads.append(threading.current_thread().name)

    def write(self, batch: Any) -> None:
        self.threads.append(threading.current_thread().name)
        time.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            raise SinkError("not now")

    def close(self) -> None:
        self.threads.append(threading.current_thread().name)


def test_every_call_is_on_the_sinks_own_thread() -> None:
    with Driver(watched := Watched(), 5.0) as sink:
        sink.write(sample_ticks(1))
    assert watched.threads == ["sink under test"] * 3
    assert "sink under test" not in {thread.name for thread in threading.enumerate()}


def test_a_delivery_tries_again_as_long_as_there_is_patience() -> None:
    with Driver(watched := Watched(failures=3), 5.0) as sink:
        sink.deliver([sample_ticks(1)], pause_s=0.001)
    assert len(watched.threads) == 6
    with Driver(Watched(failures=10**9), 0.1) as sink, pytest.raises(SinkError, match="not now"):
        sink.deliver([sample_ticks(1)], pause_s=0.001)


def test_a_call_without_end_is_a_failure_that_names_it() -> None:
    with Driver(Watched(seconds=0.5), 0.05) as sink:
        with pytest.raises(AssertionError, match=r"write did not return within 0\.05 s"):
            sink.write(sample_ticks(1))
        sink.patience_s = 5.0


@pytest.mark.process
@pytest.mark.skipif(not CAN_KILL, reason="this system cannot fork")
def test_a_killed_process_leaves_what_it_wrote_and_nothing_that_it_buffered(tmp_path: Path) -> None:
    def work() -> object:
        (tmp_path / "written").write_text("here")
        buffered = (tmp_path / "buffered").open("w")
        buffered.write("lost")
        return buffered

    killed(work, 20.0)
    assert (tmp_path / "written").read_text() == "here"
    assert (tmp_path / "buffered").read_text() == ""


@pytest.mark.process
@pytest.mark.skipif(not CAN_KILL, reason="this system cannot fork")
def test_a_process_that_cannot_do_its_work_says_why() -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        killed(lambda: 1 // 0, 20.0)
    with pytest.raises(AssertionError, match=r"not ready within 0\.2 s"):
        killed(lambda: time.sleep(60), 0.2)
    with pytest.raises(AssertionError, match="ended by itself with 3"):
        killed(lambda: os._exit(3), 20.0)
