"""Validation on real recordings: what the documentation says of them is what comes out."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from marketfeed.clock import NS, to_ns
from marketfeed.dtypes import Flag, Rows, empty_ticks
from marketfeed.engine.validation import Validator
from marketfeed.enums import Mode

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "validation.md"
RECORDINGS = (
    "aliceblue_2021-04-13",
    "aliceblue_2021-04-15",
    "aliceblue_2021-04-16_dirty",
    "breeze_futures_2025-11-17_a",
)


def records(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def aliceblue(lines: list[dict[str, str]]) -> Rows:
    """Last price and, for stocks, volume; one file, one symbol after the other."""
    rows = empty_ticks(len(lines))
    names = {name: number for number, name in enumerate(dict.fromkeys(one["symbol"] for one in lines))}
    rows["instrument"] = [names[one["symbol"]] for one in lines]
    rows["exchange_ns"] = [to_ns(one["timestamp"]) for one in lines]
    rows["last_price"] = [float(one["ltp"]) for one in lines]
    rows["volume"] = [int(one["volume"]) for one in lines]
    index = np.array([one["symbol"].startswith("NIFTY") for one in lines])
    rows["flags"] = np.where(index, 0, int(Flag.VOLUME)) | Mode.QUOTE | Flag.EXCHANGE_TIME
    return rows


def breeze(lines: list[dict[str, str]]) -> Rows:
    """Futures with the best bid and ask; the one broken line has no number in it and is left out."""
    lines = [one for one in lines if one["last_price"]]
    rows = empty_ticks(len(lines))
    names = {name: number for number, name in enumerate(dict.fromkeys(one["Symbol"] for one in lines))}
    rows["instrument"] = [names[one["Symbol"]] for one in lines]
    rows["exchange_ns"] = [to_ns(datetime.fromisoformat(one["exchange_timestamp"])) for one in lines]
    for column, field in (
        ("volume", "volume_traded"),
        ("last_quantity", "last_traded_quantity"),
        ("open_interest", "open_interest"),
        ("buy_quantity", "total_buy_qty"),
        ("sell_quantity", "total_sell_qty"),
    ):
        rows[column] = [int(one[field]) for one in lines]
    rows["last_price"] = [float(one["last_price"]) for one in lines]
    for side, number in (("bid", 1), ("ask", 2)):
        rows[f"{side}_price"], rows[f"{side}_quantity"] = 0, 0
        rows[f"{side}_price"][:, 0] = [float(one[f"bid_price_{number}"]) for one in lines]
        rows[f"{side}_quantity"][:, 0] = [int(one[f"bid_qty_{number}"]) for one in lines]
    groups = Flag.VOLUME | Flag.QUANTITIES | Flag.OPEN_INTEREST | Flag.DEPTH | Flag.EXCHANGE_TIME
    rows["flags"] = Mode.FULL | groups
    return rows


def recording(folder: Path, name: str) -> Rows:
    path = folder / f"{name}.csv.gz"
    rows = (aliceblue if name.startswith("aliceblue") else breeze)(records(path))
    # The recorder's clock is not in the files: a row came when the newest one of its symbol so far was made.
    for number in np.unique(rows["instrument"]):
        mine = rows["instrument"] == number
        rows["received_ns"][mine] = np.maximum.accumulate(rows["exchange_ns"][mine]) + NS
    return rows


def batches(rows: Rows, size: int = 97) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size].copy()


def counted(rows: Rows) -> dict[str, int]:
    validator = Validator()
    for batch in batches(rows):
        validator.check(batch)
    return {word: doubt["rows"] for word, doubt in validator.status().items()}


def documented() -> Mapping[str, dict[str, int]]:
    """Recording -> its line of the table, zeros left out."""
    found: dict[str, dict[str, int]] = {}
    lines = re.findall(r"^\| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    heads: list[str] = []
    for line in lines:
        cells = [cell.strip("` ") for cell in line.split("|")]
        if cells[0] == "recording":
            heads = cells
        elif cells[0] in RECORDINGS:
            numbers = [int(cell.replace(",", "")) for cell in cells[1:]]
            found[cells[0]] = {head: number for head, number in zip(heads[1:], numbers, strict=True) if number}
    return found


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_page_tells_what_is_wrong_with_each_recording(name: str, shared: Path) -> None:
    rows = recording(shared / "data" / "ticks", name)
    assert {"rows": len(rows), **counted(rows)} == documented()[name]
