"""Faults of rows and messages against the real server: what arrives, and what the log says about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
from waiting import until

from marketfeed.dtypes import Rows
from marketfeed.enums import Kind
from marketfeed.sandbox import Sandbox, SentFrame

Connect = Callable[[Sandbox], Any]
Play = Callable[..., AbstractContextManager[Sandbox]]


def frames_of(box: Sandbox, fault: str) -> list[SentFrame]:
    return [frame for frame in box.log if fault in frame.faults]


def rows_with(play: Play, connect: Connect, fault: str, **parameters: Any) -> tuple[Rows, Rows]:
    """Rows of a share before a fault, and the ones that it changed."""
    with play(ticks_per_second=1000, log=True) as box:
        client = connect(box)
        shares = [line for line, one in enumerate(box.instruments) if one.kind == Kind.EQUITY]
        client.send(f"+{shares[0]}")
        client.ticks(10)
        box.fault(fault, **parameters)
        until(lambda: sum(len(frame.rows) for frame in frames_of(box, fault)) >= 20)
        box.clear()
        before = [frame.rows for frame in box.log if not frame.faults]
        after = [frame.rows for frame in frames_of(box, fault)]
        assert all(frame.intact for frame in frames_of(box, fault)), "what the log holds went over the wire"
    return np.concatenate(before)[:10], np.concatenate(after)


# --- rows -------------------------------------------------------------------------------------


def test_exchange_time_may_be_the_epoch(play: Play, connect: Connect) -> None:
    _, changed = rows_with(play, connect, "zero-time")
    assert (changed["exchange_ns"] == 0).all()


@pytest.mark.parametrize("by_s", [-30.0, 3600.0])
def test_exchange_time_may_be_shifted(play: Play, connect: Connect, by_s: float) -> None:
    before, changed = rows_with(play, connect, "time-shift", by_s=by_s)
    shift = (changed["exchange_ns"][0] - before["exchange_ns"][-1]) / 1e9
    assert 0 <= shift - by_s < 10


def test_a_spike_is_out_of_place_and_otherwise_consistent(play: Play, connect: Connect) -> None:
    before, changed = rows_with(play, connect, "spike", factor=2.0)
    assert (changed["last_price"] > before["last_price"].max() * 1.5).all()
    assert (changed["high"] >= changed["last_price"]).all()


def test_a_crossed_book_is_still_sorted(play: Play, connect: Connect) -> None:
    before, changed = rows_with(play, connect, "crossed")
    assert (before["bid_price"][:, 0] < before["ask_price"][:, 0]).all()
    assert (changed["bid_price"][:, 0] > changed["ask_price"][:, 0]).all()
    assert (np.diff(changed["bid_price"], axis=1) < 0).all()


def test_a_book_may_be_unsorted(play: Play, connect: Connect) -> None:
    _, changed = rows_with(play, connect, "unsorted")
    assert (np.diff(changed["bid_price"], axis=1) > 0).all()


def test_volume_may_step_back(play: Play, connect: Connect) -> None:
    before, changed = rows_with(play, connect, "volume-back", by=10**9)
    assert before["volume"][-1] > changed["volume"][0] == 0


def test_a_field_may_be_set(play: Play, connect: Connect) -> None:
    _, changed = rows_with(play, connect, "set", field="last_price", value=-5)
    assert (changed["last_price"] == -5).all()


def test_each_nth_tick_is_changed_so_many_times(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=2000, packets_per_frame=1) as box:
        client = connect(box)
        client.send("+1 2 3")
        client.ticks(3)
        box.fault("set", field="last_price", value=1.25, every=10, count=4)
        prices = [price for _, price in client.ticks(400)]
        (record,) = box.injected
    places = [place for place, price in enumerate(prices) if price == 1.25]
    assert np.diff(places).tolist() == [10, 10, 10]
    assert record.end_ns is not None


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["truncate", "bad-count", "garbage", "flip", "empty", "trailing"])
def test_a_damaged_message_does_not_count_as_sent(play: Play, connect: Connect, how: str) -> None:
    with play(log=True) as box:
        client = connect(box)
        client.send("+1")
        client.ticks(1)
        box.fault("damage", how=how, count=1)
        rows = box.world.simulated.advance(np.array([1]), box.world.now_ns())
        good = json.dumps({"snapshot": False, "ticks": [[1, float(rows["last_price"][0])]]})
        box.push(rows)
        data = client.socket.recv()
        assert data != good
        box.push(rows)
        assert client.socket.recv() == good, "only one was to be damaged"
        assert [(frame.intact, frame.faults) for frame in box.log[1:]] == [
            (False, (f"damage {how}",)),
            (True, ()),
        ]
        assert [frame.first_seq for frame in box.log] == [0, 1, 1]
        assert box.counts["ticks"] == 2
        assert box.counts["ticks_damaged"] == 1


def test_damage_may_come_besides_the_whole_message(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=2000, log=True) as box:
        client = connect(box)
        client.send("+1 2 3")
        client.ticks(3)
        box.fault("damage", how="empty", extra=True, every=2)
        arrived = client.ticks(300)
        whole = np.concatenate([frame.rows[["instrument", "last_price"]] for frame in box.log if frame.intact])
    places = [list(row) for row in whole.tolist()]
    assert any(places[start : start + len(arrived)] == arrived for start in range(300)), "no good tick is missing"


def test_an_unknown_damage_is_refused_with_the_choices(play: Play) -> None:
    with play() as box, pytest.raises(ValueError, match="how = 'dent' must be one of any, truncate, bad-count"):
        box.fault("damage", how="dent")


def test_repeated_messages_count_each_time(play: Play, connect: Connect) -> None:
    with play(log=True) as box:
        client = connect(box)
        client.send("+1")
        client.ticks(1)
        box.fault("repeat", times=2, count=1)
        box.push(box.world.simulated.advance(np.array([1]), box.world.now_ns()))
        ticks = client.ticks(3)
        assert ticks[0] == ticks[1] == ticks[2]
        assert [frame.faults for frame in box.log] == [(), (), ("repeat",), ("repeat",)]
        assert [frame.first_seq for frame in box.log] == [0, 1, 2, 3]


def test_neighbours_change_places_and_none_is_lost(play: Play, connect: Connect) -> None:
    with play(log=True) as box:
        client = connect(box)
        client.send("+1 2 3 4 5")
        client.ticks(5)
        box.fault("out-of-order")
        for line in range(1, 6):
            box.push(box.world.simulated.advance(np.array([line]), box.world.now_ns()))
        assert [line for line, _ in client.ticks(4)] == [2, 1, 4, 3]
        assert len(box.log) == 5, "the one that waits is not sent yet"
        box.clear()
        assert [line for line, _ in client.ticks(1)] == [5]
        assert [frame.rows["instrument"].tolist() for frame in box.log[1:]] == [[2], [1], [4], [3], [5]]


def test_a_single_message_out_of_order_still_waits_for_the_next(play: Play, connect: Connect) -> None:
    with play() as box:
        client = connect(box)
        client.send("+1 2")
        client.ticks(2)
        box.fault("out-of-order", count=1)
        for line in (1, 2, 1, 2):
            box.push(box.world.simulated.advance(np.array([line]), box.world.now_ns()))
        assert [line for line, _ in client.ticks(4)] == [2, 1, 1, 2]


def test_ticks_gather_in_big_frames(play: Play, connect: Connect) -> None:
    with play(ticks_per_second=5000, log=True) as box:
        client = connect(box)
        client.send("+" + " ".join(map(str, range(10))))
        client.ticks(10)
        box.fault("big-frames", packets=500)
        until(lambda: sum(len(frame.rows) == 500 for frame in box.log) >= 3)
        box.clear()
        count = len(box.log)
        until(lambda: len(box.log) > count + 3)
        lines = np.concatenate([frame.rows["instrument"] for frame in box.log if frame.origin == "tick"])
    assert (np.diff(lines) % 10 == 1).all(), "every instrument in its turn: none was lost, none came twice"


def test_a_message_may_be_too_long(play: Play, connect: Connect) -> None:
    with play(log=True) as box:
        client = connect(box)
        client.read()
        box.fault("oversized", megabytes=2)
        assert client.read() == bytes(2 * 2**20)
        assert box.log == []


def test_anything_may_be_said(play: Play, connect: Connect) -> None:
    with play() as box:
        client = connect(box)
        client.read()
        box.fault("say", text="<html>")
        box.fault("say", hex="00ff")
        assert [client.read(), client.read()] == ["<html>", b"\x00\xff"]
        with pytest.raises(ValueError, match="fault 'say': hex = 'xyz' must be hexadecimal digits"):
            box.fault("say", hex="xyz")


def test_the_log_file_tells_what_was_not_intact(play: Play, connect: Connect, tmp_path: Any) -> None:
    path = tmp_path / "events.jsonl"
    with play(log_file=path) as box:
        client = connect(box)
        client.send("+1")
        client.ticks(1)
        box.fault("damage", how="empty", count=1)
        box.push(box.world.simulated.advance(np.array([1]), box.world.now_ns()))
        assert client.read() == ""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["intact"], line["faults"]) for line in lines if line["kind"] == "ticks"] == [
        (True, []),
        (False, ["damage empty"]),
    ]
    assert [line["fault"] for line in lines if line.get("event") == "fault"] == ["damage"]
