"""The sandbox as mStock, both dialects: what the documentation and the official SDKs say a client sees."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import requests
import websocket
from marketfeed_mstock.auth import authenticate
from marketfeed_mstock.candles import fetch_candles
from marketfeed_mstock.instruments import fetch_instruments
from marketfeed_mstock.sandbox import MstockBroker
from marketfeed_mstock.settings import MstockSettings
from marketfeed_mstock.stream import socket_url
from marketfeed_mstock.times import ZoneCheck
from marketfeed_mstock.type_a import TypeAParser
from marketfeed_mstock.type_b import TypeBParser

from marketfeed.brokers import HttpRequest
from marketfeed.clock import NS, OffsetClock, to_ns
from marketfeed.contract import CandleRequest, Frame, Session
from marketfeed.enums import Interval, Mode
from marketfeed.errors import AuthError, MarketFeedError
from marketfeed.http import HttpSession
from marketfeed.instruments import TokenMap
from marketfeed.sandbox import READY_TOKEN, Sandbox
from marketfeed.sandbox.world import Options, World
from marketfeed.tokens import MemoryTokenStore

START = "2026-11-20 10:00:00"
KEY = "test+key/1=@"
DIALECTS = pytest.mark.parametrize("dialect", ["a", "b"])


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """One for all tests that only read; it speaks both dialects."""
    with Sandbox("mstock", rate_limits=False, ticks_per_second=0.0, start=START) as one:
        yield one


@pytest.fixture
def locked() -> Iterator[Sandbox]:
    """Demands a login."""
    with Sandbox("mstock", access_token=None, ticks_per_second=0.0, start=START) as one:
        yield one


@pytest.fixture
def http() -> Iterator[HttpSession]:
    session = HttpSession("mstock")
    yield session
    session.close()


class Client:
    """A WebSocket client that speaks as the official ones do."""

    def __init__(self, box: Sandbox, token: str = READY_TOKEN, key: str = KEY) -> None:
        url = f"{box.url.replace('http', 'ws')}?ACCESS_TOKEN={token}&API_KEY={key}"
        self.token = token
        self.socket: Any = websocket.create_connection(url, timeout=10)

    def login(self) -> Any:
        self.socket.send(f"LOGIN:{self.token}")
        return json.loads(self.socket.recv())

    def send(self, message: Any) -> None:
        self.socket.send(json.dumps(message))

    def subscribe(self, mode: int, *keys: str) -> None:
        """Type B."""
        tokens = [{"exchangeType": int(key.partition(":")[0]), "tokens": [key.partition(":")[2]]} for key in keys]
        self.send({"correlationID": "", "action": 1, "params": {"mode": mode, "tokenList": tokens}})

    def data(self) -> bytes:
        """The next binary message that is no heartbeat."""
        while True:
            found = self.socket.recv()
            if isinstance(found, bytes) and len(found) > 1:
                return found


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    with ExitStack() as stack:

        def make(*arguments: Any, **named: Any) -> Client:
            client = Client(*arguments, **named)
            stack.callback(client.socket.shutdown)
            return client

        yield make


def settings_of(box: Sandbox, dialect: str, **changes: Any) -> MstockSettings:
    return MstockSettings(**{**box.settings(), "dialect": dialect, **changes})


def clock_of(box: Sandbox) -> OffsetClock:
    return OffsetClock(box.clock_offset_ns)


def line_of(box: Sandbox, token: str) -> int:
    return [box.broker.token(line) for line in range(len(box.instruments))].index(token)


# --- the socket -------------------------------------------------------------------------------------------


def test_the_key_is_taken_raw_and_encoded_but_a_plus_is_no_space(box: Sandbox, connect: Any) -> None:
    assert connect(box)
    session = Session(vendor="mstock", account="TEST01", access_token=READY_TOKEN)
    encoded = socket_url(settings_of(box, "b"), session)
    assert "test%2Bkey/1=@" in encoded
    websocket.create_connection(encoded, timeout=10).close()
    with pytest.raises(websocket.WebSocketBadStatusException, match="502"):
        connect(box, key="test key/1=@".replace(" ", "%20"))


def test_a_wrong_token_is_refused_like_a_load_balancer_does(box: Sandbox, connect: Any) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match="502"):
        connect(box, token="wrong")


def test_nothing_flows_before_login_and_the_wait_ends_the_connection(connect: Any) -> None:
    with Sandbox("mstock", login_s=0.5, ticks_per_second=0.0) as box:
        client = connect(box)
        client.subscribe(3, "1:2885")
        opcode, data = client.socket.recv_data()
        assert (opcode, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 1008)


@pytest.mark.parametrize(("mode", "size"), [(1, 51), (2, 123), (3, 379)])
def test_type_b_sends_one_packet_a_message_of_the_modes_size(box: Sandbox, connect: Any, mode: int, size: int) -> None:
    client = connect(box)
    assert client.login() == {"type": "login", "data": "success"}
    client.subscribe(mode, "1:2885", "2:47000")
    packets = [client.data(), client.data()]
    assert [len(packet) for packet in packets] == [size, size]
    assert {packet[2:27].rstrip(b"\0") for packet in packets} == {b"2885", b"47000"}
    row = box.world.market.snapshot(np.array([line_of(box, "1:2885")]))[0]
    assert int.from_bytes(packets[0][43:51], "little") == round(row["last_price"] * 100)
    second = int.from_bytes(packets[0][35:43], "little")
    assert (second + 315_532_800 - 19_800) * NS == row["exchange_ns"]


def test_type_b_can_have_the_header_of_the_documentation(connect: Any) -> None:
    with Sandbox("mstock", header="yes", ticks_per_second=0.0) as box:
        client = connect(box)
        client.login()
        client.subscribe(1, "1:2885")
        packet = client.data()
    assert (len(packet), packet[:4]) == (55, b"\x01\x00\x33\x00")


def test_type_a_subscribes_in_quote_mode_and_sends_mstocks_own_sizes(box: Sandbox, connect: Any) -> None:
    client = connect(box)
    client.login()
    client.send({"a": "subscribe", "v": [2885, 26000]})
    assert sizes(client.data()) == [44, 28]
    client.send({"a": "mode", "v": ["full", [2885, 26000]]})
    assert sizes(client.data()) == [200, 48]
    client.send({"a": "mode", "v": ["ltp"]})
    assert sizes(client.data()) == [8, 8]
    client.send({"a": "subscribe", "v": {"quote": [1594]}})
    assert sizes(client.data()) == [44]


def sizes(frame: bytes) -> list[int]:
    found, place = [], 2
    while place < len(frame):
        size = int.from_bytes(frame[place : place + 2], "big")
        found.append(size)
        place += 2 + size
    assert int.from_bytes(frame[:2], "big") == len(found)
    return found


def test_type_a_has_one_byte_heartbeats(connect: Any) -> None:
    with Sandbox("mstock", heartbeat_s=0.1, ticks_per_second=0.0) as box:
        client = connect(box)
        client.login()
        client.send({"a": "subscribe", "v": [2885]})
        client.data()
        assert client.socket.recv() == b"\x00"


@DIALECTS
def test_order_updates_come_in_the_dialects_shape(box: Sandbox, connect: Any, dialect: str) -> None:
    client = connect(box)
    client.login()
    client.send({"a": "unsubscribe", "v": []}) if dialect == "a" else client.subscribe(1)
    client.socket.ping()
    client.socket.recv_data(control_frame=True)  # its message has been read by now
    box.order(status="REJECTED")
    update = json.loads(client.socket.recv())
    assert update.get("type", update.get("order_status")) == "order"
    assert update.get("data", update.get("orderData"))["status"] == "REJECTED"


def test_a_token_speaks_the_dialect_of_its_login_only(locked: Sandbox, http: HttpSession, connect: Any) -> None:
    session = authenticate(settings_of(locked, "b"), MemoryTokenStore(), http, clock_of(locked))
    client = connect(locked, token=session.access_token)
    client.login()
    client.send({"a": "subscribe", "v": [2885]})
    client.subscribe(1, "1:1594")
    assert len(client.data()) == 51
    headers = {"X-Mirae-Version": "1", "Authorization": f"token {KEY}:{session.access_token}"}
    other = requests.get(f"{locked.url}/openapi/typea/instruments/scriptmaster", headers=headers, timeout=10)
    assert other.status_code == 401


def test_off_hours_the_upgrade_is_refused_if_asked_for(connect: Any) -> None:
    for start, works in (("2026-11-20 10:00:00", True), ("2026-11-20 20:00:00", False)):
        with Sandbox("mstock", off_hours="refused", ticks_per_second=0.0, start=start) as box:
            if works:
                connect(box)
            else:
                with pytest.raises(websocket.WebSocketBadStatusException, match="502"):
                    connect(box)


# --- what a client makes of the messages ------------------------------------------------------------------


def subscribed(dialect: str, mode: Mode) -> tuple[MstockBroker, Any]:
    world = World(Options(start=START, vendor_options={"dialect": dialect}))
    broker = MstockBroker(world)
    broker.login._fixed = "t"
    request = HttpRequest(method="GET", path="/", raw_query=f"ACCESS_TOKEN=t&API_KEY={KEY}")
    socket: Any = broker.upgrade(request, 0)
    socket.received("LOGIN:t")
    if dialect == "a":
        tokens = [int(one.token) for one in broker.scrips]
        socket.received(json.dumps({"a": "subscribe", "v": tokens}))
        socket.received(json.dumps({"a": "mode", "v": [mode.word, tokens]}))
    else:
        entries = [{"exchangeType": one.number, "tokens": [one.token]} for one in broker.scrips]
        socket.received(json.dumps({"action": 1, "params": {"mode": int(mode), "tokenList": entries}}))
    return broker, socket


PRICES = ("last_price", "open", "high", "low", "close", "average_price")
WHOLE = ("volume", "last_quantity", "buy_quantity", "sell_quantity", "exchange_ns", "last_trade_ns", "open_interest")
LEVELS = ("bid_price", "ask_price", "bid_quantity", "ask_quantity", "bid_orders", "ask_orders")


@DIALECTS
@pytest.mark.parametrize("mode", list(Mode))
def test_the_plugins_parser_reads_the_rows_that_were_sent(dialect: str, mode: Mode) -> None:
    broker, socket = subscribed(dialect, mode)
    numbers = TokenMap({one.key: line for line, one in enumerate(broker.scrips) if one.number})
    zone = ZoneCheck("ist")
    parse: Any = TypeAParser(numbers, zone) if dialect == "a" else TypeBParser(numbers, zone)
    market: Any = broker.world.market
    lines = np.flatnonzero(socket.modes)
    assert len(lines) >= len(broker.scrips) - 5
    for step in range(5):
        rows = market.advance(lines, to_ns(START) + step * NS)
        parsed = parse([Frame(one.data, 1) for one in socket.encode(rows, snapshot=False)])
        assert (list(parsed.bad), parsed.rows["instrument"].tolist()) == ([], lines.tolist())
        index = np.isnan(rows["lower_circuit"])
        names = PRICES[: {Mode.LTP: 1, Mode.QUOTE: 6, Mode.FULL: 6}[mode]]
        for name in names:
            mine = slice(None) if name != "average_price" else ~index
            assert parsed.rows[name][mine] == pytest.approx(rows[name][mine], abs=0.0051), name
        if mode is Mode.FULL:
            for name in (*WHOLE, *LEVELS, "lower_circuit", "upper_circuit"):
                assert parsed.rows[name][~index] == pytest.approx(rows[name][~index]), name
            assert parsed.rows["exchange_ns"].tolist() == rows["exchange_ns"].tolist()


@DIALECTS
def test_every_damage_costs_rows_or_is_counted_as_bad(dialect: str) -> None:
    broker, socket = subscribed(dialect, Mode.FULL)
    market: Any = broker.world.market
    numbers = TokenMap({one.key: line for line, one in enumerate(broker.scrips) if one.number})
    data = next(iter(socket.encode(market.snapshot(np.array([4, 5])), snapshot=True))).data
    for how in broker.damages:
        parse: Any = TypeAParser(numbers) if dialect == "a" else TypeBParser(numbers)
        spoilt: Any = broker.damaged(data, how)
        parsed = parse([Frame(spoilt, 1)])
        assert parsed.bad or not len(parsed.rows), how


# --- login ------------------------------------------------------------------------------------------------


@DIALECTS
@pytest.mark.parametrize("way", ["totp", "sms"])
def test_both_steps_give_a_token_that_socket_and_rest_take(
    locked: Sandbox, http: HttpSession, connect: Any, dialect: str, way: str
) -> None:
    changes = {"totp_secret": None} if way == "sms" else {}
    settings = settings_of(locked, dialect, **changes)
    session = authenticate(settings, MemoryTokenStore(), http, clock_of(locked), ask=lambda: "123456")
    assert connect(locked, token=session.access_token).login()["data"] == "success"
    assert len(fetch_instruments(settings, session, http)) > 100


def test_type_a_takes_the_totp_alone(locked: Sandbox, http: HttpSession) -> None:
    settings = settings_of(locked, "a", totp_alone=True, password=None)
    assert authenticate(settings, MemoryTokenStore(), http, clock_of(locked)).access_token


@DIALECTS
def test_a_wrong_password_and_a_wrong_code_are_refused(locked: Sandbox, http: HttpSession, dialect: str) -> None:
    wrong = settings_of(locked, dialect, password="no")
    with pytest.raises(AuthError, match="Invalid username or password"):
        authenticate(wrong, MemoryTokenStore(), http, clock_of(locked))
    settings = settings_of(locked, dialect, totp_secret=None)
    with pytest.raises(AuthError, match="OTP"):
        authenticate(settings, MemoryTokenStore(), http, clock_of(locked), ask=lambda: "000000")
    settings = settings_of(locked, dialect, totp_secret="GEZDGNBVGY3TQOJQ")
    with pytest.raises(AuthError, match="correct TOTP"):
        authenticate(settings, MemoryTokenStore(), http, clock_of(locked))


def test_a_code_in_the_first_step_gives_a_token_that_only_the_socket_takes(locked: Sandbox, connect: Any) -> None:
    body = {"clientcode": "TEST01", "password": "test-pass-1", "totp": "123456", "state": ""}
    url, version = f"{locked.url}/openapi/typeb", {"X-Mirae-Version": "1", "X-PrivateKey": KEY}
    token = requests.post(f"{url}/connect/login", json=body, headers=version, timeout=10).json()["data"]["jwtToken"]
    connect(locked, token=token)
    headers = {**version, "Authorization": f"Bearer {token}"}
    assert requests.get(f"{url}/instruments/OpenAPIScripMaster", headers=headers, timeout=10).status_code == 401


def test_the_version_header_is_demanded(box: Sandbox) -> None:
    answer = requests.get(f"{box.url}/openapi/typea/instruments/scriptmaster", timeout=10)
    assert (answer.status_code, answer.json()["message"]) == (400, "Please provide valid api version.")


# --- REST -------------------------------------------------------------------------------------------------


def session_of() -> Session:
    return Session(vendor="mstock", account="TEST01", access_token=READY_TOKEN)


@DIALECTS
def test_the_plugin_reads_every_instrument(box: Sandbox, http: HttpSession, dialect: str) -> None:
    table = fetch_instruments(settings_of(box, dialect), session_of(), http)
    numbered = {one.key for one in box.broker.scrips if one.number}  # type: ignore[attr-defined]
    assert {one.token for one in table} >= numbered
    for key in ("NSE:RELIANCE", "BSE:RELIANCE", "NSE:NIFTY 50", "BSE:SENSEX", "NSE:BAJAJ-AUTO", "NSE:M&M"):
        made = next(one for one in box.broker.scrips if one.instrument.key == key)  # type: ignore[attr-defined]
        assert table[key].token == made.key


@DIALECTS
@pytest.mark.parametrize("interval", [Interval.M1, Interval.M5, Interval.M30, Interval.D1])
def test_the_plugin_reads_the_same_candles_as_the_market_has(
    box: Sandbox, http: HttpSession, dialect: str, interval: Interval
) -> None:
    settings = settings_of(box, dialect)
    instrument = fetch_instruments(settings, session_of(), http)["NSE:RELIANCE"]
    start, end = to_ns("2026-11-18 00:00:00"), to_ns("2026-11-20 00:00:00")
    wanted = CandleRequest(instrument=instrument, interval=interval, start_ns=start, end_ns=end)
    read = fetch_candles(settings, session_of(), http, wanted).rows
    made = box.world.market.candles(line_of(box, "1:2885"), interval.seconds, start, end)
    assert len(read) == len(made) > 1
    for name in ("start_ns", "open", "high", "low", "close", "volume"):
        assert read[name].tolist() == pytest.approx(made[name].tolist()), name


@DIALECTS
def test_today_comes_from_the_intraday_call_only(box: Sandbox, http: HttpSession, dialect: str) -> None:
    settings = settings_of(box, dialect)
    instrument = fetch_instruments(settings, session_of(), http)["NSE:RELIANCE"]
    start, end = to_ns("2026-11-19 00:00:00"), to_ns("2026-11-21 00:00:00")
    wanted = CandleRequest(instrument=instrument, interval=Interval.M1, start_ns=start, end_ns=end)
    assert len(fetch_candles(settings, session_of(), http, wanted).rows) == 375 + 45
    assert history(box, "2026-11-20 09:15", "2026-11-20 15:30") == []


def history(box: Sandbox, first: str, last: str) -> list[Any]:
    body = {"exchange": "NSE", "symboltoken": "2885", "interval": "ONE_MINUTE", "fromdate": first, "todate": last}
    headers = {"X-Mirae-Version": "1", "X-PrivateKey": KEY, "Authorization": f"Bearer {READY_TOKEN}"}
    url = f"{box.url}/openapi/typeb/instruments/historical"
    answers = [requests.request(method, url, json=body, headers=headers, timeout=10) for method in ("POST", "GET")]
    assert answers[0].content == answers[1].content
    found: list[Any] = answers[0].json()["data"]["candles"]
    return found


def test_an_answer_has_at_most_a_thousand_candles_and_a_bare_date_is_its_midnight(box: Sandbox) -> None:
    assert len(history(box, "2026-11-16 09:15", "2026-11-19 15:30")) == 1000
    assert len(history(box, "2026-11-18", "2026-11-19")) == 375
    assert history(box, "2026-11-18", "2026-11-19")[0][0] == "2026-11-18T09:15:00+05"


def test_quotes_of_both_dialects(box: Sandbox) -> None:
    version = {"X-Mirae-Version": "1"}
    url = f"{box.url}/openapi/typea/instruments/quote/ohlc?i=NSE:INFY&i=NSE:NOTHING"
    quote = requests.get(url, headers={**version, "Authorization": f"token {KEY}:{READY_TOKEN}"}, timeout=10).json()
    assert quote["data"]["NSE:NOTHING"] is None
    assert set(quote["data"]["NSE:INFY"]["ohlc"]) == {"open", "high", "low", "close"}
    headers = {**version, "X-PrivateKey": KEY, "Authorization": f"Bearer {READY_TOKEN}"}
    body = {"mode": "LTP", "exchangeTokens": {"NSE": ["1594", "77"]}}
    answer = requests.post(f"{box.url}/openapi/typeb/instruments/quote", json=body, headers=headers, timeout=10).json()
    assert answer["data"]["fetched"][0]["ltp"] == quote["data"]["NSE:INFY"]["last_price"]
    assert answer["data"]["unfetched"][0]["symbolToken"] == "77"


def test_a_second_history_call_within_a_second_is_refused() -> None:
    with Sandbox("mstock", ticks_per_second=0.0, start=START) as box:
        headers = {"X-Mirae-Version": "1", "Authorization": f"token {KEY}:{READY_TOKEN}"}
        url = f"{box.url}/openapi/typea/instruments/historical/NSE/2885/day?from=2026-11-16&to=2026-11-19"
        codes = [requests.get(url, headers=headers, timeout=10).status_code for _ in range(2)]
        assert codes == [200, 429]
        time.sleep(1.0)
        assert requests.get(url, headers=headers, timeout=10).status_code == 200


def test_one_dialect_alone_can_be_asked_for(http: HttpSession) -> None:
    with Sandbox("mstock", dialect="a", ticks_per_second=0.0) as box:
        assert box.settings()["dialect"] == "a"
        assert requests.get(f"{box.url}/openapi/typeb/logout", timeout=10).status_code == 404
    with pytest.raises(MarketFeedError, match="choose a or b"):
        Sandbox("mstock", dialect="c")
