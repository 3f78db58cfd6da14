"""The HTTP session against a real server on this machine, and its pacing against a clock of our own."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import certifi
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.clock import Clock
from marketfeed.contract import RateLimit
from marketfeed.errors import LineLost, MarketFeedError, RateLimited, RequestRejected
from marketfeed.http import HttpSession
from marketfeed.http.pacing import Pacer, slack_s
from marketfeed.http.session import endpoint_of

Answer = tuple[int, dict[str, str], bytes]
TOKEN = "s3cret-token"


class Broker:
    """A web server whose answers a test scripts, path by path."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer | float]] = {}
        self.requests: list[BaseHTTPRequestHandler] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def script(self, path: str, *answers: Answer | float) -> None:
        """Answers in order, the last one for ever; a number of seconds is silence and no answer."""
        self.answers[path] = list(answers)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler)
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        script = self.answers[urlsplit(handler.path).path]
        now = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(now, float | int):
            time.sleep(now)
            handler.close_connection = True
            return
        status, headers, body = now
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def broker() -> Iterator[Broker]:
    server = Broker()
    yield server
    server.close()


Calls = list[tuple[str, str, int]]


@pytest.fixture
def calls() -> Calls:
    return []


@pytest.fixture
def http(calls: Calls) -> Iterator[HttpSession]:
    def note(vendor: str, endpoint: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        calls.append((vendor, endpoint, status))

    with HttpSession("acme", sleep=lambda _: None, on_call=note, read_timeout_s=0.3) as session:
        yield session


OK: Answer = (200, {}, b'{"ok": true}')


def test_an_answer_is_handed_over_and_counted_without_its_query(
    broker: Broker, http: HttpSession, calls: Calls
) -> None:
    broker.script("/instruments/historical/5633/minute", OK)
    url = f"{broker.url}/instruments/historical/5633/minute?access_token={TOKEN}"
    assert http.get(url, params={"oi": 1}).json() == {"ok": True}
    assert broker.requests[0].path.endswith(f"?access_token={TOKEN}&oi=1")
    assert broker.requests[0].headers["User-Agent"].startswith("marketfeed/")
    assert calls == [("acme", "/instruments/historical/{}/minute", 200)]


def test_other_statuses_and_html_are_the_callers_to_judge(broker: Broker, http: HttpSession) -> None:
    broker.script("/x", (403, {"Content-Type": "text/html"}, b"<html>no</html>"))
    answer = http.get(f"{broker.url}/x")
    assert (answer.status_code, answer.text) == (403, "<html>no</html>")
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_429_says_how_long_to_wait(broker: Broker, http: HttpSession, calls: Calls) -> None:
    broker.script("/x", (429, {"Retry-After": "7"}, b""))
    with pytest.raises(RateLimited, match="acme: GET /x answered 429; wait 7 s") as caught:
        http.get(f"{broker.url}/x")
    assert caught.value.retry_after_s == 7
    assert len(calls) == 1, "waiting is the caller's business"


@pytest.mark.parametrize(("header", "seconds"), [("", 1), ("soon", 1), ("nan", 1), ("-5", 0), ("1e9", 3600)])
def test_an_odd_retry_after_is_made_sensible(broker: Broker, http: HttpSession, header: str, seconds: float) -> None:
    broker.script("/x", (429, {"Retry-After": header}, b""))
    with pytest.raises(RateLimited) as caught:
        http.post(f"{broker.url}/x")
    assert caught.value.retry_after_s == seconds


def test_a_retry_after_may_be_a_date(broker: Broker) -> None:
    class Noon(Clock):
        def wall_ns(self) -> int:
            return 1_700_000_000 * 10**9

    broker.script("/x", (429, {"Retry-After": "Tue, 14 Nov 2023 22:13:40 GMT"}, b""))
    with HttpSession("acme", clock=Noon()) as http, pytest.raises(RateLimited) as caught:
        http.get(f"{broker.url}/x")
    assert caught.value.retry_after_s == 20


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_get_is_tried_again_when_a_gateway_answers(
    broker: Broker, http: HttpSession, calls: Calls, status: int
) -> None:
    broker.script("/x", (status, {}, b""), (status, {}, b""), OK)
    assert http.get(f"{broker.url}/x").json() == {"ok": True}
    assert [one[2] for one in calls] == [status, status, 200]


def test_a_get_is_tried_three_times_and_no_more(broker: Broker, http: HttpSession, calls: Calls) -> None:
    broker.script("/x", (503, {}, b""))
    with pytest.raises(LineLost, match="acme: GET /x answered 503: the broker's servers are not available"):
        http.get(f"{broker.url}/x")
    assert len(calls) == 3


def test_a_post_is_never_repeated(broker: Broker, http: HttpSession) -> None:
    broker.script("/login", (502, {}, b""), OK)
    with pytest.raises(LineLost):
        http.post(f"{broker.url}/login", data={"password": TOKEN})
    assert len(broker.requests) == 1


def test_a_pause_lies_between_the_tries(broker: Broker) -> None:
    pauses: list[float] = []
    broker.script("/x", (502, {}, b""), (502, {}, b""), OK)
    with HttpSession("acme", sleep=pauses.append) as http:
        http.get(f"{broker.url}/x")
    assert len(pauses) == 2
    assert all(0 <= pause <= 5 for pause in pauses)


def test_silence_is_a_lost_line(broker: Broker, http: HttpSession, calls: Calls) -> None:
    broker.script("/slow", 0.6)
    with pytest.raises(LineLost, match=r"POST 127\.0\.0\.1/slow got no answer: the answer took too long"):
        http.post(f"{broker.url}/slow")
    assert calls == [("acme", "/slow", 0)]


def test_a_hung_up_connection_is_a_lost_line(broker: Broker, http: HttpSession) -> None:
    broker.script("/x", 0.0)
    with pytest.raises(LineLost, match="got no answer"):
        http.get(f"{broker.url}/x")
    assert len(broker.requests) == 3


def test_a_closed_port_is_a_lost_line(http: HttpSession) -> None:
    with pytest.raises(LineLost, match="got no answer: Connection refused"):
        http.get("http://127.0.0.1:9/x")


# --- secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x?access_token={}", "https://127.0.0.1:9/{}-1234?t={}"])
def test_no_error_shows_the_query_or_an_id_even_in_its_traceback(http: HttpSession, url: str) -> None:
    with pytest.raises(LineLost) as caught:
        http.get(url.format(TOKEN, TOKEN), headers={"Authorization": TOKEN})
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_raise_for_status_does_not_show_the_query(broker: Broker, http: HttpSession) -> None:
    broker.script("/x", (400, {}, b""))
    with pytest.raises(RequestRejected, match=r"^127\.0\.0\.1/x answered 400") as caught:
        http.get(f"{broker.url}/x?access_token={TOKEN}").raise_for_status()
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/y", "http://example.com/x", "https://"])
def test_a_request_that_cannot_or_must_not_be_sent_is_rejected(http: HttpSession, url: str) -> None:
    with pytest.raises(RequestRejected):
        http.get(url)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/", "/"),
        ("/quote/ltp", "/quote/ltp"),
        ("/instruments/historical/5633/day", "/instruments/historical/{}/day"),
        ("/openapi/typeb/connect/login", "/openapi/typeb/connect/login"),
        ("/v2/historical-candle/NSE_EQ%7CINE848E01016/1minute", "/v2/historical-candle/{}/1minute"),
        ("/session/aBcDeFgHiJkLmNoPqRsTuVwXyZab", "/session/{}"),
        ("/user/AB1234", "/user/{}"),
    ],
)
def test_a_path_becomes_a_template(path: str, endpoint: str) -> None:
    assert endpoint_of(path) == endpoint


