"""A recording as a market: its rows are the ticks, everything else is the simulated market's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marketfeed.brokers import Lines
from marketfeed.dtypes import Rows
from marketfeed.instruments import Instrument
from marketfeed.sandbox.market import Market
from marketfeed.sandbox.recording import Recording

__all__ = ["ReplayMarket"]


class ReplayMarket:
    """Implements :class:`marketfeed.brokers.SandboxMarket`; :meth:`take` hands the rows out, in order, once."""

    def __init__(self, market: Market, recording: Recording) -> None:
        self._market = market
        numbers = {one.key: line for line, one in enumerate(market.instruments)}
        self.lines: Lines = np.array([numbers[name] for name in recording.symbols], np.int64)
        """The lines that the recording has."""
        self._rows = recording.rows(self.lines, market.instruments)
        self._due = recording.pace()
        self._next = 0
        self._shown = np.full(len(market), -1, np.int64)  # row that each line shows; -1 = none yet
        first = np.unique(self._rows["instrument"], return_index=True)
        self._first = dict(zip(first[0].tolist(), first[1].tolist(), strict=True))

    def __len__(self) -> int:
        """Rows in the recording."""
        return len(self._rows)

    @property
    def sent(self) -> int:
        """Rows handed out so far."""
        return self._next

    @property
    def instruments(self) -> Sequence[Instrument]:
        return self._market.instruments

    def due(self, elapsed_s: float) -> int:
        """How many rows are due after so many seconds of recorded time."""
        return int(np.searchsorted(self._due, elapsed_s, side="right"))

    @property
    def position_s(self) -> float:
        """Recorded time, in seconds, at which the next row is due."""
        return float(self._due[min(self._next, len(self) - 1)]) if len(self) else 0.0

    def take(self, upto: int) -> Rows:
        """The rows from the last call's end up to row ``upto``, not included."""
        rows = self._rows[self._next : upto]
        self._shown[rows["instrument"]] = np.arange(self._next, self._next + len(rows))
        self._next += len(rows)
        return rows

    def shown(self, lines: Lines) -> Lines:
        """Those of the lines that have something to show: no row of a recording is invented."""
        return lines[(self._shown[lines] >= 0) | ~np.isin(lines, self.lines)]

    def snapshot(self, lines: Lines) -> Rows:
        """The rows last handed out (the first ones before that), the simulated state for other lines."""
        rows = self._market.snapshot(lines)
        for place, line in enumerate(lines.tolist()):
            if line in self._first:
                shown = int(self._shown[line])
                rows[place] = self._rows[shown if shown >= 0 else self._first[line]]
        return rows

    def candles(self, line: int, interval_s: int, start_ns: int, end_ns: int) -> Rows:
        """The simulated market's: a recording has no past."""
        return self._market.candles(line, interval_s, start_ns, end_ns)
