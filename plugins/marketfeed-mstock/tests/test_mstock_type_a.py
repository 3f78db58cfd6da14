"""Type A frames to rows."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marketfeed_mstock.times import ZoneCheck
from marketfeed_mstock.type_a import TypeAParser

from marketfeed.clock import to_ns
from marketfeed.contract import Frame
from marketfeed.dtypes import FLAG_GROUPS, TICK, Flag
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap

NOON = to_ns("2025-11-13T12:00:00")
RAW_NOON = (NOON + 19_800 * 10**9) // 10**9 - 315_532_800
TOKENS = {"1:2885": 0, "1:26000": 1, "13:15853": 2, "2:39572": 3}
SIZES = [8, 28, 32, 44, 48, 184, 200]


def packet(size: int, token: int = 2885, price: int = 151_275) -> bytes:
    """A packet with a different value in every field; index packets in the official SDK's order."""
    day = [150_500, 152_000, 149_825, 150_110]
    o, h, low, c = day
    if size in (28, 32):
        return struct.pack(">6Ii", token, price, h, low, o, c, -11_940) + struct.pack(">I", RAW_NOON)[: size - 28]
    if size == 48:
        return struct.pack(">12I", token, price, *day, RAW_NOON - 1, RAW_NOON, 7, 6, 5, 4)
    data = struct.pack(">II", token, price)
    if size >= 44:
        data += struct.pack(">5I", 17, 150_988, 3_000_000_000, 412_388, 598_210) + struct.pack(">4I", *day)
    if size >= 184:
        data += struct.pack(">5I", RAW_NOON - 1, 4_587_225, 4_600_000, 4_100_075, RAW_NOON)
        levels = [(100 * n + 1, price - 5 * (n + 1), n + 1, 9) for n in range(5)]
        levels += [(100 * n + 2, price + 5 * (n + 1), n + 60_000, 9) for n in range(5)]
        data += b"".join(struct.pack(">IIHH", *level) for level in levels)
    if size == 200:
        data += struct.pack(">4I", 165_120, 135_100, 160_880, 111_475)
    assert len(data) == size
    return data


def frame(*packets: bytes) -> bytes:
    return struct.pack(">H", len(packets)) + b"".join(struct.pack(">H", len(one)) + one for one in packets)


def parse(*frames: bytes, parser: TypeAParser | None = None) -> tuple[Any, Any]:
    parser = parser or TypeAParser(TokenMap(TOKENS))
    rows, bad = parser([Frame(one, NOON + place) for place, one in enumerate(frames)])
    return rows, bad


def test_the_largest_packet_fills_every_field() -> None:
    rows, bad = parse(frame(packet(200)))
    (row,) = rows
    assert not bad
    assert (row["exchange_ns"], row["received_ns"], row["last_trade_ns"]) == (NOON, NOON, NOON - 10**9)
    quantities = ("last_quantity", "volume", "buy_quantity", "sell_quantity")
    assert [row[name] for name in quantities] == [17, 3_000_000_000, 412_388, 598_210]
    assert [row[name] for name in ("open_interest", "oi_day_high", "oi_day_low")] == [4_587_225, 4_600_000, 4_100_075]
    prices = ("last_price", "average_price", "open", "high", "low", "close", "lower_circuit", "upper_circuit")
    assert [row[name] for name in prices] == [1512.75, 1509.88, 1505.0, 1520.0, 1498.25, 1501.1, 1351.0, 1651.2]
    assert row["bid_quantity"].tolist() == [1, 101, 201, 301, 401]
    assert row["ask_price"].tolist() == [1512.80, 1512.85, 1512.90, 1512.95, 1513.00]
    assert row["bid_orders"].tolist() == [1, 2, 3, 4, 5]
    assert row["ask_orders"].tolist() == [60_000, 60_001, 60_002, 60_003, 60_004]
    assert row["flags"] == Mode.FULL | sum(FLAG_GROUPS)


def test_each_size_carries_its_own_groups() -> None:
    times = Flag.EXCHANGE_TIME | Flag.TRADE_TIME
    quote = Flag.QUANTITIES | Flag.VOLUME | Flag.OHLC
    full = quote | Flag.DEPTH | Flag.OPEN_INTEREST | Flag.OI_RANGE | times
    rows, _ = parse(frame(*map(packet, SIZES)))
    assert dict(zip(SIZES, rows["flags"].tolist(), strict=True)) == {
        8: Mode.LTP,
        28: Mode.QUOTE | Flag.OHLC,
        32: Mode.FULL | Flag.OHLC | Flag.EXCHANGE_TIME,
        44: Mode.QUOTE | quote,
        48: Mode.FULL | Flag.OHLC | Flag.CIRCUITS | times,
        184: Mode.FULL | full,
        200: Mode.FULL | full | Flag.CIRCUITS,
    }


