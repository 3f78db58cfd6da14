"""Candles of the days before now: made on demand from the seed, minute by minute.

Longer bars are put together from the minutes, so every interval tells the same story, and the close
of the day before the sandbox's day is the price from which its market starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.clock import NS
from marketfeed.dtypes import CANDLE, Rows, Source
from marketfeed.enums import Kind
from marketfeed.sandbox.noise import Hashes, Reals, identity, mix, normal, uniform
from marketfeed.sandbox.universe import Listing

__all__ = ["DAY_NS", "History", "Minutes", "day_of", "day_start_ns", "fold", "previous_day", "session_of"]

DAY_NS = 86_400 * NS
MINUTE_NS = 60 * NS
_IST_NS = 19_800 * NS
_SESSIONS = {"MCX": (540, 1410), "NCO": (540, 1410), "CDS": (540, 1020), "BCD": (540, 1020)}

Ints = NDArray[np.int64]


def session_of(exchange: str) -> tuple[int, int]:
    """First and one past the last trading minute of a day, counted from India's midnight."""
    return _SESSIONS.get(exchange, (555, 930))


def day_of(ns: int) -> int:
    """Number of the India day in which a moment lies, counted from 1970-01-01."""
    return (ns + _IST_NS) // DAY_NS


def day_start_ns(day: int) -> int:
    """India's midnight at the start of a day, UTC nanoseconds."""
    return day * DAY_NS - _IST_NS


def is_weekday(day: int) -> bool:
    return (day + 3) % 7 < 5  # 1970-01-01 was a Thursday


def previous_day(day: int) -> int:
    """The weekday before. Holidays are not known here: every weekday trades."""
    return day - {0: 3, 6: 2}.get((day + 3) % 7, 1)


class Minutes(NamedTuple):
    """One-minute bars, one element each. Prices in steps of the tick size."""

    minute: Ints
    """Minutes from India's midnight of day 0."""
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    open_interest: Ints


@attrs.frozen
class History:
    """The past of a set of instruments, up to any day."""

    seed: int
    today: int
    """The sandbox's day; the close of the weekday before it is each listing's ``price``."""
    listings: Sequence[Listing] = attrs.field(repr=False)
    _ids: Hashes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        names = [one.follows or one.instrument.key for one in self.listings]
        object.__setattr__(self, "_ids", np.array([identity(name) for name in names], np.uint64))

    @property
    def ids(self) -> Hashes:
        """The identity whose random numbers each line uses."""
        return self._ids

    def minutes(self, line: int, days: Ints) -> Minutes:
        """All bars of the given trading days, oldest first."""
        listing = self.listings[line]
        first, last = session_of(listing.instrument.exchange)
        closes = self._closes(line, np.append(days, [previous_day(int(day)) for day in days]))
        ends, starts = closes[: len(days)], closes[len(days) :]
        bars = self._paths(line, days, starts, ends, last - first)
        minute = days[:, None] * 1440 + np.arange(first, last)
        return Minutes(minute.ravel(), *(column.ravel() for column in bars))

    def _closes(self, line: int, days: Ints) -> Reals:
        """Unrounded close of each day: two slow waves and noise, scaled so that the eve's is ``price``."""
        listing, own = self.listings[line], self._ids[line : line + 1]
        eve = previous_day(self.today)
        phases = uniform(mix(self.seed, own, 1, np.arange(2))) * 2 * np.pi

        def level(day: Ints) -> Reals:
            waves = 0.04 * np.sin(2 * np.pi * day / 97 + phases[0]) + 0.02 * np.sin(2 * np.pi * day / 23 + phases[1])
            return np.asarray(waves + 0.006 * normal(mix(self.seed, own, 2, day)))

        swing = min(listing.swing, 1.5)  # circuits are at 10 %: a wilder past could not have happened
        offset = swing * (level(days) - level(np.array([eve])))
        return np.asarray(listing.price * np.exp(offset))

    def _paths(self, line: int, days: Ints, starts: Reals, ends: Reals, length: int) -> tuple[Ints, ...]:
        """Open, high, low, close, volume, open interest, each of shape (days, length)."""
        listing, own = self.listings[line], self._ids[line : line + 1]
        tick, lot = listing.instrument.tick_size, listing.instrument.lot_size
        noise = mix(self.seed, own, 3, days[:, None], np.arange(length))
        walk = np.cumsum(normal(noise), axis=1) * 0.0004 * min(listing.swing, 1.5)
        done = np.arange(1, length + 1) / length
        bridge = walk - done * walk[:, -1:]
        path = starts[:, None] * np.exp(bridge + done * np.log(ends / starts)[:, None])
        close = np.maximum(np.rint(path / tick).astype(np.int64), 1)
        first = np.maximum(np.rint(starts / tick).astype(np.int64), 1)
        opened = np.concatenate([first[:, None], close[:, :-1]], axis=1)
        spread = (noise >> np.uint64(7)).astype(np.int64) & 3
        high = np.maximum(opened, close) + spread
        low = np.maximum(np.minimum(opened, close) - (spread ^ 1), 1)
        index = listing.instrument.kind == Kind.INDEX
        shape = 1 + 3 * (2 * done - 1) ** 2  # busy mornings and evenings
        lots = (uniform(noise) * 400 * shape).astype(np.int64) + 1
        usual = 97 if listing.instrument.kind == Kind.EQUITY else 1
        volume = np.zeros_like(lots) if index else lots * lot * usual
        drift = (noise >> np.uint64(20)).astype(np.int64) % 41 - 20
        interest = np.maximum(listing.open_interest + np.cumsum(drift, axis=1) * lot, lot)
        return opened, high, low, close, volume, interest if listing.open_interest else np.full_like(volume, -1)


def weekdays(first: int, last: int) -> Ints:
    """All trading days in ``[first, last]``."""
    return np.array([day for day in range(first, last + 1) if is_weekday(day)], np.int64)


def trading_day(today: date) -> date:
    """The latest weekday on or before that date."""
    return today - timedelta(days=max(0, today.weekday() - 4))


def fold(bars: Minutes, interval_s: int, session_start: int, tick: float) -> Rows:
    """Put minutes (sorted, none twice) together to candles that begin at the session's start.

    A day candle is labelled with India's midnight.
    """
    days, in_day = np.divmod(bars.minute, 1440)
    length = interval_s // 60
    label = days * 1440 + (0 if interval_s >= 86_400 else session_start + (in_day - session_start) // length * length)
    heads = np.flatnonzero(np.diff(label, prepend=-1))
    rows: Rows = np.zeros(len(heads), CANDLE)
    if not len(heads):
        return rows
    tails = np.append(heads[1:], len(label)) - 1
    rows["start_ns"] = label[heads] * MINUTE_NS - _IST_NS
    rows["volume"] = np.add.reduceat(bars.volume, heads)
    rows["open_interest"] = bars.open_interest[tails]
    for name, steps in (
        ("open", bars.open[heads]),
        ("high", np.maximum.reduceat(bars.high, heads)),
        ("low", np.minimum.reduceat(bars.low, heads)),
        ("close", bars.close[tails]),
    ):
        rows[name] = np.round(steps * tick, 4)
    rows["interval"] = interval_s
    rows["source"] = Source.VENDOR
    return rows
