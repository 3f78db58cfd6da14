"""What the benchmarks share: Kite frames of our own making, and the program that a user writes today."""

from __future__ import annotations

import random
import struct
from datetime import date
from typing import Any

from marketfeed.instruments import Instrument

START_S = 1_790_000_000


def full_packet(token: int, price: int, now_s: int, buys: int = 55_000) -> bytes:
    """One full packet (184 bytes) with five levels of depth; ``price`` in paise."""
    head = struct.pack(
        ">16I", token, price, 75, price - 10, 1_234_567, buys, 61_000, price - 400, price + 900, price - 800,
        price - 250, now_s, 0, 0, 0, now_s,
    )  # fmt: skip
    levels = [(100 * level, price - 5 * level, 3 * level) for level in range(1, 6)]
    levels += [(90 * level, price + 5 * level, 2 * level) for level in range(1, 6)]
    return head + b"".join(struct.pack(">IIHH", *level, 0) for level in levels)


def quote_packet(token: int, price: int) -> bytes:
    """One quote packet, 44 bytes."""
    return full_packet(token, price, START_S)[:44]


def ltp_packet(token: int, price: int) -> bytes:
    """One ltp packet, 8 bytes."""
    return struct.pack(">II", token, price)


def frame(packets: list[bytes]) -> bytes:
    """The message that carries them."""
    return struct.pack(">H", len(packets)) + b"".join(struct.pack(">H", len(one)) + one for one in packets)


def instruments(count: int) -> list[Instrument]:
    """``count`` instruments with Kite tokens."""
    return [
        Instrument(
            exchange="NSE", symbol=f"STOCK{number}", token=str((number + 1) * 256 + 1),
            exchange_token=str(number + 1), vendor="kite",
        )
        for number in range(count)
    ]  # fmt: skip


def full_frames(total: int, per_frame: int, universe: int = 500, seed: int = 1) -> list[bytes]:
    """Frames of ``per_frame`` full packets, ``total`` packets in all."""
    return frames_of(full_packets(total, universe, seed), per_frame)


def frames_of(packets: list[bytes], per_frame: int) -> list[bytes]:
    """Frames of ``per_frame`` packets each."""
    return [frame(packets[at : at + per_frame]) for at in range(0, len(packets), per_frame)]


def full_packets(total: int, universe: int = 500, seed: int = 1) -> list[bytes]:
    """Full packets of instruments that take turns at random; each one's price is a random walk."""
    draw = random.Random(seed)
    prices = [float(draw.randrange(10_000, 500_000)) for _ in range(universe)]
    packets = []
    for at in range(total):
        number = draw.randrange(universe)
        prices[number] *= 1 + draw.gauss(0, 2e-4)
        packets.append(
            full_packet((number + 1) * 256 + 1, round(prices[number]), START_S + at // 10_000, 50_000 + at % 9_973)
        )
    return packets


def check_and_enrich(tick: dict[str, Any], names: dict[int, str], previous: dict[int, Any]) -> dict[str, Any] | None:
    """What a careful user does with each official tick before passing it on."""
    token = tick["instrument_token"]
    price = tick["last_price"]
    if price <= 0 or token not in names:
        return None
    ohlc = tick.get("ohlc")
    if ohlc and not ohlc["low"] <= price <= ohlc["high"]:
        tick["suspect"] = True
    depth = tick.get("depth")
    if depth:
        bid, ask = depth["buy"][0]["price"], depth["sell"][0]["price"]
        if bid and ask and bid > ask:
            tick["crossed"] = True
    stamp = tick.get("exchange_timestamp")
    if stamp is not None and previous.get(token) is not None and stamp < previous[token]:
        tick["late"] = True
    previous[token] = stamp
    tick["symbol"] = names[token]
    tick["exchange"] = "NSE"
    return tick


def as_text(value: object) -> str:
    """For ``json.dumps``: dates as ISO text."""
    return value.isoformat() if isinstance(value, date) else str(value)


def official_parser() -> Any:
    """``KiteTicker._parse_binary`` of the official SDK, without a connection."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kiteconnect import KiteTicker

    return object.__new__(KiteTicker)._parse_binary