@pytest.mark.parametrize("size", [28, 32, 48])
def test_index_packets_have_an_order_of_prices_of_their_own(size: int) -> None:
    rows, _ = parse(frame(packet(size, 26000)))
    (row,) = rows
    assert [row[name] for name in ("open", "high", "low", "close")] == [1505.0, 1520.0, 1498.25, 1501.1]
    assert np.isnan(row["average_price"])
    assert row["instrument"] == 1


class TestOrderInsideThe48BytePacket:
    @staticmethod
    def parsed(*words: int) -> Any:
        (row,), bad = parse(frame(struct.pack(">12i", 26000, 100_000, *words, RAW_NOON, 0, 0, 0, 0)))
        assert not bad
        return [row[name] for name in ("open", "high", "low", "close")], bool(row["last_trade_ns"])

    def test_a_time_in_the_doubtful_word_says_the_order_of_the_sdk(self) -> None:
        assert self.parsed(1000, 1200, 900, 1100, RAW_NOON - 5) == ([10.0, 12.0, 9.0, 11.0], True)

    def test_a_gap_down_with_the_close_above_the_high_is_no_reason_to_doubt(self) -> None:
        assert self.parsed(1000, 1200, 900, 5000, RAW_NOON - 5) == ([10.0, 12.0, 9.0, 50.0], True)

    @pytest.mark.parametrize("change", [65, -11_940])
    def test_a_price_change_there_says_the_order_of_the_smaller_packets(self, change: int) -> None:
        assert self.parsed(1200, 900, 1000, 1100, change) == ([10.0, 12.0, 9.0, 11.0], False)

    def test_without_a_time_the_prices_decide(self) -> None:
        assert self.parsed(1200, 900, 1000, 1100, 0) == ([10.0, 12.0, 9.0, 11.0], False)
        assert self.parsed(1000, 1200, 900, 1100, 0) == ([10.0, 12.0, 9.0, 11.0], False)


def test_packets_of_many_frames_and_sizes_keep_their_order() -> None:
    sizes = [200, 8, 44, 8, 184, 28, 44, 48]
    packets = [packet(size, price=1000 + place) for place, size in enumerate(sizes)]
    rows, bad = parse(frame(*packets[:3]), frame(packets[3]), b"\0", frame(*packets[4:]))
    assert not bad
    assert rows["last_price"].tolist() == [10 + place / 100 for place in range(8)]
    assert (rows["received_ns"] - NOON).tolist() == [0, 0, 0, 1, 3, 3, 3, 3]


@pytest.mark.parametrize("size", SIZES)
def test_packets_of_one_size_read_the_same_alone_and_together(size: int) -> None:
    packets = [packet(size, price=price) for price in (100, 101, 2**32 - 100)]
    together, _ = parse(frame(*packets))
    parser = TypeAParser(TokenMap(TOKENS))
    alone = b"".join(parse(frame(one), parser=parser)[0].tobytes() for one in packets)
    assert together.tobytes() == alone


def test_a_token_that_two_exchanges_share_gets_no_instrument() -> None:
    parser = TypeAParser(TokenMap({"1:22": 0, "3:22": 1, "1:23": 2}))
    rows, _ = parse(frame(packet(8, 22), packet(8, 23), packet(8, 24)), parser=parser)
    assert rows["instrument"].tolist() == [-1, 2, -1]


def test_bare_tokens_are_understood_and_later_ones_found() -> None:
    tokens = TokenMap()
    parser = TypeAParser(tokens)
    assert parse(frame(packet(8)), parser=parser)[0]["instrument"].tolist() == [-1]
    tokens.add({"2885": 7})
    assert parse(frame(packet(8)), parser=parser)[0]["instrument"].tolist() == [7]


def test_tokens_too_large_for_a_table_are_searched() -> None:
    parser = TypeAParser(TokenMap({"1:2885": 0, "13:4000000000": 1}))
    rows, bad = parse(
        frame(packet(8, 2885), packet(8, 4_000_000_000), packet(8, 2886), packet(8, 2**32 - 1)), parser=parser
    )
    assert not bad
    assert rows["instrument"].tolist() == [0, 1, -1, -1]
    assert rows["last_price"].tolist() == [1512.75, 0.0151275, 1512.75, 1512.75]  # 13 is the currency segment


def test_currency_instruments_have_a_divisor_of_their_own() -> None:
    rows, _ = parse(frame(packet(8, 15853, 845_025_000), packet(8, 11523, 100)))
    assert rows["last_price"].tolist() == [84.5025, 1.0]


@pytest.mark.parametrize("heartbeat", [b"", b"\0", b"\0\0"])
def test_heartbeats_give_nothing(heartbeat: bytes) -> None:
    rows, bad = parse(heartbeat)
    assert len(rows) == len(bad) == 0


