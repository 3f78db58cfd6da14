"""The sandbox as Kite: what the documentation says a client sees, byte for byte."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests
import websocket
from marketfeed_kite.sandbox import KiteBroker

from marketfeed.clock import IST, to_ns
from marketfeed.dtypes import empty_ticks
from marketfeed.sandbox import MAX_SPEED, READY_TOKEN, Sandbox, totp
from marketfeed.sandbox.recording import load_recording

RELIANCE, INFY, NIFTY = 738561, 408065, 256265
USER, PASSWORD, SECRET = "TEST01", "test-pass-1", "JBSWY3DPEHPK3PXP"


@pytest.fixture
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["Authorization"] = f"token testkey:{READY_TOKEN}"
        yield session


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """One for all tests that only read."""
    options: dict[str, Any] = {"rate_limits": False, "ticks_per_second": 0.0, "start": "2026-11-20 10:00:00"}
    with Sandbox("kite", broker=KiteBroker, **options) as one:
        yield one


class Ticker:
    """A WebSocket client that speaks as KiteTicker does."""

    def __init__(self, box: Sandbox, query: str = f"api_key=testkey&access_token={READY_TOKEN}") -> None:
        url = box.url.replace("http", "ws") + "/?" + query
        self.socket = websocket.create_connection(url, timeout=10, suppress_origin=True)

    def send(self, action: str, value: Any) -> None:
        self.socket.send(json.dumps({"a": action, "v": value}))

    def read(self) -> str | bytes:
        data: str | bytes = self.socket.recv()
        return data

    def packets(self) -> list[bytes]:
        """The packets of the next frame that has some; heartbeats are left out."""
        while True:
            data = self.read()
            if isinstance(data, bytes) and len(data) > 1:
                return split(data)


def split(frame: bytes) -> list[bytes]:
    (count,) = struct.unpack_from(">H", frame)
    packets, place = [], 2
    for _ in range(count):
        (length,) = struct.unpack_from(">H", frame, place)
        packets.append(frame[place + 2 : place + 2 + length])
        place += 2 + length
    assert place == len(frame), "bytes are left over"
    return packets


@pytest.fixture
def connect() -> Iterator[Callable[..., Ticker]]:
    with ExitStack() as stack:

        def make(*arguments: Any) -> Ticker:
            ticker = Ticker(*arguments)
            stack.callback(ticker.socket.shutdown)
            return ticker

        yield make


def line_of(box: Sandbox, token: int) -> int:
    return [box.broker.token(line) for line in range(len(box.instruments))].index(str(token))


# --- ticker -----------------------------------------------------------------------------------


def test_a_new_subscription_is_in_quote_mode_and_begins_with_a_snapshot(box: Sandbox, connect: Any) -> None:
    ticker = connect(box)
    ticker.send("subscribe", [RELIANCE, NIFTY])
    packets = ticker.packets()
    assert [len(packet) for packet in packets] == [44, 28]
    assert [struct.unpack_from(">I", packet)[0] for packet in packets] == [RELIANCE, NIFTY]


@pytest.mark.parametrize(("mode", "lengths"), [("ltp", [8, 8]), ("quote", [44, 28]), ("full", [184, 32])])
def test_each_mode_has_its_packet_lengths(box: Sandbox, connect: Any, mode: str, lengths: list[int]) -> None:
    ticker = connect(box)
    ticker.send("subscribe", [RELIANCE, NIFTY])
    ticker.packets()
    ticker.send("mode", [mode, [RELIANCE, NIFTY]])
    assert [len(packet) for packet in ticker.packets()] == lengths


def test_a_full_packet_holds_the_row_at_the_documented_offsets(box: Sandbox, connect: Any) -> None:
    line = line_of(box, RELIANCE)
    row = box.world.market.snapshot(np.array([line]))[0]
    ticker = connect(box)
    ticker.send("subscribe", [RELIANCE])
    ticker.packets()
    ticker.send("mode", ["full", [RELIANCE]])
    (packet,) = ticker.packets()
    head = struct.unpack_from(">16I", packet)
    prices = [round(row[name] * 100) for name in ("open", "high", "low", "close")]
    assert head[:7] == (
        RELIANCE,
        round(row["last_price"] * 100),
        row["last_quantity"],
        round(row["average_price"] * 100),
        row["volume"],
        row["buy_quantity"],
        row["sell_quantity"],
    )
    assert list(head[7:11]) == prices
    assert head[11] == row["last_trade_ns"] // 10**9
    assert head[12:15] == (0, 0, 0)
    assert head[15] == row["exchange_ns"] // 10**9
    levels = list(struct.iter_unpack(">IIHxx", packet[64:]))
    assert [level[0] for level in levels[:5]] == row["bid_quantity"].tolist()
    assert [level[1] for level in levels[5:]] == [round(price * 100) for price in row["ask_price"]]
    assert [level[2] for level in levels[5:]] == row["ask_orders"].tolist()


def test_an_index_packet_holds_high_low_open_close(box: Sandbox, connect: Any) -> None:
    row = box.world.market.snapshot(np.array([line_of(box, NIFTY)]))[0]
    ticker = connect(box)
    ticker.send("subscribe", [NIFTY])
    ticker.packets()
    ticker.send("mode", ["full", [NIFTY]])
    (packet,) = ticker.packets()
    fields = struct.unpack(">I6iI", packet)
    names = ("last_price", "high", "low", "open", "close")
    assert list(fields[1:6]) == [round(row[name] * 100) for name in names]
    assert fields[6] == round((row["last_price"] - row["close"]) * 100)
    assert fields[7] == row["exchange_ns"] // 10**9


@pytest.mark.parametrize(("key", "divisor"), [("NFO", 100), ("CDS", 10_000_000), ("BCD", 10_000), ("MCX", 100)])
def test_prices_are_scaled_by_segment(box: Sandbox, connect: Any, key: str, divisor: int) -> None:
    line = next(number for number, one in enumerate(box.instruments) if one.exchange == key)
    ticker = connect(box)
    ticker.send("subscribe", [int(box.broker.token(line))])
    (packet,) = ticker.packets()
    wanted = box.world.market.snapshot(np.array([line]))["last_price"][0]
    assert struct.unpack_from(">I", packet, 4)[0] / divisor == pytest.approx(wanted, abs=1e-9)


def test_large_volumes_wrap_and_absent_values_are_0(box: Sandbox, connect: Any) -> None:
    rows = empty_ticks(1)
    rows["instrument"], rows["last_price"], rows["volume"] = line_of(box, RELIANCE), 10.0, 2**32 + 5
    ticker = connect(box)
    ticker.send("subscribe", [RELIANCE])
    ticker.packets()
    box.push(rows)
    (packet,) = ticker.packets()
    assert struct.unpack(">11I", packet) == (RELIANCE, 1000, 0, 0, 5, 0, 0, 0, 0, 0, 0)


def test_packets_of_several_lengths_keep_the_order_of_the_rows(box: Sandbox, connect: Any) -> None:
    ticker = connect(box)
    ticker.send("subscribe", [RELIANCE, INFY, NIFTY])
    ticker.packets()
    ticker.send("mode", ["full", [NIFTY]])
    ticker.packets()
    ticker.send("mode", ["ltp", [INFY]])
    ticker.packets()
    order = [NIFTY, INFY, RELIANCE, INFY, NIFTY]
    rows = empty_ticks(len(order))
    rows["instrument"] = [line_of(box, token) for token in order]
    rows["last_price"] = np.arange(1.0, 6.0)
    box.push(rows)
    packets = ticker.packets()
    assert [struct.unpack_from(">II", packet) for packet in packets] == [
        (token, 100 * (place + 1)) for place, token in enumerate(order)
    ]
    assert [len(packet) for packet in packets] == [32, 8, 44, 8, 32]


def test_unsubscribed_instruments_fall_silent_and_unknown_ones_are_ignored(connect: Any) -> None:
    with Sandbox("kite", broker=KiteBroker, instruments=20, ticks_per_second=500) as box:
        ticker = connect(box)
        ticker.send("subscribe", [RELIANCE, INFY, 999_999_999])
        ticker.packets()
        ticker.send("unsubscribe", [INFY])
        ticker.send("mode", ["full", [INFY]])  # not subscribed: no effect
        ticker.send("mode", ["ltp", [RELIANCE]])
        while len(ticker.packets()[0]) != 8:
            pass
        seen = {struct.unpack_from(">I", packet)[0] for _ in range(20) for packet in ticker.packets()}
    assert seen == {RELIANCE}


def test_nonsense_from_a_client_is_ignored(box: Sandbox, connect: Any) -> None:
    ticker = connect(box)
    for text in ("", "{", "[]", '{"a":"mode","v":["loud",[1]]}', '{"a":"subscribe","v":7}', '{"a":"dance","v":[1]}'):
        ticker.socket.send(text)
    ticker.send("subscribe", [RELIANCE])
    assert len(ticker.packets()) == 1


def test_the_3001st_instrument_is_refused_in_words_and_the_line_lives(connect: Any) -> None:
    with Sandbox("kite", broker=KiteBroker, instruments=3010, ticks_per_second=0) as box:
        tokens = [int(box.broker.token(line)) for line in range(3010)]
        ticker = connect(box)
        ticker.send("subscribe", tokens[:2990])
        assert len(ticker.packets()) == 2990
        ticker.send("subscribe", tokens[2990:])
        error = json.loads(ticker.read())
        assert error["type"] == "error"
        assert "3000 instruments" in error["data"]
        assert len(ticker.packets()) == 10


def test_a_heartbeat_is_one_byte_about_once_a_second(connect: Any) -> None:
    with Sandbox("kite", broker=KiteBroker, instruments=5, ticks_per_second=0) as box:
        ticker = connect(box)
        began = time.monotonic()
        assert [len(ticker.read()), len(ticker.read())] == [1, 1]
        assert 1.5 < time.monotonic() - began < 6


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("api_key=testkey", 400),
        ("api_key=testkey&access_token=wrong", 403),
        (f"api_key=wrong&access_token={READY_TOKEN}", 403),
    ],
)
def test_a_wrong_upgrade_is_refused_by_http_status(box: Sandbox, connect: Any, query: str, status: int) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        connect(box, query)
    assert refusal.value.status_code == status


def test_the_fourth_connection_gets_429_and_the_others_live(connect: Any) -> None:
    with Sandbox("kite", broker=KiteBroker, instruments=10, ticks_per_second=0) as box:
        tickers = [connect(box) for _ in range(3)]
        with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
            connect(box)
        assert refusal.value.status_code == 429
        for ticker in tickers:
            ticker.send("subscribe", [RELIANCE])
            assert len(ticker.packets()) == 1


def test_the_number_of_connections_can_be_set_free(connect: Any) -> None:
    with Sandbox("kite", broker=KiteBroker, instruments=10, connection_limit=0) as box:
        assert len([connect(box) for _ in range(5)]) == 5


def test_an_order_update_is_a_postback_with_a_right_checksum(box: Sandbox, connect: Any) -> None:
    ticker = connect(box)
    ticker.send("subscribe", [RELIANCE])
    ticker.packets()
    box.order(order_id="42", status="REJECTED")
    while isinstance(text := ticker.read(), bytes):
        pass
    message = json.loads(text)
    order = message["data"]
    wanted = hashlib.sha256(f"42{order['order_timestamp']}testsecret".encode()).hexdigest()
    assert (message["type"], order["status"], order["checksum"]) == ("order", "REJECTED", wanted)


def test_a_real_dirty_day_is_replayed_whole_and_in_order(shared: Path, connect: Any) -> None:
    path = shared / "data" / "ticks" / "aliceblue_2021-04-16_dirty.csv.gz"
    recording = load_recording(path)
    with Sandbox("kite", broker=KiteBroker, replay=path, speed=MAX_SPEED) as box:
        lines = [[one.key for one in box.instruments].index(name) for name in recording.symbols]
        tokens = np.array([int(box.broker.token(line)) for line in lines])
        ticker = connect(box)
        ticker.send("subscribe", tokens.tolist())
        ticker.send("mode", ["full", tokens.tolist()])
        received: list[tuple[int, ...]] = []
        while len(received) < len(recording):
            received += [essentials(packet) for packet in ticker.packets()]
    is_index = np.array([name == "NSE:NIFTY 50" for name in recording.symbols])[recording.symbol]
    wanted = zip(
        tokens[recording.symbol].tolist(),
        np.rint(recording.last_price * 100).astype(int).tolist(),
        np.where(is_index, 0, recording.volume).tolist(),
        (recording.exchange_ns // 10**9).tolist(),
        strict=True,
    )
    assert received == list(wanted)


def essentials(packet: bytes) -> tuple[int, ...]:
    """Token, last price, volume and exchange time of a full packet."""
    if len(packet) == 32:
        head: tuple[int, ...] = struct.unpack(">8I", packet)
        return (*head[:2], 0, head[7])
    assert len(packet) == 184
    head = struct.unpack_from(">16I", packet)
    assert packet[64:] == bytes(120), "the book of a recording is empty"
    return (*head[:2], head[4], head[15])


# --- REST -------------------------------------------------------------------------------------


def test_without_a_token_nothing_but_the_instruments_is_given(box: Sandbox) -> None:
    with requests.Session() as anonymous:
        refused = anonymous.get(box.url + "/user/profile", timeout=10)
        assert anonymous.get(box.url + "/instruments", timeout=10).status_code == 200
    assert refused.status_code == 403
    assert refused.json() == {
        "status": "error",
        "message": "Incorrect `api_key` or `access_token`.",
        "data": None,
        "error_type": "TokenException",
    }


def test_the_instruments_are_gzipped_csv_with_kites_tokens(box: Sandbox, http: requests.Session) -> None:
    answer = http.get(box.url + "/instruments/NFO", timeout=10)
    assert (answer.headers["Content-Type"], answer.headers["Content-Encoding"]) == ("text/csv", "gzip")
    header, *lines = answer.text.rstrip().split("\r\n")
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert {row["exchange"] for row in rows} == {"NFO"}
    assert {row["segment"] for row in rows} == {"NFO-FUT", "NFO-OPT"}
    for row in rows:
        assert int(row["instrument_token"]) == int(row["exchange_token"]) * 256 + 2
    whole = http.get(box.url + "/instruments", timeout=10).text
    assert "256265,1001,NIFTY 50,NIFTY 50,0.0,,0.0,0.0,0,EQ,INDICES,NSE" in whole
    assert "738561,2885,RELIANCE,RELIANCE,0.0,,0.0,0.1,1,EQ,NSE,NSE" in whole


def test_quotes_come_under_the_names_that_were_asked_for(box: Sandbox, http: requests.Session) -> None:
    names = ["NSE:INFY", str(RELIANCE), "NSE:NIFTY 50", "NSE:NOBODY"]
    data = http.get(box.url + "/quote", params={"i": names}, timeout=10).json()["data"]
    assert set(data) == {"NSE:INFY", str(RELIANCE), "NSE:NIFTY 50"}
    assert len(data["NSE:INFY"]["depth"]["buy"]) == 5
    assert data["NSE:INFY"]["timestamp"].startswith("2026-11-20 10:00:0")
    assert "depth" not in data["NSE:NIFTY 50"]
    ltp = http.get(box.url + "/quote/ltp", params={"i": names}, timeout=10).json()["data"]
    assert ltp["NSE:INFY"] == {"instrument_token": INFY, "last_price": data["NSE:INFY"]["last_price"]}
    ohlc = http.get(box.url + "/quote/ohlc", params={"i": names}, timeout=10).json()["data"]
    assert ohlc["NSE:INFY"]["ohlc"] == data["NSE:INFY"]["ohlc"]


def test_too_many_quotes_at_once_are_refused(box: Sandbox, http: requests.Session) -> None:
    answer = http.get(box.url + "/quote", params={"i": ["NSE:INFY"] * 501}, timeout=10)
    assert (answer.status_code, answer.json()["error_type"]) == (400, "InputException")


def history(box: Sandbox, http: requests.Session, interval: str, start: str, end: str, **more: str) -> Any:
    query = {"from": start, "to": end, **more}
    return http.get(f"{box.url}/instruments/historical/{RELIANCE}/{interval}", params=query, timeout=20)


def test_history_is_a_list_of_candles_with_both_ends_included(box: Sandbox, http: requests.Session) -> None:
    answer = history(box, http, "minute", "2026-11-19 09:15:00", "2026-11-19 09:20:00")
    candles = answer.json()["data"]["candles"]
    assert [candle[0] for candle in candles] == [f"2026-11-19T09:{minute}:00+0530" for minute in range(15, 21)]
    assert {len(candle) for candle in candles} == {6}
    with_interest = history(box, http, "minute", "2026-11-19 09:15:00", "2026-11-19 09:20:00", oi="1")
    assert {len(candle) for candle in with_interest.json()["data"]["candles"]} == {7}


def test_history_is_the_same_each_time_and_ends_now(box: Sandbox, http: requests.Session) -> None:
    window = ("5minute", "2026-11-17 00:00:00", "2026-11-25 00:00:00")
    first, second = (history(box, http, *window).json()["data"]["candles"] for _ in range(2))
    assert first == second
    assert first[-1][0] == "2026-11-20T09:55:00+0530"
    assert len(first) == 3 * 75 + 9


@pytest.mark.parametrize(
    ("interval", "days"),
    [("minute", 60), ("3minute", 100), ("10minute", 100), ("15minute", 200), ("60minute", 400), ("day", 2000)],
)
def test_a_request_may_span_only_so_many_days(box: Sandbox, http: requests.Session, interval: str, days: int) -> None:
    from datetime import datetime, timedelta

    end = datetime(2026, 11, 20, 9, 0, tzinfo=IST)
    form = "%Y-%m-%d %H:%M:%S"
    fits = history(box, http, interval, (end - timedelta(days=days)).strftime(form), end.strftime(form))
    too_long = history(box, http, interval, (end - timedelta(days=days, seconds=1)).strftime(form), end.strftime(form))
    assert fits.status_code == 200
    assert (too_long.status_code, too_long.json()["error_type"]) == (400, "InputException")
    assert f"{days} days" in too_long.json()["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/instruments/historical/1/minute?from=2026-11-19&to=2026-11-19",
        f"/instruments/historical/{RELIANCE}/2minute?from=2026-11-19&to=2026-11-19",
        f"/instruments/historical/{RELIANCE}/minute?from=soon&to=2026-11-19",
        f"/instruments/historical/{RELIANCE}/minute?from=2026-11-20&to=2026-11-19",
        f"/instruments/historical/{RELIANCE}/minute",
    ],
)
def test_a_wrong_history_request_is_an_input_exception(box: Sandbox, http: requests.Session, path: str) -> None:
    answer = http.get(box.url + path, timeout=10)
    assert (answer.status_code, answer.json()["error_type"]) == (400, "InputException")


def test_each_kind_of_request_has_its_own_pace(http: requests.Session) -> None:
    with Sandbox("kite", broker=KiteBroker, instruments=10) as box:
        quotes = [http.get(box.url + "/quote/ltp?i=NSE:INFY", timeout=10).status_code for _ in range(3)]
        path = f"/instruments/historical/{RELIANCE}/day?from=2026-11-01&to=2026-11-10"
        candles = [http.get(box.url + path, timeout=10).status_code for _ in range(4)]
        refused = http.get(box.url + path, timeout=10)
    assert quotes == [200, 429, 429]
    assert candles == [200, 200, 200, 429]
    assert refused.json()["error_type"] == "NetworkException"


# --- login ------------------------------------------------------------------------------------


@pytest.fixture
def fresh() -> Iterator[Sandbox]:
    """A sandbox that demands a login."""
    with Sandbox("kite", broker=KiteBroker, instruments=10, access_token=None) as one:
        yield one


def enter(box: Sandbox, browser: requests.Session, **changes: str) -> requests.Response:
    """Password and code, as the web page sends them; the answer of the step that failed, or the last one."""
    form = {"user_id": USER, "password": PASSWORD, **changes}
    first = browser.post(box.url + "/api/login", data={k: form[k] for k in ("user_id", "password")}, timeout=10)
    if first.status_code != 200:
        return first
    code = changes.get("twofa_value") or totp(SECRET, int(time.time()))
    second = {"user_id": USER, "request_id": first.json()["data"]["request_id"], "twofa_value": code}
    return browser.post(box.url + "/api/twofa", data={**second, "twofa_type": "totp", "skip_session": ""}, timeout=10)


def request_token(box: Sandbox, browser: requests.Session, query: str = "api_key=testkey&v=3") -> str:
    """Follow the login page's redirects up to the one that holds the token."""
    url = f"{box.url}/connect/login?{query}"
    for _ in range(5):
        answer = browser.get(url, allow_redirects=False, timeout=10)
        location = answer.headers["Location"]
        found = parse_qs(urlsplit(location).query)
        if "request_token" in found:
            assert location.startswith("http://127.0.0.1:5000/?")
            assert (found["action"], found["status"]) == (["login"], ["success"])
            return found["request_token"][0]
        url = box.url + location
    raise AssertionError("no request token")


