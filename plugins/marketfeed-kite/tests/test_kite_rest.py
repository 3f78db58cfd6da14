"""Instruments and candles over HTTP."""

from __future__ import annotations

import csv
import io
import json
import logging
import random
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import attrs
import numpy as np
import pytest
from kite_rest_server import Answer, RestServer
from marketfeed_kite import KiteSettings
from marketfeed_kite.candles import fetch_candles, read_candles
from marketfeed_kite.instruments import fetch_instruments, read_instruments

from marketfeed import Historical
from marketfeed.clock import IST, NS, OffsetClock, ist_text, to_ns
from marketfeed.contract import CandleRequest, Session
from marketfeed.dtypes import Source
from marketfeed.enums import Interval, Kind
from marketfeed.errors import LineLost, RateLimited, RequestRejected, SessionExpired, VendorError
from marketfeed.http import HttpSession
from marketfeed.instruments import Instrument
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

HEADER = (
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,"
    "tick_size,lot_size,instrument_type,segment,exchange"
)
DUMP = f"""{HEADER}
738561,2885,RELIANCE,RELIANCE INDUSTRIES,0.0,,0.0,0.1,1,EQ,NSE,NSE
3813889,14898,CENTRALBK-BE,CENTRAL BANK OF INDIA,0.0,,0.0,0.05,1,EQ,NSE,NSE
4267265,16669,BAJAJ-AUTO,"BAJAJ AUTO, PUNE",0.0,,0.0,0.5,1,EQ,NSE,NSE
256265,1001,NIFTY 50,NIFTY 50,0.0,,0.0,0.0,0,EQ,INDICES,NSE
12683010,49543,NIFTY25DECFUT,NIFTY,0.0,2025-12-30,0.0,0.1,75,FUT,NFO-FUT,NFO
10234370,39978,NIFTY25DEC24000CE,NIFTY,0.0,2025-12-30,24000.0,0.05,75,CE,NFO-OPT,NFO
10234626,39979,NIFTY25DEC24000PE,NIFTY,0.0,2025-12-30,24000.0,0.05,75,PE,NFO-OPT,NFO
"""
SESSION = Session(vendor="kite", account="A", access_token="secret-token")
RELIANCE = Instrument(exchange="NSE", symbol="RELIANCE", token="738561", vendor="kite")


@pytest.fixture
def http() -> Iterator[HttpSession]:
    with HttpSession("kite", sleep=lambda _: None) as session:
        yield session


@pytest.fixture
def server() -> Iterator[RestServer]:
    with RestServer() as running:
        yield running


def make_settings(server: RestServer) -> KiteSettings:
    return KiteSettings(api_key="key", rest_url=server.url)


# --- instruments ------------------------------------------------------------------------------


def test_the_dump_becomes_a_table(http: HttpSession, server: RestServer) -> None:
    server.answers = [Answer(200, "text/csv", DUMP.replace("\n", "\r\n").encode())]
    table = fetch_instruments(make_settings(server), SESSION, http)
    assert [one.kind for one in table] == [Kind.EQUITY] * 3 + [Kind.INDEX, Kind.FUTURE, Kind.CALL, Kind.PUT]
    assert [one.series for one in table] == ["EQ", "BE", "EQ", "", "", "", ""]
    assert table["NSE:BAJAJ-AUTO"].name == "BAJAJ AUTO, PUNE"
    assert table["NFO:NIFTY25DEC24000CE"] == Instrument(
        exchange="NFO",
        symbol="NIFTY25DEC24000CE",
        token="10234370",
        vendor="kite",
        exchange_token="39978",
        name="NIFTY",
        kind=Kind.CALL,
        expiry=date(2025, 12, 30),
        strike=24_000.0,
        lot_size=75,
        tick_size=0.05,
        segment="NFO-OPT",
    )
    (request,) = server.requests
    assert request.path == "/instruments"
    assert request.headers["Authorization"] == "token key:secret-token"


def test_the_dump_needs_no_session(http: HttpSession, server: RestServer) -> None:
    server.answers = [Answer(200, "text/csv", DUMP.encode())]
    assert len(fetch_instruments(make_settings(server), None, http)) == 7
    assert "Authorization" not in server.requests[0].headers


def test_a_row_that_cannot_be_read_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    lines = DUMP.splitlines()
    lines[2] = lines[2].replace("0.05", "cheap")
    lines[5] = lines[5].replace("2025-12-30", "soon")
    lines.insert(7, "half,a,row")
    with caplog.at_level(logging.WARNING):
        assert len(read_instruments("\n".join(lines))) == 5
    assert "3 rows" in caplog.text
    assert "line 3" in caplog.text


