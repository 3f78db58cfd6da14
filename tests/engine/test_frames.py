"""The WebSocket frame reader: whole messages out of any chunks, and nothing accepted that no server may send."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.engine.frames import BINARY, CLOSE, PING, TEXT, FrameReader, Message
from marketfeed.errors import LineLost


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """One frame as a server sends it: not masked, shortest length form."""
    size = len(payload)
    if size < 126:
        head = bytes([size])
    elif size < 1 << 16:
        head = bytes([126]) + size.to_bytes(2, "big")
    else:
        head = bytes([127]) + size.to_bytes(8, "big")
    return bytes([(0x80 if final else 0) | opcode]) + head + payload


messages = st.lists(
    st.tuples(st.sampled_from([TEXT, BINARY]), st.binary(max_size=300) | st.just(b"x" * 70_000)), max_size=5
)


@given(messages, st.data())
def test_messages_survive_any_cutting_of_the_stream(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frame(opcode, payload) for opcode, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:end])
    assert got == [Message(*one) for one in sent]


def test_fragments_become_one_message_with_control_frames_between_them() -> None:
    stream = frame(TEXT, b"he", final=False) + frame(PING, b"!") + frame(0, b"l", final=False) + frame(0, b"lo")
    assert FrameReader().feed(stream) == [Message(PING, b"!"), Message(TEXT, b"hello")]


def test_a_close_frame_is_a_message_with_its_code() -> None:
    assert FrameReader().feed(frame(CLOSE, b"\x03\xe8bye")) == [Message(CLOSE, b"\x03\xe8bye")]


def test_a_message_over_the_limit_is_refused_from_its_header_alone() -> None:
    with pytest.raises(LineLost, match="limit of 1000"):
        FrameReader(1000).feed(frame(BINARY, b"x" * 1001)[:4])


def test_fragments_over_the_limit_are_refused() -> None:
    reader = FrameReader(10)
    reader.feed(frame(BINARY, b"x" * 8, final=False))
    with pytest.raises(LineLost, match="fragments"):
        reader.feed(frame(0, b"x" * 8, final=False))


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x82\x81\0\0\0\0x", id="masked"),
        pytest.param(b"\xc2\x01x", id="reserved bit"),
        pytest.param(b"\x83\x01x", id="unknown data opcode"),
        pytest.param(b"\x8b\x00", id="unknown control opcode"),
        pytest.param(b"\x09\x00", id="control frame in fragments"),
        pytest.param(frame(PING, b"x" * 126), id="long control frame"),
        pytest.param(frame(0, b"x"), id="continuation of nothing"),
        pytest.param(frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), id="new message inside another"),
    ],
)
def test_what_no_server_may_send_loses_the_line(stream: bytes) -> None:
    with pytest.raises(LineLost):
        FrameReader().feed(stream)


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_line_lost(noise: bytes) -> None:
    with contextlib.suppress(LineLost):
        FrameReader(1000).feed(noise)


def test_a_message_in_many_chunks_is_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    cut = FrameReader._cut

    def counted(reader: FrameReader, data: bytes, messages: list[Message]) -> None:
        looks.append(len(data))
        cut(reader, data, messages)

    monkeypatch.setattr(FrameReader, "_cut", counted)
    stream = frame(BINARY, b"x" * 1_000_000)
    reader = FrameReader()
    got = [message for at in range(0, len(stream), 1000) for message in reader.feed(stream[at : at + 1000])]
    assert got == [Message(BINARY, b"x" * 1_000_000)]
    assert sum(looks) < 2 * len(stream)  # each byte is copied a bounded number of times


def test_empty_fragments_without_end_hold_no_memory() -> None:
    reader = FrameReader(10)
    reader.feed(frame(BINARY, b"x", final=False))
    assert reader.feed(frame(0, b"", final=False) * 100_000) == []
    assert reader.feed(frame(0, b"y")) == [Message(BINARY, b"xy")]


def test_what_stands_before_damage_in_one_chunk_is_given() -> None:
    reader = FrameReader()
    assert reader.feed(frame(TEXT, b"good") + b"\x83\x01x") == [Message(TEXT, b"good")]
    assert isinstance(reader.broken, LineLost)
    with pytest.raises(LineLost):
        reader.feed(frame(TEXT, b"after"))
