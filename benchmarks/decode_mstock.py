"""mStock packets to rows against the parsers of the official clients (logging off)."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence

from marketfeed_mstock.type_a import TypeAParser
from marketfeed_mstock.type_b import TypeBParser

from benchmarks._kite import frame, full_packet, ltp_packet, quote_packet
from benchmarks._official import official, quiet
from benchmarks._ratio import Result, compare
from marketfeed.contract import Frame, Parser
from marketfeed.instruments import TokenMap

START_RAW = 1_447_501_357
"""Seconds since 1980."""
TOKENS = TokenMap({f"1:{token}": token for token in range(1000)})


def run() -> Iterator[Result]:
    module_a = official("mStock-TradingApi-A==0.1.9", "tradingapi_a.mticker", "six", "pyOpenSSL", "service_identity")
    if module_a:
        yield from _type_a(module_a.MTicker("key", "token", "ws://127.0.0.1:9")._parse_binary)
    module_b = official("mStock-TradingApi-B==1.0.5", "tradingapi_b.mticker", "six", "pyOpenSSL", "service_identity")
    if module_b:
        ticker = module_b.MTicker("key", "token", "ws://127.0.0.1:9")
        yield from _type_b(lambda data: ticker._convert_prices(ticker._parse_binary(data)))


def _type_a(rival: Callable[[bytes], object]) -> Iterator[Result]:
    pick = random.Random(11)
    full = [full_packet(pick.randrange(1000), 150_000 + n, START_RAW) for n in range(100)]
    kinds = {
        "full184": full,
        "full200": [one + struct.pack(">4I", 165_000, 135_000, 170_000, 90_000) for one in full],
        "quote": [quote_packet(pick.randrange(1000), 150_000 + n) for n in range(100)],
        "ltp": [ltp_packet(pick.randrange(1000), 150_000 + n) for n in range(100)],
    }
    for name, packets in kinds.items():
        ratio = _ratio(TypeAParser(TOKENS), [frame(packets)], rival)
        # A row has 360 bytes whatever the packet holds, so eight bytes of last price gain least.
        target = 8 if name == "ltp" else 20
        yield Result(f"type A {name} x100 in a frame, against the official parser", ratio, target)
    ratio = _ratio(TypeAParser(TOKENS), [frame(packets[:25]) for packets in kinds.values()], rival)
    yield Result("type A 4 frames of 25, one size each, drained together", ratio, 10)


def _type_b(rival: Callable[[bytes], object]) -> Iterator[Result]:
    for name, size in (("ltp", 51), ("quote", 123), ("snap", 379)):
        packets = [_packet_b(size, token) for token in range(100)]
        ratio = _ratio(TypeBParser(TOKENS), packets, rival)
        yield Result(f"type B {name}, 100 frames drained together, against the official parser", ratio, 4)
    mixed = [_packet_b((51, 123, 379)[token % 3], token) for token in range(100)]
    yield Result("type B mixed, 100 frames drained together", _ratio(TypeBParser(TOKENS), mixed, rival), 4)


def _ratio(parser: Parser, messages: Sequence[bytes], rival: Callable[[bytes], object]) -> float:
    frames = [Frame(one, 1_763_015_557 * 10**9) for one in messages]
    rows, bad = parser(frames)
    assert len(rows)
    assert not bad
    with quiet():
        return compare(lambda: parser(frames), lambda: [rival(one) for one in messages])


def _packet_b(size: int, token: int) -> bytes:
    head = struct.pack("<BB25sQQQ", {51: 1, 123: 2, 379: 3}[size], 1, str(token).encode(), 7, START_RAW, 151_275)
    day = struct.pack("<QQQddQQQQ", 17, 150_988, 7_340_551, 412_388.0, 598_210.0, 150_500, 152_000, 149_825, 150_110)
    levels = [(1, 100 * n + 1, 151_275 - 5 * n, n + 1) for n in range(1, 6)]
    levels += [(0, 100 * n + 2, 151_275 + 5 * n, n + 11) for n in range(1, 6)]
    rest = struct.pack("<QQd", START_RAW - 1, 4_587_225, -3.5)
    rest += b"".join(struct.pack("<HQQH", *level) for level in levels)
    return (head + day + rest + struct.pack("<QQQQ", 165_120, 135_100, 160_880, 111_475))[:size]
