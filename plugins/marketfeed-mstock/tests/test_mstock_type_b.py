"""Type B packets to rows."""

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
from marketfeed_mstock.type_b import TypeBParser

from marketfeed.clock import to_ns
from marketfeed.contract import Frame
from marketfeed.dtypes import FLAG_GROUPS, TICK, Flag
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap

NOON = to_ns("2025-11-13T12:00:00")
RAW_NOON = (NOON + 19_800 * 10**9) // 10**9 - 315_532_800
"""Noon in India time as the packets say it."""


def packet(size: int, token: str = "2885", exchange: int = 1, raw: int = RAW_NOON, price: int = 151_275) -> bytes:
    """A packet with a different value in every field."""
    data = struct.pack("<BB25sQQQ", {51: 1, 123: 2, 379: 3}[size], exchange, token.encode(), 7, raw, price)
    if size >= 123:
        data += struct.pack(
            "<QQQddQQQQ", 17, 150_988, 7_340_551, 412_388.0, 598_210.0, 150_500, 152_000, 149_825, 150_110
        )
    if size == 379:
        data += struct.pack("<QQd", raw - 1, 4_587_225, -3.5)
        levels = [(100 * n + 1, price - 5 * (n + 1), n + 1) for n in range(5)]
        levels += [(100 * n + 2, price + 5 * (n + 1), n + 11) for n in range(5)]
        data += b"".join(struct.pack("<HQQH", 0, *level) for level in levels)
        data += struct.pack("<QQQQ", 165_120, 135_100, 160_880, 111_475)
    assert len(data) == size
    return data


def parse(*messages: bytes, received_ns: int = NOON, parser: TypeBParser | None = None) -> tuple[Any, Any]:
    parser = parser or TypeBParser(TokenMap({"1:2885": 0, "3:500325": 1, "13:15853": 2}))
    rows, bad = parser([Frame(one, received_ns + place) for place, one in enumerate(messages)])
    return rows, bad


def test_a_snap_packet_fills_every_field() -> None:
    rows, bad = parse(packet(379))
    (row,) = rows
    assert not bad
    assert row["exchange_ns"] == NOON
    assert row["received_ns"] == NOON
    assert row["last_trade_ns"] == NOON - 10**9
    quantities = ("last_quantity", "volume", "buy_quantity", "sell_quantity", "open_interest")
    assert [row[name] for name in quantities] == [17, 7_340_551, 412_388, 598_210, 4_587_225]
    prices = ("last_price", "average_price", "open", "high", "low", "close", "lower_circuit", "upper_circuit")
    assert [row[name] for name in prices] == [1512.75, 1509.88, 1505.0, 1520.0, 1498.25, 1501.1, 1351.0, 1651.2]
    assert row["bid_quantity"].tolist() == [1, 101, 201, 301, 401]
    assert row["ask_quantity"].tolist() == [2, 102, 202, 302, 402]
    assert row["bid_price"].tolist() == [1512.70, 1512.65, 1512.60, 1512.55, 1512.50]
    assert row["ask_price"].tolist() == [1512.80, 1512.85, 1512.90, 1512.95, 1513.00]
    assert row["bid_orders"].tolist() == [1, 2, 3, 4, 5]
    assert row["ask_orders"].tolist() == [11, 12, 13, 14, 15]
    assert row["instrument"] == 0
    present = set(FLAG_GROUPS) - {Flag.OI_RANGE}
    assert row["flags"] == Mode.FULL | sum(present)


def test_smaller_packets_leave_what_they_lack_absent() -> None:
    rows, _ = parse(packet(51), packet(123))
    assert rows["flags"].tolist() == [
        Mode.LTP | Flag.EXCHANGE_TIME,
        Mode.QUOTE | Flag.EXCHANGE_TIME | Flag.QUANTITIES | Flag.VOLUME | Flag.OHLC,
    ]
    assert np.isnan(rows["open"]).tolist() == [True, False]
    assert np.isnan(rows["bid_price"]).all()
    assert rows["last_trade_ns"].tolist() == [0, 0]


