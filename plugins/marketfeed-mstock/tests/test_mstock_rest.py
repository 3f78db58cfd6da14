"""Login, instruments and candles over a real HTTP connection on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest
from marketfeed_mstock import marketfeed_vendor
from marketfeed_mstock.auth import authenticate, session_end_ns
from marketfeed_mstock.candles import fetch_candles, read_candles
from marketfeed_mstock.instruments import fetch_instruments, read_type_a, read_type_b
from marketfeed_mstock.settings import MstockSettings

from marketfeed.clock import NS, ManualClock, to_ns
from marketfeed.contract import CandleRequest, Session
from marketfeed.enums import Interval, Kind
from marketfeed.errors import AuthError, LineLost, RequestRejected, SessionExpired
from marketfeed.http import HttpSession
from marketfeed.instruments import Instrument
from marketfeed.tokens import MemoryTokenStore
from marketfeed.totp import totp

UUID = "11111111-2222-3333-4444-555555555555"
SECRET = "JBSWY3DPEHPK3PXP"
MORNING = to_ns("2025-11-13T08:00:00")
GOOD = {"api_key": "ke+y=", "client_code": "MA0001", "password": "pass-word"}
FIRST = {"status": "true", "message": "", "data": {"jwtToken": UUID, "refreshToken": ""}}
SECOND = {"status": "True", "data": {"jwtToken": "aaa.bbb.ccc", "refreshToken": "ddd", "feedToken": "ggg"}}


class Asked(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str


class Broker:
    """Prepared answers, in order, the last one again and again; remembers what it was asked."""

    def __init__(self, url: str, answers: list[tuple[int, str]], asked: list[Asked]) -> None:
        self.url, self.answers, self.asked = url, answers, asked

    def says(self, *contents: Any, status: int = 200) -> None:
        self.answers[:] = [(status, one if isinstance(one, str) else json.dumps(one)) for one in contents]


@pytest.fixture
def broker() -> Iterator[Broker]:
    answers: list[tuple[int, str]] = []
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked.append(Asked(self.command, parts.path, dict(parse_qsl(parts.query)), dict(self.headers), body))
            status, text = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Broker(f"http://127.0.0.1:{server.server_address[1]}", answers, asked)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def http() -> Iterator[HttpSession]:
    with HttpSession("mstock", sleep=lambda seconds: None) as session:
        yield session


def settings(broker: Broker, **options: Any) -> MstockSettings:
    return MstockSettings(login_url=broker.url, rest_url=broker.url, **{**GOOD, **options})


def log_in(broker: Broker, http: HttpSession, tokens: MemoryTokenStore | None = None, **options: Any) -> Session:
    clock = ManualClock(MORNING)
    return authenticate(settings(broker, **options), tokens or MemoryTokenStore(), http, clock, lambda: "654321")


class TestLogin:
    def test_type_b_takes_two_steps_with_the_totp_in_the_second_alone(self, broker: Broker, http: HttpSession) -> None:
        broker.says(FIRST, SECOND)
        session = log_in(broker, http, totp_secret=SECRET)
        assert session.access_token == "aaa.bbb.ccc"
        assert dict(session.extra) == {"refreshToken": "ddd", "feedToken": "ggg"}
        first, second = broker.asked
        assert first.path == "/openapi/typeb/connect/login"
        assert json.loads(first.body) == {"clientcode": "MA0001", "password": "pass-word", "totp": "", "state": ""}
        assert second.path == "/openapi/typeb/session/verifytotp"
        assert json.loads(second.body) == {"refreshToken": UUID, "totp": totp(SECRET, MORNING // NS)}
        assert {one.headers["X-Mirae-Version"] for one in broker.asked} == {"1"}
        assert second.headers["X-PrivateKey"] == "ke+y="

    def test_type_b_with_the_password_of_the_sms(self, broker: Broker, http: HttpSession) -> None:
        broker.says(FIRST, SECOND)
        assert log_in(broker, http).access_token == "aaa.bbb.ccc"
        assert broker.asked[1].path == "/openapi/typeb/session/token"
        assert json.loads(broker.asked[1].body) == {"refreshToken": UUID, "otp": "654321"}

    @pytest.mark.parametrize("secret", [None, SECRET])
    def test_type_a_sends_forms(self, broker: Broker, http: HttpSession, secret: str | None) -> None:
        broker.says({"status": "success", "data": {}}, {"status": "success", "data": {"access_token": "tok"}})
        assert log_in(broker, http, dialect="a", totp_secret=secret).access_token == "tok"
        first, second = (dict(parse_qsl(one.body)) for one in broker.asked)
        assert first == {"username": "MA0001", "password": "pass-word"}
        if secret:
            assert broker.asked[1].path == "/openapi/typea/session/verifytotp"
            assert second == {"api_key": "ke+y=", "totp": totp(SECRET, MORNING // NS)}
        else:
            assert broker.asked[1].path == "/openapi/typea/session/token"
            assert second == {"api_key": "ke+y=", "request_token": "654321", "checksum": "W"}

    def test_type_a_can_send_the_totp_alone(self, broker: Broker, http: HttpSession) -> None:
        broker.says({"status": "success", "data": {"access_token": "tok"}})
        log_in(broker, http, dialect="a", totp_secret=SECRET, totp_alone=True, password=None)
        assert [one.path for one in broker.asked] == ["/openapi/typea/session/verifytotp"]

    def test_a_session_is_kept_for_the_day_and_not_longer(self, broker: Broker, http: HttpSession) -> None:
        broker.says(FIRST, SECOND)
        tokens = MemoryTokenStore()
        kept = log_in(broker, http, tokens)
        assert log_in(broker, http, tokens) is kept
        broker.says(FIRST, SECOND)
        evening = ManualClock(MORNING + 12 * 3600 * NS)
        assert authenticate(settings(broker), tokens, http, evening, lambda: "1") is not kept
        assert len(broker.asked) == 4

    def test_a_ready_token_leaves_out_the_login(self, broker: Broker, http: HttpSession) -> None:
        session = log_in(broker, http, access_token="ready", password=None)
        assert (session.access_token, session.account, broker.asked) == ("ready", "MA0001", [])

    @pytest.mark.parametrize("missing", ["api_key", "client_code", "password"])
    def test_nothing_is_sent_while_a_setting_is_missing(self, broker: Broker, http: HttpSession, missing: str) -> None:
        with pytest.raises(AuthError, match=rf"vendors\.mstock\.{missing} \(or MSTOCK_{missing.upper()}\)"):
            log_in(broker, http, **{missing: None})
        assert broker.asked == []

    def test_nothing_is_sent_while_nobody_can_type_the_password(self, broker: Broker, http: HttpSession) -> None:
        with pytest.raises(AuthError, match="MSTOCK_TOTP_SECRET"):
            authenticate(settings(broker), MemoryTokenStore(), http)  # tests have no terminal
        assert broker.asked == []

    @pytest.mark.parametrize("status", ["false", False, "False", "error"])
    def test_a_refusal_is_final_and_shows_no_secret(self, broker: Broker, http: HttpSession, status: object) -> None:
        broker.says({"status": status, "message": "Invalid. 9 attempts remaining", "errorcode": "MA500", "data": None})
        with pytest.raises(AuthError, match="9 attempts remaining") as refusal:
            log_in(broker, http, totp_secret=SECRET)
        assert len(broker.asked) == 1
        assert not any(one in repr(refusal.value) for one in (SECRET, "pass-word", "ke+y="))

    def test_a_secret_that_is_not_base32_is_not_quoted(self, broker: Broker, http: HttpSession) -> None:
        broker.says(FIRST, SECOND)
        with pytest.raises(AuthError) as refusal:
            log_in(broker, http, totp_secret="not!base32")
        assert refusal.value.__context__ is None
        assert "not!base32" not in str(refusal.value)
        assert broker.asked == []  # a bad secret costs no attempt

    def test_a_gateway_page_is_a_lost_line(self, broker: Broker, http: HttpSession) -> None:
        broker.says("<html>502 Bad Gateway</html>", status=502)
        with pytest.raises(LineLost):
            log_in(broker, http)
        broker.says("<html></html>")
        with pytest.raises(LineLost):
            log_in(broker, http)

    def test_a_session_ends_after_twelve_hours_or_at_midnight(self) -> None:
        assert session_end_ns(to_ns("2025-11-13T08:00:00")) == to_ns("2025-11-13T20:00:00")
        assert session_end_ns(to_ns("2025-11-13T20:00:00")) == to_ns("2025-11-14")


SESSION = Session(vendor="mstock", account="MA0001", access_token="tok")
RELIANCE = Instrument(exchange="NSE", symbol="RELIANCE", token="1:2885", vendor="mstock")


class TestInstruments:
    CSV = (
        "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,"
        "instrument_type,segment,exchange\n"
        "13,13,ABB,ABB INDIA LIMITED,,,,,1,EQ,EQ,NSE\n"
        "14,14,ABB,ABB INDIA LIMITED,,,,,1,BE,BE,NSE\n"
        "39572,39572,NIFTY25NOV26000CE,,,2025-11-25,26000,,75,CE,OPTIDX,NFO\n"
        "846001,532822,IDEA25NOVFUT,,,2025-11-27,0,,40000,XX,FUTSTK,BFO\n"
        '"""\n'
    )

    def test_type_a_rows(self) -> None:
        abb, trade_to_trade, option, future = read_type_a(self.CSV)
        assert (abb.key, abb.token, abb.series, abb.name) == ("NSE:ABB", "1:13", "EQ", "ABB INDIA LIMITED")
        assert trade_to_trade.key == "NSE:ABB-BE"
        assert (option.kind, option.strike, option.lot_size) == (Kind.CALL, 26000, 75)
        assert (option.token, option.expiry) == ("2:39572", date(2025, 11, 25))
        assert (future.token, future.exchange_token, future.kind) == ("4:846001", "846001", Kind.FUTURE)

    def test_type_b_rows_say_symbol_and_name_the_other_way_round(self) -> None:
        rows = [
            {"token": "877966", "symbol": "SENSEX", "name": "SENSEX25O2382700CE", "expiry": "23Oct2025"}
            | {"strike": "82700", "lotsize": "20", "instrumenttype": "OPTIDX", "exch_seg": "BFO", "tick_size": "0.05"},
            {"token": "9552", "symbol": "RVNL", "name": "RVNL-EQ", "expiry": "", "strike": ""}
            | {"lotsize": "1", "instrumenttype": "EQ", "exch_seg": "NSE", "tick_size": "0.05"},
            {"token": "15853", "symbol": "USDINR", "name": "USDINR25NOVFUT", "expiry": "26Nov2025", "strike": "0"}
            | {"lotsize": "1", "instrumenttype": "FUTCUR", "exch_seg": "NSE", "tick_size": "0.0025"},
            {"token": "broken"},
            5,
        ]
        option, share, currency = read_type_b(json.dumps(rows).encode())
        assert (option.key, option.name, option.kind) == ("BFO:SENSEX25O2382700CE", "SENSEX", Kind.CALL)
        assert (option.token, option.expiry, option.lot_size) == ("4:877966", date(2025, 10, 23), 20)
        assert (share.key, share.token, share.series, share.tick_size) == ("NSE:RVNL", "1:9552", "EQ", 0.05)
        assert (currency.key, currency.token, currency.kind) == ("CDS:USDINR25NOVFUT", "13:15853", Kind.FUTURE)

    @pytest.mark.parametrize("dialect", ["a", "b"])
    def test_they_are_fetched_with_the_session_and_the_indices_added(
        self, broker: Broker, http: HttpSession, dialect: str
    ) -> None:
        share = {"token": "9552", "symbol": "RVNL", "name": "RVNL-EQ", "expiry": "", "strike": ""}
        share |= {"lotsize": "1", "instrumenttype": "EQ", "exch_seg": "NSE", "tick_size": "0.05"}
        broker.says(self.CSV if dialect == "a" else [share])
        table = fetch_instruments(settings(broker, dialect=dialect), SESSION, http)
        assert table["NSE:NIFTY 50"].token == "1:26000"
        assert table["BSE:SENSEX"].kind == Kind.INDEX
        (asked,) = broker.asked
        name = "scriptmaster" if dialect == "a" else "OpenAPIScripMaster"
        assert asked.path == f"/openapi/type{dialect}/instruments/{name}"
        assert asked.headers["Authorization"] == ("token ke+y=:tok" if dialect == "a" else "Bearer tok")

    @pytest.mark.parametrize("dialect", ["a", "b"])
    def test_a_list_without_a_single_instrument_is_refused(
        self, broker: Broker, http: HttpSession, dialect: str
    ) -> None:
        broker.says(self.CSV.splitlines()[0] if dialect == "a" else [])
        with pytest.raises(RequestRejected, match="is empty"):
            fetch_instruments(settings(broker, dialect=dialect), SESSION, http)

    def test_they_need_a_session_that_is_alive(self, broker: Broker, http: HttpSession) -> None:
        with pytest.raises(SessionExpired):
            fetch_instruments(settings(broker), None, http)
        broker.says({"status": "false", "message": "Invalid request.", "errorcode": "IA401"}, status=401)
        with pytest.raises(SessionExpired):
            fetch_instruments(settings(broker), SESSION, http)

    @pytest.mark.parametrize("text", ["", "<html>", "{}", "[[]"])
    def test_something_else_is_no_master(self, text: str) -> None:
        with pytest.raises(RequestRejected):
            read_type_a(text)
        with pytest.raises(RequestRejected):
            read_type_b(text.encode())

    def test_recorded_masters_are_read(self, shared: Path) -> None:
        folder = shared / "fixtures/mstock"
        assert len(read_type_a((folder / "scrip_master_typea_sample.csv").read_text())) == 42
        assert len(read_type_b((folder / "scrip_master_typeb_sample.json").read_bytes())) == 2


