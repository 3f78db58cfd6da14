"""mStock's candles: completed days from one call, today from another."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from marketfeed.batches import CandleBatch, Origin
from marketfeed.clock import IST, NS, to_ns
from marketfeed.contract import CandleRequest, Http, Session
from marketfeed.dtypes import CANDLE, Rows, Source
from marketfeed.enums import Interval
from marketfeed.errors import RequestRejected
from marketfeed.instruments import Instrument
from marketfeed_mstock.rest import answer, request
from marketfeed_mstock.settings import MstockSettings

__all__ = ["CANDLE_DAYS", "fetch_candles", "read_candles"]

CANDLE_DAYS: Final = {
    Interval.M1: 2,
    Interval.M3: 8,
    Interval.M5: 13,
    Interval.M10: 26,
    Interval.M15: 40,
    Interval.M30: 76,
    Interval.D1: 1000,
}
"""A request gives at most 1000 candles (official documentation); a trading day has 375 minutes. The hour is left
out: the vendor's own 60-minute samples are labelled as neither start nor end of the hours from 09:15."""
_TYPE_A: Final = {
    Interval.M1: "minute",
    Interval.M3: "3minute",
    Interval.M5: "5minute",
    Interval.M10: "10minute",
    Interval.M15: "15minute",
    Interval.M30: "30minute",
    Interval.D1: "day",
}
_TYPE_B: Final = {
    Interval.M1: "ONE_MINUTE",
    Interval.M3: "THREE_MINUTE",
    Interval.M5: "FIVE_MINUTE",
    Interval.M10: "TEN_MINUTE",
    Interval.M15: "FIFTEEN_MINUTE",
    Interval.M30: "THIRTY_MINUTE",
    Interval.D1: "ONE_DAY",
}
_INTRADAY: Final = {"NSE": "1", "NFO": "2", "CDS": "3", "BSE": "4", "BFO": "5"}
"""Numbers of the exchanges in that one call (official documentation); they are not those of the socket."""


def fetch_candles(settings: MstockSettings, session: Session, http: Http, request_: CandleRequest) -> CandleBatch:
    """Candles whose start lies in ``[start_ns, end_ns)``.

    The history holds completed days only. When the window's last weekday has no candle there, it may be today, so
    the intraday call is asked, too. The newest candle may still be running.
    """
    last = _ist(request_.end_ns - 1)
    last -= timedelta(days=max(0, last.weekday() - 4))  # from a weekend back to Friday
    body = _history(settings, session, http, request_)
    rows = read_candles(body)
    newest = int(rows["start_ns"][-1]) if len(rows) else 0
    day_ns = to_ns(last.date())
    inside = request_.start_ns < day_ns + 86_400 * NS
    wants_today = inside and newest < day_ns and request_.interval is not Interval.D1
    if wants_today and request_.instrument.exchange in _INTRADAY:
        rows = np.concatenate([rows, read_candles(_intraday(settings, session, http, request_))])
    starts = rows["start_ns"]
    if request_.interval is Interval.D1:  # labelled 09:15 in some samples: a day begins at midnight here
        day_s = 86_400
        starts = (starts // NS + 19_800) // day_s * day_s * NS - 19_800 * NS
        rows["start_ns"] = starts
    rows = rows[(starts >= request_.start_ns) & (starts < request_.end_ns)]
    rows = rows[np.unique(rows["start_ns"], return_index=True)[1]]
    rows["interval"] = request_.interval.seconds
    return CandleBatch(rows, Origin([request_.instrument], feed="", vendor="mstock"))


def read_candles(candles: Any) -> Rows:
    """Rows of ``CANDLE`` of ``[time, open, high, low, close, volume]`` lists, oldest first, without repeats."""
    if not isinstance(candles, list):
        raise RequestRejected("mStock's candles are not a list")
    try:
        found = {_start_ns(one[0]): one for one in candles}
        ordered = sorted(found.items())
        rows: Rows = np.zeros(len(ordered), CANDLE)
        rows["source"] = Source.VENDOR
        rows["open_interest"] = -1
        rows["start_ns"] = [start for start, _ in ordered]
        for place, name in enumerate(("open", "high", "low", "close", "volume"), 1):
            rows[name] = [float(one[place]) for _, one in ordered]
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        raise RequestRejected("mStock's candles do not look as documented") from None
    return rows


def _start_ns(text: str) -> int:
    """UTC nanoseconds of ``2025-01-06T09:45:00+05`` or ``2025-02-01 09:45``: both are India time.

    ``+05`` is a truncated +05:30; read as it stands it is half an hour off, so only the first 19 characters count.
    """
    return to_ns(datetime.fromisoformat(text[:19]))


def _history(settings: MstockSettings, session: Session, http: Http, wanted: CandleRequest) -> Any:
    instrument = wanted.instrument
    # A bare end date would mean midnight and lose that day: always send times. Both ends are included.
    start, end = _ist(wanted.start_ns), _ist(wanted.end_ns - 1)
    if wanted.interval is Interval.D1:  # a day that is labelled 09:15 begins at midnight, so the whole day is wanted
        end = end.replace(hour=23, minute=59, second=59)
    if settings.dialect == "a":
        path = f"instruments/historical/{instrument.exchange}/{_bare(instrument)}/{_TYPE_A[wanted.interval]}"
        window = {"from": f"{start:%Y-%m-%d %H:%M:%S}", "to": f"{end:%Y-%m-%d %H:%M:%S}"}
        return _candles(request(http, settings, session, "GET", path, params=window))
    body = {
        "exchange": instrument.exchange,
        "symboltoken": _bare(instrument),
        "interval": _TYPE_B[wanted.interval],
        "fromdate": f"{start:%Y-%m-%d %H:%M}",
        "todate": f"{end:%Y-%m-%d %H:%M}",
    }
    return _candles(request(http, settings, session, "POST", "instruments/historical", json=body))


def _intraday(settings: MstockSettings, session: Session, http: Http, wanted: CandleRequest) -> Any:
    number, token = _INTRADAY[wanted.instrument.exchange], _bare(wanted.instrument)
    if settings.dialect == "a":
        path = f"instruments/intraday/{number}/{token}/{_TYPE_A[wanted.interval]}"
        return _candles(request(http, settings, session, "GET", path))
    body = {"exchange": number, "symboltoken": token, "interval": _TYPE_B[wanted.interval]}
    return _candles(request(http, settings, session, "POST", "instruments/intraday", json=body))


def _candles(reply: tuple[int, bytes]) -> Iterable[Any]:
    data = answer(*reply, "candles")
    found: Iterable[Any] = data.get("candles") or [] if isinstance(data, dict) else []
    return found


def _bare(instrument: Instrument) -> str:
    return instrument.token.rpartition(":")[2]


def _ist(ns: int) -> datetime:
    """India time of UTC nanoseconds, to the second below."""
    return datetime(1970, 1, 1, tzinfo=UTC).astimezone(IST) + timedelta(seconds=ns // NS)