def exchange(box: Sandbox, token: str, secret: str = "testsecret") -> requests.Response:
    checksum = hashlib.sha256(f"testkey{token}{secret}".encode()).hexdigest()
    form = {"api_key": "testkey", "request_token": token, "checksum": checksum}
    with requests.Session() as session:
        return session.post(box.url + "/session/token", data=form, timeout=10)


def profile(box: Sandbox, token: str) -> int:
    with requests.Session() as session:
        headers = {"Authorization": f"token testkey:{token}"}
        return session.get(box.url + "/user/profile", headers=headers, timeout=10).status_code


def log_in(box: Sandbox) -> str:
    with requests.Session() as browser:
        assert enter(box, browser).status_code == 200
        token: str = exchange(box, request_token(box, browser)).json()["data"]["access_token"]
    return token


def test_the_whole_login_gives_a_token_that_works(fresh: Sandbox, connect: Any) -> None:
    token = log_in(fresh)
    assert profile(fresh, token) == 200
    ticker = connect(fresh, f"api_key=testkey&access_token={token}")
    ticker.send("subscribe", [RELIANCE])
    assert len(ticker.packets()) == 1


def test_the_answer_to_the_exchange_has_what_the_sdk_needs(fresh: Sandbox) -> None:
    with requests.Session() as browser:
        enter(fresh, browser)
        data = exchange(fresh, request_token(fresh, browser)).json()["data"]
    assert len(data["login_time"]) == 19
    assert abs(to_ns(data["login_time"]) - fresh.world.now_ns()) < 20e9
    assert (data["user_id"], data["api_key"], data["refresh_token"]) == (USER, "testkey", "")


