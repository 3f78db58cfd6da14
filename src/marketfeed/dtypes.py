"""The two row layouts and the table of flags. Everything between socket and sink is made of these.

``TICK`` is 360 bytes, native byte order: 64-bit integers first, then floats, then 32-bit
integers, so that a decoder fills a row in three block moves (:data:`TICK_BLOCKS`).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CANDLE",
    "DEPTH_LEVELS",
    "FLAG_GROUPS",
    "MODE_MASK",
    "PRICE_FIELDS",
    "REASON_MASK",
    "TICK",
    "TICK_BLOCKS",
    "CandleFlag",
    "Flag",
    "Rows",
    "Source",
    "empty_ticks",
]

Rows = NDArray[np.void]
"""A one-dimensional structured array of :data:`TICK` or :data:`CANDLE`."""

DEPTH_LEVELS: Final = 5

_INT64 = (
    *("exchange_ns", "received_ns", "last_trade_ns"),
    *("last_quantity", "volume", "buy_quantity", "sell_quantity"),
    *("open_interest", "oi_day_high", "oi_day_low"),
)
_FLOAT64 = ("last_price", "average_price", "open", "high", "low", "close")

TICK: Final[np.dtype[np.void]] = np.dtype(
    [(name, "i8") for name in _INT64]
    + [("bid_quantity", "i8", (DEPTH_LEVELS,)), ("ask_quantity", "i8", (DEPTH_LEVELS,))]
    + [(name, "f8") for name in _FLOAT64]
    + [("bid_price", "f8", (DEPTH_LEVELS,)), ("ask_price", "f8", (DEPTH_LEVELS,))]
    + [("lower_circuit", "f8"), ("upper_circuit", "f8")]
    + [("bid_orders", "i4", (DEPTH_LEVELS,)), ("ask_orders", "i4", (DEPTH_LEVELS,))]
    + [("instrument", "i4"), ("flags", "u4"), ("check", "u4"), ("spare", "u4")]
)
"""One tick.

========================================================= ======== ===================================
``exchange_ns received_ns last_trade_ns``                 int64    UTC nanoseconds, 0 = unknown
``last_quantity volume buy_quantity sell_quantity``       int64    0 with the group bit clear = absent
``open_interest oi_day_high oi_day_low``                  int64    likewise
``bid_quantity ask_quantity``                             int64 x5 best level first
``last_price average_price open high low close``          float64  rupees, NaN = absent
``bid_price ask_price``                                   f64 x5   best level first, NaN = absent
``lower_circuit upper_circuit``                           float64  rupees, NaN = absent
``bid_orders ask_orders``                                 int32 x5 number of orders
``instrument``                                            int32    line of ``instruments.jsonl``
``flags``                                                 uint32   :class:`Flag`
``check spare``                                           uint32   set by the journal
========================================================= ======== ===================================
"""

TICK_BLOCKS: Final[dict[str, slice]] = {"int64": slice(0, 20), "float64": slice(20, 38), "int32": slice(76, 90)}
"""Where the three blocks lie when the rows are viewed as ``(n, 45)`` 8-byte words (``int32``: as
``(n, 90)`` 4-byte words)."""

PRICE_FIELDS: Final = (*_FLOAT64, "bid_price", "ask_price", "lower_circuit", "upper_circuit")

CANDLE: Final[np.dtype[np.void]] = np.dtype(
    [("start_ns", "i8"), ("volume", "i8"), ("open_interest", "i8")]
    + [(name, "f8") for name in ("open", "high", "low", "close")]
    + [("interval", "i4"), ("instrument", "i4"), ("source", "u4"), ("flags", "u4"), ("check", "u4"), ("spare", "u4")]
)
"""One candle: ``start_ns`` is the start of the bar (UTC), ``interval`` its length in seconds, prices
in rupees, ``open_interest`` -1 where the source has none, ``source`` a :class:`Source`, ``flags`` a
:class:`CandleFlag`."""


class CandleFlag(IntFlag):
    """Bits of a candle's ``flags``."""

    PARTIAL = 1
    """The bar was still running when it was made or fetched."""


class Source(IntEnum):
    """Who made a candle."""

    TICKS = 0
    VENDOR = 1


class Flag(IntFlag):
    """Bits of a tick's ``flags``. Bits 0-3 hold the :class:`~marketfeed.enums.Mode` of the packet.

    Bits 4-15 say which groups of fields the message carried; bits 16-31 why validation doubts
    the row.
    """

    QUANTITIES = 1 << 4
    """``last_quantity``, ``buy_quantity``, ``sell_quantity``"""
    OHLC = 1 << 5
    DEPTH = 1 << 6
    OPEN_INTEREST = 1 << 7
    EXCHANGE_TIME = 1 << 8
    TRADE_TIME = 1 << 9
    CIRCUITS = 1 << 10
    VOLUME = 1 << 11
    """``volume`` (an index has none)"""
    OI_RANGE = 1 << 12
    """``oi_day_high``, ``oi_day_low``"""

    NOT_FINITE = 1 << 16
    NOT_POSITIVE = 1 << 17
    OHLC_INCONSISTENT = 1 << 18
    OUTSIDE_CIRCUIT = 1 << 19
    CROSSED_DEPTH = 1 << 20
    UNSORTED_DEPTH = 1 << 21
    TIME_ZERO = 1 << 22
    TIME_AHEAD = 1 << 23
    TIME_BACK = 1 << 24
    VOLUME_BACK = 1 << 25
    REPEAT = 1 << 26
    PRICE_SPIKE = 1 << 27
    UNKNOWN_INSTRUMENT = 1 << 28


MODE_MASK: Final = 0xF
REASON_MASK: Final = 0xFFFF0000

FLAG_GROUPS: Final[dict[Flag, tuple[str, ...]]] = {
    Flag.QUANTITIES: ("last_quantity", "buy_quantity", "sell_quantity"),
    Flag.OHLC: ("open", "high", "low", "close"),
    Flag.DEPTH: ("bid_quantity", "ask_quantity", "bid_price", "ask_price", "bid_orders", "ask_orders"),
    Flag.OPEN_INTEREST: ("open_interest",),
    Flag.EXCHANGE_TIME: ("exchange_ns",),
    Flag.TRADE_TIME: ("last_trade_ns",),
    Flag.CIRCUITS: ("lower_circuit", "upper_circuit"),
    Flag.VOLUME: ("volume",),
    Flag.OI_RANGE: ("oi_day_high", "oi_day_low"),
}
"""The fields that each group bit speaks for."""


def empty_ticks(count: int) -> NDArray[Any]:
    """``count`` rows in which every field is absent: integers 0, prices NaN, ``instrument`` -1."""
    rows: NDArray[Any] = np.zeros(count, TICK)
    words = rows.view("f8").reshape(count, TICK.itemsize // 8)
    words[:, TICK_BLOCKS["float64"]] = np.nan
    rows["instrument"] = -1
    return rows
