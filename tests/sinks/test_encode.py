"""JSON of ticks and candles: what is in it, what is left out, and that it keeps to the schemas."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.batches import CandleBatch, Origin, TickBatch
from marketfeed.dtypes import CANDLE, FLAG_GROUPS, PRICE_FIELDS, TICK, Flag, empty_ticks
from marketfeed.enums import Interval, Mode
from marketfeed.instruments import Instrument
from marketfeed.sinks.bulk import BulkLines
from marketfeed.sinks.encode import CandleEncoder, TickEncoder

MakeTicks = Callable[..., TickBatch]

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
GROUPS = tuple(FLAG_GROUPS)
REASONS = tuple(flag for flag in Flag if flag >= Flag.NOT_FINITE)
KNOWN = [Instrument(exchange="NSE", symbol=f"SYMBOL{number} ₹", token=str(number)) for number in range(5)]
ORIGIN = Origin(instruments=KNOWN, vendor="kite", journal="0a" * 16 + ".1")


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def documents(lines: bytes) -> list[dict[str, Any]]:
    assert not lines or lines.endswith(b"\n")
    return [json.loads(line) for line in lines.splitlines()]


# --- generated batches ----------------------------------------------------------------------------

PRICES = st.one_of(
    st.integers(0, 10_000_000).map(lambda paise: paise / 100),
    st.integers(0, 2_000_000_000).map(lambda value: value / 10_000),
    st.floats(min_value=-1e9, max_value=1e15, allow_nan=False),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-7, 2543.15, 99_999_999.99, 1e22]),
)
COUNTS = st.one_of(st.integers(0, 9999), st.integers(0, 10**9), st.integers(0, 2**53))
TIMES = st.one_of(st.just(0), st.integers(1, 4 * 10**18), st.integers(1, 4 * 10**9).map(lambda s: s * 10**9))


@st.composite
def batches(draw: st.DrawFn) -> TickBatch:
    """Rows of one or several layouts, with values drawn from a small pool so that large batches stay cheap."""
    count = draw(st.integers(1, 80))
    pick = np.random.default_rng(draw(st.integers(0, 2**32)))
    tidy = draw(st.booleans())  # what brokers send nearly always: two decimals, nothing absurd
    prices = st.integers(0, 10_000_000).map(lambda paise: paise / 100) if tidy else PRICES
    pools = {
        "f": np.array(draw(st.lists(prices, min_size=1, max_size=12)), "f8"),
        "i": np.array(draw(st.lists(COUNTS, min_size=1, max_size=12)), "i8"),
        "t": np.array(draw(st.lists(TIMES, min_size=1, max_size=4)), "i8"),
    }
    rows: Any = empty_ticks(count)
    for name in TICK.names or ():
        if name in ("flags", "check", "spare", "instrument"):
            continue
        pool = pools["f" if name in PRICE_FIELDS else "t" if name.endswith("_ns") else "i"]
        chosen = pick.choice(pool, rows[name].shape)
        rows[name] = chosen % 2**31 if name.endswith("_orders") else chosen
    rows["instrument"] = pick.integers(-1, 7, count)
    flags = draw(st.lists(flag_words(), min_size=1, max_size=3))
    rows["flags"] = pick.choice(np.array(flags, "u4"), count)
    return TickBatch(rows, ORIGIN, draw(st.one_of(st.integers(0, 1000), st.integers(0, 10**12))))


def flag_words() -> st.SearchStrategy[int]:
    bits = st.lists(st.sampled_from([*GROUPS, *REASONS[:3]]), unique=True).map(lambda chosen: int(sum(chosen)))
    return st.tuples(st.sampled_from([0, *Mode]), st.one_of(bits, st.just(int(sum(GROUPS))))).map(sum)


def expected(batch: TickBatch, index: int) -> dict[str, Any]:
    """The document of one row, written as plainly as possible."""
    row, flags = batch.rows[index], Flag(int(batch.rows["flags"][index]) & ~0xF)
    mode = int(batch.rows["flags"][index]) & 0xF
    number = int(row["instrument"])
    one = KNOWN[number] if 0 <= number < len(KNOWN) else Instrument(exchange="", symbol="", token="")
    out: dict[str, Any] = {"journal": batch.journal, "seq": batch.first_row + index, "feed": "main", "vendor": "kite"}
    out |= {"exchange": one.exchange, "symbol": one.symbol, "token": one.token}
    if mode:
        out["mode"] = Mode(mode).word
    timed = Flag.EXCHANGE_TIME in flags and row["exchange_ns"] != 0
    ns = int(row["exchange_ns"] if timed else row["received_ns"])
    out |= {"timestamp": ns // 1000 / 1e6} | ({} if timed else {"time_source": "received"})
    group = {field: flag for flag, fields in FLAG_GROUPS.items() for field in fields}
    for name in TICK.names or ():
        absent = name in group and group[name] not in flags
        if absent or name in ("flags", "check", "spare", "instrument") or name.startswith(("bid_", "ask_")):
            continue
        value = row[name].item()
        if math.isfinite(value) and not (name.endswith("_ns") and value == 0 and name != "received_ns"):
            out[name] = value
    if Flag.DEPTH in flags:
        out["depth"] = {"buy": book(row, "bid"), "sell": book(row, "ask")}
    if words := [str(flag.name).lower() for flag in REASONS if flag in flags]:
        out["reasons"] = words
    return out


def book(row: Any, side: str) -> list[dict[str, Any]]:
    levels = []
    columns = (row[f"{side}_{what}"].tolist() for what in ("price", "quantity", "orders"))
    for price, quantity, orders in zip(*columns, strict=True):
        level = {"price": price} if math.isfinite(price) else {}
        levels.append({**level, "quantity": quantity, "orders": orders})
    return levels


@settings(deadline=None, max_examples=150)
@given(batches())
def test_every_row_becomes_the_document_that_its_flags_describe(batch: TickBatch) -> None:
    made = documents(TickEncoder().lines(batch))
    assert made == [expected(batch, index) for index in range(len(batch))]


@settings(deadline=None, max_examples=50)
@given(batches())
def test_every_document_keeps_to_the_schema(batch: TickBatch) -> None:
    full, compact = validator("tick"), validator("tick-compact")
    for index, line in enumerate(TickEncoder("full").messages(batch)[:4]):
        full.validate(json.loads(line))
        assert index < len(batch)
    for line in TickEncoder("compact").messages(batch)[:4]:
        compact.validate(json.loads(line))


@settings(deadline=None, max_examples=60)
@given(batches())
def test_a_row_is_encoded_alike_alone_and_in_company(batch: TickBatch) -> None:
    encoder = TickEncoder()
    assert encoder.lines(batch) == b"".join(encoder.lines(batch[index : index + 1]) for index in range(len(batch)))


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("missing", [None, *GROUPS])
def test_a_group_that_the_message_did_not_hold_is_left_out(ticks: MakeTicks, mode: Mode, missing: Flag | None) -> None:
    batch = ticks(40)
    rows = batch.rows.copy()
    rows["flags"] = mode | (int(sum(GROUPS)) & ~(missing or 0))
    made = documents(TickEncoder().lines(TickBatch(rows, batch.origin)))
    absent = {"depth"} if missing is Flag.DEPTH else set(FLAG_GROUPS[missing]) if missing else set()
    names = {*validator("tick").schema["properties"]} - {"time_source", "reasons"} - absent
    if missing is Flag.EXCHANGE_TIME:
        names.add("time_source")
    assert [set(document) for document in made] == [names] * 40
    assert {document["mode"] for document in made} == {mode.word}


def test_compact_is_exactly_four_fields(ticks: MakeTicks) -> None:
    batch = ticks(2, 41)
    rows = batch.rows.copy()
    rows["flags"][1] &= ~np.uint32(Flag.VOLUME)
    lines = TickEncoder("compact").lines(TickBatch(rows, batch.origin, 41))
    assert lines.splitlines() == [
        b'{"token":"12345","ltp":2502.05,"volume":41,"timestamp":1795149000.0}',
        b'{"token":"738561","ltp":2502.1,"volume":null,"timestamp":1795149000.0}',
    ]


@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("price", [0.05, 2543.15, 83.1275, 0.1 + 0.2, 1e-7, 99_999_999.99, 12_345_678_901.25])
def test_prices_read_back_as_the_same_number(ticks: MakeTicks, count: int, price: float) -> None:
    batch = ticks(count)
    rows = batch.rows.copy()
    rows["last_price"] = rows["bid_price"] = price
    made = documents(TickEncoder().lines(TickBatch(rows, batch.origin)))
    assert {document["last_price"] for document in made} == {price}
    assert {level["price"] for document in made for level in document["depth"]["buy"]} == {price}


def test_an_empty_batch_is_no_bytes(ticks: MakeTicks) -> None:
    assert TickEncoder().lines(ticks(0)) == b""
    assert TickEncoder().messages(ticks(0)) == []


def test_messages_and_documents_are_the_lines_one_by_one(ticks: MakeTicks) -> None:
    encoder = TickEncoder()
    batch = ticks(50)
    assert b"".join(message + b"\n" for message in encoder.messages(batch)) == encoder.lines(batch)
    assert encoder.documents(batch) == documents(encoder.lines(batch))


def test_rows_picked_from_a_batch_keep_their_numbers(ticks: MakeTicks) -> None:
    batch = ticks(100, 1000)
    assert [one["seq"] for one in documents(TickEncoder().lines(batch[::3]))] == list(range(1000, 1100, 3))
    picked = batch.where(symbol="RELIANCE")
    assert [one["seq"] for one in documents(TickEncoder().lines(picked))] == picked.seq.tolist()


def test_an_instrument_that_is_added_later_gets_its_own_name(ticks: MakeTicks) -> None:
    known = [Instrument(exchange="NSE", symbol="A", token="1")]
    encoder = TickEncoder()
    encoder.lines(ticks(40, instruments=known))
    known.append(Instrument(exchange="MCX", symbol="GOLD" * 10, token="2"))
    made = documents(encoder.lines(ticks(40, instruments=known)))
    assert [one["symbol"] for one in made] == ["A", "GOLD" * 10] * 20


def test_names_follow_the_batch_when_a_sink_serves_another_journal(ticks: MakeTicks) -> None:
    encoder = TickEncoder()
    for exchange in ("NSE", "BSE"):
        other = [Instrument(exchange=exchange, symbol="SAME", token="1")]
        assert documents(encoder.lines(ticks(40, instruments=other)))[0]["exchange"] == exchange


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="choose full or compact"):
        TickEncoder("short")  # type: ignore[arg-type]


# --- candles --------------------------------------------------------------------------------------


def test_a_candle_reads_like_one(candles: Callable[..., CandleBatch]) -> None:
    (made,) = CandleEncoder().documents(candles(1, 7))
    assert made == {
        "journal": "00ff" * 8 + ".1",
        "seq": 7,
        "feed": "main",
        "vendor": "kite",
        "exchange": "NSE",
        "symbol": "RELIANCE",
        "token": "738561",
        "interval": "1m",
        "start": "2026-11-20T09:15:00+05:30",
        "start_ns": 1795146300000000000,
        "open": 101.05,
        "high": 103.05,
        "low": 100.05,
        "close": 102.05,
        "volume": 7,
        "source": "vendor",
    }


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_every_candle_keeps_to_the_schema(data: st.DataObject) -> None:
    rows: Any = np.zeros(3, CANDLE)
    rows["start_ns"] = data.draw(st.integers(0, 4 * 10**18))
    rows["interval"] = data.draw(st.sampled_from([one.seconds for one in Interval]))
    for name in ("open", "high", "low", "close"):
        rows[name] = data.draw(PRICES)
    rows["volume"] = data.draw(COUNTS)
    rows["open_interest"] = data.draw(st.integers(-1, 10**9))
    rows["flags"] = data.draw(st.integers(0, 7))
    rows["instrument"] = data.draw(st.integers(-1, 4))
    lines = CandleEncoder().messages(CandleBatch(rows, ORIGIN))
    assert len(lines) == 3
    validator("candle").validate(json.loads(lines[0]))


def test_rows_that_lack_a_time_or_are_doubted_stay_with_the_others(ticks: MakeTicks) -> None:
    """The fast way takes them, in one pass, and gives the bytes of the general one."""
    batch = ticks(100)
    rows = batch.rows.copy()
    rows["exchange_ns"][7] = rows["last_trade_ns"][20:22] = 0
    rows["average_price"][[7, 30]] = math.nan
    rows["flags"][40] &= ~np.uint32(Flag.EXCHANGE_TIME | Flag.TRADE_TIME)
    rows["flags"][[8, 40]] |= np.uint32(Flag.CROSSED_DEPTH | Flag.REPEAT)
    mixed = TickBatch(rows, batch.origin)
    lines = BulkLines().lines(mixed)
    assert lines == b"".join(TickEncoder().lines(mixed[place : place + 1]) for place in range(100))
    assert sum("exchange_ns" not in one for one in documents(lines)) == 2
    assert [place for place, one in enumerate(documents(lines)) if "reasons" in one] == [8, 40]


def test_books_with_levels_that_have_no_price_stay_with_the_others(ticks: MakeTicks) -> None:
    """Touchline messages have one level; deltas may have any."""
    batch = ticks(100)
    rows = batch.rows.copy()
    rows["bid_price"][:, 4] = math.nan
    rows["ask_price"][::3, 1:] = math.nan
    rows["open"][5] = rows["last_price"][6] = math.nan
    rows["lower_circuit"][:] = math.nan
    mixed = TickBatch(rows, batch.origin)
    assert BulkLines().lines(mixed) == b"".join(TickEncoder().lines(mixed[n : n + 1]) for n in range(100))