def test_a_wrong_password_or_code_is_refused(fresh: Sandbox) -> None:
    with requests.Session() as browser:
        assert enter(fresh, browser, password="wrong").json()["error_type"] == "UserException"
        assert enter(fresh, browser, user_id="NOBODY").status_code == 403
        assert enter(fresh, browser, twofa_value="000000").json()["error_type"] == "TwoFAException"
        page = browser.get(fresh.url + "/connect/login?api_key=testkey&v=3", allow_redirects=False, timeout=10)
    assert page.status_code == 200, "not logged in: a form, no redirect"
    assert "password" in page.text


def test_a_wrong_checksum_is_refused_and_costs_no_token(fresh: Sandbox) -> None:
    with requests.Session() as browser:
        enter(fresh, browser)
        token = request_token(fresh, browser)
    refused = exchange(fresh, token, secret="wrong")
    assert (refused.status_code, refused.json()["error_type"]) == (403, "TokenException")
    assert exchange(fresh, token).status_code == 200


def test_a_request_token_works_once(fresh: Sandbox) -> None:
    with requests.Session() as browser:
        enter(fresh, browser)
        token = request_token(fresh, browser)
    assert [exchange(fresh, token).status_code, exchange(fresh, token).status_code] == [200, 403]


def test_redirect_params_come_back(fresh: Sandbox) -> None:
    with requests.Session() as browser:
        enter(fresh, browser)
        url = fresh.url + "/connect/login?api_key=testkey&v=3&redirect_params=state%3D7%26x%3Dy"
        hop = browser.get(url, allow_redirects=False, timeout=10).headers["Location"]
        last = browser.get(fresh.url + hop, allow_redirects=False, timeout=10).headers["Location"]
    assert parse_qs(urlsplit(last).query)["state"] == ["7"]


