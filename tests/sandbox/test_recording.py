"""Recorded ticks: loaded with their dirt, paced in spite of it."""

from __future__ import annotations

import gzip
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from marketfeed.clock import NS, to_ns
from marketfeed.dtypes import Flag
from marketfeed.sandbox.market import Market
from marketfeed.sandbox.recording import load_recording
from marketfeed.sandbox.replay import ReplayMarket
from marketfeed.sandbox.universe import make_universe

DIRTY = """symbol,timestamp,ltp,volume
NIFTY 50,2021-04-16 09:15:05,14597.85,0
NIFTY 50,2021-04-16 09:15:07,14598.3,0
SBIN,2021-04-16 09:15:04,343.25,120050
SBIN,1970-01-01 05:30:00,343.3,120060
SBIN,2021-04-16 09:15:06,343.2,120100
SBIN,2021-04-16 09:15:05,343.1,120080
SBIN,2021-04-16 09:15:05,343.1,120080
"""


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    path = tmp_path / "ticks.csv"
    path.write_text(DIRTY)
    return path


def test_every_row_is_loaded_in_file_order(dirty: Path) -> None:
    recording = load_recording(dirty)
    assert recording.symbols == ["NSE:NIFTY 50", "NSE:SBIN"]
    assert recording.last_price.tolist() == [14597.85, 14598.3, 343.25, 343.3, 343.2, 343.1, 343.1]
    assert recording.volume.tolist() == [0, 0, 120050, 120060, 120100, 120080, 120080]
    assert recording.exchange_ns[0] == to_ns("2021-04-16 09:15:05")
    assert recording.exchange_ns[3] == 0, "1970-01-01 05:30 India time is the zero epoch"


def test_a_gzipped_file_is_the_same(dirty: Path) -> None:
    packed = dirty.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(dirty.read_bytes()))
    assert load_recording(packed).exchange_ns.tolist() == load_recording(dirty).exchange_ns.tolist()


def test_the_pace_never_falls_and_dirt_takes_no_time(dirty: Path) -> None:
    assert load_recording(dirty).pace().tolist() == [0, 2, 2, 2, 4, 4, 4]


def test_time_order_merges_symbols_but_keeps_each_in_file_order(dirty: Path) -> None:
    merged = load_recording(dirty).in_time_order()
    assert merged.last_price.tolist() == [343.25, 343.3, 14597.85, 343.2, 343.1, 343.1, 14598.3]


def test_the_range_ignores_zero_times(dirty: Path) -> None:
    recording = load_recording(dirty)
    assert recording.first_ns == to_ns("2021-04-16 09:15:04")
    assert recording.last_ns == to_ns("2021-04-16 09:15:07")


def test_rows_carry_what_the_file_says_and_a_running_range(dirty: Path) -> None:
    listings = make_universe(20, date(2021, 4, 16))
    market = Market(listings, seed=1, start_ns=to_ns("2021-04-16 09:15:04"))
    replay = ReplayMarket(market, load_recording(dirty))
    rows = replay.take(len(replay))
    names = [market.instruments[line].key for line in rows["instrument"].tolist()]
    assert names == ["NSE:NIFTY 50"] * 2 + ["NSE:SBIN"] * 5
    assert rows["high"].tolist()[2:] == [343.25, 343.3, 343.3, 343.3, 343.3]
    assert rows["low"].tolist()[2:] == [343.25, 343.25, 343.2, 343.1, 343.1]
    assert not (rows["flags"] & np.uint32(Flag.DEPTH)).any()


def test_a_replay_shows_nothing_before_its_first_row(dirty: Path) -> None:
    listings = make_universe(20, date(2021, 4, 16))
    market = Market(listings, seed=1, start_ns=to_ns("2021-04-16 09:15:04"))
    replay = ReplayMarket(market, load_recording(dirty))
    nifty, sbin = replay.lines.tolist()
    assert replay.shown(replay.lines).tolist() == []
    replay.take(2)
    assert replay.shown(replay.lines).tolist() == [nifty]
    replay.take(4)
    assert replay.snapshot(np.array([sbin]))["last_price"].tolist() == [343.3]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("time,price\n", "first line must name"),
        ("symbol,timestamp,ltp,volume\nINFY,2021-04-16 09:15:05,high,1\n", "high"),
        ("symbol,timestamp,ltp,volume\nINFY,2021-04-16 09:15:05,nan,1\n", "line 2 has no price"),
        ("symbol,timestamp,ltp,volume\nINFY,yesterday,1.0,1\n", "yesterday"),
    ],
)
def test_a_file_that_cannot_be_sent_is_refused_with_a_reason(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        load_recording(path)


def test_a_real_day_is_loaded_whole(shared: Path) -> None:
    path = shared / "data" / "ticks" / "aliceblue_2021-04-16_dirty.csv.gz"
    with gzip.open(path, "rt") as lines:
        count = sum(1 for _ in lines) - 1
    recording = load_recording(path)
    assert len(recording) == count
    assert (recording.exchange_ns == 0).sum() > 3000
    assert (np.diff(recording.pace()) >= 0).all()
    assert recording.last_ns < to_ns("2021-04-20")
    assert (recording.exchange_ns % NS == 0).all()
