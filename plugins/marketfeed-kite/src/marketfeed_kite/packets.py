"""What the five packet layouts hold, and one bulk decoder for each.

Length decides the kind (official documentation); all fields are big endian words of four bytes but
for the order counts. Word numbers below count from the start of the packet::

    8    ltp          0 token | 1 last_price
    28   index quote  0 token | 1 last_price | 2 high | 3 low | 4 open | 5 close | 6 price change
    32   index full   as 28   | 7 exchange time
    44   quote        0 token | 1 last_price | 2 last_quantity | 3 average_price | 4 volume
                      5 buy_quantity | 6 sell_quantity | 7 open | 8 high | 9 low | 10 close
    184  full         as 44   | 11 last trade time | 12 open_interest | 13 oi_day_high | 14 oi_day_low
                      15 exchange time | 16-30 five bids | 31-45 five asks
         one level    quantity | price | orders (uint16) and two bytes of padding (not always zero)

Quantities and times are unsigned. Prices are signed: below 2**31 that is what the official SDK reads,
and a negative price (crude oil, April 2020) stays negative instead of becoming 42949635.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.clock import NS
from marketfeed.dtypes import DEPTH_LEVELS, TICK, TICK_BLOCKS, Flag, empty_ticks
from marketfeed.enums import Mode

__all__ = ["DECODERS", "DIVISORS", "FLAGS", "INSTRUMENT", "RECEIVED", "WORDS", "Words"]

Words = NDArray[np.int64]
"""Rows of ``TICK`` seen as 8-byte words, shape ``(n, 45)``."""
Packets = NDArray[np.uint32]
"""Packets of one length in native order, shape ``(n, length / 4)``."""
Decoder = Callable[[Packets, NDArray[np.float64], Words], None]
"""``(packets, divisors of shape (n, 1), rows to fill)``; leaves token-dependent fields alone."""

LTP: Final = 8
INDEX_QUOTE: Final = 28
INDEX_FULL: Final = 32
QUOTE: Final = 44
FULL: Final = 184

_QUOTE_GROUPS = Flag.QUANTITIES | Flag.OHLC | Flag.VOLUME
_FULL_GROUPS = _QUOTE_GROUPS | Flag.DEPTH | Flag.OPEN_INTEREST | Flag.OI_RANGE | Flag.EXCHANGE_TIME | Flag.TRADE_TIME
FLAGS: Final[dict[int, int]] = {
    LTP: int(Mode.LTP),
    INDEX_QUOTE: Mode.QUOTE | Flag.OHLC,
    INDEX_FULL: Mode.FULL | Flag.OHLC | Flag.EXCHANGE_TIME,
    QUOTE: Mode.QUOTE | _QUOTE_GROUPS,
    FULL: Mode.FULL | _FULL_GROUPS,
}
"""Packet length -> the row's ``flags``; a time of 0 clears its bit afterwards."""

DIVISORS: Final[NDArray[np.float64]] = np.full(256, 100.0)
"""Indexed by the token's low byte, the segment: currencies carry more decimals than paise."""
DIVISORS[3] = 1e7  # CDS
DIVISORS[6] = 1e4  # BCD
DIVISORS[12] = 1e4  # NCO; read in kiteconnect 5.2.2, older SDKs divide by 100

WORDS: Final = TICK.itemsize // 8


def _word(field: str, size: int = 8) -> int:
    """Number of the word of ``size`` bytes at which a field of ``TICK`` begins."""
    fields: Any = TICK.fields
    return int(fields[field][1]) // size


RECEIVED: Final = _word("received_ns")
INSTRUMENT: Final = _word("instrument", 4)
_EXCHANGE_TIME = _word("exchange_ns")
_TRADE_TIME = _word("last_trade_ns")
_TIMES = slice(_EXCHANGE_TIME, _TRADE_TIME + 1, _TRADE_TIME - _EXCHANGE_TIME)
_QUANTITIES = slice(_word("last_quantity"), _word("sell_quantity") + 1)
_LAST_PRICE = _word("last_price")
_OHLC = slice(_word("open"), _word("close") + 1)
_DAY_PRICES = slice(_LAST_PRICE, _word("close") + 1)
_ALL_PRICES = slice(_LAST_PRICE, _word("ask_price") + DEPTH_LEVELS)
_ORDERS = slice(_word("bid_orders", 4), _word("ask_orders", 4) + DEPTH_LEVELS)
_FLAGS = _word("flags", 4)
_REST = slice(_ALL_PRICES.stop, WORDS)


