"""Recorded ticks to send again: a CSV file with the columns ``symbol, timestamp, ltp, volume``.

Every row is sent, in the order of the file, dirt included: repeats, steps back, a zero time. Only a
row whose price is not a number cannot be sent; it is an error to load such a file.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.brokers import Lines
from marketfeed.clock import NS, to_ns
from marketfeed.dtypes import Flag, Rows, empty_ticks
from marketfeed.enums import Kind, Mode
from marketfeed.instruments import Instrument

__all__ = ["Recording", "load_recording"]

Ints = NDArray[np.int64]
_PLAUSIBLE_NS = to_ns("2000-01-01")
_LONGEST_PAUSE_NS = 600 * NS


@attrs.frozen
class Recording:
    """The rows of a file, one element each, in file order."""

    symbols: Sequence[str]
    """``EXCHANGE:SYMBOL`` in order of appearance."""
    symbol: Ints = attrs.field(repr=False)
    """Index into ``symbols``."""
    exchange_ns: Ints = attrs.field(repr=False)
    """UTC nanoseconds, whole seconds; 0 where the file says 1970."""
    last_price: NDArray[np.float64] = attrs.field(repr=False)
    volume: Ints = attrs.field(repr=False)
    """Cumulative volume of the day."""

    def __len__(self) -> int:
        return len(self.symbol)

    @property
    def first_ns(self) -> int:
        """Time of the earliest row that has one; 0 without any."""
        known = self.exchange_ns[self.exchange_ns > _PLAUSIBLE_NS]
        return int(known.min()) if len(known) else 0

    @property
    def last_ns(self) -> int:
        """Time of the latest row."""
        return int(self.exchange_ns.max()) if len(self) else 0

    def in_time_order(self) -> Recording:
        """The same rows merged over the symbols by time; rows of one symbol stay in file order."""
        order = np.argsort(self._clean(), kind="stable")
        return attrs.evolve(
            self,
            symbol=self.symbol[order],
            exchange_ns=self.exchange_ns[order],
            last_price=self.last_price[order],
            volume=self.volume[order],
        )

    def pace(self) -> NDArray[np.float64]:
        """When each row is due, in seconds after the first one at the recorded speed, never falling.

        Steps back, zero times and the jump to the next symbol of a file sorted by symbol take no time;
        a hole takes ten minutes at most.
        """
        clean = self._clean()
        steps = np.diff(clean, prepend=clean[:1])
        due: NDArray[np.float64] = np.cumsum(np.clip(steps, 0, _LONGEST_PAUSE_NS)) / NS
        return due

    def _clean(self) -> Ints:
        """Per symbol the latest time so far: a time that dirt cannot throw back."""
        clean = np.where(self.exchange_ns > _PLAUSIBLE_NS, self.exchange_ns, 0)
        for number in range(len(self.symbols)):
            mine = self.symbol == number
            clean[mine] = np.maximum.accumulate(clean[mine])
        return clean

    def rows(self, lines: Lines, instruments: Sequence[Instrument]) -> Rows:
        """All rows as ``TICK`` rows. ``lines`` gives the line of each symbol, ``instruments`` those of each line.

        The file has no open, high, low and close, which a full packet must carry: they are those of the
        rows so far, the close being the first price.
        """
        rows = empty_ticks(len(self))
        rows["instrument"] = lines[self.symbol]
        rows["exchange_ns"], rows["last_trade_ns"] = self.exchange_ns, self.exchange_ns
        rows["last_price"], rows["volume"] = self.last_price, self.volume
        for number, line in enumerate(lines.tolist()):
            mine = np.flatnonzero(self.symbol == number)
            index = instruments[line].kind == Kind.INDEX
            _fill(rows, mine, self.last_price[mine], index=index)
        return rows


def _fill(rows: Rows, mine: NDArray[np.intp], price: NDArray[np.float64], *, index: bool) -> None:
    flags = Flag.EXCHANGE_TIME | Flag.OHLC | (0 if index else Flag.VOLUME | Flag.TRADE_TIME)
    rows["flags"][mine] = int(flags) | int(Mode.FULL)
    rows["open"][mine], rows["close"][mine] = price[:1], price[:1]
    rows["high"][mine], rows["low"][mine] = np.maximum.accumulate(price), np.minimum.accumulate(price)
    if index:
        rows["last_trade_ns"][mine] = 0


def load_recording(path: Path) -> Recording:
    """Read a CSV file, gzipped or not. Times are India time to the second; ``SYMBOL`` alone means NSE.

    Raises ``OSError``, and ``ValueError`` naming the line that is not as it should be.
    """
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as text:
        table = csv.reader(text)
        header = next(table, [])
        try:
            columns = [header.index(name) for name in ("symbol", "timestamp", "ltp", "volume")]
        except ValueError:
            raise ValueError(f"{path}: the first line must name symbol, timestamp, ltp and volume") from None
        found = [[row[column] for column in columns] for row in table if row]
    names, numbers = _numbered([row[0] for row in found])
    try:
        prices = np.array([row[2] for row in found], np.float64)
        volumes = np.array([row[3] or "0" for row in found], np.float64).astype(np.int64)
        times = _times([row[1] for row in found])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not np.isfinite(prices).all():
        raise ValueError(f"{path}: line {int(np.flatnonzero(~np.isfinite(prices))[0]) + 2} has no price")
    return Recording(names, numbers, times, prices, volumes)


def _numbered(symbols: Sequence[str]) -> tuple[list[str], Ints]:
    known: dict[str, int] = {}
    numbers = np.fromiter((known.setdefault(name, len(known)) for name in symbols), np.int64, len(symbols))
    return [name if ":" in name else f"NSE:{name}" for name in known], numbers


def _times(texts: Sequence[str]) -> Ints:
    """UTC nanoseconds; the same text often comes in a row, so each run is read once."""
    times: list[int] = []
    for text, run in groupby(texts):
        moment = to_ns(datetime.fromisoformat(text))
        times.extend([max(moment, 0) // NS * NS] * sum(1 for _ in run))
    return np.array(times, np.int64)
