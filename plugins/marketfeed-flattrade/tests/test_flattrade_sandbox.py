"""The sandbox as FlatTrade: what the manual and the official clients say a client sees."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests
import websocket
from marketfeed_flattrade.auth import authenticate
from marketfeed_flattrade.candles import fetch_candles
from marketfeed_flattrade.instruments import fetch_instruments
from marketfeed_flattrade.parser import FlattradeParser
from marketfeed_flattrade.sandbox import FlattradeBroker
from marketfeed_flattrade.settings import FlattradeSettings

from marketfeed.clock import NS, OffsetClock, to_ns
from marketfeed.contract import CandleRequest, Frame, Session
from marketfeed.dtypes import Rows
from marketfeed.enums import Interval, Mode
from marketfeed.errors import MarketFeedError
from marketfeed.http import HttpSession
from marketfeed.instruments import TokenMap
from marketfeed.sandbox import READY_TOKEN, Sandbox, totp
from marketfeed.sandbox.world import Options, World
from marketfeed.tokens import MemoryTokenStore

START = "2026-11-20 10:00:00"
RELIANCE, NIFTY = "NSE|2885", "NSE|26000"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """One for all tests that only read."""
    with Sandbox("flattrade", rate_limits=False, ticks_per_second=0.0, start=START) as one:
        yield one


@pytest.fixture
def http() -> Iterator[HttpSession]:
    session = HttpSession("flattrade")
    yield session
    session.close()


class Client:
    """A WebSocket client that speaks as the official ones do."""

    def __init__(self, box: Sandbox, path: str = "/PiConnectWSAPI/") -> None:
        self.socket: Any = websocket.create_connection(box.url.replace("http", "ws") + path, timeout=10)

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.socket.recv())
        return found

    def login(self, token: str = READY_TOKEN) -> dict[str, Any]:
        self.send(t="a", uid="TEST01", actid="TEST01", source="API", accesstoken=token)
        return self.read()

    def nothing(self) -> bool:
        self.socket.settimeout(0.3)
        with pytest.raises(websocket.WebSocketTimeoutException):
            self.socket.recv()
        return True


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    with ExitStack() as stack:

        def make(*arguments: Any) -> Client:
            client = Client(*arguments)
            stack.callback(client.socket.shutdown)
            return client

        yield make


def answer_to(box: Sandbox, token: str = READY_TOKEN) -> dict[str, Any]:
    client = Client(box)
    try:
        return client.login(token)
    finally:
        client.socket.shutdown()


def line_of(box: Sandbox, token: str) -> int:
    return [box.broker.token(line) for line in range(len(box.instruments))].index(token)


# --- the socket -------------------------------------------------------------------------------------------


def test_both_generations_of_the_connect_message_are_acknowledged_in_kind(box: Sandbox, connect: Any) -> None:
    assert connect(box).login() == {"t": "ak", "uid": "TEST01", "s": "OK"}
    client = connect(box)
    client.send(t="c", uid="TEST01", actid="TEST01", source="API", susertoken=READY_TOKEN)
    assert client.read() == {"t": "ck", "uid": "TEST01", "s": "OK"}


def test_a_refused_login_leaves_the_socket_open_and_silent(box: Sandbox, connect: Any) -> None:
    client = connect(box)
    assert client.login("wrong") == {"t": "ak", "s": "NOT_OK"}
    client.send(t="t", k=RELIANCE)
    client.send(t="h")
    assert client.nothing()


def test_a_subscription_before_the_login_yields_nothing(box: Sandbox, connect: Any) -> None:
    client = connect(box)
    client.send(t="d", k=RELIANCE)
    assert client.nothing()


def test_a_second_socket_of_the_token_drives_out_the_first_with_1000(box: Sandbox, connect: Any) -> None:
    first, second = connect(box), connect(box)
    first.login()
    assert second.login()["s"] == "OK"
    opcode, data = first.socket.recv_data()
    assert (opcode, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 1000)
    second.send(t="h")
    assert second.read()["t"] == "hk"


def test_the_old_address_is_refused(box: Sandbox, connect: Any) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
        connect(box, "/PiConnectWSTp/")


def test_a_text_heartbeat_is_answered_with_the_sandboxs_time(box: Sandbox, connect: Any) -> None:
    client = connect(box)
    client.login()
    client.send(t="h")
    beat = client.read()
    assert beat["t"] == "hk"
    assert abs(int(beat["hk"]) - to_ns(START) // NS) < 120


def test_a_ping_is_answered_and_a_message_without_type_is_ignored(box: Sandbox, connect: Any) -> None:
    client = connect(box)
    client.login()
    client.send(k=RELIANCE)  # the official client's unsubscribe
    client.socket.ping('{"t":"h"}')
    opcode, data = client.socket.recv_data(control_frame=True)
    assert (opcode, data) == (websocket.ABNF.OPCODE_PONG, b'{"t":"h"}')


def test_each_family_begins_with_a_snapshot_in_text(box: Sandbox, connect: Any) -> None:
    row = box.world.market.snapshot(np.array([line_of(box, RELIANCE)]))[0]
    client = connect(box)
    client.login()
    client.send(t="t", k=f"{RELIANCE}#{NIFTY}#NSE|999999")
    touch, index = client.read(), client.read()
    assert (touch["t"], touch["e"], touch["tk"], touch["ts"], touch["ti"]) == (
        "tk",
        "NSE",
        "2885",
        "RELIANCE-EQ",
        "0.10",
    )
    assert touch["lp"] == f"{row['last_price']:.2f}"
    assert touch["bq1"] == str(row["bid_quantity"][0])
    assert "bp2" not in touch
    assert set(index) == {"t", "e", "tk", "ts", "pp", "ls", "ti", "lp", "pc", "o", "h", "l", "c", "ft"}
    client.send(t="d", k=RELIANCE)
    messages = [client.read(), client.read()]
    assert [one["t"] for one in messages] == ["tf", "dk"]
    assert messages[0] == {"t": "tf", "e": "NSE", "tk": "2885"}
    assert messages[1]["sp5"] == f"{row['ask_price'][4]:.2f}"
    assert all(isinstance(value, str) for value in messages[1].values())


def test_an_unsubscription_is_echoed(box: Sandbox, connect: Any) -> None:
    client = connect(box)
    client.login()
    client.send(t="d", k=RELIANCE)
    client.read()
    client.send(t="ud", k=RELIANCE)
    assert client.read() == {"t": "udk", "k": RELIANCE}
    assert not box.hub.subscribed.size


def test_order_updates_come_on_the_same_socket(box: Sandbox, connect: Any) -> None:
    client = connect(box)
    client.login()
    client.send(t="o", actid="TEST01")
    assert client.read() == {"t": "ok"}
    box.order(status="REJECTED")
    update = client.read()
    assert (update["t"], update["status"], update["uid"]) == ("om", "REJECTED", "TEST01")


# --- what a client makes of the messages ------------------------------------------------------------------


def broker() -> FlattradeBroker:
    return FlattradeBroker(World(Options(start=START)))


def logged_in(one: FlattradeBroker, kind: str) -> Any:
    made: Any = one.upgrade(attrs_request("/PiConnectWSAPI/"), 0)
    one.login._fixed = "token"
    made.received(json.dumps({"t": "a", "uid": "TEST01", "accesstoken": "token"}))
    made.received(json.dumps({"t": kind, "k": "#".join(one.token(line) for line in range(len(one.scrips)))}))
    return made


def attrs_request(path: str) -> Any:
    from marketfeed.brokers import HttpRequest

    return HttpRequest(method="GET", path=path)


PRICES = ("last_price", "average_price", "open", "high", "low", "close", "upper_circuit", "lower_circuit")
WHOLE = ("volume", "last_quantity", "buy_quantity", "sell_quantity", "exchange_ns", "last_trade_ns", "open_interest")


def compare(made: Any, read: Any, *, depth: bool, index: bool) -> None:
    for name in PRICES[: None if depth else 6]:
        assert read[name] == pytest.approx(float(made[name]), abs=0.0051, nan_ok=True), name
    for name in WHOLE if depth and not index else ("exchange_ns",):
        assert read[name] == made[name], name
    if depth and not index:
        for name in ("bid_price", "ask_price", "bid_quantity", "ask_quantity", "bid_orders", "ask_orders"):
            assert read[name].tolist() == pytest.approx(made[name].tolist()), name


@pytest.mark.parametrize(("kind", "depth"), [("t", False), ("d", True)])
def test_snapshots_and_deltas_merge_to_the_rows_that_were_sent(kind: str, depth: bool) -> None:
    one = broker()
    socket = logged_in(one, kind)
    market: Any = one.world.market
    parse = FlattradeParser(TokenMap({one.token(line): line for line in range(len(one.scrips))}))
    lines = np.arange(len(one.scrips))
    moment, sizes = to_ns(START), []
    for step in range(30):
        rows: Rows = market.snapshot(lines) if not step else market.advance(lines, moment + step * NS)
        messages = list(socket.encode(rows, snapshot=not step))
        sizes.append(sum(len(message.data) for message in messages))
        parsed = parse([Frame(message.data.encode(), 1) for message in messages])
        assert (len(parsed.rows), list(parsed.bad)) == (len(rows), [])
        for line in (0, 5, 60, 110):
            index = one.scrips[line].is_index
            assert parsed.rows[line]["flags"] & 0xF == (Mode.FULL if depth else Mode.QUOTE)
            compare(rows[line], parsed.rows[line], depth=depth, index=index)
    assert max(sizes[1:]) < sizes[0]


def test_after_a_swallowed_message_everything_is_told_again() -> None:
    one = broker()
    socket = logged_in(one, "d")
    market: Any = one.world.market
    line = np.array([5])
    first, second = (next(socket.encode(market.snapshot(line), snapshot=True)).data for _ in range(2))
    assert json.loads(second) == {"t": "df", **{name: json.loads(first)[name] for name in ("e", "tk")}}
    socket.forget()
    again = json.loads(next(socket.encode(market.snapshot(line), snapshot=False)).data)
    assert again["t"] == "df"
    assert (
        again.items()
        >= {name: text for name, text in json.loads(first).items() if name not in ("t", "ts", "pp", "ls", "ti")}.items()
    )


def test_a_mute_line_leaves_no_stale_fields_behind() -> None:
    with Sandbox("flattrade", ticks_per_second=200.0, start=START, log=True) as box, ExitStack() as stack:
        client = Client(box)
        stack.callback(client.socket.shutdown)
        client.login()
        client.send(t="d", k=RELIANCE)
        texts = [str(client.socket.recv()) for _ in range(20)]
        box.fault("mute", seconds=0.5)
        box.fault("damage", how="cut", every=3, seconds=0.7)
        texts += [str(client.socket.recv()) for _ in range(60)]
    parse = FlattradeParser(TokenMap({RELIANCE: 0}))
    kept = [text for text in texts if is_object(text)]
    parsed = parse([Frame(text.encode(), 1) for text in kept])
    sent = [row for frame in box.log if frame.intact for row in frame.rows][: len(parsed.rows)]
    assert len(kept) < len(texts)
    for made, read in zip(sent, parsed.rows, strict=True):
        compare(made, read, depth=True, index=False)


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def test_every_damage_makes_the_message_a_bad_one_or_no_data() -> None:
    one = broker()
    text = next(logged_in(one, "d").encode(one.world.market.snapshot(np.array([5])), snapshot=True)).data
    for how in one.damages:
        damaged = one.damaged(text, how)
        parsed = FlattradeParser(TokenMap({RELIANCE: 0}))([Frame(str(damaged).encode(), 1)])
        assert len(parsed.rows) == 0, how


# --- login ------------------------------------------------------------------------------------------------


def settings_of(box: Sandbox, **changes: Any) -> FlattradeSettings:
    return FlattradeSettings(**{**box.settings(), **changes})


def clock_of(box: Sandbox) -> OffsetClock:
    return OffsetClock(box.clock_offset_ns)


@pytest.fixture
def locked() -> Iterator[Sandbox]:
    """Demands a login."""
    with Sandbox("flattrade", access_token=None, ticks_per_second=0.0, start=START) as one:
        yield one


def test_the_page_hands_a_code_to_the_redirect_url_that_is_good_once(locked: Sandbox, http: HttpSession) -> None:
    page = f"{locked.url}/?app_key=testkey"
    assert "TOTP" in requests.get(page, timeout=10).text
    form = {"user_id": "TEST01", "password": "test-pass-1", "totp": totp("JBSWY3DPEHPK3PXP", int(time.time()))}
    answer = requests.post(page, data=form, allow_redirects=False, timeout=10)
    address = answer.headers["Location"]
    assert parse_qs(urlsplit(address).query)["client"] == ["TEST01"]
    settings = settings_of(locked, automatic_login=False, request_code=address)
    session = authenticate(settings, MemoryTokenStore(), http, clock_of(locked))
    assert answer_to(locked, session.access_token)["s"] == "OK"
    with pytest.raises(Exception, match="INVALID_REQUEST_CODE"):
        authenticate(settings, MemoryTokenStore(), http, clock_of(locked))


def test_the_automatic_login_overrides_an_older_session_and_voids_its_token(locked: Sandbox, http: HttpSession) -> None:
    settings = settings_of(locked)
    first = authenticate(settings, MemoryTokenStore(), http, clock_of(locked))
    second = authenticate(settings, MemoryTokenStore(), http, clock_of(locked))
    assert answer_to(locked, first.access_token)["s"] == "NOT_OK"
    assert answer_to(locked, second.access_token)["s"] == "OK"


def test_a_wrong_password_gives_no_code(locked: Sandbox, http: HttpSession) -> None:
    with pytest.raises(Exception, match="Wrong user id, password or OTP"):
        authenticate(settings_of(locked, password="no"), MemoryTokenStore(), http, clock_of(locked))


def test_a_token_dies_at_five_in_the_morning(http: HttpSession) -> None:
    with Sandbox("flattrade", access_token=None, ticks_per_second=0.0, start="2026-11-20 04:59:58") as box:
        session = authenticate(settings_of(box), MemoryTokenStore(), http, clock_of(box))
        assert answer_to(box, session.access_token)["s"] == "OK"
        time.sleep(2.2)
        assert answer_to(box, session.access_token)["s"] == "NOT_OK"


# --- REST -------------------------------------------------------------------------------------------------


def call(box: Sandbox, route: str, key: str = READY_TOKEN, **data: str) -> tuple[int, Any]:
    body = f"jData={json.dumps({'uid': 'TEST01', **data})}&jKey={key}"
    reply = requests.post(f"{box.url}/PiConnectAPI//{route}", data=body, timeout=10)
    return reply.status_code, reply.json()


def test_the_plugin_reads_every_instrument_of_the_masters(box: Sandbox, http: HttpSession) -> None:
    table = fetch_instruments(settings_of(box), http)
    assert {one.token for one in table} == {box.broker.token(line) for line in range(len(box.instruments))}
    assert table["NSE:RELIANCE"].exchange_token == "2885"
    assert table["NSE:NIFTY 50"].token == NIFTY
    assert requests.get(f"{box.url}/scripmaster/Nothing.csv", timeout=10).status_code == 403


@pytest.mark.parametrize("interval", [Interval.M1, Interval.M5, Interval.H1, Interval.D1])
def test_the_plugin_reads_the_same_candles_as_the_market_has(
    box: Sandbox, http: HttpSession, interval: Interval
) -> None:
    table = fetch_instruments(settings_of(box), http)
    session = Session(vendor="flattrade", account="TEST01", access_token=READY_TOKEN)
    start, end = to_ns("2026-11-17 00:00:00"), to_ns("2026-11-20 00:00:00")
    wanted = CandleRequest(instrument=table["NSE:RELIANCE"], interval=interval, start_ns=start, end_ns=end)
    read = fetch_candles(settings_of(box), session, http, wanted).rows
    made = box.world.market.candles(line_of(box, RELIANCE), interval.seconds, start, end)
    assert len(read) == len(made) > 2
    for name in ("open", "high", "low", "close", "volume"):
        assert read[name].tolist() == pytest.approx(made[name].tolist())


def test_quotes_searches_and_chains_have_the_documented_shape(box: Sandbox) -> None:
    _, quote = call(box, "GetQuotes", exch="NSE", token="2885")
    assert (quote["stat"], quote["tsym"], quote["exch"]) == ("Ok", "RELIANCE-EQ", "NSE")
    _, found = call(box, "SearchScrip", exch="NSE", stext="RELIANCE")
    assert found["values"][0]["token"] == "2885"
    _, indices = call(box, "GetIndexList", exch="NSE")
    assert {"idxname": "Nifty 50", "token": "26000"} in indices["values"]
    option = next(one for one in box.broker.scrips if one.option == "CE")  # type: ignore[attr-defined]
    _, chain = call(box, "GetOptionChain", exch="NFO", tsym=option.trading_symbol, strprc="24850", cnt="2")
    assert len(chain["values"]) == 10


def test_refusals_are_told_in_the_manuals_words(box: Sandbox) -> None:
    assert call(box, "GetQuotes", key="old", exch="NSE", token="22")[1]["emsg"].startswith("Session Expired")
    assert call(box, "GetQuotes", exch="NSE", token="99")[1]["emsg"] == 'Error Occurred : 5 "no data"'
    assert call(box, "Nonsense")[1]["stat"] == "Not_Ok"
    encoded = requests.post(f"{box.url}/PiConnectAPI/TPSeries", data={"jData": "{}", "jKey": READY_TOKEN}, timeout=10)
    assert (encoded.status_code, encoded.json()["emsg"]) == (400, "jData is not valid json object")


def test_the_official_clients_numbers_are_read(box: Sandbox) -> None:
    start = float(to_ns("2026-11-19 09:15:00") // NS)
    _, bars = call(box, "TPSeries", exch="NSE", token="2885", st=str(start), et=str(start + 600))
    assert [bar["time"] for bar in bars[::10]] == ["19-11-2026 09:25:00", "19-11-2026 09:15:00"]
    assert bars[0]["stat"] == "Ok"


def test_more_than_forty_calls_in_a_second_exceed_the_limit() -> None:
    with Sandbox("flattrade", ticks_per_second=0.0, start=START, log=True) as box, requests.Session() as session:
        body = f"jData={json.dumps({'uid': 'TEST01', 'exch': 'NSE', 'token': '2885'})}&jKey={READY_TOKEN}"
        answers = [session.post(f"{box.url}/PiConnectAPI/GetQuotes", data=body, timeout=10).text for _ in range(230)]
    refused = [text for text in answers if "exceeds Limit" in text]
    assert len(answers) - len(refused) <= 200
    assert any("minute exceeds Limit 200" in text for text in refused) or len(refused) >= 30


def test_legacy_quick_auth_gives_a_token(locked: Sandbox) -> None:
    def sha(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    data = {"uid": "TEST01", "pwd": sha("test-pass-1"), "appkey": sha("TEST01|testsecret")}
    code = totp("JBSWY3DPEHPK3PXP", int(time.time()))
    reply = requests.post(
        f"{locked.url}/PiConnectAPI/QuickAuth", data=f"jData={json.dumps({**data, 'factor2': code})}", timeout=10
    )
    assert answer_to(locked, reply.json()["susertoken"])["s"] == "OK"


def test_its_option_chooses_the_acknowledgement_and_others_are_refused() -> None:
    with Sandbox("flattrade", ack="ck", ticks_per_second=0.0) as box:
        assert answer_to(box)["t"] == "ck"
    with pytest.raises(MarketFeedError, match="choose ak or ck"):
        Sandbox("flattrade", ack="xx")
    with pytest.raises(ValueError, match="unknown options: dialect"):
        Sandbox("flattrade", dialect="a")
