"""Sinks for programs that embed the feed: memory and functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.errors import SinkError
from marketfeed.sinks.embedding import CallableSink, MemorySink

MakeTicks = Callable[..., TickBatch]
SEEN: list[int] = []


def remember(batch: TickBatch | CandleBatch) -> None:
    SEEN.append(len(batch))


def test_memory_keeps_rows_with_their_numbers_and_names(ticks: MakeTicks) -> None:
    sink = MemorySink()
    for batch in (ticks(3, 10), ticks(0, 13), ticks(2, 13)):
        sink.write(batch)
    assert [(tick.seq, tick.volume) for tick in sink.rows()] == [(row, row) for row in range(10, 15)]
    assert sink.rows()[0].symbol == "M&M"
    assert len(sink) == 5


def test_memory_keeps_copies(ticks: MakeTicks) -> None:
    sink, batch = MemorySink(), ticks(2)
    reused = batch.rows.copy()
    sink.write(TickBatch(reused, batch.origin))
    reused["volume"] = 99
    assert [tick.volume for tick in sink.rows()] == [0, 1]


def test_memory_drops_the_oldest_and_counts_them(ticks: MakeTicks) -> None:
    sink = MemorySink(max_rows=10)
    for row in range(0, 24, 8):
        sink.write(ticks(8, row))
    assert [tick.seq for tick in sink.rows()] == list(range(14, 24))
    assert sink.dropped == 14
    sink.write(ticks(35, 24))
    assert [tick.seq for tick in sink.rows()] == list(range(49, 59))
    assert sink.dropped == 49


def test_memory_takes_candles(candles: Callable[..., CandleBatch]) -> None:
    sink = MemorySink()
    sink.write(candles(2))
    assert [candle.close for candle in sink.rows()] == [102.05, 102.05]


def test_memory_needs_room_for_at_least_one_row() -> None:
    with pytest.raises(ValueError, match="max_rows"):
        MemorySink(max_rows=0)


def test_a_function_gets_every_batch(ticks: MakeTicks) -> None:
    got: list[TickBatch | CandleBatch] = []
    sink = CallableSink(got.append)
    sink.open()
    batch = ticks(3)
    sink.write(batch)
    sink.flush()
    sink.close()
    assert got == [batch]


def test_a_function_is_found_by_its_place(ticks: MakeTicks, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "handlers_of_the_user", sys.modules[__name__])
    SEEN.clear()
    CallableSink("handlers_of_the_user:remember").write(ticks(4))
    assert SEEN == [4]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("print", "write it as package.module:function"),
        ("no_such_module_here:f", "cannot be imported: No module named"),
        ("os.path:no_such_function", "cannot be imported: .*no_such_function"),
        ("os:name", "is not a function"),
    ],
)
def test_a_place_that_holds_no_function_says_why(place: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CallableSink(place)


def test_what_a_function_raises_ends_the_sink_with_its_words(ticks: MakeTicks) -> None:
    def fail(_: object) -> None:
        raise KeyError("lot")

    with pytest.raises(SinkError, match="raised KeyError: 'lot'") as raised:
        CallableSink(fail).write(ticks(1))
    assert not raised.value.retryable
    assert isinstance(raised.value.__cause__, KeyError)


def test_a_sink_error_of_a_function_says_itself_what_to_do(ticks: MakeTicks) -> None:
    def refuse(_: object) -> None:
        raise SinkError("busy", retryable=True, rejected=(0,))

    with pytest.raises(SinkError, match="busy") as raised:
        CallableSink(refuse).write(ticks(1))
    assert raised.value.rejected == (0,)
