"""Kite frames made by hand, and the official decoder's ticks laid out like our rows.

Written from the protocol's table alone, without the parser's: what agrees here agrees by itself.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import FLAG_GROUPS, Flag, empty_ticks
from marketfeed.enums import Mode

LENGTHS = (8, 28, 32, 44, 184)
NSE, NFO, CDS, BSE, BFO, BCD, MCX, MCXSX, INDICES, NCO = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12
SEGMENTS = (NSE, NFO, CDS, BSE, BFO, BCD, MCX, MCXSX, INDICES, NCO, 77)
Level = tuple[int, int, int]
"""Quantity, price, orders; prices here are raw, as on the wire."""


def token_of(exchange_token: int, segment: int = NSE) -> int:
    return exchange_token << 8 | segment


def ltp(token: int, last_price: int) -> bytes:
    return struct.pack(">Ii", token, last_price)


def quote(
    token: int,
    last_price: int,
    *,
    quantities: tuple[int, int, int, int] = (7, 9_000, 100, 200),
    average: int = 10_050,
    ohlc: tuple[int, int, int, int] = (10_000, 10_200, 9_900, 10_100),
) -> bytes:
    """``quantities``: last, volume, total buy, total sell."""
    last, volume, buy, sell = quantities
    return struct.pack(">Ii I i III iiii", token, last_price, last, average, volume, buy, sell, *ohlc)


def full(
    token: int,
    last_price: int,
    *,
    trade_time: int = 1_700_000_000,
    exchange_time: int = 1_700_000_001,
    open_interest: tuple[int, int, int] = (500, 600, 400),
    bids: Sequence[Level] = ((10, 9_990, 1), (20, 9_985, 2), (30, 9_980, 3), (40, 9_975, 4), (50, 9_970, 65_535)),
    asks: Sequence[Level] = ((11, 10_010, 5), (21, 10_015, 6), (31, 10_020, 7), (41, 10_025, 8), (51, 10_030, 9)),
    **rest: Any,
) -> bytes:
    """``open_interest``: now, day's high, day's low; ``rest`` as in :func:`quote`."""
    head = quote(token, last_price, **rest) + struct.pack(">5I", trade_time, *open_interest, exchange_time)
    # The padding is not always zero on the wire; whoever reads four bytes of orders notices here.
    return head + b"".join(struct.pack(">IiHH", *level, 0xABCD) for level in (*bids, *asks))


def index(token: int, last_price: int, ohlc: tuple[int, int, int, int], exchange_time: int | None = None) -> bytes:
    """Index packets carry high, low, open, close."""
    open_, high, low, close = ohlc
    packet = struct.pack(">Ii iiii i", token, last_price, high, low, open_, close, last_price - close)
    return packet if exchange_time is None else packet + struct.pack(">I", exchange_time)


def frame(*packets: bytes) -> bytes:
    return struct.pack(">H", len(packets)) + b"".join(struct.pack(">H", len(one)) + one for one in packets)


def random_packet(rng: random.Random, length: int) -> bytes:
    """Any values that the official decoder reads as we do: raw prices below 2**31, times it can show."""
    words = [rng.randrange(2**31) if rng.random() < 0.9 else 0 for _ in range(length // 4)]
    words[0] = token_of(rng.randrange(1, 2**16), rng.choice(SEGMENTS))
    return struct.pack(f">{len(words)}I", *words)


def random_frames(rng: random.Random, packets: int, lengths: Sequence[int] = LENGTHS) -> list[bytes]:
    """Frames of 1 to 300 packets with that many packets in all."""
    frames = []
    while packets:
        count = min(packets, rng.choice((1, 1, 2, 10, 300)))
        packets -= count
        frames.append(frame(*(random_packet(rng, rng.choice(lengths)) for _ in range(count))))
    return frames


# --- the official decoder's ticks as rows -----------------------------------------------------


def official_rows(ticks: Iterable[dict[str, Any]]) -> NDArray[Any]:
    """What kiteconnect returned, as rows of ``TICK``; ``instrument`` holds the token."""
    given = list(ticks)
    rows = empty_ticks(len(given))
    for row, tick in zip(rows, given, strict=True):
        _fill(row, tick)
    return rows


def _fill(row: Any, tick: dict[str, Any]) -> None:
    row["instrument"] = tick["instrument_token"]
    row["last_price"] = tick["last_price"]
    flags: int = Mode.of(tick["mode"])
    if "last_traded_quantity" in tick:
        flags |= Flag.QUANTITIES | Flag.VOLUME
        row["last_quantity"] = tick["last_traded_quantity"]
        row["average_price"] = tick["average_traded_price"]
        row["volume"] = tick["volume_traded"]
        row["buy_quantity"] = tick["total_buy_quantity"]
        row["sell_quantity"] = tick["total_sell_quantity"]
    if "ohlc" in tick:
        flags |= Flag.OHLC
        for name, price in tick["ohlc"].items():
            row[name] = price
    if "oi" in tick:
        flags |= Flag.OPEN_INTEREST | Flag.OI_RANGE
        row["open_interest"], row["oi_day_high"], row["oi_day_low"] = (
            tick[name] for name in ("oi", "oi_day_high", "oi_day_low")
        )
    if "depth" in tick:
        flags |= Flag.DEPTH
        for side, ours in (("buy", "bid"), ("sell", "ask")):
            for name in ("quantity", "price", "orders"):
                row[f"{ours}_{name}"] = [level[name] for level in tick["depth"][side]]
    for name, ours, bit in (
        ("exchange_timestamp", "exchange_ns", Flag.EXCHANGE_TIME),
        ("last_trade_time", "last_trade_ns", Flag.TRADE_TIME),
    ):
        seconds = _seconds(tick.get(name))
        row[ours] = seconds * 10**9
        flags |= bit if seconds else 0  # the SDK shows 1970 for "none"
    row["flags"] = flags


def _seconds(moment: datetime | int | None) -> int:
    """Epoch seconds of the SDK's naive local datetime, whatever the host's zone."""
    return int(moment.timestamp()) if isinstance(moment, datetime) else moment or 0


COMPARED = (
    "last_price",
    "average_price",
    "flags",
    "instrument",
    *(name for names in FLAG_GROUPS.values() for name in names),
)


def assert_same(ours: NDArray[Any], official: NDArray[Any]) -> None:
    """Every field equal, bit for bit; absent prices are NaN on both sides."""
    assert len(ours) == len(official)
    for name in COMPARED:
        np.testing.assert_array_equal(ours[name], official[name], err_msg=name)
