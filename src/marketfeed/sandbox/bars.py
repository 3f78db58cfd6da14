"""Minute bars of the ticks that the sandbox made, so that its history tells what it has sent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.brokers import Lines
from marketfeed.sandbox.history import Minutes

__all__ = ["LiveBars"]

Ints = NDArray[np.int64]


class _Step(NamedTuple):
    """Trades of one step, one per line."""

    lines: Lines
    price: Ints
    quantity: Ints
    interest: Ints


class LiveBars:
    """Keeps the trades of the running minute as they come and folds them when it is over."""

    def __init__(self) -> None:
        self._minute = -1
        self._steps: list[_Step] = []
        self._closed: dict[int, dict[int, tuple[int, ...]]] = {}  # line -> minute -> bar

    def add(self, minute: int, lines: Lines, price: Ints, quantity: Ints, interest: Ints) -> None:
        """Trades of this minute; prices in steps of the tick size."""
        if minute != self._minute:
            self._fold()
            self._minute = minute
        self._steps.append(_Step(lines, price, quantity, interest))

    def minutes(self, line: int, first: int, last: int) -> Minutes:
        """The bars of one line in market hours, oldest first, the running one included."""
        self._fold()
        bars = sorted(self._closed.get(line, {}).items())
        rows = [(minute, *bar) for minute, bar in bars if first <= minute % 1440 < last]
        table = np.array(rows, np.int64).reshape(len(rows), len(Minutes._fields))
        return Minutes(*table.T)

    def _fold(self) -> None:
        """Move what has gathered to the bars, merging where the minute already has one."""
        if not self._steps:
            return
        lines, price, quantity, interest = (np.concatenate(columns) for columns in zip(*self._steps, strict=True))
        self._steps.clear()
        order = np.argsort(lines, kind="stable")
        lines, price, quantity, interest = lines[order], price[order], quantity[order], interest[order]
        heads = np.flatnonzero(np.diff(lines, prepend=-1))
        tails = np.append(heads[1:], len(lines)) - 1
        bars = zip(
            lines[heads].tolist(),
            price[heads].tolist(),
            np.maximum.reduceat(price, heads).tolist(),
            np.minimum.reduceat(price, heads).tolist(),
            price[tails].tolist(),
            np.add.reduceat(quantity, heads).tolist(),
            interest[tails].tolist(),
            strict=True,
        )
        for line, *bar in bars:
            known = self._closed.setdefault(line, {})
            known[self._minute] = _joined(known.get(self._minute), tuple(bar))


def _joined(early: tuple[int, ...] | None, late: tuple[int, ...]) -> tuple[int, ...]:
    """One bar of two parts of the same minute: open, high, low, close, volume, open interest."""
    if early is None:
        return late
    return (early[0], max(early[1], late[1]), min(early[2], late[2]), late[3], early[4] + late[4], late[5])
