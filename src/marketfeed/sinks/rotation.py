"""When an output file ends and the next one begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.clock import IST, NS
from marketfeed.config.options import parse_bytes

__all__ = ["Rotation", "by_day", "rotation"]

Batch = TickBatch | CandleBatch

_IST_NS = int(IST.utcoffset(None).total_seconds()) * NS
_DAY_NS = 86_400 * NS


@attrs.frozen
class Rotation:
    """``daily``: a file for each India day. ``max_bytes``: no file longer than that. Neither: one file."""

    daily: bool = False
    max_bytes: int | None = None

    def day_file(self, path: Path, day: int) -> Path:
        """The file of a day (days since 1970, India time): ``ticks-2026-11-20.jsonl``."""
        date = datetime(1970, 1, 1, tzinfo=UTC).date() + timedelta(days=day)
        return path.with_name(f"{path.stem}-{date.isoformat()}{path.suffix}")

    def numbered_file(self, path: Path, number: int) -> Path:
        """The file with that number, counted from 1: ``ticks-000001.jsonl``."""
        return path.with_name(f"{path.stem}-{number:06}{path.suffix}")

    def number_of(self, path: Path, name: str) -> int:
        """The number in a file's name; 0 if it has none."""
        pattern = re.escape(path.stem) + r"-(\d{6,})" + re.escape(path.suffix)
        match = re.fullmatch(pattern, name)
        return int(match[1]) if match else 0

    def first_file(self, path: Path) -> Path:
        """Where writing begins when no position says otherwise: the newest numbered file, if there is one."""
        if self.max_bytes is None:
            return path
        numbers = (self.number_of(path, found.name) for found in path.parent.iterdir())
        return self.numbered_file(path, max(numbers, default=0) or 1)


def rotation(text: str) -> Rotation:
    """``never``, ``day`` or a size such as ``100MB`` (1,000,000 bytes each; ``MiB``: 2**20)."""
    if text == "never":
        return Rotation()
    if text == "day":
        return Rotation(daily=True)
    try:
        size = parse_bytes(text)
    except ValueError:
        size = 0
    if size <= 0:
        raise ValueError(f'{text!r} is no way to rotate; write "never", "day" or a size such as "100MB"')
    return Rotation(max_bytes=size)


def check_rotation(_: object, __: attrs.Attribute[str], value: str) -> None:
    """attrs validator of a ``rotate`` option."""
    rotation(value)


def by_day(batch: Batch) -> Iterator[tuple[int, Any]]:
    """The batch in pieces of one India day each, in row order, with the day (days since 1970).

    A tick belongs to the day on which it was received, a candle to the day on which it starts.
    """
    moments = batch.rows["start_ns" if isinstance(batch, CandleBatch) else "received_ns"]
    days = (moments + _IST_NS) // _DAY_NS
    borders = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for start, end in pairwise(borders):
        yield int(days[start]), batch[start:end]
