"""Messages to merged rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marketfeed_flattrade.messages import ORDERS, PRICES, QUANTITIES
from marketfeed_flattrade.parser import FlattradeParser

from marketfeed.clock import NS, to_ns
from marketfeed.contract import Frame
from marketfeed.dtypes import FLAG_GROUPS, MODE_MASK, TICK, Flag
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap

NOON = to_ns("2025-11-24T12:00:00")
FED = NOON // NS
TOKENS = {"NSE|22": 0, "BSE|22": 1, "NFO|35001": 2}


def message(kind: str, key: str = "NSE|22", **fields: Any) -> bytes:
    exchange, token = key.split("|")
    return json.dumps({"t": kind, "e": exchange, "tk": token, **fields}).encode()


def parse(parser: FlattradeParser, *messages: bytes) -> tuple[Any, Any]:
    return parser([Frame(one, NOON + place) for place, one in enumerate(messages)])


@pytest.fixture
def parser() -> FlattradeParser:
    return FlattradeParser(TokenMap(TOKENS))


def depth_snapshot(**changes: str) -> bytes:
    fields = {"lp": "1540.00", "o": "1530.00", "h": "1545.00", "l": "1528.00", "c": "1524.75", "ap": "1537.20"}
    fields |= {
        "v": "5000000",
        "ltq": "10",
        "tbq": "400000",
        "tsq": "500000",
        "oi": "7",
        "uc": "1677.20",
        "lc": "1372.30",
    }
    fields |= {"uc": "1677.20", "lc": "1372.30", "ft": str(FED), "ltt": "11:59:58"}
    for level in range(1, 6):
        fields |= {f"bp{level}": f"{1540 - level / 10:.2f}", f"bq{level}": f"{level}00", f"bo{level}": f"{level}"}
        fields |= {f"sp{level}": f"{1540 + level / 10:.2f}", f"sq{level}": f"{level}50", f"so{level}": f"{level + 1}"}
    return message("dk", **{**fields, **changes})


def test_a_depth_snapshot_fills_every_field(parser: FlattradeParser) -> None:
    rows, bad = parse(parser, depth_snapshot())
    (row,) = rows
    assert not bad
    assert row["flags"] == Mode.FULL | sum(set(FLAG_GROUPS) - {Flag.OI_RANGE})
    assert (row["exchange_ns"], row["received_ns"], row["last_trade_ns"]) == (NOON, NOON, NOON - 2 * NS)
    prices = ("last_price", "average_price", "open", "high", "low", "close", "lower_circuit", "upper_circuit")
    assert [row[name] for name in prices] == [1540.0, 1537.2, 1530.0, 1545.0, 1528.0, 1524.75, 1372.3, 1677.2]
    quantities = ("last_quantity", "volume", "buy_quantity", "sell_quantity", "open_interest")
    assert [row[name] for name in quantities] == [10, 5_000_000, 400_000, 500_000, 7]
    assert row["bid_price"].tolist() == [1539.9, 1539.8, 1539.7, 1539.6, 1539.5]
    assert row["ask_price"].tolist() == [1540.1, 1540.2, 1540.3, 1540.4, 1540.5]
    assert row["bid_quantity"].tolist() == [100, 200, 300, 400, 500]
    assert row["ask_quantity"].tolist() == [150, 250, 350, 450, 550]
    assert row["bid_orders"].tolist() == [1, 2, 3, 4, 5]
    assert row["ask_orders"].tolist() == [2, 3, 4, 5, 6]
    assert row["instrument"] == 0


def test_a_delta_changes_only_what_it_holds(parser: FlattradeParser) -> None:
    parse(parser, depth_snapshot())
    rows, _ = parse(parser, message("df", lp="1541.00", bq2="7"))
    (row,) = rows
    assert row["last_price"] == 1541.0
    assert row["bid_quantity"].tolist() == [100, 7, 300, 400, 500]
    assert row["volume"] == 5_000_000
    assert row["exchange_ns"] == NOON


def test_each_row_of_a_batch_shows_the_state_at_its_own_message(parser: FlattradeParser) -> None:
    rows, _ = parse(parser, message("tk", lp="1"), message("tf", lp="2"), message("tf", v="9"))
    assert rows["last_price"].tolist() == [1.0, 2.0, 2.0]
    assert rows["volume"].tolist() == [0, 0, 9]
    assert (rows["received_ns"] - NOON).tolist() == [0, 1, 2]
    assert [bool(flags & Flag.VOLUME) for flags in rows["flags"].tolist()] == [False, False, True]


def test_a_snapshot_replaces_what_was_known(parser: FlattradeParser) -> None:
    rows, _ = parse(parser, depth_snapshot(), message("dk", lp="5"))
    assert rows["flags"][1] == Mode.FULL
    assert math.isnan(rows["open"][1])
    assert rows["volume"][1] == 0


def test_the_families_and_exchanges_keep_states_of_their_own(parser: FlattradeParser) -> None:
    rows, _ = parse(
        parser, message("tk", lp="1"), message("dk", lp="2"), message("tk", "BSE|22", lp="3"), message("tf", v="4")
    )
    assert rows["last_price"].tolist() == [1.0, 2.0, 3.0, 1.0]
    assert (rows["flags"] & MODE_MASK).tolist() == [Mode.QUOTE, Mode.FULL, Mode.QUOTE, Mode.QUOTE]
    assert rows["instrument"].tolist() == [0, 0, 1, 0]


def test_a_delta_before_its_snapshot_invents_nothing(parser: FlattradeParser) -> None:
    rows, bad = parse(parser, message("df", ltq="5", ft=str(FED)))
    state = parser.state("depth", "NSE|22")
    assert not bad
    assert state is not None
    assert not state.has_snapshot
    # The last quantity alone would make the totals read as zero, so the group's bit stays clear.
    assert rows["flags"].tolist() == [Mode.FULL | Flag.EXCHANGE_TIME]
    assert rows["last_quantity"].tolist() == [5]


@pytest.mark.parametrize("nothing", ["NA", "", "NaN", "inf", "-", None, [], {}, "1e999", 10**400])
def test_a_value_that_is_no_number_makes_its_field_absent(parser: FlattradeParser, nothing: object) -> None:
    parse(parser, depth_snapshot())
    rows, bad = parse(parser, message("df", lp=nothing, v=nothing, bo1=nothing, ft=nothing, ltt=nothing))
    (row,) = rows
    assert not bad
    assert math.isnan(row["last_price"])
    assert (row["volume"], row["bid_orders"][0], row["exchange_ns"], row["last_trade_ns"]) == (0, 0, 0, 0)
    assert not row["flags"] & (Flag.VOLUME | Flag.EXCHANGE_TIME | Flag.TRADE_TIME)
    assert row["flags"] & Flag.DEPTH


@pytest.mark.parametrize(("field", "value"), [("v", str(2**63)), ("bq1", "-1e30"), ("bo1", str(2**31)), ("ft", "1e18")])
def test_a_number_too_large_for_its_column_is_absent(parser: FlattradeParser, field: str, value: str) -> None:
    rows, bad = parse(parser, message("dk", **{field: value}))
    assert not bad
    assert rows.tobytes() == parse(FlattradeParser(TokenMap(TOKENS)), message("dk"))[0].tobytes()


def test_zero_is_a_value(parser: FlattradeParser) -> None:
    rows, _ = parse(parser, message("tk", bp1="0.00", v="0"))
    assert rows["bid_price"][0][0] == 0
    assert rows["flags"][0] == Mode.QUOTE | Flag.DEPTH | Flag.VOLUME


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [
        ("12:00:00", FED),
        ("12:05:00", FED + 300),
        ("12:05:01", FED + 301 - 86_400),
        ("00:00:00", FED - 43_200),
        ("05:30:00", 0),
        ("24:00:00", 0),
        ("1:00:00", 0),
        ("١٢:00:00", 0),
    ],
)
def test_the_last_trade_gets_its_date_from_the_feed_time(parser: FlattradeParser, clock: str, seconds: int) -> None:
    rows, _ = parse(parser, message("dk", ft=str(FED), ltt=clock))
    assert rows["last_trade_ns"].tolist() == [seconds * NS]


def test_a_feed_time_alone_gives_the_trade_a_new_date(parser: FlattradeParser) -> None:
    rows, _ = parse(parser, message("dk", ft=str(FED), ltt="11:00:00"), message("df", ft=str(FED + 86_400)))
    assert np.diff(rows["last_trade_ns"]).tolist() == [86_400 * NS]


def test_an_instrument_subscribed_after_its_first_message_is_found(parser: FlattradeParser) -> None:
    tokens = TokenMap()
    parser = FlattradeParser(tokens)
    assert parse(parser, message("tk"))[0]["instrument"].tolist() == [-1]
    tokens.add({"NSE|22": 5})
    assert parse(parser, message("tf"))[0]["instrument"].tolist() == [5]


def test_control_messages_make_no_rows(parser: FlattradeParser) -> None:
    rows, bad = parse(parser, b'{"t":"hk","hk":"1"}', b'{"t":"uk","k":"NSE|22"}', b'{"t":"new","e":"NSE","tk":"22"}')
    assert len(rows) == len(bad) == 0
    assert parser.state("touchline", "NSE|22") is None


def test_malformed_messages_are_counted_beside_the_good_ones(parser: FlattradeParser) -> None:
    odd = [b"", b"{", b"[]", b'""', b"{}", b'{"t":5}', b'{"t":"tf","tk":"22"}', b'{"t":"tf","e":"","tk":"22"}', b"\xff"]
    odd += [b"[" * 100_000, b'{"t":"tf","e":"NSE","tk":22}', message("tf")[:-1], message("tf") * 2]
    rows, bad = parse(parser, message("tk", lp="1"), *odd, message("tf", v="2"))
    assert [one.frame for one in bad] == list(range(1, len(odd) + 1))
    assert rows["last_price"].tolist() == [1.0, 1.0]


def test_the_rows_may_be_written_to(parser: FlattradeParser) -> None:
    rows, _ = parse(parser, message("tk"))
    rows["flags"] |= np.uint32(Flag.REPEAT)
    assert not parse(parser, message("tf"))[0]["flags"][0] & Flag.REPEAT


def test_no_frames_make_no_rows(parser: FlattradeParser) -> None:
    rows, bad = parse(parser)
    assert rows.dtype == TICK
    assert len(rows) == len(bad) == 0


FIELDS = st.sampled_from(["lp", "v", "ltq", "bp1", "sq5", "so3", "ft", "ltt", "oi", "uc", "zz", "e", "tk", "t"])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text("0123456789.:eEN-+ _", max_size=9)
    | st.lists(st.none(), max_size=2)
)
NUMBERS = (
    st.floats().map(str)
    | st.integers(-(2**70), 2**70).map(str)
    | st.sampled_from(["NA", "", "09:15:00", "tk", "tf", "NSE"])
)


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(FIELDS, VALUES | NUMBERS).map(lambda one: {"t": "tf", "e": "NSE", "tk": "22", **one}),
        max_size=6,
    )
)
def test_no_json_makes_it_raise(messages: list[dict[str, Any]]) -> None:
    rows, bad = parse(FlattradeParser(TokenMap(TOKENS)), *(json.dumps(one).encode() for one in messages))
    assert rows.dtype == TICK
    assert len(rows) + len(bad) <= len(messages)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60) | st.integers(0, 60).map(lambda n: message("tf", lp="1.5")[:n]), max_size=6))
def test_no_bytes_make_it_raise(messages: list[bytes]) -> None:
    rows, bad = parse(FlattradeParser(TokenMap(TOKENS)), message("tk", lp="1"), *messages, message("tf", lp="2"))
    assert rows["last_price"].tolist()[0] == 1
    assert rows["last_price"].tolist()[-1] == 2
    assert len(rows) + len(bad) <= len(messages) + 2


# --- recorded material, where it lies beside the checkout ----------------------------------------

SAME = ("last_price", "open", "high", "low", "close", "average_price", "upper_circuit", "lower_circuit")
NAMES = {
    **{name: name for name in (*SAME, "volume", "last_quantity")},
    "total_buy_quantity": "buy_quantity",
    "total_sell_quantity": "sell_quantity",
    "oi": "open_interest",
    "exchange_time": "exchange_ns",
    "last_trade_time": "last_trade_ns",
}
SINGLE = {column: flag for flag, columns in FLAG_GROUPS.items() if len(columns) == 1 for column in columns}
"""Columns whose presence a bit of their own tells."""


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.read_text().splitlines())


def _as_row(tick: dict[str, Any]) -> dict[str, Any]:
    """A neutral tick in names and units of a row."""
    expected = {}
    for name, column in NAMES.items():
        value = tick[name]
        if TICK[column].kind == "f":
            expected[column] = math.nan if value is None else value
        else:
            expected[column] = (value or 0) * (NS if column.endswith("_ns") else 1)
    return expected


def _numbers(state: dict[str, str]) -> dict[str, float]:
    """What of a merged state is a number of a row."""
    fields = {*PRICES, *QUANTITIES, *ORDERS}
    return {field: float(text) for field, text in state.items() if field in fields and text not in ("NA", "")}


def _levels(row: Any, side: str) -> list[list[float | None]]:
    """The known levels of a row: price, quantity, and orders where a family has them."""
    columns = zip(row[f"{side}_price"], row[f"{side}_quantity"], row[f"{side}_orders"], strict=True)
    full = row["flags"] & MODE_MASK == Mode.FULL
    return [[price, quantity, orders if full else None] for price, quantity, orders in columns if not math.isnan(price)]


SESSIONS = ["doc_touchline_ntpc", "doc_depth_nfo_mcx"]
SESSIONS += ["made_control_and_bad", "made_reconnect_two_families", "made_random_20x300"]


@pytest.mark.parametrize("name", SESSIONS)
def test_recorded_sessions_merge_as_expected_after_every_message(shared: Path, name: str) -> None:
    tokens = TokenMap()
    parser = FlattradeParser(tokens)
    seen = set()
    for line in _lines(shared / "fixtures/flattrade" / f"{name}.jsonl"):
        if line.get("event") == "reconnected":
            parser = FlattradeParser(tokens)
            continue
        expect = line["expect"]
        seen.add(expect["kind"])
        rows, bad = parse(parser, line["text"].encode())
        market = expect["kind"] in ("snapshot", "delta")
        assert (len(rows), len(bad)) == (int(market), int(expect["kind"] == "bad")), line
        if not market:
            continue
        state = parser.state(expect["family"], expect["key"])
        assert state is not None
        assert state.known == _numbers(expect["state"])
        assert state.has_snapshot == expect["has_snapshot"]
        for column, value in _as_row(expect["tick"]).items():
            np.testing.assert_equal(rows[column][0], value, f"{name} {line['n']} {column}")
        for name_, column in NAMES.items():
            if column in SINGLE:
                assert bool(rows["flags"][0] & SINGLE[column]) == (expect["tick"][name_] is not None)
        for side in ("bid", "ask"):
            assert _levels(rows[0], side) == expect["tick"][f"{side}s"], line["n"]
    assert "snapshot" in seen
