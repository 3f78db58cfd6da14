"""Official Noren clients, each in an environment of its own, as clients of the sandbox."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from marketfeed_flattrade.parser import FlattradeParser
from official import environment, run_driver

from marketfeed.clock import NS, to_ns
from marketfeed.contract import Frame
from marketfeed.instruments import TokenMap
from marketfeed.sandbox import Sandbox, totp

pytestmark = [pytest.mark.oracle, pytest.mark.process]

DRIVER = Path(__file__).with_name("official_noren.py")
START = "2026-11-20 10:00:00"
CLIENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "old": ("NorenRestApiPy==0.0.22", {}),
    # It opens its callback on `ck` only, though it sends `a` (protocol notes): hence the option.
    "new": ("NorenRestApi==0.0.37", {"ack": "ck"}),
}


def request_code(box: Sandbox) -> str:
    """What the login page hands to the redirect URL."""
    form = {"user_id": "TEST01", "password": "test-pass-1", "totp": totp("JBSWY3DPEHPK3PXP", int(time.time()))}
    answer = requests.post(f"{box.url}/?app_key=testkey", data=form, allow_redirects=False, timeout=10)
    return parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]


@pytest.fixture(scope="module", params=list(CLIENTS))
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The sandbox after the client has been there, and what it saw."""
    package, options = CLIENTS[request.param]
    python = environment(f"noren-{request.param}", package, "requests", "websocket-client", "PyYAML")
    with Sandbox("flattrade", access_token=None, log=True, ticks_per_second=400.0, start=START, **options) as box:
        keys = [box.broker.token(line) for line in range(3, 53)]
        task = {
            "host": f"{box.url}/PiConnectAPI/",
            "websocket": box.url.replace("http", "ws") + "/PiConnectWSAPI/",
            "control": box.url,
            "password": "test-pass-1",
            "secret": "testsecret",
            "totp": totp("JBSWY3DPEHPK3PXP", int(time.time())),
            "key": "testkey",
            "code": request_code(box) if request.param == "new" else None,
            "from": to_ns("2026-11-19 00:00:00") / NS,
            "to": to_ns("2026-11-19 23:59:00") / NS,
            "touchline": keys[:25],
            "depth": keys[25:],
            "messages": 500,
            "seconds": 30,
        }
        yield box, run_driver(python, DRIVER, tmp_path_factory.mktemp("noren"), task)


def test_it_logs_in_with_a_totp_or_a_code_of_the_page_and_opens_the_socket(session: Any) -> None:
    _, seen = session
    assert seen["wrong"] is None
    assert seen["login"]["uid"] == "TEST01"
    assert (seen["opened"], seen["errors"]) == (True, [])


def test_it_reads_quotes_and_candles(session: Any) -> None:
    _, seen = session
    assert seen["search"]["values"][0]["tsym"] == "RELIANCE-EQ"
    assert (seen["quote"]["stat"], seen["quote"]["token"]) == ("Ok", "2885")
    assert len(seen["minutes"]) == 375
    assert len(seen["days"]) == 1


def test_it_sees_every_message_in_the_order_of_the_log(session: Any) -> None:
    box, seen = session
    messages = seen["messages"]
    assert {one["t"] for one in messages} == {"tk", "tf", "dk", "df"}
    sent = [(box.broker.token(int(row["instrument"])), row) for frame in box.log for row in frame.rows]
    assert [f"{one['e']}|{one['tk']}" for one in messages] == [token for token, _ in sent[: len(messages)]]


def test_what_it_merges_and_what_our_parser_reads_is_what_was_sent(session: Any) -> None:
    """The client hands the messages on; merging is a dictionary update in its own example."""
    box, seen = session
    rows = [row for frame in box.log for row in frame.rows]
    parse = FlattradeParser(TokenMap({box.broker.token(line): line for line in range(len(box.instruments))}))
    merged: dict[str, dict[str, str]] = {}
    for message, made in zip(seen["messages"], rows, strict=False):
        state = merged.setdefault(f"{message['e']}|{message['tk']}", {})
        state.update(message)
        (ours,) = parse([Frame(json.dumps(message).encode(), 1)]).rows
        assert float(state["lp"]) == pytest.approx(made["last_price"]) == ours["last_price"]
        assert int(state["v"]) == made["volume"] == ours["volume"]
        assert int(state["bq1"]) == made["bid_quantity"][0] == ours["bid_quantity"][0]
        if message["t"].startswith("d"):
            assert float(state["sp5"]) == pytest.approx(made["ask_price"][4]) == ours["ask_price"][4]
            assert int(state["bo3"]) == made["bid_orders"][2] == ours["bid_orders"][2]


def test_it_gets_order_updates(session: Any) -> None:
    _, seen = session
    assert seen["ordered"]
    assert seen["orders"][0]["norenordno"]
