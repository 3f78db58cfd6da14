"""Kite's binary frames for the sandbox: rows to packets, in columns.

Written without the plugin's parser on purpose: each checks the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.clock import NS
from marketfeed.dtypes import Rows
from marketfeed.enums import Kind, Mode
from marketfeed.instruments import Instrument

__all__ = ["PacketLayout", "kite_token"]

_SEGMENTS = {"NSE": 1, "NFO": 2, "CDS": 3, "BSE": 4, "BFO": 5, "BCD": 6, "MCX": 7, "NCO": 12}
_DIVISORS = {3: 10_000_000.0, 6: 10_000.0, 12: 10_000.0}
_INDEX = 9
# Kite numbers indices in its own way; the exchange's numbers are 26000 and so on.
_INDEX_TOKENS = {"NIFTY 50": 1001, "NIFTY BANK": 1016, "INDIA VIX": 1035}
_LEVEL = np.dtype([("quantity", ">u4"), ("price", ">i4"), ("orders", ">u2"), ("padding", ">u2")])
_HEAD = [("length", ">u2"), ("token", ">u4"), ("last_price", ">i4")]
_QUOTE = [
    *_HEAD,
    ("last_quantity", ">u4"),
    ("average_price", ">i4"),
    ("volume", ">u4"),
    ("buy_quantity", ">u4"),
    ("sell_quantity", ">u4"),
    *((name, ">i4") for name in ("open", "high", "low", "close")),
]
_INDEX_QUOTE = [*_HEAD, *((name, ">i4") for name in ("high", "low", "open", "close", "change"))]
_TIMES = ("last_trade_ns", "exchange_ns")
_PACKETS = {  # (index, mode) -> packet behind its length
    (False, Mode.LTP): np.dtype(_HEAD),
    (True, Mode.LTP): np.dtype(_HEAD),
    (False, Mode.QUOTE): np.dtype(_QUOTE),
    (True, Mode.QUOTE): np.dtype(_INDEX_QUOTE),
    (False, Mode.FULL): np.dtype(
        [
            *_QUOTE,
            ("last_trade_ns", ">u4"),
            ("open_interest", ">u4"),
            ("oi_day_high", ">u4"),
            ("oi_day_low", ">u4"),
            ("exchange_ns", ">u4"),
            ("bid", _LEVEL, (5,)),
            ("ask", _LEVEL, (5,)),
        ]
    ),
    (True, Mode.FULL): np.dtype([*_INDEX_QUOTE, ("exchange_ns", ">u4")]),
}
_PRICES = ("last_price", "average_price", "open", "high", "low", "close")


@attrs.frozen(eq=False)
class PacketLayout:
    """Rows to packets, in columns. Shape of the fields: ``(lines,)``."""

    tokens: NDArray[np.uint32]
    divisor: NDArray[np.float64]
    is_index: NDArray[np.bool_]

    @classmethod
    def of(cls, instruments: Sequence[Instrument], tokens: NDArray[np.uint32]) -> PacketLayout:
        segments = (tokens & 0xFF).tolist()
        divisor = np.array([_DIVISORS.get(segment, 100.0) for segment in segments])
        return cls(tokens, divisor, np.array([one.kind == Kind.INDEX for one in instruments], bool))

    def frame(self, rows: Rows, modes: NDArray[np.uint8]) -> bytes:
        """The whole message, packets in the order of the rows; each mode is above 0."""
        lines = rows["instrument"]
        kinds = self.is_index[lines].astype(np.int64) * 4 + modes
        head = len(rows).to_bytes(2, "big")
        if (kinds == kinds[0]).all():
            return head + self._packets(rows, int(kinds[0])).tobytes()
        return head + self._mixed(rows, kinds)

    def _mixed(self, rows: Rows, kinds: NDArray[np.int64]) -> bytes:
        """Packets of several lengths: each kind is written at once, into the places that are its rows'."""
        sizes = np.zeros(8, np.int64)
        for (index, mode), dtype in _PACKETS.items():
            sizes[int(index) * 4 + mode] = dtype.itemsize
        ends = np.cumsum(sizes[kinds])
        out = np.empty(int(ends[-1]), np.uint8)
        for kind in np.unique(kinds).tolist():
            mine = np.flatnonzero(kinds == kind)
            packets = self._packets(rows[mine], kind)
            size = int(sizes[kind])
            places = (ends[mine] - size)[:, None] + np.arange(size)
            out[places] = packets.view(np.uint8).reshape(len(mine), size)
        return out.tobytes()

    def _packets(self, rows: Rows, kind: int) -> Rows:
        index, mode = kind >= 4, Mode(kind % 4)
        dtype = _PACKETS[index, mode]
        lines = rows["instrument"]
        divisor = self.divisor[lines]
        packets: Rows = np.zeros(len(rows), dtype)
        packets["length"] = dtype.itemsize - 2
        packets["token"] = self.tokens[lines]
        for name in dtype.names or ():
            if name in _PRICES:
                packets[name] = _raw(rows[name], divisor)
            elif name in _TIMES:
                packets[name] = rows[name] // NS
            elif name == "change":
                packets[name] = _raw(rows["last_price"] - rows["close"], divisor)
            elif name in ("bid", "ask"):
                levels = packets[name]
                levels["quantity"] = rows[f"{name}_quantity"] & 0xFFFFFFFF
                levels["price"] = _raw(rows[f"{name}_price"], divisor[:, None])
                levels["orders"] = rows[f"{name}_orders"] & 0xFFFF
            elif name not in ("length", "token"):
                packets[name] = rows[name] & 0xFFFFFFFF  # the wire wraps at 32 bits and tells nobody
        return packets


def _raw(prices: NDArray[np.float64], divisor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prices as the wire's whole numbers; absent is 0."""
    raw: NDArray[np.float64] = np.rint(np.where(np.isnan(prices), 0.0, prices) * divisor)
    return raw


def kite_token(instrument: Instrument) -> int:
    """Kite's number: the exchange's number and a byte for the segment."""
    if instrument.kind == Kind.INDEX:
        number = _INDEX_TOKENS.get(instrument.symbol, int(instrument.exchange_token))
        return number << 8 | _INDEX
    return int(instrument.exchange_token) << 8 | _SEGMENTS[instrument.exchange]
