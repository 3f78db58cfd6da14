"""Rows to append, and children that do it in another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from marketfeed.dtypes import TICK, Rows, empty_ticks
from marketfeed.journal import Journal
from marketfeed.journal.disk import DiskJournal

MakeRows = Callable[..., Rows]


def make_rows(count: int, first: int = 0) -> Rows:
    """``count`` ticks whose every 8-byte word tells their number, counted from ``first``."""
    words = np.arange(count * 45, dtype="i8").reshape(count, 45) * 7
    words[:, 1] = (np.arange(count) + first + 1) * 1000  # received_ns rises by a microsecond a row
    words[:, 4] = np.arange(count) + first  # volume is the number itself
    rows: Rows = words.reshape(-1).view(TICK)
    rows["instrument"] = 0
    return rows


@pytest.fixture
def rows() -> MakeRows:
    return make_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "main" / "ticks"


@pytest.fixture
def journal(folder: Path) -> Iterator[DiskJournal]:
    """A journal on disk with segments of 100 rows."""
    with Journal.create(folder, rows_per_segment=100) as journal:
        yield journal


@pytest.fixture(params=["disk", "memory"])
def either(request: pytest.FixtureRequest, folder: Path) -> Iterator[Journal]:
    """A journal of each sort; blocks and segments are small."""
    if request.param == "memory":
        journal: Journal = Journal.memory(max_bytes=100 * 4 * TICK.itemsize)
    else:
        journal = Journal.create(folder, rows_per_segment=100, keep_bytes=10**9)
    with journal:
        yield journal


@pytest.fixture
def nothing() -> Rows:
    return empty_ticks(0)
