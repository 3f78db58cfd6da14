"""Captures played again: the same rows as in the journal of that day, every time, at any speed, or as a broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
from waiting import until

from marketfeed import Feed, hookimpl
from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.capture import MAX_SPEED, CaptureError, Replay, open_captures, read_frames
from marketfeed.clock import NS, Clock, to_ns
from marketfeed.contract import Frame, Parsed, Parser, Sink, Vendor, VendorSettings
from marketfeed.dtypes import TICK, Flag, Rows, empty_ticks
from marketfeed.engine.logs import get_log
from marketfeed.enums import Mode
from marketfeed.errors import PluginError, SinkError
from marketfeed.framelog import CapturedFrame, FrameLog
from marketfeed.framelog.format import PREFIX_BYTES, read_head, unpack
from marketfeed.instruments import Instrument, TokenMap
from marketfeed.journal import Journal, ticks_folder
from marketfeed.plugins import Plugins
from marketfeed.sandbox import Sandbox
from marketfeed.sinks.embedding import MemorySink
from marketfeed.tokens import MemoryTokenStore

START = to_ns("2026-11-20 09:15:00")


class Captured:
    """A capture of a feed on a sandbox broker that dropped the line in the middle, and its journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "capture"
        events = threading.Semaphore(0)
        with Sandbox("kite", seed=4, instruments=60, ticks_per_second=3000, rate_limits=False) as box:
            self.settings = box.settings()
            self.names = [one.key for one in box.instruments]
            feed = feed_on(self.settings, self.names, capture=self.folder, journal=folder / "journal")
            feed.on_event(lambda event: events.release() if event.kind == "connected" else None)
            with feed:
                assert events.acquire(timeout=10)
                until(lambda: feed.pipeline.journal_rows() > 1000)
                box.drop()
                assert events.acquire(timeout=10)
                before = feed.pipeline.journal_rows()
                until(lambda: feed.pipeline.journal_rows() > before + 1000)
            self.status = feed.pipeline.status()["capture"]
        with Journal.attach(ticks_folder(folder / "journal", "main")) as journal:
            self.rows = all_rows(journal.follow(start="oldest"))
        self.file = next(iter((self.folder / "main").iterdir()))


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    return Captured(tmp_path_factory.mktemp("captured"))


def feed_on(settings: dict[str, Any], names: Sequence[str], **options: Any) -> Feed:
    return Feed("kite", instruments=names, settings=settings, tokens=MemoryTokenStore(), environ={}, **options)


def all_rows(batches: Iterable[TickBatch]) -> Rows:
    return np.frombuffer(b"".join(batch.rows.tobytes() for batch in batches), TICK)


def assert_same(one: Rows, other: Rows) -> None:
    """Row by row, all columns but the journal's own checksum."""
    assert len(one) == len(other)
    for name in TICK.names or ():
        if name != "check":
            floats = TICK[name].base.kind == "f"
            assert np.array_equal(one[name], other[name], equal_nan=floats), name


# --- of a real feed -------------------------------------------------------------------------------


def test_a_replay_equals_the_journal_of_the_run_row_by_row(captured: Captured) -> None:
    assert captured.status["dropped"] == {}
    assert {frame.socket for frame in read_frames(captured.file)} == {1, 2}
    assert len(captured.rows) > 2000
    assert_same(all_rows(Replay(captured.file)), captured.rows)


def test_twenty_replays_write_the_same_bytes(captured: Captured, tmp_path: Path) -> None:
    outputs = []
    for number in range(20):
        path = tmp_path / f"{number}.jsonl"
        replay = Replay(captured.folder, sinks=["jsonl"], config={"sinks": {"jsonl": {"path": str(path)}}})
        assert replay.run().sinks[0].delivered == len(captured.rows)
        outputs.append(path.read_bytes())
    assert outputs[0].count(b"\n") == len(captured.rows)
    assert f'"journal":"{replay.journal_name}"'.encode() in outputs[0].splitlines()[-1]
    assert f'"seq":{len(captured.rows) - 1},'.encode() in outputs[0].splitlines()[-1]
    assert len(set(outputs)) == 1


def test_the_same_replay_into_the_same_file_adds_nothing(captured: Captured, tmp_path: Path) -> None:
    path = tmp_path / "ticks.jsonl"
    outputs = []
    for _ in range(2):
        Replay(captured.file, sinks=["jsonl"], config={"sinks": {"jsonl": {"path": str(path)}}}).run()
        outputs.append(path.read_bytes())
    assert outputs[0] == outputs[1] != b""


