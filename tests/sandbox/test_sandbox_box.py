"""The server that knows no vendor: life and death, connections, pace, faults' seam, log, replay."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import requests
import websocket
from waiting import until

from marketfeed.clock import to_ns
from marketfeed.dtypes import empty_ticks
from marketfeed.sandbox import MAX_SPEED, Sandbox

TICKS = """symbol,timestamp,ltp,volume
SBIN,2021-04-16 09:15:04,343.25,120050
SBIN,1970-01-01 05:30:00,343.3,120060
SBIN,2021-04-16 09:15:06,343.2,120100
SBIN,2021-04-16 09:15:06,343.2,120100
INFY,2021-04-16 09:15:05,1400.1,80
"""


class Client(Protocol):
    def send(self, text: str) -> None: ...
    def read(self) -> Any: ...
    def ticks(self, count: int) -> list[list[float]]: ...
    def close(self) -> None: ...


Connect = Callable[[Sandbox], Client]
Play = Callable[..., AbstractContextManager[Sandbox]]


def get(box: Sandbox, path: str) -> Any:
    with requests.Session() as session:
        return session.get(box.url + path, timeout=10)


def post(box: Sandbox, path: str, body: bytes = b"") -> Any:
    with requests.Session() as session:
        return session.post(box.url + path, data=body, timeout=10)


# --- life -------------------------------------------------------------------------------------


def test_nothing_is_left_after_stop(play: Play, connect: Connect) -> None:
    before = set(threading.enumerate())
    with play(ticks_per_second=100) as box:
        client, port = connect(box), box.port
        client.send("+1 2 3")
        client.ticks(5)
    assert set(threading.enumerate()) == before
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        pass
    with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
        client.ticks(1_000_000)


def test_it_can_be_started_and_stopped_many_times(play: Play) -> None:
    for _ in range(10):
        with play() as box:
            assert get(box, "/any").status_code == 200


def test_two_run_side_by_side(play: Play) -> None:
    with play() as one, play() as two:
        assert one.port != two.port
        assert get(one, "/a").json()["path"] == get(two, "/a").json()["path"] == "/a"


def test_a_port_that_is_taken_is_an_error_and_leaves_no_thread(play: Play) -> None:
    with play() as box:
        before = threading.active_count()
        with pytest.raises(OSError), play(port=box.port):
            pass
        assert threading.active_count() == before


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="tick_rate"):
        Sandbox("kite", tick_rate=5)


def test_it_listens_on_loopback_only(play: Play) -> None:
    with play() as box:
        assert box.url.startswith("http://127.0.0.1:")


# --- HTTP -------------------------------------------------------------------------------------


def test_requests_reach_the_broker_as_they_were_sent(play: Play) -> None:
    with play() as box, requests.Session() as session:
        answer = session.post(box.url + "/a//b?i=NSE:M%26M&i=2", data="jData={}", timeout=10)
    assert answer.json() == {"path": "/a//b", "query": [["i", "NSE:M&M"], ["i", "2"]], "body": "jData={}"}
    assert answer.headers["X-Parrot"] == "yes"


def test_requests_beyond_the_pace_get_the_vendors_refusal(play: Play) -> None:
    with play() as box:
        assert [get(box, "/paced").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        assert get(box, "/free").status_code == 200


def test_the_pace_can_be_switched_off(play: Play) -> None:
    with play(rate_limits=False) as box:
        assert {get(box, "/paced").status_code for _ in range(5)} == {200}


def test_the_clock_starts_when_it_is_told(play: Play) -> None:
    with play(start="2026-11-20 11:30:00") as box:
        clock = get(box, "/sandbox/clock").json()
    assert 0 <= clock["now_ns"] - to_ns("2026-11-20 11:30:00") < 20e9
    assert clock["offset_ns"] == box.clock_offset_ns


def test_control_paths_that_do_not_exist_are_404(play: Play) -> None:
    with play() as box:
        assert get(box, "/sandbox/nothing").status_code == 404
        assert post(box, "/sandbox/rate?ticks_per_second=many").status_code == 400


# --- WebSocket --------------------------------------------------------------------------------


def test_a_subscription_is_answered_by_a_snapshot(play: Play, connect: Connect) -> None:
    with play() as box:
        client = connect(box)
        client.send("+3 4")
        assert client.read() == "hello"
        assert client.read() == "ok +3 4"
        message = client.read()
    assert message["snapshot"]
    assert [line for line, _ in message["ticks"]] == [3, 4]


def test_every_subscribed_instrument_gets_its_turn(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=2000) as box:
        client = connect(box)
        client.send("+" + " ".join(map(str, range(7))))
        client.ticks(7)
        lines = [int(line) for line, _ in client.ticks(140)]
    start = lines[0]
    assert lines == [(start + step) % 7 for step in range(len(lines))]


def test_a_client_gets_only_what_it_asked_for(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=1000) as box:
        one, two = connect(box), connect(box)
        one.send("+1 2")
        two.send("+2 5")
        assert {line for line, _ in one.ticks(50)} == {1, 2}
        assert {line for line, _ in two.ticks(50)} == {2, 5}
        two.send("-5")
        until(lambda: box.counts["ticks"] > 200)
        two.ticks(100)
        assert {line for line, _ in two.ticks(50)} == {2}


def test_the_rate_is_kept_in_total(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=2000, log=True) as box:
        client = connect(box)
        client.send("+" + " ".join(map(str, range(30))))
        client.ticks(4000)
        frames = [frame for frame in box.log if frame.origin == "tick"]
    sent = sum(len(frame.rows) for frame in frames[1:])
    seconds = (frames[-1].at_ns - frames[0].at_ns) / 1e9
    assert 200 < sent / seconds < 2400  # a loaded machine may fall behind, never run ahead


def test_no_packets_beyond_the_limit_share_a_frame(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=3000, packets_per_frame=4) as box:
        client = connect(box)
        client.send("+" + " ".join(map(str, range(10))))
        assert client.read() == "hello"
        assert client.read().startswith("ok")
        sizes = [len(client.read()["ticks"]) for _ in range(100)]
    assert max(sizes) == 4


def test_an_idle_connection_gets_heartbeats(play: Play, connect: Connect) -> None:
    with play(heartbeat_s=0.05) as box:
        client = connect(box)
        assert client.read() == "hello"
        assert [client.read() for _ in range(3)] == [b"beat"] * 3


def test_the_broker_may_refuse_an_upgrade(play: Play, connect: Connect) -> None:
    with play() as box:
        for _ in range(3):
            connect(box)
        with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
            connect(box)
        assert refusal.value.status_code == 429
        assert box.counts["connections_refused"] == 1


def test_the_broker_may_close(play: Play, connect: Connect) -> None:
    with play() as box:
        client = connect(box)
        assert client.read() == "hello"
        client.send("bye")
        assert client.read() in ("", b"")
        until(lambda: not box.hub.peers)


def test_dropping_cuts_without_a_closing_handshake(play: Play, connect: Connect) -> None:
    with play() as box:
        client = connect(box)
        client.read()
        until(lambda: get(box, "/sandbox/state").json()["connections"] != [])
        assert post(box, "/sandbox/drop").json() == {"dropped": 1}
        with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
            client.read()


def test_expiry_refuses_the_next_upgrade(play: Play, connect: Connect) -> None:
    with play() as box:
        connect(box)
        assert post(box, "/sandbox/expire").json() == {"expired": True}
        with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
            connect(box)
        assert refusal.value.status_code == 403


def test_orders_reach_every_client(play: Play, connect: Connect) -> None:
    with play() as box:
        clients = [connect(box), connect(box)]
        for client in clients:
            client.read()
        assert post(box, "/sandbox/order", b'{"order_id": "7"}').json() == {"sent": 2}
        assert [client.read() for client in clients] == [{"order": {"order_id": "7"}}] * 2


def test_pushed_rows_arrive_as_they_are(play: Play, connect: Connect) -> None:
    rows = empty_ticks(3)
    rows["instrument"], rows["last_price"] = [1, 2, 1], [10.5, 20.5, 11.5]
    with play() as box:
        client = connect(box)
        client.send("+1")
        client.ticks(1)
        box.push(rows)
        assert client.ticks(2) == [[1, 10.5], [1, 11.5]]


def test_filters_see_every_message_and_may_change_drop_or_double_it(play: Play, connect: Connect) -> None:
    with play() as box:
        client = connect(box)
        client.read()

        def loud(message: Any) -> Iterable[Any]:
            if isinstance(message.data, str) and message.origin == "reply":
                yield message._replace(data=message.data.upper())
                yield message

        box.add_filter(loud)
        client.send("+1")
        assert [client.read(), client.read()] == ["OK +1", "ok +1"]
        box.order(quantity=1)
        client.send("-1")
        assert client.read() == "OK -1", "the order and the snapshot were dropped"


# --- log --------------------------------------------------------------------------------------


def test_the_log_holds_every_tick_with_its_place_on_the_connection(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=2000, log=True) as box:
        client = connect(box)
        client.send("+" + " ".join(map(str, range(30))))
        arrived = client.ticks(1500)
        sent = np.concatenate([frame.rows[["instrument", "last_price"]] for frame in box.log])
        first = [frame.first_seq for frame in box.log]
        sizes = [len(frame.rows) for frame in box.log]
    assert [list(row) for row in sent.tolist()][: len(arrived)] == arrived
    assert first == [0, *np.cumsum(sizes)[:-1].tolist()]


def test_the_log_file_tells_the_same_and_no_secret(play: Play, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with play(ticks_per_second=500, log=True, log_file=path) as box:
        client = connect(box)
        client.send("+1 2")
        client.ticks(20)
        get(box, "/order?i=5&access_token=hush&API_KEY=hush")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    columns = lines[0]["columns"]
    rows = [dict(zip(columns, row, strict=True)) for line in lines if line["kind"] == "ticks" for row in line["rows"]]
    kept = np.concatenate([frame.rows for frame in box.log])
    assert [row["last_price"] for row in rows] == kept["last_price"].tolist()
    assert [row["token"] for row in rows] == [f"T{line}" for line in kept["instrument"].tolist()]
    requested = [line for line in lines if line["kind"] == "request" and line["path"] == "/order"]
    assert requested[0]["status"] == 200
    assert "i=5" in requested[0]["query"]
    assert "hush" not in path.read_text()


def test_kinds_that_are_not_wanted_are_not_logged(play: Play, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with play(ticks_per_second=500, log_file=path, log_kinds=["requests"]) as box:
        client = connect(box)
        client.send("+1 2")
        client.ticks(20)
        get(box, "/one")
    assert {json.loads(line)["kind"] for line in path.read_text().splitlines()} == {"start", "request"}


# --- replay -----------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "ticks.csv"
    path.write_text(TICKS)
    return path


def lines_of(box: Sandbox, *keys: str) -> str:
    names = [one.key for one in box.instruments]
    return " ".join(str(names.index(key)) for key in keys)


def test_a_replay_sends_every_row_in_file_order_once_somebody_listens(
    play: Play, connect: Connect, recording: Path
) -> None:
    with play(replay=recording, speed=MAX_SPEED) as box:
        client = connect(box)
        client.send("+" + lines_of(box, "NSE:SBIN", "NSE:INFY"))
        prices = [price for _, price in client.ticks(5)]
        assert prices == [343.25, 343.3, 343.2, 343.2, 1400.1]
        until(lambda: get(box, "/sandbox/state").json()["replay"]["sent"] == 5)


def test_the_clock_of_a_fast_replay_is_not_behind_its_rows(play: Play, recording: Path) -> None:
    with play(replay=recording, speed=MAX_SPEED) as box:
        assert box.world.now_ns() >= to_ns("2021-04-16 09:15:06")
    with play(replay=recording) as box:
        assert 0 <= box.world.now_ns() - to_ns("2021-04-16 09:15:04") < 20e9


def test_a_replay_at_a_speed_takes_its_time(play: Play, connect: Connect, recording: Path) -> None:
    with play(replay=recording, speed=4.0, log=True) as box:
        client = connect(box)
        client.send("+" + lines_of(box, "NSE:SBIN", "NSE:INFY"))
        client.ticks(5)
        frames = [frame for frame in box.log if frame.origin == "replay"]
    assert [len(frame.rows) for frame in frames] == [2, 3]
    assert (frames[1].at_ns - frames[0].at_ns) / 1e9 > 0.4  # two recorded seconds


def test_a_replay_can_wait_for_a_command(play: Play, connect: Connect, recording: Path) -> None:
    with play(replay=recording, speed=MAX_SPEED, replay_start="command") as box:
        client = connect(box)
        client.send("+" + lines_of(box, "NSE:SBIN", "NSE:INFY"))
        assert [client.read(), client.read()] == ["hello", "ok +" + lines_of(box, "NSE:SBIN", "NSE:INFY")]
        assert get(box, "/sandbox/state").json()["replay"] == {"rows": 5, "sent": 0, "begun": False}
        assert post(box, "/sandbox/replay").json() == {"begun": True}
        assert len(client.ticks(5)) == 5


def test_a_fast_replay_waits_for_a_slow_reader(play: Play, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    rows = [f"SBIN,2021-04-16 09:15:04,{100 + number % 500 / 10},{number}" for number in range(60_000)]
    path.write_text("\n".join(["symbol,timestamp,ltp,volume", *rows]))
    with play(replay=path, speed=MAX_SPEED) as box:
        client = connect(box)
        client.send("+" + lines_of(box, "NSE:SBIN"))
        time.sleep(0.6)  # the reader sleeps while the replay would be over
        prices = [price for _, price in client.ticks(60_000)]
        assert box.counts["slow_readers"] == 0
    assert prices == [100 + number % 500 / 10 for number in range(60_000)]


def test_symbols_that_the_catalogue_lacks_are_added(play: Play, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("symbol,timestamp,ltp,volume\nOURSHARE,2021-04-16 09:15:04,55.5,1\n")
    with play(replay=path, speed=MAX_SPEED, instruments=5) as box:
        client = connect(box)
        client.send("+" + lines_of(box, "NSE:OURSHARE"))
        assert client.ticks(1) == [[5, 55.5]]
