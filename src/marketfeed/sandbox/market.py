"""The simulated market: a seeded, correlated random walk of many instruments, computed in columns.

The n-th tick of an instrument depends on the seed and its name only, not on what else is
subscribed, on the vendor or on the pace. Prices lie on the tick-size grid and inside the circuits,
cumulative volume never falls, open/high/low/close fit, and the book is sorted and never crossed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from marketfeed.brokers import Lines
from marketfeed.clock import NS
from marketfeed.dtypes import DEPTH_LEVELS, Flag, Rows, empty_ticks
from marketfeed.enums import Kind, Mode
from marketfeed.instruments import Instrument
from marketfeed.sandbox.bars import LiveBars
from marketfeed.sandbox.history import History, Minutes, day_of, fold, session_of, weekdays
from marketfeed.sandbox.noise import Hashes, Reals, identity, mix, normal
from marketfeed.sandbox.universe import Listing

__all__ = ["Market"]

Ints = NDArray[np.int64]
_FACTOR = identity("the whole market")
_STEP = 1.5e-4  # of the price, per tick
_PULL = 0.9995  # back to the start, so that a long run does not stick to a circuit


class Market:
    """Implements :class:`marketfeed.brokers.SandboxMarket`. Not safe for threads."""

    def __init__(self, listings: Sequence[Listing], *, seed: int, start_ns: int) -> None:
        self.seed = seed
        self._start_ns = start_ns
        self._instruments = tuple(one.instrument for one in listings)
        self._past = History(seed, day_of(start_ns), tuple(listings))
        self._bars = LiveBars()
        self._describe(listings)
        self._begin(listings, start_ns)

    @property
    def instruments(self) -> Sequence[Instrument]:
        return self._instruments

    def __len__(self) -> int:
        return len(self._instruments)

    @property
    def ticks(self) -> Ints:
        """How many ticks each line has made; the n-th one is the same whatever the vendor. Shape ``(lines,)``."""
        return self._count.copy()

    # --- set-up -------------------------------------------------------------------------------

    def _describe(self, listings: Sequence[Listing]) -> None:
        """Columns that never change."""
        kinds = [one.instrument.kind for one in listings]
        self._tick: Reals = np.array([one.instrument.tick_size for one in listings])
        self._lot: Ints = np.array([one.instrument.lot_size for one in listings], np.int64)
        self._swing: Reals = np.array([one.swing for one in listings]) * _STEP
        self._is_index = np.array([kind == Kind.INDEX for kind in kinds], bool)
        self._has_interest = np.array([one.open_interest > 0 for one in listings], bool)
        self._ids = self._past.ids
        self._flags = np.array([_flags(kind) for kind in kinds], np.uint32)

    def _begin(self, listings: Sequence[Listing], start_ns: int) -> None:
        """Columns of the state, as the past of the day left them."""
        count = len(listings)
        self._close: Ints = np.rint([one.price for one in listings] / self._tick).astype(np.int64)
        self._open, self._high, self._low = self._close.copy(), self._close.copy(), self._close.copy()
        self._last: Ints = self._close.copy()
        self._volume: Ints = np.zeros(count, np.int64)
        self._turnover: Reals = np.zeros(count)
        self._interest: Ints = np.array([one.open_interest for one in listings], np.int64)
        self._interest_high, self._interest_low = self._interest.copy(), self._interest.copy()
        self._quantity: Ints = np.zeros(count, np.int64)
        second = start_ns // NS * NS
        self._time: Ints = np.full(count, second, np.int64)
        self._trade_time: Ints = np.where(self._is_index, 0, second)
        for line in range(count):
            self._recall(line, start_ns)
        self._lower: Ints = np.maximum(np.ceil(self._close * 0.9).astype(np.int64), 1)
        self._upper: Ints = np.maximum(np.floor(self._close * 1.1).astype(np.int64), self._lower + 1)
        self._base: Reals = self._last.astype(np.float64)
        self._offset: Reals = np.zeros(count)
        self._count: Ints = np.zeros(count, np.int64)

    def _recall(self, line: int, now_ns: int) -> None:
        """Let a line begin where the minutes of its day, up to ``now_ns``, ended."""
        bars = self._today(line, now_ns)
        if not len(bars.minute):
            return
        self._open[line], self._last[line] = bars.open[0], bars.close[-1]
        self._high[line], self._low[line] = bars.high.max(), bars.low.min()
        self._volume[line] = bars.volume.sum()
        self._turnover[line] = float((bars.volume * bars.close).sum())
        self._quantity[line] = self._lot[line] if bars.volume[-1] else 0
        if self._has_interest[line]:
            interest = bars.open_interest
            self._interest[line] = interest[-1]
            self._interest_high[line], self._interest_low[line] = interest.max(), interest.min()

    def _today(self, line: int, now_ns: int) -> Minutes:
        bars = self._past.minutes(line, weekdays(self._past.today, self._past.today))
        upto = int(np.searchsorted(bars.minute, _minute(now_ns)))  # the running minute belongs to the ticks
        return Minutes(*(column[:upto] for column in bars))

    # --- ticks --------------------------------------------------------------------------------

    def snapshot(self, lines: Lines) -> Rows:
        """See :meth:`marketfeed.brokers.SandboxMarket.snapshot`."""
        return self._rows(lines, mix(self.seed, self._ids[lines], 5, self._count[lines]))

    def advance(self, lines: Lines, now_ns: int) -> Rows:
        """The next tick of each line, stamped with the whole second of ``now_ns``.

        ``lines`` must not name a line twice. Four ticks of five are trades; the others change the
        book only.
        """
        self._count[lines] += 1
        count = self._count[lines]
        bits = mix(self.seed, self._ids[lines], 5, count)
        self._walk(lines, count, bits)
        second = now_ns // NS * NS
        self._time[lines] = np.maximum(self._time[lines], second)
        traded = (bits >> np.uint64(3)).astype(np.int64) % 5 > 0
        self._trade(lines[traded], bits[traded], now_ns)
        return self._rows(lines, bits)

    def _walk(self, lines: Lines, count: Ints, bits: Hashes) -> None:
        own = normal(bits)
        common = normal(mix(self.seed, _FACTOR, count))
        move = 0.6 * common + 0.8 * own
        self._offset[lines] = self._offset[lines] * _PULL + move * self._swing[lines]

    def _trade(self, lines: Lines, bits: Hashes, now_ns: int) -> None:
        price = np.rint(self._base[lines] * np.exp(self._offset[lines])).astype(np.int64)
        price = np.clip(price, self._lower[lines], self._upper[lines])
        self._last[lines] = price
        self._high[lines] = np.maximum(self._high[lines], price)
        self._low[lines] = np.minimum(self._low[lines], price)
        quantity = self._lot[lines] * (1 + (bits >> np.uint64(9)).astype(np.int64) % 20)
        quantity[self._is_index[lines]] = 0
        self._quantity[lines] = quantity
        self._volume[lines] += quantity
        self._turnover[lines] += quantity * price
        self._trade_time[lines] = np.where(self._is_index[lines], 0, self._time[lines])
        change = self._lot[lines] * ((bits >> np.uint64(17)).astype(np.int64) % 7 - 3)
        interest = np.maximum(self._interest[lines] + change, self._lot[lines]) * self._has_interest[lines]
        self._interest[lines] = interest
        self._interest_high[lines] = np.maximum(self._interest_high[lines], interest)
        self._interest_low[lines] = np.minimum(self._interest_low[lines], interest)
        shown = np.where(self._has_interest[lines], interest, -1)
        self._bars.add(_minute(now_ns), lines, price, quantity, shown)

    def _rows(self, lines: Lines, bits: Hashes) -> Rows:
        rows = empty_ticks(len(lines))
        tick, index = self._tick[lines], self._is_index[lines]
        rows["instrument"] = lines
        rows["flags"] = self._flags[lines] | np.uint32(Mode.FULL)
        rows["exchange_ns"], rows["last_trade_ns"] = self._time[lines], self._trade_time[lines]
        rows["last_quantity"], rows["volume"] = self._quantity[lines], self._volume[lines]
        rows["open_interest"] = self._interest[lines]
        rows["oi_day_high"], rows["oi_day_low"] = self._interest_high[lines], self._interest_low[lines]
        for name in ("last", "open", "high", "low", "close"):
            steps: Ints = getattr(self, f"_{name}")[lines]
            rows["last_price" if name == "last" else name] = _price(steps, tick)
        volume = np.maximum(self._volume[lines], 1)
        average = np.round(self._turnover[lines] / volume * tick, 4)
        rows["average_price"] = np.where(index, np.nan, np.where(self._volume[lines] > 0, average, 0.0))
        rows["lower_circuit"] = np.where(index, np.nan, _price(self._lower[lines], tick))
        rows["upper_circuit"] = np.where(index, np.nan, _price(self._upper[lines], tick))
        self._fill_depth(rows, lines, bits)
        return rows

    def _fill_depth(self, rows: Rows, lines: Lines, bits: Hashes) -> None:
        """Five levels a side around the last price: sorted, at least one step apart, never crossed."""
        index, tick = self._is_index[lines][:, None], self._tick[lines][:, None]
        noise = mix(bits[:, None], np.arange(2 * DEPTH_LEVELS)).astype(np.int64) & 0x7FFFFFFF
        gaps = 1 + noise % 3
        gaps[:, 0] -= 1  # the best bid may be the last price, the best ask then lies above it
        for side, word in enumerate(("bid", "ask")):
            part = slice(side * DEPTH_LEVELS, (side + 1) * DEPTH_LEVELS)
            away = np.cumsum(gaps[:, part], axis=1)
            steps = self._last[lines][:, None] + (away if side else -away)
            there = (steps > 0) & ~index
            rows[f"{word}_price"] = np.where(index, np.nan, np.where(there, np.round(steps * tick, 4), 0.0))
            quantity = self._lot[lines][:, None] * (1 + (noise[:, part] >> 4) % 900)
            rows[f"{word}_quantity"] = np.where(there, quantity, 0)
            rows[f"{word}_orders"] = np.where(there, 1 + (noise[:, part] >> 16) % 60, 0)
            total = rows[f"{word}_quantity"].sum(axis=1) * (5 + (noise[:, part.start] >> 8) % 50)
            rows["buy_quantity" if word == "bid" else "sell_quantity"] = total

    # --- candles ------------------------------------------------------------------------------

    def candles(self, line: int, interval_s: int, start_ns: int, end_ns: int) -> Rows:
        """See :meth:`marketfeed.brokers.SandboxMarket.candles`.

        Minutes since the sandbox started hold what its ticks said, and are absent without ticks.
        """
        instrument = self._instruments[line]
        first, last = session_of(instrument.exchange)
        days = weekdays(day_of(start_ns), min(day_of(end_ns - 1), self._past.today))
        parts = [self._past.minutes(line, days[days < self._past.today])] if len(days) else []
        if self._past.today in days:
            parts += [self._today(line, self._start_ns), self._bars.minutes(line, first, last)]
        if not parts:
            return fold(_NO_MINUTES, interval_s, first, 1.0)
        bars = Minutes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        rows = fold(bars, interval_s, first, instrument.tick_size)
        return rows[(rows["start_ns"] >= start_ns) & (rows["start_ns"] < end_ns)]


_NO_MINUTES = Minutes(*(np.empty(0, np.int64) for _ in Minutes._fields))


def _minute(ns: int) -> int:
    """Minutes from India's midnight of 1970-01-01."""
    return (ns + 19_800 * NS) // (60 * NS)


def _price(steps: Ints, tick: Reals) -> Reals:
    price: Reals = np.round(steps * tick, 4)
    return price


def _flags(kind: str) -> int:
    flags = Flag.OHLC | Flag.EXCHANGE_TIME
    if kind == Kind.INDEX:
        return flags
    flags |= Flag.QUANTITIES | Flag.VOLUME | Flag.DEPTH | Flag.TRADE_TIME | Flag.CIRCUITS
    if kind in (Kind.FUTURE, Kind.CALL, Kind.PUT):
        flags |= Flag.OPEN_INTEREST | Flag.OI_RANGE
    return flags
