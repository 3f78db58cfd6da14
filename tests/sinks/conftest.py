"""Batches for the sink tests, and a way to see what a sink wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from marketfeed.batches import CandleBatch, Origin, TickBatch
from marketfeed.clock import to_ns
from marketfeed.dtypes import CANDLE, Flag, Source, empty_ticks
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument

JOURNAL = "00ff" * 8 + ".1"
START_NS = to_ns("2026-11-20 10:00:00")
ALL_GROUPS = sum(flag for flag in Flag if flag < Flag.NOT_FINITE)

INSTRUMENTS = (
    Instrument(exchange="NSE", symbol="RELIANCE", token="738561"),
    Instrument(exchange="NSE", symbol="M&M", token="519937"),
    Instrument(exchange="NFO", symbol='NIFTY, "weekly" ₹ é', token="12345"),
)

MakeTicks = Callable[..., TickBatch]
MakeCandles = Callable[..., CandleBatch]


def make_ticks(
    count: int,
    first_row: int = 0,
    *,
    journal: str = JOURNAL,
    received: str | Sequence[str] = "2026-11-20 10:00:00",
    instruments: Sequence[Instrument] = INSTRUMENTS,
) -> TickBatch:
    """Full ticks whose volume is their row number."""
    rows: Any = empty_ticks(count)
    seq = np.arange(first_row, first_row + count)
    rows["received_ns"] = [to_ns(one) for one in received] if not isinstance(received, str) else to_ns(received)
    rows["exchange_ns"] = rows["received_ns"] // 10**9 * 10**9
    rows["last_trade_ns"] = rows["exchange_ns"] - 10**9
    for place, name in enumerate(("last_price", "average_price", "open", "high", "low", "close")):
        rows[name] = 2500 + place + seq % 100 / 20
    rows["lower_circuit"], rows["upper_circuit"] = 2250.45, 2750.0
    for name in ("last_quantity", "buy_quantity", "sell_quantity", "open_interest", "oi_day_high", "oi_day_low"):
        rows[name] = 75 + seq
    rows["volume"] = seq
    for side, step in (("bid", -0.05), ("ask", 0.05)):
        rows[f"{side}_price"] = np.round(2500 + np.arange(1, 6) * step, 2)
        rows[f"{side}_quantity"] = np.arange(1, 6) * 100
        rows[f"{side}_orders"] = np.arange(1, 6)
    rows["instrument"] = seq % len(instruments)
    rows["flags"] = Mode.FULL | ALL_GROUPS
    return TickBatch(rows, Origin(instruments=instruments, feed="main", vendor="kite", journal=journal), first_row)


def make_candles(count: int, first_row: int = 0, *, start: str = "2026-11-20 09:15:00") -> CandleBatch:
    """One-minute candles whose volume is their row number."""
    rows: Any = np.zeros(count, CANDLE)
    rows["start_ns"] = to_ns(start) + np.arange(count) * 60 * 10**9
    rows["interval"] = 60
    for place, name in enumerate(("low", "open", "close", "high")):
        rows[name] = 100.05 + place
    rows["volume"] = np.arange(first_row, first_row + count)
    rows["open_interest"] = -1
    rows["source"] = Source.VENDOR
    return CandleBatch(rows, Origin(instruments=INSTRUMENTS, vendor="kite", journal=JOURNAL), first_row)


@pytest.fixture(scope="session")
def ticks() -> MakeTicks:
    return make_ticks


@pytest.fixture(scope="session")
def candles() -> MakeCandles:
    return make_candles


@pytest.fixture(scope="session")
def journal() -> str:
    return JOURNAL
