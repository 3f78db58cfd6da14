"""Historical candles, JSON to a DataFrame, against the official client (which makes a list of dicts)."""

from __future__ import annotations

import gc
import json
import random
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from benchmarks._ratio import Result, compare
from marketfeed.batches import CandleBatch, Origin
from marketfeed.clock import IST
from marketfeed.instruments import Instrument

__all__ = ["run"]

_CANDLES = 22_500
"""60 days of one-minute bars, the most that one request gives."""


def run() -> Iterator[Result]:
    """The one ratio."""
    import pandas as pd
    from marketfeed_kite.candles import read_candles

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kiteconnect import KiteConnect
    client = KiteConnect("key")
    body = _body()
    origin = Origin([Instrument(exchange="NSE", symbol="INFY", token="408065")])

    def official() -> Any:
        return pd.DataFrame(client._format_historical(json.loads(body)["data"]))

    def ours() -> Any:
        rows = read_candles(body)
        rows["interval"] = 60
        return CandleBatch(rows, origin).to_pandas()

    if official()["close"].tolist() != ours()["close"].tolist():
        raise AssertionError("the two disagree; a ratio would mean nothing")
    yield Result(f"candles x{_CANDLES:,}, JSON to DataFrame", compare(_collected(ours), _collected(official), 5), 60)


def _collected(function: Callable[[], Any]) -> Callable[[], Any]:
    """With the garbage collector on, as in any program: what a list of dicts costs lies half in there."""

    def call() -> Any:
        gc.enable()
        try:
            return function()
        finally:
            gc.disable()

    return call


def _body() -> bytes:
    rng = random.Random(1)
    start = datetime(2026, 1, 1, 9, 15, tzinfo=IST)
    candles = [
        [
            (start + timedelta(minutes=n)).strftime("%Y-%m-%dT%H:%M:%S%z"),
            *(rng.randrange(100_000, 200_000) / 100 for _ in range(4)),
            rng.randrange(100_000),
        ]
        for n in range(_CANDLES)
    ]
    return json.dumps({"status": "success", "data": {"candles": candles}}).encode()