def test_the_form_for_people_logs_in_too(fresh: Sandbox) -> None:
    url = fresh.url + "/connect/login?api_key=testkey&v=3"
    form = {"user_id": USER, "password": PASSWORD, "totp": totp(SECRET, int(time.time()))}
    with requests.Session() as browser:
        wrong = browser.post(url, data={**form, "password": "no"}, allow_redirects=False, timeout=10)
        right = browser.post(url, data=form, allow_redirects=False, timeout=10)
        last = browser.get(fresh.url + right.headers["Location"], allow_redirects=False, timeout=10)
    assert (wrong.status_code, right.status_code) == (403, 302)
    assert "request_token=" in last.headers["Location"]


def test_a_second_login_ends_the_first_token(fresh: Sandbox) -> None:
    first, second = log_in(fresh), log_in(fresh)
    assert [profile(fresh, first), profile(fresh, second)] == [403, 200]


def test_logging_out_ends_the_token(fresh: Sandbox) -> None:
    token = log_in(fresh)
    with requests.Session() as session:
        query = {"api_key": "testkey", "access_token": token}
        answer = session.delete(fresh.url + "/session/token", params=query, timeout=10)
    assert answer.json() == {"status": "success", "data": True}
    assert profile(fresh, token) == 403


def test_expiry_ends_every_token_until_the_next_login(fresh: Sandbox) -> None:
    old = log_in(fresh)
    fresh.expire()
    assert profile(fresh, old) == 403
    assert profile(fresh, log_in(fresh)) == 200


