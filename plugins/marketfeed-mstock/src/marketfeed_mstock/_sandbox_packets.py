"""mStock's binary messages for the sandbox: rows to packets of both dialects, in columns.

Written without the plugin's parsers on purpose: each checks the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.clock import NS
from marketfeed.dtypes import Rows
from marketfeed.enums import Kind, Mode
from marketfeed_mstock._sandbox_scrips import Scrip

__all__ = ["Packets"]

_EPOCH_1980_S = 315_532_800
_IST_S = 19_800
_CURRENCY = 13
_LEVEL_A = [("quantity", ">u4"), ("price", ">u4"), ("orders", ">u2"), ("padding", ">u2")]
_LEVEL_B = [("flag", "<u2"), ("quantity", "<u8"), ("price", "<u8"), ("orders", "<u2")]
_PRICES = frozenset({"last_price", "average_price", "open", "high", "low", "close", "upper_circuit", "lower_circuit"})
_TIMES = frozenset({"exchange_ns", "last_trade_ns"})


def _words(form: str, *names: str) -> list[tuple[str, str]]:
    return [(name, form) for name in names]


_DAY = ("open", "high", "low", "close")
_TOTALS = ("buy_quantity", "sell_quantity")
_LIMITS = ("upper_circuit", "lower_circuit", "year_high", "year_low")
_LTP_A = [("length", ">u2"), ("token", ">u4"), ("last_price", ">u4")]
_QUOTE_A = _LTP_A + _words(">u4", "last_quantity", "average_price", "volume", *_TOTALS, *_DAY)
_PACKETS_A = {  # (index, mode) -> packet behind its length: 8, 44, 200; 8, 28, 48
    (False, 1): np.dtype(_LTP_A),
    (False, 2): np.dtype(_QUOTE_A),
    (False, 3): np.dtype(
        [
            *_QUOTE_A,
            *_words(">u4", "last_trade_ns", "open_interest", "oi_day_high", "oi_day_low", "exchange_ns"),
            ("bid", _LEVEL_A, (5,)),
            ("ask", _LEVEL_A, (5,)),
            *_words(">u4", *_LIMITS),
        ]
    ),
    (True, 1): np.dtype(_LTP_A),
    # Kite's order in the short packet, the SDK's own in the long one.
    (True, 2): np.dtype(_LTP_A + _words(">u4", "high", "low", "open", "close") + [("change", ">i4")]),
    (True, 3): np.dtype(_LTP_A + _words(">u4", *_DAY, "last_trade_ns", "exchange_ns", *_LIMITS)),
}
_LTP_B = [
    *(("mode", "u1"), ("exchange", "u1"), ("token", "S25")),
    *_words("<u8", "sequence", "exchange_ns", "last_price"),
]
_QUOTE_B = [
    *_LTP_B,
    *_words("<u8", "last_quantity", "average_price", "volume"),
    *_words("<f8", *_TOTALS),
    *_words("<u8", *_DAY),
]
_PACKETS_B = {  # mode -> packet of 51, 123, 379 bytes
    1: np.dtype(_LTP_B),
    2: np.dtype(_QUOTE_B),
    3: np.dtype(
        [
            *_QUOTE_B,
            *_words("<u8", "last_trade_ns", "open_interest"),
            ("oi_change", "<f8"),
            ("bid", _LEVEL_B, (5,)),
            ("ask", _LEVEL_B, (5,)),
            *_words("<u8", *_LIMITS),
        ]
    ),
}


@attrs.define(eq=False)
class Packets:
    """Shape of the fields: ``(lines,)``."""

    tokens: list[str]
    numbers: NDArray[np.uint8]
    divisor: NDArray[np.float64]
    is_index: NDArray[np.bool_]
    sequence: int = 0
    """Of Type B, counted over everything sent."""

    @classmethod
    def of(cls, scrips: Sequence[Scrip]) -> Packets:
        numbers = np.array([one.number for one in scrips], np.uint8)
        divisor = np.where(numbers == _CURRENCY, 1e7, 100.0)  # 1e7 is a guess, as in Kite and Angel
        index = np.array([one.instrument.kind == Kind.INDEX for one in scrips], bool)
        return cls([one.token for one in scrips], numbers, divisor, index)

    def frame_a(self, rows: Rows, modes: NDArray[np.uint8]) -> bytes:
        """The number of packets, then each packet behind its length, in the order of the rows."""
        kinds = self.is_index[rows["instrument"]].astype(np.int64) * 4 + modes
        parts: list[bytes] = [b""] * len(rows)
        for kind in np.unique(kinds).tolist():
            mine = np.flatnonzero(kinds == kind)
            packets = self._packets_a(rows[mine], kind >= 4, kind % 4)
            size = packets.dtype.itemsize
            data = packets.tobytes()
            for place, row in enumerate(mine.tolist()):
                parts[row] = data[place * size : (place + 1) * size]
        return len(rows).to_bytes(2, "big") + b"".join(parts)

    def _packets_a(self, rows: Rows, index: bool, mode: int) -> Rows:
        dtype = _PACKETS_A[index, mode]
        packets = self._filled(rows, dtype, 0xFFFF_FFFF)
        packets["length"] = dtype.itemsize - 2
        packets["token"] = [int(self.tokens[line]) for line in rows["instrument"].tolist()]
        if index and mode == Mode.FULL:  # it has no trades; the SDK's order holds a plausible time here
            packets["last_trade_ns"] = packets["exchange_ns"]
        return packets

    def messages_b(self, rows: Rows, modes: NDArray[np.uint8], *, header: bool) -> list[bytes]:
        """One packet a message; the header (count and size) stands in the documentation only."""
        found: list[bytes] = [b""] * len(rows)
        sequence = self.sequence + 1 + np.arange(len(rows))
        self.sequence += len(rows)
        for mode in np.unique(modes).tolist():
            mine = np.flatnonzero(modes == mode)
            lines = rows["instrument"][mine]
            packets = self._filled(rows[mine], _PACKETS_B[mode], 0xFFFF_FFFF_FFFF_FFFF)
            packets["mode"], packets["exchange"] = mode, self.numbers[lines]
            packets["token"] = [self.tokens[line].encode() for line in lines.tolist()]
            packets["sequence"] = sequence[mine]
            if mode == Mode.FULL:
                packets["bid"]["flag"] = 1
            size, data = packets.dtype.itemsize, packets.tobytes()
            head = (1).to_bytes(2, "little") + size.to_bytes(2, "little") if header else b""
            for place, row in enumerate(mine.tolist()):
                found[row] = head + data[place * size : (place + 1) * size]
        return found

    def _filled(self, rows: Rows, dtype: np.dtype[Any], mask: int) -> Rows:
        """Packets with everything that rows have; whole numbers wrap where the wire is too narrow for them."""
        divisor = self.divisor[rows["instrument"]]
        packets: Rows = np.zeros(len(rows), dtype)
        limit = np.uint64(mask)
        for name in dtype.names or ():
            if name in _PRICES:
                packets[name] = _raw(rows[name], divisor) & limit
            elif name in _TIMES:
                packets[name] = _seconds(rows[name])
            elif name in ("bid", "ask"):
                levels = packets[name]
                levels["quantity"] = rows[f"{name}_quantity"].astype(np.uint64) & limit
                levels["price"] = _raw(rows[f"{name}_price"], divisor[:, None]) & limit
                levels["orders"] = rows[f"{name}_orders"] & 0xFFFF
            elif name in ("year_high", "year_low"):  # the market has no year: these are invented
                packets[name] = _raw(_year(rows, name), divisor) & limit
            elif name == "change":
                packets[name] = np.rint((rows["last_price"] - rows["close"]) * divisor)
            elif name in _TOTALS and dtype[name].kind == "f":
                packets[name] = rows[name]
            elif name in (rows.dtype.names or ()):
                packets[name] = rows[name].astype(np.uint64) & limit
        return packets


def _raw(prices: NDArray[np.float64], divisor: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Prices as the wire's whole numbers; absent is 0."""
    return np.rint(np.where(np.isfinite(prices), prices, 0.0) * divisor).astype(np.int64).astype(np.uint64)


def _seconds(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Seconds since 1980 of India's wall clock (the zone is a guess); 0 = none."""
    return np.where(times > 0, np.maximum(times // NS + _IST_S - _EPOCH_1980_S, 0), 0)


def _year(rows: Rows, name: str) -> NDArray[np.float64]:
    high = name == "year_high"
    edge = np.round(rows["close"] * (1.25 if high else 0.75))
    found: NDArray[np.float64] = np.maximum(rows["high"], edge) if high else np.minimum(rows["low"], edge)
    return found