def _columns(*words: int) -> NDArray[np.intp]:
    return np.array(words, np.intp)


_LEVELS = range(16, 46, 3)
_QUOTE_QUANTITIES = _columns(2, 4, 5, 6)
_QUOTE_PRICES = _columns(1, 3, 7, 8, 9, 10)
# One column for each word of the row's integer block; received_ns (here word 0) is filled later.
_FULL_INTEGERS = _columns(15, 0, 11, 2, 4, 5, 6, 12, 13, 14, *_LEVELS)
_FULL_PRICES = _columns(*_QUOTE_PRICES, *(level + 1 for level in _LEVELS))
_FULL_ORDERS = _columns(*(level + 2 for level in _LEVELS))
_INDEX_OHLC = _columns(4, 2, 3, 5)


def _template(length: int) -> Words:
    """A row in which everything is absent but for the flags; shape ``(45,)``."""
    row = empty_ticks(1)
    row["flags"] = FLAGS[length]
    return row.view(np.int64)


_TEMPLATES: Final = {length: _template(length) for length in FLAGS}


def _ltp(packets: Packets, divisors: NDArray[np.float64], words: Words) -> None:
    words[:] = _TEMPLATES[LTP]
    words.view(np.float64)[:, _LAST_PRICE] = packets.view(np.int32)[:, 1] / divisors[:, 0]


def _index(packets: Packets, divisors: NDArray[np.float64], words: Words) -> None:
    length = packets.shape[1] * 4
    words[:] = _TEMPLATES[length]
    signed, prices = packets.view(np.int32), words.view(np.float64)
    prices[:, _LAST_PRICE] = signed[:, 1] / divisors[:, 0]
    np.divide(signed.take(_INDEX_OHLC, axis=1), divisors, out=prices[:, _OHLC])
    if length == INDEX_FULL:
        seconds = packets[:, 7]
        words[:, _EXCHANGE_TIME] = seconds
        words[:, _EXCHANGE_TIME] *= NS
        if not seconds.all():
            _clear(words, _EXCHANGE_TIME, Flag.EXCHANGE_TIME)


def _quote(packets: Packets, divisors: NDArray[np.float64], words: Words) -> None:
    words[:] = _TEMPLATES[QUOTE]
    words[:, _QUANTITIES] = packets.take(_QUOTE_QUANTITIES, axis=1)
    signed = packets.view(np.int32).take(_QUOTE_PRICES, axis=1)
    np.divide(signed, divisors, out=words.view(np.float64)[:, _DAY_PRICES])


def _full(packets: Packets, divisors: NDArray[np.float64], words: Words) -> None:
    # Three block moves around the few words that no packet holds.
    words[:, TICK_BLOCKS["int64"]] = packets.take(_FULL_INTEGERS, axis=1)
    prices = words.view(np.float64)[:, _ALL_PRICES]
    np.divide(packets.view(np.int32).take(_FULL_PRICES, axis=1), divisors, out=prices)
    words[:, _REST] = _TEMPLATES[FULL][_REST]
    words.view(np.int32)[:, _ORDERS] = packets.take(_FULL_ORDERS, axis=1) >> 16
    times = words[:, _TIMES]
    times *= NS
    if np.count_nonzero(times) < times.size:
        _clear(words, _EXCHANGE_TIME, Flag.EXCHANGE_TIME)
        _clear(words, _TRADE_TIME, Flag.TRADE_TIME)


def _clear(words: Words, time: int, bit: Flag) -> None:
    """Take a group bit away where its time is 0, which means unknown (the SDK shows 1970)."""
    flags = words.view(np.int32)[:, _FLAGS]
    flags[words[:, time] == 0] &= ~int(bit)


DECODERS: Final[dict[int, Decoder]] = {
    LTP: _ltp,
    INDEX_QUOTE: _index,
    INDEX_FULL: _index,
    QUOTE: _quote,
    FULL: _full,
}
"""Packet length -> its decoder."""
