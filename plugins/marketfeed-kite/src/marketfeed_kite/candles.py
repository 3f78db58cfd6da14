"""Kite's historical candles: one request's worth, decoded column by column."""

from __future__ import annotations

from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from marketfeed.batches import CandleBatch, Origin
from marketfeed.clock import IST, NS
from marketfeed.contract import CandleRequest, Http, Session
from marketfeed.dtypes import CANDLE, Rows, Source
from marketfeed.enums import Interval
from marketfeed.errors import RequestRejected
from marketfeed_kite.rest import get
from marketfeed_kite.settings import KiteSettings

__all__ = ["fetch_candles", "read_candles"]

_NAMES: Final = {
    Interval.M1: "minute",
    Interval.M3: "3minute",
    Interval.M5: "5minute",
    Interval.M10: "10minute",
    Interval.M15: "15minute",
    Interval.M30: "30minute",
    Interval.H1: "60minute",
    Interval.D1: "day",
}
_IST_S: Final = 19_800
_TIME: Final = len("2017-12-15T09:15:00+0530")


# Not looked at by the garbage collector: for tens of thousands of objects that live for a moment it
# would cost more than all the rest.
class _Candle(msgspec.Struct, array_like=True, gc=False):
    """One candle as it is sent: an array of six, or of seven when open interest was asked for and there is any."""

    time: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    open_interest: float = -1.0


class _Data(msgspec.Struct):
    candles: list[_Candle]


class _Reply(msgspec.Struct):
    data: _Data


def fetch_candles(settings: KiteSettings, session: Session, http: Http, request: CandleRequest) -> CandleBatch:
    """Candles whose start lies in ``[request.start_ns, request.end_ns)``.

    The newest one may still be running: the API does not say so, the caller's clock does. Raises
    ``SessionExpired``, ``RateLimited``, ``LineLost`` or ``RequestRejected`` (such as a window that is too long).
    """
    path = f"/instruments/historical/{request.instrument.token}/{_NAMES[request.interval]}"
    # The API's `to` is included (and whole seconds), ours is not.
    window = {"from": _ist(-(-request.start_ns // NS)), "to": _ist((request.end_ns - 1) // NS)}
    oi = "1" if request.open_interest else "0"
    body = get(http, settings, session, path, **window, continuous="0", oi=oi)
    rows = read_candles(body, open_interest=request.open_interest)
    starts = rows["start_ns"]
    rows = rows[(starts >= request.start_ns) & (starts < request.end_ns)]
    rows["interval"] = request.interval.seconds
    return CandleBatch(rows, Origin([request.instrument], feed="", vendor="kite"))


def read_candles(body: bytes, *, open_interest: bool = False) -> Rows:
    """Rows of ``CANDLE`` in a reply, oldest first; ``instrument`` and ``interval`` are 0.

    ``open_interest`` is read if asked for and -1 otherwise. Raises ``RequestRejected`` for what is no such reply.
    """
    try:
        candles = msgspec.json.decode(body, type=_Reply).data.candles
    except (msgspec.DecodeError, UnicodeError) as error:
        raise RequestRejected(f"Kite's candles do not look as documented: {error}") from None
    count = len(candles)
    rows: Rows = np.zeros(count, CANDLE)
    rows["source"] = Source.VENDOR
    rows["open_interest"] = -1
    rows["start_ns"] = _start_ns([one.time for one in candles])
    for name in ("open", "high", "low", "close", "volume", *(["open_interest"] if open_interest else [])):
        rows[name] = np.fromiter(map(attrgetter(name), candles), np.float64, count)
    return rows


def _start_ns(times: list[str]) -> NDArray[np.int64]:
    """UTC nanoseconds of texts such as ``2017-12-15T09:15:00+0530``, shape ``(n,)``.

    They are read as one fixed-width array; Python's datetime would take fifty times as long.
    """
    count = len(times)
    text = "".join(times).encode()
    if (
        count
        and len(text) == count * _TIME
        and (np.ndarray((count,), "S5", text, _TIME - 5, (_TIME,)) == b"+0530").all()
    ):
        local: NDArray[Any] = np.ndarray((count,), f"S{_TIME - 5}", text, 0, (_TIME,))
        try:
            seconds: NDArray[np.int64] = local.astype("M8[s]").astype(np.int64)
        except ValueError as error:
            raise RequestRejected(f"Kite sent a candle with a time that is none: {error}") from None
        return (seconds - _IST_S) * NS
    return np.array([int(_moment(time).timestamp()) * NS for time in times], np.int64)


def _moment(time: str) -> datetime:
    try:
        return datetime.strptime(time, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        raise RequestRejected(f"Kite sent a candle with the time {time[:40]!r}") from None


def _ist(seconds: int) -> str:
    """India time as the API takes it: no zone in the text."""
    return datetime.fromtimestamp(seconds, UTC).astimezone(IST).strftime("%Y-%m-%d %H:%M:%S")