# --- faults -----------------------------------------------------------------------------------


def frame_of(*lengths: int) -> bytes:
    """A good frame of LTP, quote or full packets."""
    packets = [struct.pack(">HI", length, RELIANCE) + bytes(length - 4) for length in lengths]
    return struct.pack(">H", len(packets)) + b"".join(packets)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("count-zero", b"\x00\x00"),
        ("count-one-more", b"\x00\x02" + frame_of(8)[2:]),
        ("count-65535", b"\xff\xff" + frame_of(8)[2:]),
        ("length-cut", b"\x00\x02" + frame_of(8)[2:] + b"\x00"),
        ("last-packet-cut", b"\x00\x02" + frame_of(8)[2:] + b"\x00\x08" + struct.pack(">I", RELIANCE)),
        ("length-zero", b"\x00\x02\x00\x00" + frame_of(8)[2:]),
        ("length-three", b"\x00\x01\x00\x03\x01\x02\x03"),
        ("length-164", b"\x00\x02" + frame_of(164)[2:] + frame_of(8)[2:]),
        ("length-200", b"\x00\x02" + frame_of(200)[2:] + frame_of(8)[2:]),
    ],
)
def test_a_frame_can_be_damaged_as_only_kites_can(box: Sandbox, how: str, wanted: bytes) -> None:
    assert isinstance(box.broker, KiteBroker)
    assert box.broker.damaged(frame_of(8), how) == wanted
    assert how in box.broker.damages


