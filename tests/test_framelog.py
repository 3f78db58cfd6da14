"""Capture files: what goes in comes out, damage costs its block alone, and no trouble reaches the feed."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

from marketfeed.clock import NS, Clock, ManualClock, to_ns
from marketfeed.contract import Frame, VendorSettings, secret, setting
from marketfeed.engine.logs import get_log
from marketfeed.framelog import CapturedFrame, CaptureError, CaptureFile, FileHeader, FrameLog, Turn, read_frames
from marketfeed.framelog import files as capture_files
from marketfeed.framelog.files import CaptureWriter, Shelf
from marketfeed.framelog.format import (
    FRAMES,
    MOST_BYTES,
    PREFIX_BYTES,
    Damaged,
    decode_frames,
    decode_header,
    encode_block,
    encode_frames,
    read_head,
    unpack,
)
from marketfeed.instruments import Instrument, TokenMap

START = to_ns("2026-11-20 09:15:00")
INFY = Instrument(exchange="NSE", symbol="INFY", token="408065", vendor="kite", exchange_token="1594")
TCS = Instrument(exchange="NSE", symbol="TCS", token="2953217", vendor="kite", exchange_token="11536")
HEADER = FileHeader(id="", run="r" * 32, run_start_ns=START, part=0, connection=3, feed="main", vendor="kite")

payloads = st.lists(
    st.lists(st.builds(Frame, st.binary(max_size=300), st.integers(0, 2**62), st.booleans()), min_size=1, max_size=4),
    min_size=1,
    max_size=8,
)


def turns_of(groups: Sequence[Sequence[Frame]], socket: int = 1) -> list[Turn]:
    return [Turn(number, socket, frames) for number, frames in enumerate(groups, 1)]


def flat(turns: Sequence[Turn], connection: int = 3) -> list[CapturedFrame]:
    return [
        CapturedFrame(connection, one.socket, one.turn, frame.received_ns, frame.text, frame.data)
        for one in turns
        for frame in one.frames
    ]


def numbered(first: int, count: int) -> list[Turn]:
    """One frame a turn, a second apart."""
    return [
        Turn(number, 1, [Frame(b"frame %d" % number * 20, START + number * NS)])
        for number in range(first, first + count)
    ]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, 10**9, lambda path, size: None)


def written(shelf: Shelf, blocks: Sequence[list[Turn]], rotate_bytes: int = 10**9) -> Path:
    writer = CaptureWriter(shelf, HEADER, rotate_bytes)
    instruments = {0: INFY, 7: TCS}
    for block in blocks:
        writer.write(block, instruments)
    writer.close()
    return sorted(shelf.folder.iterdir())[0]


# --- the bytes ------------------------------------------------------------------------------------


@given(payloads)
def test_any_frames_come_back_as_they_went_in(groups: list[list[Frame]]) -> None:
    turns = turns_of(groups)
    block = encode_block(FRAMES, 5, sum(map(len, groups)), encode_frames(turns))
    head = read_head(block)
    assert head.number == 5
    assert decode_frames(unpack(head, block[PREFIX_BYTES:]), head.items, 3) == flat(turns)


@given(payloads, st.data())
@settings(max_examples=200)
def test_one_changed_bit_is_always_noticed(groups: list[list[Frame]], data: st.DataObject) -> None:
    block = bytearray(encode_block(FRAMES, 0, sum(map(len, groups)), encode_frames(turns_of(groups))))
    place = data.draw(st.integers(0, len(block) * 8 - 1))
    block[place // 8] ^= 1 << place % 8
    with pytest.raises(Damaged):
        unpack(read_head(bytes(block)), bytes(block[PREFIX_BYTES:]))


def test_a_block_cannot_ask_for_more_memory_than_blocks_have() -> None:
    bomb = encode_block(FRAMES, 0, 1, bytes(MOST_BYTES + 1))
    with pytest.raises(Damaged, match="more than"):
        read_head(bomb)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b'{"id": 5}', b"\xff\xfe", b"[" * 100_000])
def test_a_header_of_another_shape_is_refused_not_believed(raw: bytes) -> None:
    with pytest.raises(Damaged):
        decode_header(raw)


# --- files ----------------------------------------------------------------------------------------


def test_a_file_explains_itself(shelf: Shelf) -> None:
    path = written(shelf, [numbered(1, 3), numbered(4, 2)])
    file = CaptureFile(path)
    assert path.name == "3-20261120-091501-000.mfc"
    assert (file.header.vendor, file.header.feed, file.header.connection) == ("kite", "main", 3)
    assert file.instruments() == {0: INFY, 7: TCS}
    assert list(file) == flat([*numbered(1, 3), *numbered(4, 2)])
    assert file.damage == []


def test_a_file_cut_at_any_byte_of_its_last_block_loses_that_block_alone(shelf: Shelf) -> None:
    path = written(shelf, [numbered(1, 3), numbered(4, 3)])
    whole = path.read_bytes()
    start = len(whole) - len(encode_block(FRAMES, 3, 3, encode_frames(numbered(4, 3))))
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        file = CaptureFile(path)
        assert list(file) == flat(numbered(1, 3))
        assert [(one.offset, one.size) for one in file.damage] == ([(start, length - start)] if length > start else [])


def test_damage_costs_the_block_it_is_in_and_is_told(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    blocks = [numbered(1, 3), numbered(4, 3), numbered(7, 3)]
    path = written(shelf, blocks)
    whole = path.read_bytes()
    middle = encode_block(FRAMES, 3, 3, encode_frames(blocks[1]))
    start = whole.index(middle)
    for place in range(start, start + len(middle)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        file = CaptureFile(path)
        assert list(file) == flat([*blocks[0], *blocks[2]])
        assert [(one.offset, one.size) for one in file.damage] == [(start, len(middle))]
    with caplog.at_level(logging.WARNING, "marketfeed.capture"):
        assert len(list(read_frames(path))) == 6
    assert f"{len(middle)} bytes at {start} passed over" in caplog.text
    assert "3 frames are missing" in caplog.text


@pytest.mark.parametrize(
    "data", [b"", b"MFC1", b"symbol,timestamp,ltp,volume\n" * 10, encode_block(FRAMES, 0, 0, encode_frames([]))]
)
def test_another_file_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other.mfc"
    path.write_bytes(data)
    with pytest.raises(CaptureError, match=r"other\.mfc"):
        read_frames(path)


def test_a_feed_name_that_would_leave_its_folder_is_refused(tmp_path: Path) -> None:
    writer = CaptureWriter(Shelf(tmp_path, 10**9, lambda *_: None), attrs.evolve(HEADER, feed="../../etc"), 10**9)
    writer.write(numbered(1, 1), {})
    writer.close()
    with pytest.raises(CaptureError, match="cannot name a feed"):
        CaptureFile(next(tmp_path.iterdir()))


def test_a_file_ends_at_its_size_and_with_the_india_day(shelf: Shelf) -> None:
    writer = CaptureWriter(shelf, HEADER, rotate_bytes=2000)
    moments = [to_ns(f"2026-11-20 {time}") for time in ("10:00:00", "10:00:01", "10:00:02", "23:59:59")]
    moments.append(to_ns("2026-11-21 00:00:00"))
    for number, moment in enumerate(moments):
        size = 3000 if number == 1 else 10
        incompressible = random.Random(1).randbytes(size)
        writer.write([Turn(number, 1, [Frame(incompressible, moment)])], {0: INFY})
    writer.close()
    found = {path.name: CaptureFile(path) for path in sorted(shelf.folder.iterdir())}
    assert [name[2:17] for name in found] == ["20261120-100000", "20261120-100002", "20261121-000000"]
    assert [file.header.part for file in found.values()] == [0, 1, 2]
    assert [len(list(file)) for file in found.values()] == [2, 2, 1]
    assert all(file.instruments() == {0: INFY} for file in found.values())
    assert len({file.header.id for file in found.values()}) == 3


def test_the_oldest_files_go_beyond_keep_bytes_but_none_that_is_open(tmp_path: Path) -> None:
    gone: list[str] = []
    (tmp_path / "notes.txt").write_text("not ours")
    shelf = Shelf(tmp_path, 4000, lambda path, size: gone.append(path.name))
    for day in range(10, 20):
        writer = CaptureWriter(shelf, HEADER, 10**9)
        incompressible = random.Random(1).randbytes(900)
        writer.write([Turn(1, 1, [Frame(incompressible, to_ns(f"2026-11-{day} 10:00:00"))])], {})
        writer.close()
    left = sorted(path.name for path in tmp_path.glob("*.mfc"))
    assert gone == sorted(gone)
    assert [*gone, *left] == [f"3-202611{day}-100000-000.mfc" for day in range(10, 20)]
    assert 2 <= len(left) < 5
    assert shelf.total_bytes <= 4000
    assert (tmp_path / "notes.txt").exists()


# --- beside a feed --------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Settings(VendorSettings):
    api_key: str = setting(default="canary-key")
    password: str = secret(default="canary-password")
    pin: int = secret(default=987654321)
    dialect: Literal["a", "b"] = "b"
    divisor: float = 100.0
    exact: bool = True


Make = Callable[..., FrameLog]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Frame logs that run on threads of their own and end with the test."""
    running: list[tuple[FrameLog, threading.Thread]] = []

    def start(run: bool = True, **options: Any) -> FrameLog:
        given: dict[str, Any] = {
            "feed": "main",
            "vendor": "kite",
            "tokens": TokenMap({INFY.token: 0}),
            "instruments": [INFY, TCS],
            "clock": Clock(),
            "log": get_log(),
        }
        log = FrameLog(tmp_path / "capture", **{**given, **options})
        if run:
            thread = threading.Thread(target=log.run)
            thread.start()
            running.append((log, thread))
        return log

    yield start
    for log, thread in running:
        log.close()
        thread.join(10)
        assert not thread.is_alive()


