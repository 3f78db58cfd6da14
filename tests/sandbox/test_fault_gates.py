"""Faults of requests against the real server: refused upgrades, dead tokens, spoilt HTTP answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import requests
import websocket

from marketfeed.sandbox import Sandbox

Connect = Callable[[Sandbox], Any]
Play = Callable[..., AbstractContextManager[Sandbox]]


def get(box: Sandbox, path: str, **options: Any) -> requests.Response:
    with requests.Session() as session:
        return session.get(box.url + path, timeout=10, **options)


def post(box: Sandbox, path: str, body: Any = None) -> requests.Response:
    with requests.Session() as session:
        return session.post(box.url + path, data=json.dumps(body) if body is not None else None, timeout=10)


def refusal(connect: Connect, box: Sandbox) -> int | None:
    """The status with which a new connection is refused; None = it is accepted."""
    try:
        connect(box)
    except websocket.WebSocketBadStatusException as error:
        return int(error.status_code)
    return None


@pytest.mark.parametrize("status", [400, 403, 429, 502])
def test_upgrades_are_refused_a_number_of_times(play: Play, connect: Connect, status: int) -> None:
    with play() as box:
        box.fault("refuse", status=status, attempts=2)
        assert [refusal(connect, box) for _ in range(3)] == [status, status, None]
        (record,) = box.injected
        assert record.end_ns is not None
        assert record.connection is None


def test_upgrades_are_refused_for_a_while(play: Play, connect: Connect) -> None:
    with play(connection_limit=0) as box:
        box.fault("refuse", status=429, seconds=0.3)
        assert refusal(connect, box) == 429
        time.sleep(0.5)
        assert refusal(connect, box) is None


def test_a_refusal_without_a_number_or_a_time_is_one(play: Play, connect: Connect) -> None:
    with play() as box:
        box.fault("refuse")
        assert [refusal(connect, box), refusal(connect, box)] == [403, None]


def test_tokens_expire_at_a_moment_and_may_take_the_connections_along(play: Play, connect: Connect) -> None:
    with play() as box:
        client = connect(box)
        client.read()
        box.fault("expire")
        client.send("+1")
        assert client.read() == "ok +1", "open connections stay"
        assert refusal(connect, box) == 403
        box.fault("expire", cut=True)
        client.read()
        with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
            client.read()
        assert [one.kind for one in box.injected] == ["expire", "expire"]


def test_a_gateways_page_takes_the_place_of_an_answer(play: Play) -> None:
    with play() as box:
        box.fault("http-error", path="/quote", attempts=1)
        assert get(box, "/other").status_code == 200
        answer = get(box, "/quote/ltp")
        assert answer.status_code == 502
        assert answer.headers["Content-Type"] == "text/html"
        assert "<h1>502 Bad Gateway</h1>" in answer.text
        assert get(box, "/quote/ltp").status_code == 200


def test_too_many_requests_may_say_when_to_come_back(play: Play) -> None:
    with play() as box:
        box.fault("http-error", status=429, retry_after_s=1.5)
        answer = get(box, "/any")
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1.5"


def test_answers_may_be_slow(play: Play) -> None:
    with play() as box:
        box.fault("http-slow", delay_s=0.4)
        began = time.monotonic()
        assert get(box, "/any").status_code == 200
        assert time.monotonic() - began >= 0.4
        box.fault("http-slow", delay_s=30)
        with pytest.raises(requests.Timeout), requests.Session() as session:
            session.get(box.url + "/any", timeout=0.2)


def test_answers_may_break_off(play: Play) -> None:
    with play() as box:
        box.fault("http-short", keep=0.5)
        with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
            get(box, "/any")
        assert get(box, "/any").status_code == 200


def test_control_requests_are_never_spoilt(play: Play) -> None:
    with play() as box:
        box.fault("http-error", seconds=60)
        assert get(box, "/any").status_code == 502
        assert get(box, "/sandbox/clock").status_code == 200


# --- over HTTP --------------------------------------------------------------------------------


def test_faults_are_injected_and_listed_over_http(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=500, start="2026-11-20 11:30:00", fault=["drop@1h"]) as box:
        client = connect(box)
        client.send("+1")
        client.ticks(2)
        answer = post(box, "/sandbox/fault", {"kind": "mute", "seconds": 0.2}).json()
        assert (answer["kind"], answer["connections"], answer["end_ns"]) == ("mute", [1], None)
        assert abs(answer["start_ns"] - box.world.now_ns()) < 5e9, "in the sandbox's time"
        assert post(box, "/sandbox/fault", {"fault": "no-pong for 60s"}).json()["parameters"] == {"seconds": 60.0}
        client.ticks(2)
        listed = get(box, "/sandbox/faults").json()
        assert listed["planned"] == ["drop@1h"]
        mute, pong = listed["injected"]
        assert 0.2e9 <= mute["end_ns"] - mute["start_ns"] < 5e9
        assert pong["end_ns"] is None
        kinds = {one["kind"]: one for one in listed["kinds"]}
        assert kinds["close"]["parameters"]["code"] == {"default": 1001, "means": "the closing code"}
        assert "seconds" not in kinds["drop"]["parameters"]
        assert post(box, "/sandbox/clear?kind=mute").json() == {"cleared": 0}
        assert post(box, "/sandbox/clear").json() == {"cleared": 1}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "wobble"}, "unknown fault 'wobble'; choose from drop, close"),
        ({"kind": "mute", "second": 3}, "fault 'mute' has no parameter second; choose from seconds, connection"),
        ({"kind": "refuse", "status": 200}, "fault 'refuse': status = 200 must be an HTTP status"),
        ({"kind": "drop", "connection": 9}, "fault 'drop': connection 9 is not open; open: none"),
        ([1], "the body must be a JSON object"),
    ],
)
def test_a_wrong_fault_is_refused_in_words(play: Play, body: Any, message: str) -> None:
    with play() as box:
        answer = post(box, "/sandbox/fault", body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
