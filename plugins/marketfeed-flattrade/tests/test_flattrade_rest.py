"""Login, instruments and candles over a real HTTP connection on loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from marketfeed_flattrade.auth import authenticate, session_end_ns
from marketfeed_flattrade.candles import fetch_candles, read_days, read_minutes
from marketfeed_flattrade.instruments import fetch_instruments, read_master
from marketfeed_flattrade.rest import answer, call
from marketfeed_flattrade.settings import FlattradeSettings

from marketfeed.clock import NS, ManualClock, to_ns
from marketfeed.contract import CandleRequest, Session
from marketfeed.enums import Interval, Kind
from marketfeed.errors import AuthError, LineLost, RateLimited, RequestRejected, SessionExpired
from marketfeed.http import HttpSession
from marketfeed.instruments import Instrument
from marketfeed.tokens import MemoryTokenStore
from marketfeed.totp import totp

SECRET = "JBSWY3DPEHPK3PXP"
MORNING = to_ns("2026-08-14T08:00:00")
GOOD = {"user_id": "FT000000", "api_key": "KEY", "api_secret": "SECRET"}
HEADER = "Exchange,Token,Lotsize,Symbol,Tradingsymbol,Instrument,Expiry,Strike,Optiontype\n"


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]
    body: str


class Broker:
    """Prepared answers by path, each list in order, its last one again and again; remembers what it was asked."""

    def __init__(self, url: str, answers: dict[str, list[tuple[int, str]]], asked: list[Asked]) -> None:
        self.url, self.answers, self.asked = url, answers, asked

    def says(self, path: str, *contents: Any, status: int = 200) -> None:
        self.answers[path] = [(status, one if isinstance(one, str) else json.dumps(one)) for one in contents]


@pytest.fixture
def broker() -> Iterator[Broker]:
    answers: dict[str, list[tuple[int, str]]] = {}
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked.append(Asked(self.path, dict(self.headers), body))
            prepared = answers.get(self.path, [(403, "AccessDenied")])
            status, text = prepared.pop(0) if len(prepared) > 1 else prepared[0]
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
    with HttpSession("flattrade", sleep=lambda seconds: None) as session:
        yield session


def settings(broker: Broker, **options: Any) -> FlattradeSettings:
    return FlattradeSettings(login_url=broker.url, rest_url=f"{broker.url}/Pi", **{**GOOD, **options})


def log_in(broker: Broker, http: HttpSession, tokens: MemoryTokenStore | None = None, **options: Any) -> Session:
    return authenticate(settings(broker, **options), tokens or MemoryTokenStore(), http, ManualClock(MORNING))


class TestLogin:
    TOKEN = {"token": "TOKEN", "client": "FT000000", "status": "Ok", "emsg": ""}

    @pytest.mark.parametrize(
        "given",
        ["CODE", " CODE\n", "https://me.example/?code=CODE&client=FT000000", "https://me.example/?request_code=CODE"],
    )
    def test_a_request_code_is_exchanged_with_a_proof_of_the_secret(
        self, broker: Broker, http: HttpSession, given: str
    ) -> None:
        broker.says("/trade/apitoken", self.TOKEN)
        session = log_in(broker, http, request_code=given)
        assert (session.access_token, session.account) == ("TOKEN", "FT000000")
        proof = hashlib.sha256(b"KEYCODESECRET").hexdigest()
        assert json.loads(broker.asked[0].body) == {"api_key": "KEY", "request_code": "CODE", "api_secret": proof}

    def test_a_session_is_kept_until_six_in_the_morning(self, broker: Broker, http: HttpSession) -> None:
        broker.says("/trade/apitoken", self.TOKEN)
        tokens = MemoryTokenStore()
        kept = log_in(broker, http, tokens, request_code="CODE")
        assert log_in(broker, http, tokens) is kept
        with pytest.raises(AuthError, match="login"):
            authenticate(settings(broker), tokens, http, ManualClock(to_ns("2026-08-15T06:00:00")))

    def test_the_end_of_a_session(self) -> None:
        assert session_end_ns(to_ns("2026-08-14T05:59:59")) == to_ns("2026-08-14T06:00:00")
        assert session_end_ns(to_ns("2026-08-14T06:00:00")) == to_ns("2026-08-15T06:00:00")

    def test_without_a_code_the_login_page_is_named(self, broker: Broker, http: HttpSession) -> None:
        with pytest.raises(AuthError, match=r"https://auth\.flattrade\.in/\?app_key=KEY .*FLATTRADE_REQUEST_CODE"):
            log_in(broker, http)

    @pytest.mark.parametrize("missing", ["user_id", "api_key", "api_secret"])
    def test_what_is_missing_is_named(self, broker: Broker, http: HttpSession, missing: str) -> None:
        with pytest.raises(AuthError, match=f"FLATTRADE_{missing.upper()}"):
            log_in(broker, http, **{missing: None})
        assert broker.asked == []

    def test_a_ready_token_leaves_out_the_login(self, broker: Broker, http: HttpSession) -> None:
        assert log_in(broker, http, access_token="ready").access_token == "ready"
        assert broker.asked == []

    def test_a_refusal_says_what_the_broker_said(self, broker: Broker, http: HttpSession) -> None:
        broker.says("/trade/apitoken", {"stat": "Not_Ok", "emsg": "INVALID_REQUEST_CODE", "token": ""})
        with pytest.raises(AuthError, match="INVALID_REQUEST_CODE") as refusal:
            log_in(broker, http, request_code="CODE")
        assert not any(one in str(refusal.value) for one in ("SECRET", "KEY"))

    def test_a_gateway_page_is_a_lost_line(self, broker: Broker, http: HttpSession) -> None:
        broker.says("/trade/apitoken", "<html></html>")
        with pytest.raises(LineLost):
            log_in(broker, http, request_code="CODE")

    def test_the_automatic_login_takes_over_an_existing_session(self, broker: Broker, http: HttpSession) -> None:
        broker.says("/auth/session", "sid-1")
        taken = {"emsg": "", "RedirectURL": "https://me.example/?code=CODE&client=FT000000"}
        broker.says("/ftauth", {"emsg": "DUPLICATE", "RedirectURL": ""}, taken)
        broker.says("/trade/apitoken", self.TOKEN)
        log_in(broker, http, automatic_login=True, password="pw", totp_secret=SECRET)
        sid, first, second, _ = broker.asked
        assert sid.headers["Referer"] == "https://auth.flattrade.in/"
        expected = {
            "UserName": "FT000000",
            "Password": hashlib.sha256(b"pw").hexdigest(),
            "PAN_DOB": totp(SECRET, MORNING // NS),
            "App": "",
            "ClientID": "",
            "Key": "",
            "APIKey": "KEY",
            "Sid": "sid-1",
            "Override": "",
            "Source": "AUTHPAGE",
        }
        assert json.loads(first.body) == expected
        assert json.loads(second.body) == {**expected, "Override": "Y"}

    def test_the_automatic_login_is_off_by_default(self, broker: Broker, http: HttpSession) -> None:
        with pytest.raises(AuthError):
            log_in(broker, http, password="pw", totp_secret=SECRET)
        assert broker.asked == []

    def test_a_refused_automatic_login_is_final(self, broker: Broker, http: HttpSession) -> None:
        broker.says("/auth/session", "sid-1")
        broker.says("/ftauth", {"emsg": "Invalid Input : Wrong Password", "RedirectURL": ""})
        with pytest.raises(AuthError, match="Wrong Password"):
            log_in(broker, http, automatic_login=True, password="pw", totp_secret=SECRET)
        assert len(broker.asked) == 2


SESSION = Session(vendor="flattrade", account="FT000000", access_token="tok")


class TestCalls:
    def test_the_body_is_literal_and_hides_ampersands(self, broker: Broker, http: HttpSession) -> None:
        broker.says("/Pi/GetQuotes", {"stat": "Ok"})
        call(http, settings(broker), SESSION, "GetQuotes", {"sym": "NSE:M&M-EQ"})
        assert broker.asked[0].body == 'jData={"uid":"FT000000","sym":"NSE:M\\u0026M-EQ"}&jKey=tok'

    def test_refusals_are_told_by_their_text(self, shared: Path) -> None:
        kinds = {"auth": SessionExpired, "rate_limit": RateLimited, "request": RequestRejected, "transient": LineLost}
        for path in sorted((shared / "fixtures/flattrade/rest").glob("err_*.json")):
            one = json.loads(path.read_text())
            kind = one["expect"]["class"]
            if kind == "empty":
                assert answer(one["status"], one["body"].encode(), "x") == []
            else:
                with pytest.raises(kinds[kind]):
                    answer(one["status"], one["body"].encode(), "x")


class TestInstruments:
    CASH = HEADER + "NSE,1594,1,INFY,INFY-EQ,EQ,,,\nNSE,26000,1,Nifty 50,Nifty 50,INDEX,,,\nNSE,x,1,A,A,EQ,,,\n"
    OPTIONS = HEADER + "NFO,800002,65,NIFTY,NIFTY27OCT26C25000,OPTIDX,27-OCT-2026,25000.00,CE\n"

    def test_rows_are_read_under_the_names_that_users_write(self) -> None:
        share, index = read_master(self.CASH)
        assert (share.key, share.token, share.series, share.trading_symbol) == (
            *("NSE:INFY", "NSE|1594", "EQ", "INFY-EQ"),
        )
        assert (index.key, index.kind) == ("NSE:NIFTY 50", Kind.INDEX)
        (option,) = read_master(self.OPTIONS)
        assert (option.kind, option.strike, option.lot_size) == (Kind.CALL, 25_000, 65)
        assert option.expiry == date(2026, 10, 27)

    def test_a_master_that_is_missing_on_a_day_is_left_out(self, broker: Broker, http: HttpSession) -> None:
        broker.says("/Pi/scripmaster/NSE_Equity.csv", self.CASH)
        broker.says("/Pi/scripmaster/Nfo_Index_Derivatives.csv", self.OPTIONS)
        broker.says("/Pi/scripmaster/Commodity.csv", "")
        table = fetch_instruments(settings(broker), http)
        assert [one.key for one in table] == ["NSE:INFY", "NSE:NIFTY 50", "NFO:NIFTY26OCT25000CE"]

    def test_no_master_at_all_is_an_error(self, broker: Broker, http: HttpSession) -> None:
        with pytest.raises(RequestRejected):
            fetch_instruments(settings(broker), http)

    def test_recorded_masters_are_read(self, shared: Path) -> None:
        folder = shared / "fixtures/flattrade/rest"
        for path in folder.glob("scrip_master_*.csv"):
            text = path.read_text()
            assert len(read_master(text)) == len(text.splitlines()) - 1


INFY = Instrument(exchange="NSE", symbol="INFY", token="NSE|1594", exchange_token="1594", trading_symbol="INFY-EQ")


def bar(time: str, price: float = 1.0, **changes: str) -> dict[str, str]:
    prices = dict.fromkeys(("into", "inth", "intl", "intc"), f"{price:.2f}")
    return {"stat": "Ok", "time": time, **prices, "intv": "7", "oi": "9", **changes}


class TestCandles:
    def test_minutes_are_asked_by_token_and_sorted(self, broker: Broker, http: HttpSession) -> None:
        bars = [bar("14-08-2026 09:20:00", 3), bar("14-08-2026 09:16:23", 2), bar("14/08/2026 09:15:00")]
        broker.says("/Pi/TPSeries", bars)
        start, end = to_ns("2026-08-14T09:15:00"), to_ns("2026-08-14T09:20:00")
        request = CandleRequest(instrument=INFY, interval=Interval.M1, start_ns=start, end_ns=end)
        batch = fetch_candles(settings(broker), SESSION, http, request)
        assert batch["start_ns"].tolist() == [start, start + 60 * NS]
        assert batch["open"].tolist() == [1, 2]
        assert batch["open_interest"].tolist() == [-1, -1]
        data = json.loads(broker.asked[0].body.removeprefix("jData=").partition("&jKey=")[0])
        window = {"st": str(start // NS), "et": str(end // NS - 1)}
        assert data == {"uid": "FT000000", "exch": "NSE", "token": "1594", "intrv": "1", **window}

    def test_days_are_asked_by_the_vendors_symbol_and_begin_at_midnight_in_india(
        self, broker: Broker, http: HttpSession
    ) -> None:
        texts = [json.dumps(bar("x", ssboe=str(to_ns(day) // NS + 19_800))) for day in ("2026-09-01", "2026-08-31")]
        broker.says("/Pi/EODChartData", texts)
        start, end = to_ns("2026-08-31"), to_ns("2026-09-01")
        request = CandleRequest(instrument=INFY, interval=Interval.D1, start_ns=start, end_ns=end)
        batch = fetch_candles(settings(broker), SESSION, http, request)
        assert batch["start_ns"].tolist() == [start]
        data = json.loads(broker.asked[0].body.removeprefix("jData=").partition("&jKey=")[0])
        assert data["sym"] == "NSE:INFY-EQ"
        assert int(data["from"]) <= start // NS + 19_800 <= int(data["to"])

    def test_no_data_is_an_empty_batch(self, broker: Broker, http: HttpSession) -> None:
        broker.says("/Pi/TPSeries", {"stat": "Not_Ok", "emsg": 'Error Occurred : 5 "no data"'})
        request = CandleRequest(instrument=INFY, interval=Interval.M5, start_ns=0, end_ns=NS)
        assert len(fetch_candles(settings(broker), SESSION, http, request)) == 0

    def test_placeholders_and_broken_bars_are_left_out(self) -> None:
        bars = [bar("14-08-2026 09:17:00", 0), bar("14-08-2026 09:16:00", intl="0.00"), bar("14-08-2026 09:15:00")]
        assert read_minutes(bars)["start_ns"].tolist() == [to_ns("2026-08-14T09:15:00")]

    @pytest.mark.parametrize("odd", ["x", {}, [5], [{}], [bar("yesterday")], [bar("14-08-2026 09:15:00", into="NA")]])
    def test_odd_candles_are_refused(self, odd: Any) -> None:
        with pytest.raises(RequestRejected):
            read_minutes(odd)
        with pytest.raises(RequestRejected):
            read_days(odd)

    @pytest.mark.parametrize("name", ["tpseries_doc_sample", "tpseries_made_1min", "eod_recorded_two_days"])
    def test_recorded_answers_are_read_as_expected(self, shared: Path, name: str) -> None:
        one = json.loads((shared / f"fixtures/flattrade/rest/{name}.json").read_text())
        daily = name.startswith("eod")
        content = answer(one["status"], one["body"].encode(), name)
        rows = read_days(content) if daily else read_minutes(content)
        good = [bar for bar in one["expect"]["all"] if min(bar["open"], bar["low"]) > 0]
        starts = [to_ns(bar["date"]) if daily else bar["time_utc"] // 60 * 60 * NS for bar in good]
        assert rows["start_ns"].tolist() == starts
        for column in ("open", "high", "low", "close", "volume"):
            assert rows[column].tolist() == [bar[column] for bar in good]