def finished(log: FrameLog) -> list[CaptureFile]:
    """The files of a log that is told to end and, on this thread, does."""
    log.close()
    log.run()
    return [CaptureFile(path) for path in sorted(log.folder.glob("*.mfc"))]


def test_frames_of_each_connection_come_back_with_their_sockets_and_turns(make: Make) -> None:
    log = make(run=False)
    log.renewed(0)
    log.put(0, [Frame(b"a", START), Frame(b"b", START)])
    log.renewed(1)
    log.put(1, [Frame(b"c", START, True)])
    log.renewed(0)
    log.put(0, [Frame(b"d", START + 1)])
    first, second = finished(log)
    assert [(one.turn, one.socket, one.data, one.text) for one in first] == [
        (1, 1, b"a", False),
        (1, 1, b"b", False),
        (3, 2, b"d", False),
    ]
    assert [(one.turn, one.socket, one.data, one.text) for one in second] == [(2, 1, b"c", True)]
    assert (first.header.run, first.header.connection) == (second.header.run, 0)
    assert log.counts.frames == log.counts.written == 4
    assert log.counts.stored_bytes == sum(file.path.stat().st_size for file in (first, second))


def test_a_secret_that_the_broker_repeats_is_overwritten_and_short_words_are_not_looked_for(make: Make) -> None:
    log = make(run=False, hidden=lambda: ["canary-token", "abcd"])
    log.put(0, [Frame(b"no session canary-token here", START), Frame(b"\x01abcd\x02", START)])
    (file,) = finished(log)
    assert [one.data for one in file] == [b"no session ************ here", b"\x01abcd\x02"]