@pytest.mark.parametrize("text", ["", "<html>maintenance</html>", "a,b,c\n1,2,3"])
def test_what_is_no_dump_is_refused(text: str) -> None:
    with pytest.raises(RequestRejected, match="instrument dump"):
        read_instruments(text)


def test_the_published_dump_is_read_like_the_official_sdk_reads_it(shared: Path) -> None:
    folder = shared / "fixtures/kite/rest"
    table = read_instruments((folder / "instruments_nse.csv").read_bytes().decode())
    expected = json.loads((folder / "instruments_nse.expected.json").read_text())
    assert len(table) == len(expected)
    for ours, theirs in zip(table, expected, strict=True):
        assert int(ours.token) == theirs["instrument_token"]
        assert (ours.symbol, ours.name) == (theirs["tradingsymbol"], theirs["name"])
        for name in ("exchange_token", "strike", "tick_size", "lot_size", "segment", "exchange"):
            assert getattr(ours, name) == theirs[name]


def test_a_whole_master_is_read_in_about_a_second() -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    for number in range(100_000):
        expiry = f"2026-{number % 12 + 1:02d}-28"
        row = (number << 8 | 2, number, f"S{number}", "NAME", 0.0, expiry, 100.0, 0.05, 75, "CE", "NFO-OPT", "NFO")
        writer.writerow(row)
    dump = f"{HEADER}\n{text.getvalue()}"
    # A loop over csv.DictReader that does nothing else stands for the speed of this machine.
    began = perf_counter()
    sum(1 for _ in csv.DictReader(io.StringIO(dump)))
    bare_s = perf_counter() - began
    began = perf_counter()
    table = read_instruments(dump)
    assert len(table) == 100_000
    assert perf_counter() - began < 8 * bare_s


# --- candles ----------------------------------------------------------------------------------


def candle(start: str, close: float, *more: float) -> list[Any]:
    return [start, close - 1, close + 1, close - 2, close, 1_000, *more]


def reply(*candles: list[Any]) -> Answer:
    return Answer.json({"status": "success", "data": {"candles": candles}})


def request(start: str, end: str, **more: Any) -> CandleRequest:
    given = {"instrument": RELIANCE, "interval": Interval.M1, "start_ns": to_ns(start), "end_ns": to_ns(end), **more}
    return CandleRequest(**given)


def test_a_window_is_asked_for_in_india_time_with_its_end_left_out(http: HttpSession, server: RestServer) -> None:
    server.answers = [reply(candle("2026-11-20T09:15:00+0530", 100), candle("2026-11-20T09:16:00+0530", 101))]
    batch = fetch_candles(
        make_settings(server), SESSION, http, request("2026-11-20T09:15", "2026-11-20T09:17", open_interest=True)
    )
    (asked,) = server.requests
    assert asked.path == "/instruments/historical/738561/minute"
    assert asked.query == {
        "from": "2026-11-20 09:15:00",
        "to": "2026-11-20 09:16:59",
        "continuous": "0",
        "oi": "1",
    }
    assert [ist_text(start) for start in batch["start_ns"].tolist()] == [
        "2026-11-20 09:15:00.000",
        "2026-11-20 09:16:00.000",
    ]
    first = batch[0]
    assert (first.open, first.high, first.low, first.close, first.volume) == (99.0, 101.0, 98.0, 100.0, 1_000)
    assert (first.open_interest, first.interval, first.source, first.symbol) == (-1, 60, Source.VENDOR, "RELIANCE")


def test_open_interest_is_read_where_it_is_sent() -> None:
    body = reply(candle("2026-11-20T09:15:00+0530", 100, 13_667_775)).body
    assert read_candles(body, open_interest=True)["open_interest"].tolist() == [13_667_775]
    assert read_candles(body)["open_interest"].tolist() == [-1]


def test_candles_outside_of_the_window_are_left_out(http: HttpSession, server: RestServer) -> None:
    server.answers = [reply(*(candle(f"2026-11-20T09:{minute}:00+0530", 100) for minute in (14, 15, 16, 17)))]
    batch = fetch_candles(make_settings(server), SESSION, http, request("2026-11-20T09:15", "2026-11-20T09:17"))
    assert len(batch) == 2


def test_no_candles_are_an_empty_batch(http: HttpSession, server: RestServer) -> None:
    server.answers = [reply()]
    assert len(fetch_candles(make_settings(server), SESSION, http, request("2026-11-21", "2026-11-22"))) == 0


