"""Batches to feed a sink with: small, full of every field, the same in every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from marketfeed.batches import CandleBatch, Origin, TickBatch
from marketfeed.clock import NS, to_ns
from marketfeed.dtypes import CANDLE, Flag, Rows, Source, empty_ticks
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument
from marketfeed.journal.catalog import Catalog

__all__ = ["INSTRUMENTS", "JOURNAL", "START_NS", "sample_candles", "sample_ticks", "tick_batch"]

JOURNAL: Final = "5a" * 16 + ".1"
"""The published name that sample batches carry, ``<id>.<epoch>``."""
START_NS: Final = to_ns("2026-11-20 10:00:00")
"""When the first sample row was received: a Friday in market hours."""
INSTRUMENTS: Final = (
    Instrument(exchange="NSE", symbol="RELIANCE", token="738561", vendor="sample"),
    Instrument(exchange="NSE", symbol="M&M", token="519937", vendor="sample"),
    Instrument(exchange="NFO", symbol="NIFTY26NOVFUT", token="12345", vendor="sample"),
)
_GROUPS: Final = sum(flag for flag in Flag if flag < Flag.NOT_FINITE)


def sample_ticks(
    count: int,
    first_row: int = 0,
    *,
    journal: str = JOURNAL,
    feed: str = "main",
    instruments: Sequence[Instrument] = INSTRUMENTS,
) -> TickBatch:
    """Full ticks with depth, one a millisecond, instruments in turn; ``volume`` is the row number.

    Row ``n`` is the same however the rows are cut into batches.
    """
    rows: Any = empty_ticks(count)
    seq = np.arange(first_row, first_row + count)
    rows["received_ns"] = START_NS + seq * 1_000_000 + 12_345
    rows["exchange_ns"] = rows["received_ns"] // NS * NS
    rows["last_trade_ns"] = rows["exchange_ns"] - NS
    for place, name in enumerate(("last_price", "average_price", "open", "low", "close", "high")):
        rows[name] = np.round(2500 + place + seq % 2000 * 0.05, 2)
    rows["lower_circuit"], rows["upper_circuit"] = 2250.45, 2750.0
    for name in ("last_quantity", "buy_quantity", "sell_quantity", "open_interest", "oi_day_high", "oi_day_low"):
        rows[name] = 75 + seq % 1000
    rows["volume"] = seq
    for side, step in (("bid", -0.05), ("ask", 0.05)):
        rows[f"{side}_price"] = np.round(2500 + np.arange(1, 6) * step, 2)
        rows[f"{side}_quantity"] = np.arange(1, 6) * 100
        rows[f"{side}_orders"] = np.arange(1, 6)
    rows["instrument"] = seq % len(instruments)
    rows["flags"] = Mode.FULL | _GROUPS
    return tick_batch(rows, first_row, journal=journal, feed=feed, instruments=instruments)


def tick_batch(
    rows: Rows,
    first_row: int = 0,
    *,
    journal: str = JOURNAL,
    feed: str = "main",
    instruments: Sequence[Instrument] = INSTRUMENTS,
) -> TickBatch:
    """Rows of ``TICK`` as the batch that a journal would give; ``instrument`` counts in ``instruments``, -1 is
    an unknown one. Start from :func:`marketfeed.dtypes.empty_ticks`."""
    return TickBatch(rows, _origin(journal, feed, instruments), first_row)


def sample_candles(
    count: int, first_row: int = 0, *, journal: str = JOURNAL, instruments: Sequence[Instrument] = INSTRUMENTS
) -> CandleBatch:
    """One-minute candles from 09:15 India time, instruments in turn; ``volume`` is the row number."""
    rows: Any = np.zeros(count, CANDLE)
    seq = np.arange(first_row, first_row + count)
    rows["start_ns"] = to_ns("2026-11-20 09:15:00") + seq // len(instruments) * 60 * NS
    rows["interval"] = 60
    for place, name in enumerate(("low", "open", "close", "high")):
        rows[name] = 100.05 + place
    rows["volume"] = seq
    rows["open_interest"] = -1
    rows["instrument"] = seq % len(instruments)
    rows["source"] = Source.VENDOR
    return CandleBatch(rows, _origin(journal, "main", instruments), first_row)


def _origin(journal: str, feed: str, instruments: Sequence[Instrument]) -> Origin:
    catalog = Catalog()  # as in a feed: number -1 is an instrument without names
    numbers = catalog.register(instruments)
    if numbers != list(range(len(instruments))):
        raise ValueError("the instruments must all be different")
    return Origin(instruments=catalog, feed=feed, vendor="sample", journal=journal)
