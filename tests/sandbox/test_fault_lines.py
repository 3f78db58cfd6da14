"""Faults of the line against the real server: what a client sees, and what the log says was sent."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import pytest
import requests
import websocket
from waiting import until

from marketfeed.sandbox import Sandbox, SentFrame


class Client(Protocol):
    socket: Any

    def send(self, text: str) -> None: ...
    def read(self) -> Any: ...
    def ticks(self, count: int) -> list[list[float]]: ...
    def close(self) -> None: ...


Connect = Callable[[Sandbox], Client]
Play = Callable[..., AbstractContextManager[Sandbox]]
ENDED = (websocket.WebSocketConnectionClosedException, ConnectionError)


def post(box: Sandbox, path: str, body: Any = None) -> Any:
    with requests.Session() as session:
        return session.post(box.url + path, data=json.dumps(body) if body is not None else None, timeout=10)


def rest(client: Client, *, quiet_s: float = 0.3) -> list[list[float]]:
    """Ticks until nothing comes for a while or the line ends."""
    found: list[list[float]] = []
    client.socket.settimeout(quiet_s)
    try:
        while True:
            message = client.read()
            if message == "":
                return found  # closed by the server
            if isinstance(message, dict) and "ticks" in message:
                found += message["ticks"]
    except (*ENDED, TimeoutError, websocket.WebSocketTimeoutException):
        return found
    finally:
        client.socket.settimeout(10)


def sent(frames: Any, connection: int = 1) -> list[list[float]]:
    """What the log says arrived unaltered."""
    mine: list[SentFrame] = [frame for frame in frames if frame.intact and frame.connection == connection]
    rows = np.concatenate([frame.rows[["instrument", "last_price"]] for frame in mine])
    return [list(row) for row in rows.tolist()]


def listening(connect: Connect, box: Sandbox, lines: str = "+1 2 3") -> Client:
    client = connect(box)
    client.send(lines)
    client.ticks(5)
    return client


def answers_pings(client: Client) -> bool:
    """Whether a pong comes within a second; other messages are passed over."""
    client.socket.ping("are you there")
    client.socket.settimeout(1)
    end = time.monotonic() + 1
    try:
        while time.monotonic() < end:
            code, _ = client.socket.recv_data(control_frame=True)
            if code == websocket.ABNF.OPCODE_PONG:
                return True
    except (TimeoutError, websocket.WebSocketTimeoutException):
        pass
    return False


# --- lines that end ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_every_tick_that_the_log_holds_arrives_before_a_drop(play: Play, connect: Connect, how: str) -> None:
    with play(ticks_per_second=3000, step_s=0.002, log=True) as box:
        client = connect(box)
        client.send("+1 2 3")
        arrived = client.ticks(500)
        record = box.fault("drop", how=how)
        arrived += rest(client)
        until(lambda: not box.hub.peers)
        assert arrived == sent(box.log)
        assert record.start_ns == record.end_ns
        assert (record.kind, record.connection) == ("drop", 1)


def test_ticks_that_had_not_left_before_a_drop_are_marked(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=0, log=True) as box:
        client = connect(box)
        client.socket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send("+" + " ".join(map(str, range(30))))
        rows = box.world.simulated.advance(np.arange(30), box.world.now_ns())
        for _ in range(20_000):  # more than the buffers between the two hold
            box.hub.counts["pushed"] += 1
            if box.hub.peers[1].backlog > 100_000:
                break
            box.push(np.tile(rows, 20))
        box.fault("drop", how="rst")
        arrived = rest(client)
        frames = box.log
    lost = [frame for frame in frames if not frame.intact]
    assert lost
    assert all(frame.faults == ("cut",) for frame in lost)
    whole = sent(frames)
    assert arrived[: len(whole)] == whole, "what is not marked has arrived"


def test_a_close_carries_its_code_and_reason(play: Play, connect: Connect) -> None:
    with play() as box:
        client = connect(box)
        client.read()
        box.fault("close", code=1012, reason="restart")
        code, payload = client.socket.recv_data(control_frame=True)
        assert code == websocket.ABNF.OPCODE_CLOSE
        assert payload == (1012).to_bytes(2, "big") + b"restart"
        until(lambda: not box.hub.peers)


def test_a_fault_of_one_connection_leaves_the_others_alone(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=500) as box:
        one, two = listening(connect, box), listening(connect, box)
        record = box.fault("drop", connection=1)
        assert record.connections == (1,)
        rest(one)
        assert len(two.ticks(50)) >= 50
        with pytest.raises(ValueError, match="fault 'drop': connection 7 is not open; open: 2"):
            box.fault("drop", connection=7)


# --- lines that stay --------------------------------------------------------------------------


def test_a_half_open_line_says_nothing_answers_no_ping_and_sends_no_fin(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=2000, heartbeat_s=0.05, log=True) as box:
        client = listening(connect, box)
        box.fault("half-open")
        rest(client)
        before = len(box.log)
        assert not answers_pings(client)
        assert client.socket.connected
        assert len(box.log) == before, "nothing counts as sent"
        assert box.injected[0].end_ns is None
        client.close()
        until(lambda: not box.hub.peers)
        assert box.injected[0].end_ns is not None, "with its client the fault goes too"


def test_a_half_open_line_is_reset_at_its_end(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=500) as box:
        client = listening(connect, box)
        box.fault("half-open", seconds=0.2)
        with pytest.raises(ENDED):
            client.ticks(1_000_000)
        (record,) = box.injected
        assert record.end_ns is not None
        assert 0.2e9 <= record.end_ns - record.start_ns < 5e9


def test_a_mute_line_answers_pings_and_sends_nothing_until_it_is_over(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=2000, heartbeat_s=0.05, log=True) as box:
        client = connect(box)
        client.send("+1 2 3")
        arrived = client.ticks(100)
        box.fault("mute")
        arrived += rest(client)
        assert answers_pings(client)
        assert rest(client) == []
        assert box.clear("mute") == 1
        arrived += client.ticks(100)
        assert arrived == sent(box.log)[: len(arrived)], "swallowed ticks are not in the log"
        assert box.counts["swallowed"] > 0


def test_a_new_connection_is_not_mute_unless_all_are(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=500) as box:
        listening(connect, box)
        box.fault("mute")
        assert len(listening(connect, box).ticks(20)) >= 20
        box.fault("mute", connection="all")
        third = connect(box)
        third.send("+1")
        assert rest(third) == []


def test_a_mute_line_may_be_cured_by_a_subscription(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=500) as box:
        client = listening(connect, box)
        box.fault("mute", until="resubscribed")
        rest(client)
        client.send("-1")
        assert rest(client) == []
        client.send("+1")
        assert len(client.ticks(20)) >= 20
        assert box.injected[0].end_ns is not None


def test_heartbeats_may_be_all_that_comes(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=2000, heartbeat_s=0.05) as box:
        client = listening(connect, box)
        box.fault("heartbeats-only")
        rest(client, quiet_s=0.04)
        assert [client.read() for _ in range(4)] == [b"beat"] * 4


def test_some_instruments_may_be_silent(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=2000, log=True) as box:
        box.fault("silent", instruments=f"T1,{box.instruments[2].key}")
        client = connect(box)
        client.send("+1 2 3 4")
        assert {line for line, _ in client.ticks(200)} == {3, 4}
        assert {line for line, _ in sent(box.log)} == {3, 4}
        assert all(frame.faults == () for frame in box.log), "what came was not altered"
        with pytest.raises(ValueError, match="fault 'silent': the sandbox has no instrument NSE:NOTHING"):
            box.fault("silent", instruments="NSE:NOTHING")


def test_a_share_of_the_instruments_may_be_silent(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=3000) as box:
        box.fault("silent", share=0.4)
        client = connect(box)
        client.send("+" + " ".join(map(str, range(30))))
        client.ticks(60)
        assert len({line for line, _ in client.ticks(300)}) == 18


def test_pings_may_stay_unanswered_while_ticks_flow(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=500) as box:
        client = listening(connect, box)
        assert answers_pings(client)
        box.fault("no-pong")
        assert not answers_pings(client)
        assert len(client.ticks(20)) >= 20


def test_a_deaf_broker_obeys_nothing(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=500) as box:
        client = listening(connect, box, "+1")
        box.fault("deaf")
        client.send("+5")
        assert answers_pings(client)
        assert {line for line, _ in client.ticks(50)} == {1}


def test_later_messages_of_a_client_may_be_obeyed_late(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=500) as box:
        box.fault("late-mode", delay_s=0.3)
        client = connect(box)
        began = time.monotonic()
        client.send("+1")
        client.send("+2")
        client.send("-1")
        assert client.read() == "hello"
        lines, when = set(), 0.0
        while (message := client.read()) != "ok -1":
            if message == "ok +2":
                when = time.monotonic() - began
            elif isinstance(message, dict) and not when:
                lines |= {line for line, _ in message["ticks"]}
        assert lines == {1}
        assert when >= 0.3
        assert time.monotonic() - began >= 0.6


def test_a_slow_line_sends_late_and_the_log_says_when(play: Play, connect: Connect) -> None:
    with play(log=True) as box:
        client = connect(box)
        box.fault("throttle", bytes_per_second=200)
        client.send("+1")
        client.ticks(1)
        until(lambda: bool(box.log))
        began = time.monotonic()
        box.push(box.world.simulated.advance(np.array([1]), box.world.now_ns()))
        assert len(box.log) == 1, "it waits, so it is not sent yet"
        client.ticks(1)
        assert time.monotonic() - began > 0.1
        box.fault("throttle", bytes_per_second=0)
        box.push(box.world.simulated.advance(np.array([1]), box.world.now_ns()))
        assert rest(client) == []
        box.clear()
        client.ticks(1)