def test_what_cannot_be_read_is_counted_beside_what_can() -> None:
    good = frame(packet(8))
    unknown = frame(packet(8), b"x" * 12, packet(44))
    too_many = struct.pack(">H", 3) + good[2:]
    rows, bad = parse(good, unknown, too_many, good + b"rest", frame(packet(200))[:-1], good)
    assert len(rows) == 6
    assert [(one.frame, one.offset) for one in bad] == [(1, 12), (2, 12), (3, 12), (4, 2)]


def test_a_time_of_zero_is_no_time() -> None:
    data = bytearray(packet(184))
    data[44:48] = data[60:64] = bytes(4)
    rows, _ = parse(frame(bytes(data)))
    assert (rows["exchange_ns"][0], rows["last_trade_ns"][0]) == (0, 0)
    assert not rows["flags"][0] & (Flag.EXCHANGE_TIME | Flag.TRADE_TIME)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300) | st.binary(max_size=250).map(lambda one: b"\0\2\0\x08" + one), max_size=6))
def test_no_bytes_make_it_raise(messages: list[bytes]) -> None:
    rows, _ = parse(*messages)
    assert rows.dtype == TICK


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_frames_never_spoil_their_neighbours(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=3))
    damaged = bytearray(frame(*map(packet, sizes)))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=12)):
        damaged[place] = data.draw(st.integers(0, 255))
    cut = bytes(damaged)[: data.draw(st.integers(0, len(damaged)))]
    parser = TypeAParser(TokenMap(TOKENS), ZoneCheck("ist"))
    sound = frame(packet(200), packet(8))
    whole, _ = parse(sound, parser=parser)
    rows, _ = parse(sound, bytes(damaged), cut, cut + bytes(damaged), sound, parser=parser)
    for name in ("last_price", "volume", "exchange_ns", "flags", "instrument"):
        assert [*rows[name][:2], *rows[name][-2:]] == whole[name].tolist() * 2


# --- recorded material, where it lies beside the checkout ----------------------------------------

NAMES = {
    **{name: name for name in ("open", "high", "low", "close", "volume", "oi_day_high", "oi_day_low")},
    **{name: name for name in ("upper_circuit", "lower_circuit")},
    "ltp": "last_price",
    "ltq": "last_quantity",
    "atp": "average_price",
    "total_buy": "buy_quantity",
    "total_sell": "sell_quantity",
    "oi": "open_interest",
}


def _expected(fields: dict[str, Any]) -> dict[str, Any]:
    """The recommended reading of a packet in the names and units of a row."""
    row = {NAMES[name]: value for name, value in fields.items() if name in NAMES}
    for name, column in (("exchange_time", "exchange_ns"), ("last_trade_time", "last_trade_ns")):
        if name in fields:
            row[column] = to_ns(fields[name]) if fields[name] else 0
    for side in ("bid", "ask"):
        for part in ("quantity", "price", "orders"):
            if f"{side}s" in fields:
                row[f"{side}_{part}"] = [level[part] for level in fields[f"{side}s"]]
    return row


def _packets(shared: Path) -> dict[str, Any]:
    packets = json.loads((shared / "fixtures/mstock/typea_packets.json").read_text())
    return {one["name"]: one for one in packets}


def _check(rows: Any, packets: list[Any]) -> None:
    assert len(rows) == len(packets)
    for row, one in zip(rows, packets, strict=True):
        assert row["flags"] & 0xF == Mode.of(one["recommended"]["mode"]), one["name"]
        for name, value in _expected(one["recommended"]).items():
            assert row[name].tolist() == value, (one["name"], name)


def test_recorded_packets_read_as_recommended(shared: Path) -> None:
    packets = list(_packets(shared).values())
    parser = TypeAParser(TokenMap(), ZoneCheck("ist"))
    rows, bad = parse(*(bytes.fromhex(one["frame_hex"]) for one in packets), parser=parser)
    assert not bad
    _check(rows, packets)


def test_recorded_frames_read_as_their_packets(shared: Path) -> None:
    packets = _packets(shared)
    good = {"count_too_big": 1, "bad_then_good": 1, "truncated_packet": 0, "unknown_length_12": 0}
    for one in json.loads((shared / "fixtures/mstock/typea_frames.json").read_text()):
        rows, bad = parse(bytes.fromhex(one["frame_hex"]), parser=TypeAParser(TokenMap(), ZoneCheck("ist")))
        if one.get("packets"):
            assert not bad
            _check(rows, [packets[name] for name in one["packets"]])
        else:
            assert len(rows) == good.get(one["name"], 0), one["name"]
            assert len(bad) == int(one["name"] in good), one["name"]
