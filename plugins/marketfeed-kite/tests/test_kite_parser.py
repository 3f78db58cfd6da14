"""Kite's frames: equal to the official decoder where they are whole, and kept apart where they are not."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kite_packets as kite
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketfeed_kite import parser as reasons
from marketfeed_kite.parser import KiteParser
from numpy.typing import NDArray

from marketfeed.contract import BadPacket, Frame, Parsed
from marketfeed.dtypes import Flag
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap

Decode = Callable[[bytes], list[dict[str, Any]]]
RELIANCE = kite.token_of(2885)
NIFTY = kite.token_of(1001, kite.INDICES)


class TokensAsNumbers(TokenMap):
    """Gives each token itself as its instrument, so that rows can be compared with the SDK's ticks."""

    def numbers(self, tokens: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        return tokens.astype(np.int32)


@pytest.fixture(scope="module")
def official() -> Decode:
    """The official decoder; needs no connection."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kiteconnect import KiteTicker
    decode: Decode = KiteTicker("key", "token")._parse_binary
    return decode


def parse(*frames: bytes, tokens: TokenMap | None = None) -> Parsed:
    return KiteParser(tokens or TokensAsNumbers())([Frame(data, 1_000 + n) for n, data in enumerate(frames)])


def made_small(part: str) -> list[dict[str, Any]]:
    path = Path(__file__).resolve().parents[4] / "shared/fixtures/kite/made_small.json"
    return list(json.loads(path.read_text())[part]) if path.is_file() else []


# --- what the official decoder says -----------------------------------------------------------


@pytest.mark.parametrize("case", made_small("frames"), ids=lambda case: str(case["name"]))
def test_made_frames_are_read_as_the_official_decoder_reads_them(case: dict[str, Any]) -> None:
    parsed = parse(bytes.fromhex(case["hex"]))
    kite.assert_same(parsed.rows, kite.official_rows(case["expected"]))
    assert not parsed.bad


@pytest.mark.parametrize("name", ["infy_full_20210705", "tatamotors_ltp_20220616", "tatamotors_quote_20220616"])
def test_recorded_frames_are_read_as_the_official_decoder_reads_them(shared: Path, name: str) -> None:
    folder = shared / "fixtures/kite/frames"
    parsed = parse((folder / f"{name}.bin").read_bytes())
    kite.assert_same(parsed.rows, kite.official_rows(json.loads((folder / f"{name}.expected.json").read_text())))


def packets_of_every_kind(segment: int) -> list[bytes]:
    token = kite.token_of(4_321, segment)
    ohlc = (10_000, 10_200, 9_900, 10_100)
    return [
        kite.ltp(token, 10_020),
        kite.quote(token, 10_020),
        kite.full(token, 10_020),
        kite.full(token, 10_020, trade_time=0),
        kite.full(token, 10_020, trade_time=0, exchange_time=0, bids=((0, 0, 0),) * 5, asks=((0, 0, 0),) * 5),
        kite.full(token, 10_020, quantities=(2**32 - 1,) * 4, open_interest=(2**32 - 1,) * 3),
        kite.index(token, 10_020, ohlc),
        kite.index(token, 10_020, ohlc, exchange_time=1_700_000_000),
        kite.index(token, 10_020, (0, 0, 0, 0), exchange_time=0),
    ]


@pytest.mark.parametrize("segment", kite.SEGMENTS)
def test_every_kind_in_every_segment_is_read_as_the_official_decoder_reads_it(official: Decode, segment: int) -> None:
    packets = packets_of_every_kind(segment)
    together = kite.frame(*packets)
    kite.assert_same(parse(together).rows, kite.official_rows(official(together)))
    for packet in packets:
        alone = kite.frame(packet)
        kite.assert_same(parse(alone).rows, kite.official_rows(official(alone)))


def compare_random_packets(official: Decode, seed: int, packets: int) -> None:
    frames = kite.random_frames(random.Random(seed), packets)
    parsed = parse(*frames)
    kite.assert_same(parsed.rows, kite.official_rows(tick for data in frames for tick in official(data)))
    assert not parsed.bad


def test_twenty_thousand_random_packets_are_read_as_the_official_decoder_reads_them(official: Decode) -> None:
    compare_random_packets(official, seed=1, packets=20_000)


@pytest.mark.slow
def test_a_million_random_packets_are_read_as_the_official_decoder_reads_them(official: Decode) -> None:
    for seed in range(50):
        compare_random_packets(official, seed, packets=20_000)


def test_a_negative_price_stays_negative(official: Decode) -> None:
    data = kite.frame(kite.ltp(kite.token_of(1, kite.MCX), -3_763))
    assert parse(data).rows["last_price"].tolist() == [-37.63]
    assert official(data)[0]["last_price"] > 42_000_000  # what the SDK makes of it


# --- rows -------------------------------------------------------------------------------------


def test_absent_groups_are_marked_as_absent() -> None:
    rows = parse(kite.frame(kite.ltp(RELIANCE, 1), kite.quote(RELIANCE, 1), kite.full(RELIANCE, 1, trade_time=0))).rows
    assert (rows["flags"] & 0xF).tolist() == [Mode.LTP, Mode.QUOTE, Mode.FULL]
    assert [bool(flags & Flag.DEPTH) for flags in rows["flags"]] == [False, False, True]
    assert [bool(flags & Flag.TRADE_TIME) for flags in rows["flags"]] == [False, False, False]
    assert np.isnan(rows["open"]).tolist() == [True, False, False]
    assert np.isnan(rows["lower_circuit"]).all()
    assert rows["last_trade_ns"].tolist() == [0, 0, 0]


def test_an_index_has_prices_but_no_volume() -> None:
    (row,) = parse(kite.frame(kite.index(NIFTY, 2_500_000, (1, 2, 3, 4), 1_700_000_000))).rows
    assert [row[name] for name in ("open", "high", "low", "close")] == [0.01, 0.02, 0.03, 0.04]
    assert row["flags"] == Mode.FULL | Flag.OHLC | Flag.EXCHANGE_TIME


def test_rows_keep_the_order_of_the_wire_over_frames_and_lengths() -> None:
    first = kite.frame(kite.full(RELIANCE, 1), kite.ltp(NIFTY, 2), kite.full(RELIANCE, 3))
    second = kite.frame(kite.quote(RELIANCE, 4))
    parsed = parse(first, b"\0", second, kite.frame(kite.ltp(RELIANCE, 5)))
    assert parsed.rows["last_price"].tolist() == [0.01, 0.02, 0.03, 0.04, 0.05]
    assert parsed.rows["received_ns"].tolist() == [1_000, 1_000, 1_000, 1_002, 1_003]


def test_instruments_get_the_numbers_of_the_feed_and_strangers_minus_one() -> None:
    tokens = TokenMap({str(RELIANCE): 7, "not a number": 3})
    data = kite.frame(kite.ltp(NIFTY, 1), kite.ltp(RELIANCE, 1))
    assert parse(data, tokens=tokens).rows["instrument"].tolist() == [-1, 7]
    tokens.add({str(NIFTY): 8})
    assert parse(data, tokens=tokens).rows["instrument"].tolist() == [8, 7]


@pytest.mark.parametrize("lengths", [(184,), kite.LENGTHS])
def test_rows_belong_to_the_caller(lengths: Sequence[int]) -> None:
    parser = KiteParser(TokensAsNumbers())
    frames = [Frame(data, 5) for data in kite.random_frames(random.Random(2), 50, lengths)]
    rows = parser(frames).rows
    before = rows.tobytes()
    parser([Frame(frame.data, 6) for frame in frames])
    assert rows.tobytes() == before
    rows["check"] = 9
    assert not parser(frames).rows["check"].any()


# --- damage -----------------------------------------------------------------------------------

GOOD = kite.ltp(RELIANCE, 100)


@pytest.mark.parametrize(
    ("data", "bad"),
    [
        (b"", []),
        (b"\0", []),
        (b"\0\0", []),
        (b"\0\2" + kite.frame(GOOD)[2:], [(12, reasons.MISSING_PACKETS)]),
        (b"\xff\xff" + kite.frame(GOOD)[2:], [(12, reasons.MISSING_PACKETS)]),
        (b"\0\2" + kite.frame(GOOD)[2:] + b"\0", [(12, reasons.CUT_LENGTH)]),
        (kite.frame(GOOD, GOOD)[:-3], [(12, reasons.CUT_PACKET)]),
        (kite.frame(b"", GOOD), [(2, reasons.UNKNOWN_LENGTH)]),
        (kite.frame(b"abc"), [(2, reasons.UNKNOWN_LENGTH)]),
        (kite.frame(bytes(164), GOOD), [(2, reasons.UNKNOWN_LENGTH)]),
        (kite.frame(GOOD, bytes(200)), [(12, reasons.UNKNOWN_LENGTH)]),
        (kite.frame(GOOD, bytes(256 + 8)), [(12, reasons.UNKNOWN_LENGTH)]),
        (kite.frame(GOOD) + b"abc", [(12, reasons.TRAILING_BYTES)]),
        (b"\0\0abc", [(2, reasons.TRAILING_BYTES)]),
    ],
)
def test_good_packets_beside_damage_are_kept(data: bytes, bad: list[tuple[int, str]]) -> None:
    parsed = parse(data)
    assert parsed.rows["last_price"].tolist() == [1.0] * (GOOD in data)
    assert list(parsed.bad) == [BadPacket(0, offset, reason) for offset, reason in bad]


def test_damage_names_its_frame_and_leaves_the_frames_around_it_alone() -> None:
    parsed = parse(kite.frame(GOOD), kite.frame(GOOD, GOOD)[:-1], kite.frame(kite.full(NIFTY, 2)))
    assert parsed.rows["received_ns"].tolist() == [1_000, 1_001, 1_002]
    assert list(parsed.bad) == [BadPacket(1, 12, reasons.CUT_PACKET)]


def test_equal_sums_of_sizes_do_not_hide_that_frames_differ() -> None:
    # Joined, these three look like three frames of two packets: only their own sizes tell.
    whole = kite.frame(GOOD, GOOD)
    parsed = parse(whole, whole[:12], whole[12:] + whole)
    assert len(parsed.bad) == 2 or len(parsed.bad) == 3
    assert {bad.frame for bad in parsed.bad} == {1, 2}


@pytest.mark.parametrize("case", made_small("malformed"), ids=lambda case: str(case["name"]))
def test_damaged_frames_lose_nothing_that_the_official_decoder_keeps(case: dict[str, Any]) -> None:
    parsed = parse(bytes.fromhex(case["hex"]))
    assert bool(parsed.bad) == ("counted" in case["wanted"] and "not counted" not in case["wanted"])
    if "kept" in case["wanted"].replace("connection kept", ""):
        assert len(parsed.rows) == 1
    if isinstance(case["official"], list):
        kite.assert_same(parsed.rows, kite.official_rows(case["official"]))


# --- anything at all --------------------------------------------------------------------------

whole_frames = st.builds(
    lambda seed, count: kite.random_frames(random.Random(seed), count)[0], st.integers(0, 10_000), st.integers(1, 20)
)
any_bytes = st.one_of(
    st.binary(max_size=300),
    whole_frames,
    st.builds(lambda data, at: data[: at % (len(data) + 1)], whole_frames, st.integers(0, 10_000)),
    st.builds(lambda one, other: one + other, whole_frames, whole_frames),
    st.builds(lambda data, times: data * times, whole_frames, st.integers(2, 4)),
    st.builds(
        lambda data, at, value: data[: at % len(data)] + bytes([value]) + data[at % len(data) + 1 :],
        whole_frames,
        st.integers(0, 10_000),
        st.integers(0, 255),
    ),
)


@given(st.lists(any_bytes, max_size=6))
def test_frames_parsed_together_give_what_each_gives_alone(frames: list[bytes]) -> None:
    together = parse(*frames)
    alone = [parse(data) for data in frames]
    rows = np.concatenate([parse().rows, *(one.rows for one in alone)])
    rows["received_ns"] = np.repeat(np.arange(len(frames)) + 1_000, [len(one.rows) for one in alone])
    assert together.rows.tobytes() == rows.tobytes()
    expected = [(n, bad.offset, bad.reason) for n, one in enumerate(alone) for bad in one.bad]
    assert [tuple(bad) for bad in together.bad] == expected


@given(whole_frames, st.integers(0, 10_000))
def test_a_frame_cut_anywhere_keeps_the_packets_before_the_cut(data: bytes, at: int) -> None:
    cut = data[: at % len(data)]
    whole, kept = parse(data), parse(cut)
    assert kept.rows.tobytes() == whole.rows[: len(kept.rows)].tobytes()
    assert not whole.bad
    assert bool(kept.bad) == (len(cut) > 1)