# --- redirects, TLS, proxies --------------------------------------------------------------------


def test_a_redirect_on_the_same_host_keeps_the_headers(broker: Broker, http: HttpSession) -> None:
    broker.script("/old", (302, {"Location": "/new"}, b""))
    broker.script("/new", OK)
    assert http.get(f"{broker.url}/old", headers={"X-Key": TOKEN}).json() == {"ok": True}
    assert broker.requests[1].headers["X-Key"] == TOKEN


def test_a_redirect_elsewhere_gets_no_secret(broker: Broker, http: HttpSession) -> None:
    other = Broker()
    try:
        broker.script("/old", (302, {"Location": f"{other.url}/new"}, b""))
        other.script("/new", OK)
        http.get(f"{broker.url}/old", headers={"X-Key": TOKEN, "Authorization": TOKEN, "Cookie": TOKEN})
        assert TOKEN not in str(other.requests[0].headers)
    finally:
        other.close()


def test_a_post_is_not_sent_on_to_another_host(broker: Broker, http: HttpSession) -> None:
    broker.script("/login", (307, {"Location": "https://elsewhere.test/"}, b""))
    with pytest.raises(RequestRejected, match=r"redirects a POST to elsewhere\.test; not followed"):
        http.post(f"{broker.url}/login", data={"password": TOKEN})


def test_a_redirect_to_plain_http_is_not_followed_but_can_be_read(broker: Broker, http: HttpSession) -> None:
    broker.script("/login", (302, {"Location": "http://app.test/done?request_token=abc"}, b""))
    with pytest.raises(RequestRejected, match=r"redirects to plain http"):
        http.get(f"{broker.url}/login")
    answer = http.get(f"{broker.url}/login", allow_redirects=False)
    assert answer.headers["Location"].endswith("request_token=abc")


def test_endless_redirects_end(broker: Broker, http: HttpSession) -> None:
    broker.script("/a", (302, {"Location": "/a"}, b""))
    with pytest.raises(RequestRejected, match="TooManyRedirects"):
        http.get(f"{broker.url}/a")