@pytest.mark.parametrize("text", ["2026-11-20T09:15:00+05:30", "2026-11-20T03:45:00+0000", "2026-11-20T03:45:00Z"])
def test_other_zones_are_understood_too(text: str) -> None:
    rows = read_candles(reply(candle("2026-11-20T09:14:00+0530", 1), candle(text, 2)).body)
    assert rows["start_ns"][1] == to_ns("2026-11-20T09:15:00")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data": null}',
        b'{"data": {"candles": [["2026-11-20T09:15:00+0530", 1]]}}',
        b'{"data": {"candles": [["2026-13-45T09:15:00+0530", 1, 1, 1, 1, 1]]}}',
        b'{"data": {"candles": [["yesterday", 1, 1, 1, 1, 1]]}}',
        b'{"data": {"candles": [["2026-11-20T09:15:00+0530", "1", 1, 1, 1, 1]]}}',
    ],
)
def test_what_are_no_candles_is_refused(body: bytes) -> None:
    with pytest.raises(RequestRejected):
        read_candles(body)


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (403, "TokenException", SessionExpired),
        (403, "PermissionException", RequestRejected),
        (400, "InputException", RequestRejected),
        (429, "NetworkException", RateLimited),
        (503, "NetworkException", LineLost),
        (500, "GeneralException", LineLost),
    ],
)
def test_a_refusal_raises_what_to_do(
    http: HttpSession, server: RestServer, status: int, kind: str, error: type[VendorError]
) -> None:
    body = {"status": "error", "message": "interval exceeds max limit: 60 days", "error_type": kind, "data": None}
    server.answers = [Answer.json(body, status)]
    with pytest.raises(error) as caught:
        fetch_candles(make_settings(server), SESSION, http, request("2026-01-01", "2026-11-01"))
    assert "secret-token" not in str(caught.value)


def test_a_gateway_that_answers_in_html_is_a_lost_line(http: HttpSession, server: RestServer) -> None:
    server.answers = [Answer(500, "text/html", b"<h1>Oops</h1>")]
    with pytest.raises(LineLost):
        fetch_candles(make_settings(server), SESSION, http, request("2026-11-20", "2026-11-21"))


def test_random_candles_are_read_as_the_official_sdk_reads_them() -> None:
    from warnings import catch_warnings, simplefilter

    with catch_warnings():
        simplefilter("ignore")
        from kiteconnect import KiteConnect
    rng = random.Random(3)
    starts = [datetime(2026, 11, 20, 9, 15, tzinfo=IST).timestamp() + 60 * n for n in range(2_000)]
    texts = [datetime.fromtimestamp(start, IST).strftime("%Y-%m-%dT%H:%M:%S%z") for start in starts]
    data = {
        "candles": [[text, *(rng.randrange(10**6) / 100 for _ in range(4)), rng.randrange(10**9)] for text in texts]
    }
    rows = read_candles(json.dumps({"data": data}).encode())
    official = KiteConnect("key")._format_historical(data)
    for name in ("open", "high", "low", "close", "volume"):
        assert rows[name].tolist() == [one[name] for one in official]
    assert (rows["start_ns"] // 10**9).tolist() == [one["date"].timestamp() for one in official]


def test_the_published_candles_are_read_like_the_official_sdk_reads_them(shared: Path) -> None:
    folder = shared / "fixtures/kite/rest"
    rows = read_candles((folder / "historical_minute.json").read_bytes())
    expected = json.loads((folder / "historical_minute.expected.json").read_text())
    assert rows["start_ns"].tolist() == [to_ns(one["date"]) for one in expected]
    for name in ("open", "high", "low", "close", "volume"):
        assert rows[name].tolist() == [one[name] for one in expected]


# --- against the sandbox ----------------------------------------------------------------------


def test_historical_reads_days_of_candles_from_the_sandbox() -> None:
    with Sandbox("kite", instruments=5, ticks_per_second=0) as box:
        clock = OffsetClock(box.clock_offset_ns)
        known = {field.name for field in attrs.fields(KiteSettings)}
        settings = {name: value for name, value in box.settings().items() if name in known}
        name = box.instruments[0].key
        now_ns = clock.wall_ns()
        with Historical("kite", settings=settings, clock=clock, tokens=MemoryTokenStore(), environ={}) as history:
            bars = history.candles(name, "1m", now_ns - 100 * 86_400 * NS, now_ns)  # two windows of 60 days
    starts = bars["start_ns"]
    assert len(bars) > 60 * 375
    assert (np.diff(starts) > 0).all()
    assert set(bars.symbols) == {name}
    assert (bars["low"] <= bars["close"]).all()
