"""Splitting a span into requests that a broker answers, and putting the answers together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from marketfeed.clock import NS
from marketfeed.dtypes import CANDLE, CandleFlag, Rows

__all__ = ["mark_partial", "merge", "windows"]

_DAY_NS = 86_400 * NS


def windows(start_ns: int, end_ns: int, days: int) -> Iterator[tuple[int, int]]:
    """``[start_ns, end_ns)`` as consecutive spans of at most ``days`` days, oldest first; end excluded in each."""
    for begin in range(start_ns, end_ns, days * _DAY_NS):
        yield begin, min(begin + days * _DAY_NS, end_ns)


def merge(parts: Sequence[Rows]) -> Rows:
    """One instrument's candles of several answers: oldest first, one per start; the later answer wins."""
    if not parts:
        return np.empty(0, CANDLE)
    # Joined as bytes: np.concatenate on a wide structured dtype copies field by field.
    rows: Rows = np.frombuffer(bytearray(b"".join(part.tobytes() for part in parts)), CANDLE)
    order = rows["start_ns"].argsort(kind="stable")
    starts = rows["start_ns"][order]
    last = np.ones(len(rows), bool)
    last[:-1] = starts[1:] != starts[:-1]
    return rows[order[last]]


def mark_partial(rows: Rows, now_ns: int) -> None:
    """Flag the bars that are not over at ``now_ns`` (UTC nanoseconds); a day ends at midnight, India time."""
    running = rows["start_ns"] + rows["interval"].astype(np.int64) * NS > now_ns
    rows["flags"][running] |= np.uint32(CandleFlag.PARTIAL)