def test_verification_cannot_be_switched_off(
    broker: Broker, http: HttpSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    sent: list[Any] = []
    send = requests.adapters.HTTPAdapter.send

    def spy(self: Any, request: Any, **options: Any) -> Any:
        sent.append(options["verify"])
        return send(self, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", spy)
    broker.script("/x", OK)
    http.session.verify = False
    http.session.get(f"{broker.url}/x", verify=False)
    http.session.send(http.session.prepare_request(requests.Request("GET", f"{broker.url}/x")), verify=False)
    assert sent == [True, True]
    assert http.session.verify is True
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    http.session.get(f"{broker.url}/x", verify=False)
    assert sent[2] == certifi.where(), "own authorities are named in the usual way"


def test_loopback_is_never_proxied_and_the_rest_is(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    broker.script("/x", OK)
    with HttpSession("acme", proxy="http://127.0.0.1:9", sleep=lambda _: None) as http:
        assert http.get(f"{broker.url}/x").status_code == 200
        with pytest.raises(LineLost):
            http.get("https://example.com/")


def test_a_vendor_sdk_gets_the_same_session(broker: Broker, http: HttpSession, calls: Calls) -> None:
    broker.script("/user/profile", OK, (429, {}, b""))
    arguments: dict[str, Any] = {  # as kiteconnect calls it
        "json": None, "data": None, "params": {"a": 1}, "headers": {"Authorization": f"token k:{TOKEN}"},
        "verify": False, "allow_redirects": True, "timeout": 7, "proxies": {},
    }  # fmt: skip
    answer = http.session.request("GET", f"{broker.url}/user/profile", **arguments)
    assert answer.json() == {"ok": True}
    assert broker.requests[0].headers["Authorization"] == f"token k:{TOKEN}"
    with pytest.raises(RateLimited):
        http.session.request("GET", f"{broker.url}/user/profile", **arguments)
    assert [one[2] for one in calls] == [200, 429]


def test_a_netrc_entry_does_not_replace_the_brokers_header(
    broker: Broker, http: HttpSession, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password wrong\n")
    monkeypatch.setenv("NETRC", str(netrc))
    broker.script("/x", OK)
    http.get(f"{broker.url}/x", headers={"Authorization": "token right"})
    assert broker.requests[0].headers["Authorization"] == "token right"


# --- pacing -------------------------------------------------------------------------------------


class FastClock(Clock):
    """Waiting moves it on at once."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        self.now += timeout_s or 0.0
        return event.is_set()


@given(
    limits=st.lists(
        st.builds(
            RateLimit,
            prefix=st.sampled_from(["/", "/a", "/a/b", ("/a/b", "/c")]),
            calls=st.integers(1, 4),
            per_s=st.sampled_from([0.1, 0.3, 1.0, 60.0]),
        ),
        min_size=1,
        max_size=3,
    ),
    steps=st.lists(st.tuples(st.sampled_from(["/a", "/a/b", "/c"]), st.floats(0, 2)), min_size=1, max_size=30),
)
def test_no_window_ever_holds_more_calls_than_allowed(limits: list[RateLimit], steps: list[tuple[str, float]]) -> None:
    clock = FastClock()

    def wait(seconds: float) -> None:
        clock.now += seconds

    pacer = Pacer(tuple(limits), clock, wait)
    made: list[tuple[float, str]] = []
    for path, pause in steps:
        clock.now += pause
        pacer.take(path)
        made.append((clock.now, path))
    for limit in limits:
        times = [at for at, path in made if path.startswith(limit.prefix)]
        for first, last in zip(times, times[limit.calls :], strict=False):
            assert last >= first + limit.per_s


def test_threads_share_the_limit(broker: Broker) -> None:
    arrived: list[float] = []
    broker.script("/x", OK)

    def note(*_: object) -> None:
        arrived.append(time.monotonic())

    with HttpSession("acme", [RateLimit("/", 3, 0.2)], on_call=note) as http:
        turns: list[float] = []
        take: Callable[[str], None] = http._pacer.take

        def taken(path: str) -> None:
            take(path)
            turns.append(time.monotonic())

        http._pacer.take = taken  # type: ignore[method-assign]
        threads = [threading.Thread(target=http.get, args=(f"{broker.url}/x",)) for _ in range(7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(arrived) == 7
    turns.sort()
    assert turns[-1] - turns[0] >= 0.39, "seven calls at three in 0.2 s take two windows"


def test_limits_hold_for_their_paths_only(broker: Broker) -> None:
    clock = FastClock()
    broker.script("/quote", OK)
    broker.script("/other", OK)
    with HttpSession("acme", [RateLimit("/quote", 1, 1.0)], clock=clock) as http:
        for _ in range(3):
            http.get(f"{broker.url}/other")
        assert clock.now == 100.0
        http.get(f"{broker.url}/quote")
        http.get(f"{broker.url}/quote")
        assert clock.now == pytest.approx(101.0 + slack_s(1.0))


def test_closing_wakes_whoever_waits_for_a_turn(broker: Broker) -> None:
    broker.script("/x", OK)
    http = HttpSession("acme", [RateLimit("/", 1, 3600.0)])
    http.get(f"{broker.url}/x")
    failed: list[MarketFeedError] = []

    def call() -> None:
        try:
            http.get(f"{broker.url}/x")
        except MarketFeedError as error:
            failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    http.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [str(one) for one in failed] == ["acme: the HTTP session was closed"]