def test_rows_stand_in_the_order_of_the_messages_whatever_their_sizes() -> None:
    sizes = [379, 51, 123, 51, 379, 123]
    rows, _ = parse(*(packet(size, price=1000 + place) for place, size in enumerate(sizes)))
    assert rows["last_price"].tolist() == [10.0, 10.01, 10.02, 10.03, 10.04, 10.05]
    assert (rows["received_ns"] - NOON).tolist() == [0, 1, 2, 3, 4, 5]
    alone = np.concatenate(
        [parse(packet(size, price=1000 + n), received_ns=NOON + n)[0] for n, size in enumerate(sizes)]
    )
    assert rows.tobytes() == alone.tobytes()


def test_a_header_of_count_and_size_is_stripped() -> None:
    two = packet(51) + packet(51, "500325", 3)
    rows, bad = parse(struct.pack("<HH", 2, 51) + two, struct.pack("<HH", 1, 379) + packet(379))
    assert rows["instrument"].tolist() == [0, 1, 0]
    assert not bad


def test_packets_joined_without_a_header_are_malformed() -> None:
    rows, bad = parse(packet(51), packet(51) * 2, packet(51)[:50], b"", packet(123))
    assert len(rows) == 2
    assert [one.frame for one in bad] == [1, 2, 3]


def test_one_bad_packet_behind_a_header_leaves_its_neighbours() -> None:
    frame = struct.pack("<HH", 3, 51) + packet(51) + packet(51, "ABC-EQ") + packet(51, price=5)
    rows, bad = parse(frame)
    assert rows["last_price"].tolist() == [1512.75, 0.05]
    assert [(one.frame, one.offset, one.reason) for one in bad] == [(0, 55, "token is not a number")]


def test_a_token_ends_at_its_first_nul() -> None:
    data = bytearray(packet(51))
    data[10:12] = b"xy"
    rows, bad = parse(bytes(data))
    assert rows["instrument"].tolist() == [0]
    assert not bad


def test_an_unknown_token_is_kept_without_an_instrument() -> None:
    rows, bad = parse(packet(51, "4242"), packet(51, "2885", exchange=2))
    assert rows["instrument"].tolist() == [-1, -1]
    assert not bad


def test_tokens_added_later_are_found() -> None:
    tokens = TokenMap({"1:2885": 0})
    parser = TypeBParser(tokens)
    assert parse(packet(51, "22"), parser=parser)[0]["instrument"].tolist() == [-1]
    tokens.add({"1:22": 1})
    assert parse(packet(51, "22"), parser=parser)[0]["instrument"].tolist() == [1]


def test_currency_prices_have_a_divisor_of_their_own() -> None:
    raw = packet(51, "15853", 13, price=845_025_000)
    assert parse(raw)[0]["last_price"].tolist() == [84.5025]
    parser = TypeBParser(TokenMap(), currency_divisor=100)
    assert parse(raw, parser=parser)[0]["last_price"].tolist() == [8_450_250.0]


def test_no_time_gives_no_time_and_an_absurd_one_a_bad_packet() -> None:
    rows, bad = parse(packet(51, raw=0), packet(51, raw=1_763_015_340_000))
    assert rows["exchange_ns"].tolist() == [0]
    assert rows["flags"].tolist() == [Mode.LTP]
    assert [(one.frame, one.reason) for one in bad] == [(1, "value out of range")]


