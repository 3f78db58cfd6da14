"""What a flow hands to which producer, when producers fail: the cases that no real broker gives when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import pytest
from marketfeed_kafka.chunks import Chunk
from marketfeed_kafka.driver import Failure, Outcome
from marketfeed_kafka.flow import Flow

from marketfeed.errors import SinkError


@attrs.define(eq=False)
class Reply:
    """A ticket whose answer is known from the start."""

    found: list[Outcome]
    error: Failure | None = None

    @property
    def settled(self) -> bool:
        return None not in self.found or self.error is not None

    def failed(self) -> bool:
        return self.error is not None or any(isinstance(one, Failure) for one in self.found)

    def outcomes(self) -> Sequence[Outcome]:
        return self.found


@attrs.define(eq=False)
class Producer:
    """Answers each chunk as it is told, by the number of its first row; all others are stored."""

    log: list[int]
    silent: bool = False
    unsendable: set[int] = attrs.field(factory=set)
    knows_topics: bool = True
    gone: set[str] = attrs.field(factory=set)
    """Topics that were deleted."""
    exact: bool = True
    fatal: Failure | None = None
    closed: bool = False

    def partitions(self, topic: str) -> int:
        if not self.knows_topics or topic in self.gone:
            raise SinkError("no metadata yet")
        return 1

    def send(self, chunk: Chunk) -> Reply:
        first = int(chunk.index[0])
        if first in self.unsendable:
            failure = Failure("no metadata in time")
            return Reply([failure, *[None] * (len(chunk) - 1)], failure)
        self.log.append(first)
        return Reply([None if self.silent else True] * len(chunk))

    def wait(self, timeout_s: float) -> None: ...

    def close(self) -> None:
        self.closed = True


class Clock:
    """A second passes with each look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def chunk_of(row: int) -> Chunk:
    nothing: Any = None
    return Chunk("ticks", 0, [b"k"], [b"v"], [[]], nothing, np.array([row]))


def flow_of(*producers: Producer) -> Flow:
    left = list(producers)
    connect: Callable[[bool], Any] = lambda alone: left.pop(0)  # noqa: E731
    return Flow(connect, lambda chunk: [chunk], 100, 10.0, Clock())


def test_a_new_producer_that_does_not_know_the_topic_yet_sends_nothing() -> None:
    log: list[int] = []
    blind = Producer(log, knows_topics=False)
    flow = flow_of(Producer(log, silent=True), blind, Producer(log))
    flow.open()
    for row in range(3):
        flow.put(chunk_of(row))
    with pytest.raises(SinkError, match="has not acknowledged anything"):
        flow.drain()
    log.clear()
    with pytest.raises(SinkError, match="no metadata yet"):
        flow.drain()
    assert (log, blind.closed) == ([], True)
    flow.drain()
    assert log == [0, 1, 2]
    assert (flow.refused, flow.counts.in_flight) == ([], 0)


def test_behind_a_chunk_that_a_new_producer_could_not_send_nothing_is_sent() -> None:
    log: list[int] = []
    halting = Producer(log, unsendable={0})
    flow = flow_of(Producer(log, silent=True), halting, Producer(log))
    flow.open()
    for row in range(3):
        flow.put(chunk_of(row))
    for _ in range(2):  # silence, then the one that halts
        with pytest.raises(SinkError):
            flow.drain()
    flow.drain()
    assert log == [0, 1, 2, 0, 1, 2]  # of the first and of the last producer
    assert flow.refused == []


def test_a_dead_letter_topic_that_goes_away_gives_its_rows_back_and_holds_up_nobody() -> None:
    log: list[int] = []
    flow = flow_of(Producer(log, silent=True), Producer(log, gone={"dead"}))
    flow.open()
    flow.put(chunk_of(0))
    why = ValueError("too large")
    flow.put(attrs.evolve(chunk_of(7), topic="dead", letter=why))
    with pytest.raises(SinkError, match="has not acknowledged anything"):
        flow.drain()
    log.clear()
    flow.drain()
    assert log == [0]
    assert [(one.places.tolist(), one.error) for one in flow.refused] == [([7], why)]