def test_a_capture_holds_no_secret_and_no_outgoing_message(captured: Captured) -> None:
    raw = b"".join(blocks_of(captured.file.read_bytes()))
    assert b"RELIANCE" in raw
    for word in (b"token=", b"http:", b"ws:", b"127.0.0.1", b'"a":', b"subscribe"):
        assert word not in raw
    for name, value in captured.settings.items():
        assert str(value).encode() not in raw, name


def blocks_of(data: bytes) -> Iterator[bytes]:
    while data:
        head = read_head(data)
        yield unpack(head, data[PREFIX_BYTES:][: head.stored_bytes])
        data = data[PREFIX_BYTES + head.stored_bytes :]


def test_a_damaged_block_costs_its_rows_and_the_replay_goes_on(captured: Captured, tmp_path: Path) -> None:
    data = bytearray(captured.file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / captured.file.name
    path.write_bytes(data)
    replay = Replay(path)
    rows = all_rows(replay)
    assert 0 < len(rows) < len(captured.rows)
    assert [one.reason for one in replay.files[0].damage] == ["a block's bytes are not what was written"]


# --- served again ---------------------------------------------------------------------------------


def test_a_captured_day_can_be_served_to_any_client_byte_for_byte(captured: Captured, tmp_path: Path) -> None:
    with Sandbox("kite", replay=captured.file, speed=MAX_SPEED, rate_limits=False) as box:
        assert [one.key for one in box.instruments] == captured.names
        with feed_on(box.settings(), captured.names, capture=tmp_path) as feed:
            until(lambda: feed.pipeline.journal_rows() >= len(captured.rows))
    assert messages(tmp_path / "main") == messages(captured.folder / "main")


def messages(folder: Path) -> list[bytes]:
    return [frame.data for path in sorted(folder.iterdir()) for frame in read_frames(path)]


def test_a_client_of_a_few_instruments_gets_their_rows_in_its_mode(captured: Captured) -> None:
    wanted = ["NSE:RELIANCE", "NSE:INFY"]
    numbers = [captured.names.index(name) for name in wanted]
    expected = captured.rows[np.isin(captured.rows["instrument"], numbers)]
    with (
        Sandbox("kite", replay=captured.folder, speed=MAX_SPEED, rate_limits=False) as box,
        feed_on(box.settings(), wanted, mode="ltp") as feed,
    ):
        until(lambda: feed.pipeline.journal_rows() >= len(expected))
        rows = all_rows([next(feed.batches())])
    assert rows["last_price"].tolist() == expected["last_price"][: len(rows)].tolist()
    assert set(rows["flags"] & 0xF) == {Mode.LTP}


def test_a_capture_is_served_by_its_own_vendor_only(captured: Captured) -> None:
    with pytest.raises(ValueError, match="a capture of kite, which other cannot send"):
        Sandbox("other", broker=lambda world: Plugins.discover().vendor("kite").sandbox(world), replay=captured.file)


# --- with a vendor of our own ---------------------------------------------------------------------


class Counting:
    """A parser with a memory: ``volume`` counts the frames of its socket, ``last_quantity`` those of the call."""

    def __init__(self, tokens: TokenMap, factor: float) -> None:
        self.tokens = tokens
        self.factor = factor
        self.seen = 0

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        rows = empty_ticks(len(frames))
        for row, frame in zip(rows, frames, strict=True):
            self.seen += 1
            row["instrument"] = self.tokens.get(frame.data.decode(), -1)
            row["received_ns"], row["volume"], row["last_quantity"] = frame.received_ns, self.seen, len(frames)
            row["last_price"] = self.factor
        rows["flags"] = int(Mode.FULL) | int(Flag.VOLUME)
        return Parsed(rows)


@attrs.frozen(kw_only=True)
class CountingSettings(VendorSettings):
    factor: float = 1.0


def counting_vendor() -> Plugins:
    class Plugin:
        @hookimpl
        def marketfeed_vendor(self) -> Vendor:
            return Vendor(name="counting", title="Counting", settings=CountingSettings)

        @hookimpl
        def marketfeed_parser(self, settings: CountingSettings, instruments: TokenMap) -> Parser:
            return Counting(instruments, settings.factor)

    return Plugins.of(Plugin())


ALL = [Instrument(exchange="NSE", symbol=name, token=name) for name in ("A", "B", "C")]
Turns = Sequence[tuple[int, Sequence[str] | None]]
"""Connection and the tokens in its frames, parsed together; None: a new socket."""


def captured_by_hand(
    folder: Path, turns: Turns, *, seconds: Sequence[float] = (), block_bytes: int = 1, feed: str = "main"
) -> Path:
    """A capture of the counting vendor; the n-th turn is received ``seconds[n]`` after the start, or after n."""
    tokens = TokenMap({one.token: number for number, one in enumerate(ALL)})
    log = FrameLog(
        folder,
        feed=feed,
        vendor="counting",
        tokens=tokens,
        instruments=ALL,
        clock=Clock(),
        log=get_log(),
        block_bytes=block_bytes,
    )
    done = 0
    for connection, names in turns:
        if names is None:
            log.renewed(connection)
            continue
        moment = START + round((seconds[done] if seconds else done) * NS)
        log.put(connection, [Frame(name.encode(), moment) for name in names])
        done += 1
    log.close()
    log.run()
    return log.folder


def played(place: Path | Sequence[Path], **options: Any) -> list[tuple[str, int, int]]:
    """Symbol, count in its socket, frames in its call: of every row."""
    batches = list(Replay(place, plugins=counting_vendor(), **options))
    rows = all_rows(batches)
    symbols = [name.removeprefix("NSE:") for batch in batches for name in batch.symbols]
    return list(zip(symbols, rows["volume"].tolist(), rows["last_quantity"].tolist(), strict=True))


TWO_LINES: Turns = [(0, None), (1, None), (0, "AB"), (1, "C"), (0, "A"), (1, None), (1, "CB"), (0, None), (0, "A")]
AS_PARSED = [("A", 1, 2), ("B", 2, 2), ("C", 1, 1), ("A", 3, 1), ("C", 1, 2), ("B", 2, 2), ("A", 1, 1)]


@pytest.mark.parametrize("block_bytes", [1, 10**6])
def test_connections_come_in_their_order_with_a_new_parser_for_each_new_socket(
    tmp_path: Path, block_bytes: int
) -> None:
    folder = captured_by_hand(tmp_path, TWO_LINES, block_bytes=block_bytes)
    assert len(list(folder.iterdir())) == 2
    assert played(folder) == AS_PARSED
    assert played(sorted(folder.iterdir(), reverse=True)) == AS_PARSED


def test_one_of_two_connections_can_be_played_alone(tmp_path: Path) -> None:
    folder = captured_by_hand(tmp_path, TWO_LINES)
    assert played(next(folder.glob("1-*"))) == [("C", 1, 1), ("C", 1, 2), ("B", 2, 2)]


def test_runs_follow_one_another_and_a_file_given_twice_is_played_once(tmp_path: Path) -> None:
    first = captured_by_hand(tmp_path, [(0, None), (0, "A")])
    captured_by_hand(tmp_path, [(0, None), (0, "B")])
    assert played([first, *first.iterdir()]) == [("A", 1, 1), ("B", 1, 1)]


def test_validation_remembers_over_sockets_and_begins_anew_with_each_run(tmp_path: Path) -> None:
    run: Turns = [(0, None), (0, "A"), (0, None), (0, "A")]
    captured_by_hand(tmp_path, run)
    folder = captured_by_hand(tmp_path, run)
    flags = all_rows(Replay(folder, plugins=counting_vendor()))["flags"]
    assert ((flags & int(Flag.REPEAT)) > 0).tolist() == [False, True, False, True]


def test_rows_made_with_other_settings_have_another_name(tmp_path: Path) -> None:
    folder = captured_by_hand(tmp_path, [(0, "A")])
    plugins = counting_vendor()
    names = [
        Replay(folder, plugins=plugins, settings=settings, config=config).journal_name
        for settings, config in [
            (None, None),
            ({"factor": 1.0}, None),
            ({"factor": 2.0}, None),
            (None, {"validation": {"repeat": "drop"}}),
        ]
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_settings_that_the_parser_needs_are_remembered_and_can_be_replaced(tmp_path: Path) -> None:
    plugins = counting_vendor()
    log = FrameLog(
        tmp_path,
        feed="main",
        vendor="counting",
        settings=CountingSettings(factor=2.5),
        tokens=TokenMap({"A": 0}),
        instruments=ALL,
        clock=Clock(),
        log=get_log(),
    )
    log.put(0, [Frame(b"A", START)])
    log.close()
    log.run()
    assert all_rows(Replay(log.folder, plugins=plugins))["last_price"].tolist() == [2.5]
    again = Replay(log.folder, plugins=plugins, settings={"factor": 4.0})
    assert all_rows(again)["last_price"].tolist() == [4.0]


class JumpingClock(Clock):
    """Time passes only by waiting for it, and then at once."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        self.waits.append(timeout_s or 0.0)
        self.now_s += timeout_s or 0.0
        return event.is_set()


@pytest.mark.parametrize(("speed", "waits"), [(1, [1, 3, 600]), (2, [0.5, 1.5, 300]), (0.5, [2, 6, 1200])])
def test_the_pace_is_that_of_the_capture_times_the_speed(tmp_path: Path, speed: float, waits: list[float]) -> None:
    # Also: a step back in time takes no time, and a night takes ten minutes.
    folder = captured_by_hand(tmp_path, [(0, "A")] * 5, seconds=[0, 1, 4, 3.5, 60_000])
    clock = JumpingClock()
    assert len(played(folder, speed=speed, clock=clock)) == 5
    assert clock.waits == pytest.approx(waits)


def test_at_full_speed_nobody_waits_for_the_clock(tmp_path: Path) -> None:
    folder = captured_by_hand(tmp_path, [(0, "A")] * 5, seconds=[0, 1, 4, 3.5, 60_000])
    clock = JumpingClock()
    played(folder, clock=clock)
    assert clock.waits == []


class Slow(Sink):
    """Takes its time with each batch, and remembers how far the journal was ahead of it."""

    def __init__(self) -> None:
        self.rows = 0

    def write(self, batch: TickBatch | CandleBatch) -> None:
        time.sleep(0.002)
        self.rows += len(batch)


def test_a_slow_sink_slows_the_replay_down_and_loses_nothing(tmp_path: Path) -> None:
    folder = captured_by_hand(tmp_path, [(0, "ABC" * 100)] * 200, block_bytes=10**6)
    slow, memory = Slow(), MemorySink()
    summary = Replay(folder, plugins=counting_vendor(), sinks=[slow, memory], memory_bytes=2_000_000).run()
    assert slow.rows == len(memory) == summary.appended == 60_000
    assert [sink.skipped for sink in summary.sinks] == [0, 0]


def test_a_sink_that_fails_does_not_hold_up_the_others(tmp_path: Path) -> None:
    class Broken(Sink):
        def write(self, batch: TickBatch | CandleBatch) -> None:
            raise SinkError("broken", retryable=False)

    folder = captured_by_hand(tmp_path, [(0, "ABC" * 100)] * 100, block_bytes=10**6)
    memory = MemorySink()
    summary = Replay(folder, plugins=counting_vendor(), sinks=[Broken(), memory], memory_bytes=2_000_000).run()
    assert len(memory) == 30_000
    assert [sink.error for sink in summary.sinks] == ["broken", ""]


def test_leaving_the_loop_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    folder = captured_by_hand(tmp_path, [(0, "ABC" * 100)] * 200, block_bytes=10**6)
    before = threading.active_count()
    replay = Replay(folder, plugins=counting_vendor(), memory_bytes=2_000_000)
    for _ in replay:
        break
    assert threading.active_count() == before
    with pytest.raises(Exception, match="make a new one"):
        next(iter(replay))


def test_a_replay_in_real_time_can_be_stopped(tmp_path: Path) -> None:
    folder = captured_by_hand(tmp_path, [(0, "A")] * 3, seconds=[0, 500, 1000])
    replay = Replay(folder, plugins=counting_vendor(), speed=1)
    batches = iter(replay)
    assert len(next(batches)) == 1
    replay.stop()
    batches.close()  # type: ignore[attr-defined]
    assert replay.error is None


def test_what_cannot_be_played_is_refused_with_the_reason(tmp_path: Path) -> None:
    one = captured_by_hand(tmp_path / "x", [(0, "A")], feed="one")
    two = captured_by_hand(tmp_path / "x", [(0, "A")], feed="two")
    with pytest.raises(CaptureError, match=r"several feeds: one \(counting\), two \(counting\)"):
        open_captures(tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptureError, match=r"holds no \.mfc file"):
        open_captures(tmp_path / "empty")
    with pytest.raises(CaptureError, match="cannot be read"):
        open_captures(tmp_path / "nothing.mfc")
    with pytest.raises(ValueError, match="speed is 0"):
        Replay(one, plugins=counting_vendor(), speed=0)
    with pytest.raises(PluginError, match="counting"):
        Replay(two, plugins=Plugins.of(SimpleNamespace()))


def test_read_frames_gives_what_was_received(tmp_path: Path) -> None:
    folder = captured_by_hand(tmp_path, [(2, None), (2, "AB")])
    (path,) = folder.iterdir()
    assert list(read_frames(path)) == [
        CapturedFrame(2, 1, 1, START, False, b"A"),
        CapturedFrame(2, 1, 1, START, False, b"B"),
    ]
