"""What stands in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.dtypes import FLAG_GROUPS, Flag
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument
from marketfeed.sinks.csv import CANDLE_COLUMNS, TICK_COLUMNS, CsvSink

MakeTicks = Callable[..., TickBatch]


def written(folder: Path, *batches: TickBatch | CandleBatch) -> list[dict[str, str]]:
    """The rows of a file that a sink wrote in as many runs as there are batches."""
    file = folder / "rows.csv"
    for batch in batches:
        sink = CsvSink(path=file)
        sink.open()
        sink.write(batch)
        sink.flush()
        sink.close()
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines, strict=True))


def test_the_columns_stand_in_the_documented_order(tmp_path: Path, ticks: MakeTicks) -> None:
    written(tmp_path, ticks(1))
    header, row, rest = (tmp_path / "rows.csv").read_bytes().split(b"\r\n")
    assert header.decode().split(",") == list(TICK_COLUMNS)
    assert row.startswith(
        b"00ff00ff00ff00ff00ff00ff00ff00ff.1,0,main,kite,NSE,RELIANCE,738561,full,1795149000000000000,"
    )
    assert rest == b""


def test_numbers_read_back_exactly(tmp_path: Path, ticks: MakeTicks) -> None:
    batch = ticks(300, 5)
    rows = batch.rows.copy()
    rows["last_price"] = np.random.default_rng(1).random(300) * 1e5
    read = written(tmp_path, TickBatch(rows, batch.origin, 5))
    assert [float(row["last_price"]) for row in read] == rows["last_price"].tolist()
    assert [int(row["received_ns"]) for row in read] == rows["received_ns"].tolist()
    assert [int(row["seq"]) for row in read] == list(range(5, 305))
    for level in range(5):
        assert [float(row[f"ask_price_{level}"]) for row in read] == rows["ask_price"][:, level].tolist()
        assert [int(row[f"bid_orders_{level}"]) for row in read] == rows["bid_orders"][:, level].tolist()


def test_what_a_message_did_not_hold_is_empty(tmp_path: Path, ticks: MakeTicks) -> None:
    batch = ticks(3)
    rows = batch.rows.copy()
    rows["flags"] = [Mode.LTP, Mode.FULL | int(sum(FLAG_GROUPS)), Mode.FULL | Flag.DEPTH | Flag.REPEAT | Flag.TIME_BACK]
    rows["average_price"][0] = rows["bid_price"][2, 4] = np.nan
    first, second, third = written(tmp_path, TickBatch(rows, batch.origin))
    held = {name for name, value in first.items() if value}
    assert held == {*TICK_COLUMNS[:8], "received_ns", "last_price"}
    assert {name for name, value in second.items() if not value} == {"reasons"}
    assert third["bid_price_4"] == third["volume"] == ""
    assert third["bid_quantity_4"] == "500"
    assert third["reasons"] == "time_back repeat"


def test_texts_are_quoted_as_rfc_4180_says(tmp_path: Path, ticks: MakeTicks) -> None:
    odd = [
        Instrument(exchange="NSE", symbol=symbol, token="1") for symbol in ('a,"b"', "₹ é 🐂", "two\r\nlines", "null")
    ]
    read = written(tmp_path, ticks(4, instruments=odd))
    assert [row["symbol"] for row in read] == ['a,"b"', "₹ é 🐂", "two lines", "null"]
    assert b'"a,""b"""' in (tmp_path / "rows.csv").read_bytes()


def test_a_resumed_file_gets_no_second_header(tmp_path: Path, ticks: MakeTicks) -> None:
    assert [row["seq"] for row in written(tmp_path, ticks(2), ticks(2, 2))] == ["0", "1", "2", "3"]


def test_candles_have_columns_of_their_own(tmp_path: Path, candles: Callable[..., CandleBatch]) -> None:
    read = written(tmp_path, candles(2))
    assert list(read[0]) == list(CANDLE_COLUMNS)
    row = {name: read[1][name] for name in CANDLE_COLUMNS[7:]}
    assert row == {
        "interval": "1m",
        "start_ns": "1795146360000000000",
        "open": "101.05",
        "high": "103.05",
        "low": "100.05",
        "close": "102.05",
        "volume": "1",
        "open_interest": "",
        "source": "vendor",
        "flags": "0",
    }