def test_instruments_that_are_subscribed_later_come_before_their_frames(make: Make) -> None:
    tokens = TokenMap({INFY.token: 0})
    log = make(run=False, tokens=tokens, block_bytes=1)
    log.put(0, [Frame(b"infy", START)])
    log._drain()
    tokens.add({TCS.token: 1})
    log.put(0, [Frame(b"tcs", START)])
    (file,) = finished(log)
    pieces = list(file.pieces())
    assert [piece if isinstance(piece, dict) else [one.data for one in piece] for piece in pieces] == [
        {0: INFY},
        [b"infy"],
        {1: TCS},
        [b"tcs"],
    ]


def test_a_small_block_is_written_after_a_second(make: Make) -> None:
    clock = ManualClock(START)
    log = make(clock=clock)
    log.put(0, [Frame(b"lonely", START)])
    until(lambda: advanced(clock) and log.counts.written == 1)
    assert [one.data for one in read_frames(next(log.folder.iterdir()))] == [b"lonely"]


def advanced(clock: ManualClock) -> bool:
    clock.advance(0.3)
    return True


def test_when_the_disk_is_too_slow_frames_are_dropped_counted_and_told(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[tuple[str, Any]] = []
    log = make(run=False, queue_bytes=1000, emit=lambda kind, data: events.append((kind, dict(data))))
    for _ in range(5):
        log.put(0, [Frame(bytes(400), START)])
    with caplog.at_level(logging.ERROR, "marketfeed"):
        (file,) = finished(log)
    assert [one.turn for one in file] == [1, 2]
    assert log.counts.dropped == {"queue": 3}
    assert log.counts.frames == log.counts.written + 3
    assert events == [("capture_dropped", {"frames": 3, "reason": "the disk is slower than the broker"})]
    assert "frames are missing in the capture; the feed goes on" in caplog.text


def test_a_disk_that_refuses_is_told_and_used_again_once_it_takes_bytes(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = [True]

    def short_of_space(*arguments: Any) -> bytes:
        if full[0]:
            raise OSError(28, "No space left on device")
        return encode_block(*arguments)

    monkeypatch.setattr(capture_files, "encode_block", short_of_space)
    log = make(run=False, block_bytes=1)
    log.put(0, [Frame(b"lost", START)])
    log._drain()
    log._tell(0.0, last=False)
    assert "No space left" in log.error
    assert log.counts.dropped == {"disk": 1}
    assert "No space left" in caplog.text
    full[0] = False
    log.put(0, [Frame(b"kept", START)])
    (file,) = finished(log)
    assert [one.data for one in file] == [b"kept"]
    assert log.error == ""


def test_a_folder_that_cannot_be_made_never_stops_the_feed(make: Make, tmp_path: Path) -> None:
    (tmp_path / "capture").write_text("in the way")
    log = make(block_bytes=1)
    log.put(0, [Frame(b"lost", START)])
    until(lambda: log.counts.dropped["disk"] == 1)


def test_a_write_that_breaks_off_leaves_whole_blocks_only(shelf: Shelf) -> None:
    writer = CaptureWriter(shelf, HEADER, 10**9)
    writer.write(numbered(1, 2), {})
    file = writer._file
    assert file is not None

    def until_full(data: memoryview) -> int:
        if len(data) > 10:
            return file.write(data[:10])
        raise OSError(28, "No space left on device")

    full: Any = SimpleNamespace(write=until_full, truncate=file.truncate, fileno=file.fileno, close=file.close)
    writer._file = full
    with pytest.raises(OSError, match="No space"):
        writer.write(numbered(3, 2), {})
    writer.write(numbered(5, 2), {})
    writer.close()
    first, second = [CaptureFile(path) for path in sorted(shelf.folder.iterdir())]
    assert list(first) == flat(numbered(1, 2))
    assert list(second) == flat(numbered(5, 2))
    assert first.damage == second.damage == []


def test_no_setting_but_switches_numbers_and_choices_is_written(make: Make) -> None:
    canaries = Settings(
        login_url="https://canary-login.example",
        stream_url="wss://canary-stream.example/?token=canary",
        access_token="canary-access",
        proxy="http://canary:canary@localhost",
    )
    log = make(run=False, settings=canaries)
    log.put(0, [Frame(b"data", START)])
    (file,) = finished(log)
    assert file.header.settings == {"dialect": "b", "divisor": 100.0, "exact": True}
    data = file.path.read_bytes()
    raw = b"".join(data_of(data))
    assert b"dialect" in raw
    for canary in (b"canary", b"987654321", b"example"):
        assert canary not in data
        assert canary not in raw


def data_of(data: bytes) -> Iterator[bytes]:
    """Every block of a file, unpacked."""
    while data:
        head = read_head(data)
        yield unpack(head, data[PREFIX_BYTES:][: head.stored_bytes])
        data = data[PREFIX_BYTES + head.stored_bytes :]


def test_handing_over_costs_next_to_nothing_and_waits_for_nothing(make: Make) -> None:
    log = make(run=False)
    frames = [Frame(bytes(9200), START)] * 4
    clock = Clock()
    began = clock.monotonic()
    for _ in range(1000):
        log.put(0, frames)
    assert (clock.monotonic() - began) / 1000 < 0.0005  # measured 4 us; a batch of 200 ticks parses in 100
