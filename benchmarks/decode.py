"""Kite frames to rows, against the official decoder (``KiteTicker._parse_binary``: frames to dicts).

Ours goes on to what the official one leaves to the user: received times, instrument numbers and flags.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks._kite import START_S, frame, full_packet, ltp_packet, official_parser, quote_packet
from benchmarks._ratio import Result, compare
from marketfeed.contract import Frame
from marketfeed.instruments import TokenMap

__all__ = ["run"]

_INSTRUMENTS = 3_000
# A feed in full mode with indices, seen while its newest subscriptions are still in quote mode.
_FULL_MODE = ("full",) * 8 + ("index", "quote")
_EVEN = ("full", "quote", "ltp")
_NO_TARGET = 0.0
"""Of lines that are shown for information: with one packet, or an even mix, there is little to gain."""


def run() -> Iterator[Result]:
    """The ratios, one by one."""
    from marketfeed_kite.parser import KiteParser

    rng = random.Random(1)
    exchange_tokens = rng.sample(range(1, 60_000), _INSTRUMENTS)
    tokens = {str(number << 8 | 1): line for line, number in enumerate(exchange_tokens)}
    parser, rival = KiteParser(TokenMap(tokens)), official_parser()

    def packets(kinds: Sequence[str], count: int) -> list[bytes]:
        shuffled = rng.sample([kinds[n % len(kinds)] for n in range(count)], count)
        return [
            _packet(kind, rng.choice(exchange_tokens) << 8 | 1, rng.randrange(10_000, 500_000)) for kind in shuffled
        ]

    cases: list[tuple[str, list[bytes], float]] = [
        ("full x1", [frame(packets(["full"], 1))], _NO_TARGET),
        ("full x10", [frame(packets(["full"], 10))], 9),
        ("full x100", [frame(packets(["full"], 100))], 50),
        ("full x3000", [frame(packets(["full"], 3000))], _NO_TARGET),
        ("full, 100 frames of one, drained together", [frame(packets(["full"], 1)) for _ in range(100)], 25),
        ("8 full : 1 index : 1 quote, x100", [frame(packets(_FULL_MODE, 100))], 20),
        ("8 full : 1 index : 1 quote, x500", [frame(packets(_FULL_MODE, 500))], 40),
        ("1 full : 1 quote : 1 ltp, x100", [frame(packets(_EVEN, 100))], _NO_TARGET),
        ("1 full : 1 quote : 1 ltp, x500", [frame(packets(_EVEN, 500))], _NO_TARGET),
    ]
    for name, data, target in cases:
        note = "" if target else "no target"
        yield Result(f"kite, {name}, against the official parser", _ratio(parser, rival, data), target, note=note)


def _ratio(parser: Callable[[list[Frame]], Any], rival: Callable[[bytes], Any], data: list[bytes]) -> float:
    frames = [Frame(one, START_S * 10**9) for one in data]
    expected = [tick["last_price"] for one in data for tick in rival(one)]
    if parser(frames).rows["last_price"].tolist() != expected:
        raise AssertionError("the two decoders disagree; a ratio would mean nothing")
    return compare(lambda: parser(frames), lambda: [rival(one) for one in data])


def _packet(kind: str, token: int, price: int) -> bytes:
    if kind == "full":
        return full_packet(token, price, START_S)
    if kind == "index":
        # Any 32 bytes will do: only the length tells the decoders what they read.
        return full_packet(token, price, START_S)[:32]
    return quote_packet(token, price) if kind == "quote" else ltp_packet(token, price)