def test_kites_damage_goes_over_the_wire(connect: Any) -> None:
    with Sandbox("kite", broker=KiteBroker, ticks_per_second=0, log=True) as box:
        ticker = connect(box)
        ticker.send("subscribe", [RELIANCE])
        ticker.packets()
        box.fault("damage", how="length-three", count=1)
        box.push(box.world.market.snapshot(np.array([line_of(box, RELIANCE)])))
        assert ticker.read() == b"\x00\x01\x00\x03\x01\x02\x03"
        assert [frame.intact for frame in box.log] == [True, False]
        with pytest.raises(ValueError, match="must be one of any, truncate, bad-count"):
            box.fault("damage", how="dent")


def test_a_dead_token_is_refused_everywhere_until_a_new_login(connect: Any) -> None:
    options: dict[str, Any] = {"rate_limits": False, "ticks_per_second": 0.0}
    with Sandbox("kite", broker=KiteBroker, **options) as box, requests.Session() as session:
        session.headers["Authorization"] = f"token testkey:{READY_TOKEN}"
        assert session.get(box.url + "/user/profile", timeout=10).status_code == 200
        box.fault("expire")
        refusal = session.get(box.url + "/user/profile", timeout=10)
        assert (refusal.status_code, refusal.json()["error_type"]) == (403, "TokenException")
        with pytest.raises(websocket.WebSocketBadStatusException) as upgrade:
            connect(box)
        assert upgrade.value.status_code == 403
        fresh = log_in(box)
        session.headers["Authorization"] = f"token testkey:{fresh}"
        assert session.get(box.url + "/user/profile", timeout=10).status_code == 200
        connect(box, f"api_key=testkey&access_token={fresh}")