def wanted(start: str, end: str, interval: Interval = Interval.M1) -> CandleRequest:
    return CandleRequest(instrument=RELIANCE, interval=interval, start_ns=to_ns(start), end_ns=to_ns(end))


def candles(*rows: list[Any], status: object = "true") -> dict[str, Any]:
    return {"status": status, "data": {"candles": list(rows)}}


class TestCandles:
    def test_type_b_asks_with_times_and_reads_a_truncated_zone_as_india_time(
        self, broker: Broker, http: HttpSession
    ) -> None:
        broker.says(candles(["2025-11-13T09:16:00+05", 2, 3, 1, 2.5, 7], ["2025-11-13 09:15", 1, 2, 1, 2, 9]))
        batch = fetch_candles(settings(broker), SESSION, http, wanted("2025-11-13T09:15:00", "2025-11-14T09:15:00"))
        assert batch["start_ns"].tolist() == [to_ns("2025-11-13T09:15:00"), to_ns("2025-11-13T09:16:00")]
        assert [batch[name][1] for name in ("open", "high", "low", "close", "volume")] == [2, 3, 1, 2.5, 7]
        assert json.loads(broker.asked[0].body) == {
            "exchange": "NSE",
            "symboltoken": "2885",
            "interval": "ONE_MINUTE",
            "fromdate": "2025-11-13 09:15",
            "todate": "2025-11-14 09:14",
        }

    def test_type_a_asks_by_path(self, broker: Broker, http: HttpSession) -> None:
        broker.says(candles(["2025-11-13T09:15:00+05", 1, 2, 1, 2, 9], status="success"))
        request = wanted("2025-11-13T09:15:00", "2025-11-13T15:30:00", Interval.M5)
        batch = fetch_candles(settings(broker, dialect="a"), SESSION, http, request)
        assert batch["interval"].tolist() == [300]
        (asked,) = broker.asked
        assert asked.path == "/openapi/typea/instruments/historical/NSE/2885/5minute"
        assert asked.query == {"from": "2025-11-13 09:15:00", "to": "2025-11-13 15:29:59"}

    def test_today_comes_from_the_intraday_call(self, broker: Broker, http: HttpSession) -> None:
        broker.says(
            candles(["2025-11-12 15:29", 1, 1, 1, 1, 1]),
            candles(["2025-11-13 09:16", 3, 3, 3, 3, 3], ["2025-11-13 09:15", 2, 2, 2, 2, 2], status=True),
        )
        batch = fetch_candles(settings(broker), SESSION, http, wanted("2025-11-12T15:00:00", "2025-11-13T15:30:00"))
        assert batch["open"].tolist() == [1, 2, 3]
        assert broker.asked[1].path == "/openapi/typeb/instruments/intraday"
        assert json.loads(broker.asked[1].body) == {"exchange": "1", "symboltoken": "2885", "interval": "ONE_MINUTE"}

    def test_fridays_candles_are_not_missed_when_the_window_ends_on_a_weekend(
        self, broker: Broker, http: HttpSession
    ) -> None:
        # Today is Friday the 14th.
        broker.says(candles(["2025-11-13 15:29", 1, 1, 1, 1, 1]), candles(["2025-11-14 09:15", 2, 2, 2, 2, 2]))
        batch = fetch_candles(settings(broker), SESSION, http, wanted("2025-11-13", "2025-11-17"))
        assert batch["open"].tolist() == [1, 2]

    def test_a_day_is_whole_whatever_the_time_of_day_at_the_windows_end(
        self, broker: Broker, http: HttpSession
    ) -> None:
        broker.says(candles(["2025-11-13T09:15:00+05", 1, 1, 1, 1, 1], ["2025-11-14T09:15:00+05", 2, 2, 2, 2, 2]))
        request = wanted("2025-11-13T08:00:00", "2025-11-14T08:00:00", Interval.D1)
        batch = fetch_candles(settings(broker), SESSION, http, request)
        assert json.loads(broker.asked[0].body)["todate"] == "2025-11-14 23:59"
        assert batch["start_ns"].tolist() == [to_ns("2025-11-14T00:00:00")]

    def test_a_weekend_needs_no_intraday_call(self, broker: Broker, http: HttpSession) -> None:
        broker.says(candles())
        assert len(fetch_candles(settings(broker), SESSION, http, wanted("2025-11-15", "2025-11-16"))) == 0
        assert len(broker.asked) == 1

    def test_days_begin_at_midnight_whatever_the_label(self, broker: Broker, http: HttpSession) -> None:
        broker.says(candles(["2025-11-12 09:15", 1, 1, 1, 1, 1], ["2025-11-13T00:00:00+05", 2, 2, 2, 2, 2]))
        request = wanted("2025-11-12", "2025-11-14", Interval.D1)
        batch = fetch_candles(settings(broker), SESSION, http, request)
        assert batch["start_ns"].tolist() == [to_ns("2025-11-12"), to_ns("2025-11-13")]

    @pytest.mark.parametrize("odd", ["x", [["yesterday", 1, 2, 3, 4, 5]], [[]], [5], [["2025-11-12 09:15", 1, "x"]]])
    def test_odd_candles_are_refused(self, odd: object) -> None:
        with pytest.raises(RequestRejected):
            read_candles(odd)

    def test_recorded_samples_are_read(self, shared: Path) -> None:
        samples = json.loads((shared / "fixtures/mstock/rest_samples.json").read_text())
        bodies = [samples["typea"]["historical_ok"]]
        bodies += [samples["typeb"][name] for name in ("historical_ok_docs", "historical_ok_mock", "intraday_ok")]
        for one in bodies:
            rows = read_candles(one["body"]["data"]["candles"])
            assert len(rows) == len(one["body"]["data"]["candles"])
            assert (rows["start_ns"] % (60 * NS) == 0).all()


def test_each_offered_interval_stays_under_the_limit_of_a_request() -> None:
    for interval, days in marketfeed_vendor().candle_days.items():
        per_day = 1 if interval is Interval.D1 else -(-375 * 60 // interval.seconds)
        assert days * per_day <= 1000
