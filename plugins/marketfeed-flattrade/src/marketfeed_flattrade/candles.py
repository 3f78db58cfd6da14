"""FlatTrade's candles: TPSeries for minutes, EODChartData for days."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
import numpy as np

from marketfeed.batches import CandleBatch, Origin
from marketfeed.clock import IST, NS
from marketfeed.contract import CandleRequest, Http, Session
from marketfeed.dtypes import CANDLE, Rows, Source
from marketfeed.enums import Interval
from marketfeed.errors import RequestRejected
from marketfeed_flattrade.rest import call
from marketfeed_flattrade.settings import FlattradeSettings

__all__ = ["CANDLE_DAYS", "fetch_candles", "read_days", "read_minutes"]

_log = logging.getLogger(__name__)
CANDLE_DAYS: Final = {
    Interval.M1: 5,
    Interval.M3: 15,
    Interval.M5: 25,
    Interval.M10: 50,
    Interval.M15: 75,
    Interval.M30: 100,
    Interval.H1: 100,
    Interval.D1: 365,
}
"""Days in one request. Guess: the manual names no longest range, so answers are kept to about 2000 candles."""
_IST_S: Final = 19_800
_PRICES: Final = {"into": "open", "inth": "high", "intl": "low", "intc": "close"}
_FORMATS: Final = ("%d-%m-%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S")
"""The manual's table says slashes, its sample shows dashes."""


def fetch_candles(settings: FlattradeSettings, session: Session, http: Http, request: CandleRequest) -> CandleBatch:
    """Candles whose start lies in ``[start_ns, end_ns)``; that ``time`` is the start is a guess."""
    instrument = request.instrument
    # Both ends are taken as included; what is too much is cut off below.
    start_s, end_s = request.start_ns // NS, (request.end_ns - 1) // NS
    if request.interval is Interval.D1:
        # A day is labelled with UTC midnight of its date, five and a half hours after India's.
        symbol = f"{instrument.exchange}:{instrument.trading_symbol or instrument.symbol}"
        window = {"sym": symbol, "from": str(start_s), "to": str(end_s + _IST_S)}
        rows = read_days(call(http, settings, session, "EODChartData", window))
    else:
        window = {"exch": instrument.exchange, "token": instrument.exchange_token}
        window |= {"st": str(start_s), "et": str(end_s), "intrv": str(request.interval.seconds // 60)}
        rows = read_minutes(call(http, settings, session, "TPSeries", window), open_interest=request.open_interest)
    starts = rows["start_ns"]
    rows = rows[(starts >= request.start_ns) & (starts < request.end_ns)]
    rows["interval"] = request.interval.seconds
    return CandleBatch(rows, Origin([instrument], feed="", vendor="flattrade"))


def read_minutes(content: Any, *, open_interest: bool = True) -> Rows:
    """Rows of ``CANDLE`` of a TPSeries answer, oldest first; placeholders (all prices 0) are left out."""
    rows = _rows(content, _minute_ns, "intv")
    if not open_interest:
        rows["open_interest"] = -1
    return rows


def read_days(content: Any) -> Rows:
    """Rows of an EODChartData answer, a list of JSON texts: one each at 00:00 India time of its date."""
    try:
        bars = [msgspec.json.decode(one) if isinstance(one, str) else one for one in _list(content)]
    except msgspec.DecodeError:
        raise RequestRejected("FlatTrade's daily candles do not look as documented") from None
    rows = _rows(bars, _day_ns, "intv")
    rows["open_interest"] = -1
    return rows


def _rows(bars: Any, start_ns: Any, volume: str) -> Rows:
    try:
        found = {start_ns(one): one for one in _list(bars)}
        ordered = sorted(found.items())
        rows: Rows = np.zeros(len(ordered), CANDLE)
        rows["start_ns"] = [start for start, _ in ordered]
        for field, name in _PRICES.items():
            rows[name] = [float(one[field]) for _, one in ordered]
        rows["volume"] = [int(float(one.get(volume) or 0)) for _, one in ordered]
        rows["open_interest"] = [int(float(one.get("oi") or 0)) for _, one in ordered]
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        raise RequestRejected("FlatTrade's candles do not look as documented") from None
    rows["source"] = Source.VENDOR
    return _usable(rows)


def _usable(rows: Rows) -> Rows:
    prices = np.stack([rows[name] for name in _PRICES.values()])
    empty = (prices == 0).all(axis=0)
    broken = ~empty & ~(prices > 0).all(axis=0)  # such as a low of 0.00 beside other prices
    if broken.any():
        _log.warning("left out %d FlatTrade candles with a price of zero or none", int(broken.sum()))
    usable: Rows = rows[~empty & ~broken]
    return usable


def _list(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise RequestRejected("FlatTrade's candles are not a list")
    return content


def _minute_ns(bar: Mapping[str, str]) -> int:
    """Start of a bar, floored to the minute: the manual's samples are not on it."""
    seconds = int(bar["ssboe"]) if bar.get("ssboe") else _clock_s(bar["time"])
    return seconds // 60 * 60 * NS


def _clock_s(text: str) -> int:
    for layout in _FORMATS:
        try:
            return int(datetime.strptime(text, layout).replace(tzinfo=IST).timestamp())
        except ValueError:
            continue
    raise ValueError(text)


def _day_ns(bar: Mapping[str, str]) -> int:
    """00:00 India time of the date whose UTC midnight is ``ssboe`` (checked by arithmetic on recordings)."""
    return (int(bar["ssboe"]) // 86_400 * 86_400 - _IST_S) * NS