def test_refusals_are_in_kites_words_and_those_of_its_gateway(box: Sandbox, connect: Any) -> None:
    box.fault("refuse", status=429)
    with pytest.raises(websocket.WebSocketBadStatusException) as error:
        connect(box)
    assert error.value.status_code == 429
    assert json.loads(error.value.resp_body or b"")["error_type"] == "NetworkException"
    with requests.Session() as session:
        box.fault("http-error", status=429, path="/instruments")
        answer = session.get(box.url + "/instruments", timeout=10)
        assert (answer.status_code, answer.json()["error_type"]) == (429, "NetworkException")
        box.fault("http-error", status=502, path="/instruments")
        assert session.get(box.url + "/instruments", timeout=10).headers["Content-Type"] == "text/html"


def test_quote_packets_come_between_a_subscription_and_a_late_mode(connect: Any) -> None:
    with Sandbox("kite", broker=KiteBroker, ticks_per_second=200, log=True) as box:
        box.fault("late-mode", delay_s=0.3)
        ticker = connect(box)
        ticker.send("subscribe", [RELIANCE])
        ticker.send("mode", ["full", [RELIANCE]])
        lengths: list[int] = []
        while 184 not in lengths:
            lengths += [len(packet) for packet in ticker.packets()]
        assert lengths.count(44) > 10
        assert {len(packet) for packet in ticker.packets()} == {184}