@pytest.mark.parametrize("total", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_total_that_is_no_quantity_is_a_bad_packet(total: float) -> None:
    data = bytearray(packet(123))
    struct.pack_into("<d", data, 75, total)
    rows, bad = parse(bytes(data), packet(123))
    assert len(rows) == 1
    assert [one.frame for one in bad] == [0]


class TestZoneOfTheTimes:
    def test_india_time_is_assumed_when_nothing_fits_the_clock(self) -> None:
        rows, _ = parse(packet(51), received_ns=NOON + 86_400 * 10**9)
        assert rows["exchange_ns"].tolist() == [NOON]

    def test_utc_is_taken_when_it_fits_the_receive_clock(self) -> None:
        rows, _ = parse(packet(51, raw=RAW_NOON - 19_800))
        assert rows["exchange_ns"].tolist() == [NOON]

    def test_utc_by_a_stale_time_is_given_up_when_india_time_fits(self) -> None:
        parser = TypeBParser(TokenMap())
        parse(packet(51, raw=RAW_NOON - 19_800), parser=parser)
        rows, _ = parse(packet(51), parser=parser)
        assert rows["exchange_ns"].tolist() == [NOON]
        assert parser.zone.settled

    def test_a_fixed_zone_is_not_questioned(self) -> None:
        parser = TypeBParser(TokenMap(), ZoneCheck("utc"))
        rows, _ = parse(packet(51), parser=parser)
        assert rows["exchange_ns"].tolist() == [NOON + 19_800 * 10**9]


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=400) | st.sampled_from([51, 123, 379]).flatmap(lambda n: st.binary(min_size=n, max_size=n))
    )
)
def test_no_bytes_make_it_raise(messages: list[bytes]) -> None:
    rows, bad = parse(*messages)
    assert rows.dtype == TICK
    assert len({one.frame for one in bad}) + len(rows) >= len(messages)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_packets_never_spoil_their_neighbours(data: st.DataObject) -> None:
    damaged = bytearray(packet(data.draw(st.sampled_from([51, 123, 379]))))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=12)):
        damaged[place] = data.draw(st.integers(0, 255))
    cut = bytes(damaged)[: data.draw(st.integers(0, len(damaged)))]
    sound = [packet(379), packet(51), packet(123)]
    whole, _ = parse(*sound)
    for mess in (bytes(damaged), cut, bytes(damaged) * 2, cut + bytes(damaged)):
        parser = TypeBParser(TokenMap({"1:2885": 0}), ZoneCheck("ist"))
        rows, bad = parse(sound[0], mess, sound[1], sound[2], parser=parser)
        assert len(rows) + len(bad) >= 4
        for name in ("last_price", "volume", "exchange_ns", "flags", "instrument"):
            assert [rows[name][0], *rows[name][-2:]] == whole[name].tolist()


# --- recorded material, where it lies beside the checkout ----------------------------------------


def _expected(fields: dict[str, Any]) -> dict[str, Any]:
    """The recommended reading of a packet in the names and units of a row."""
    names = {
        "ltp": "last_price",
        "ltq": "last_quantity",
        "atp": "average_price",
        "volume": "volume",
        "oi": "open_interest",
        **{name: name for name in ("open", "high", "low", "close", "upper_circuit", "lower_circuit")},
        "total_buy": "buy_quantity",
        "total_sell": "sell_quantity",
    }
    row = {names[name]: value for name, value in fields.items() if name in names}
    for name in ("buy_quantity", "sell_quantity"):
        if name in row:
            row[name] = int(row[name])  # rows hold whole quantities
    for name, column in (("exchange_time", "exchange_ns"), ("last_trade_time", "last_trade_ns")):
        if name in fields:
            row[column] = to_ns(fields[name]) if fields[name] else 0
    for side in ("bid", "ask"):
        for part in ("quantity", "price", "orders"):
            if f"{side}s" in fields:
                row[f"{side}_{part}"] = [level[part] for level in fields[f"{side}s"]]
    return row


def test_recorded_packets_read_as_recommended(shared: Path) -> None:
    packets = json.loads((shared / "fixtures/mstock/typeb_packets.json").read_text())
    tokens = TokenMap(
        {f"{one['fields']['exchange_type']}:{one['fields']['token']}": n for n, one in enumerate(packets)}
    )
    parser = TypeBParser(tokens, ZoneCheck("ist"), currency_divisor=100)
    rows, bad = parse(*(bytes.fromhex(one["packet_hex"]) for one in packets), parser=parser)
    assert not bad
    assert len(rows) == len(packets)
    for row, one in zip(rows, packets, strict=True):
        for name, value in _expected(one["recommended"]).items():
            assert row[name].tolist() == value, (one["name"], name)
        assert row["instrument"] == tokens[f"{one['fields']['exchange_type']}:{one['fields']['token']}"]


def test_recorded_odd_messages_are_counted_not_raised(shared: Path) -> None:
    frames = json.loads((shared / "fixtures/mstock/typeb_frames.json").read_text())
    for one in frames:
        rows, bad = parse(bytes.fromhex(one["frame_hex"]))
        good = one["name"] == "with_4_byte_header"
        assert (len(rows), len(bad)) == ((1, 0) if good else (0, 1)), one["name"]
