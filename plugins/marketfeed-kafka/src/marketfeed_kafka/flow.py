"""Messages in flight: how many, what became of them, and what is sent again.

The promise to a reader of a partition: drop each message whose ``seq`` is not above the last one seen of its
journal, and nothing is missing and all is in order. It holds because everything that any producer sends to a
partition is a run without gaps that begins at or before the first message not yet acknowledged. So after a failure
the producer is thrown away, and a new one sends that message and all after it again. A message that fails by itself
after later ones of its partition were stored can no longer take its place; it is refused, not sent out of order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import attrs

from marketfeed.errors import SinkError
from marketfeed_kafka.chunks import Chunk, MessageTooLarge, RecordRefused, Refused
from marketfeed_kafka.driver import Driver, Failure, Outcome, Ticket

__all__ = ["Counts", "Flow"]

_POLL_S = 0.05
_SMOOTHING = 0.2


@attrs.define
class Counts:
    """Plain numbers, written on the sink's thread."""

    sent: int = 0
    """Messages handed to a producer for the first time"""
    acknowledged: int = 0
    retried: int = 0
    """Messages sent again on a new producer"""
    refused: int = 0
    """Rows that Kafka did not take"""
    rebuilds: int = 0
    in_flight: int = 0
    """Rows written and not acknowledged"""
    latency_s: float = 0.0
    """From sending to acknowledgement, smoothed"""


@attrs.define(eq=False)
class _Sent:
    chunk: Chunk
    ticket: Ticket | None = None
    at_s: float = 0.0
    alone: bool = False
    """To be sent message by message, each after the answer to the one before."""
    again: bool = False


@attrs.define(eq=False)
class Flow:
    """Everything between ``write`` and the acknowledgement, on the sink's thread."""

    connect: Callable[[bool], Driver]
    """Make a producer; raises ``SinkError``. True asks for one that sends message by message."""
    split: Callable[[Chunk], list[Chunk]]
    """A message of many rows as two of fewer; the same chunk when it has only one row."""
    max_rows: int
    stall_s: float
    """Without any acknowledgement for this long a producer is given up."""
    clock: Callable[[], float] = time.monotonic
    counts: Counts = attrs.field(factory=Counts)
    refused: list[Refused] = attrs.field(factory=list)
    _driver: Driver | None = None
    _lanes: dict[tuple[str, int], deque[_Sent]] = attrs.field(factory=dict)
    _progress_s: float = 0.0

    def open(self) -> None:
        """Connect, and send what is not acknowledged. Raises ``SinkError``."""
        if self._driver is None:
            self._connect()

    def close(self) -> None:
        """Forget everything."""
        self._drop()
        self._lanes.clear()
        self.counts.in_flight = 0

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; raises ``SinkError``."""
        self.open()
        assert self._driver is not None
        return self._driver.partitions(topic)

    def make_room(self, rows: int) -> None:
        """Return when so many rows may be put. Raises ``SinkError`` when the broker does not answer."""
        self.open()
        while self.counts.in_flight and self.counts.in_flight + rows > self.max_rows:
            self._step()

    def put(self, chunk: Chunk) -> None:
        """Take a chunk for good; what becomes of it shows in a later call."""
        if not self.counts.in_flight:
            self._progress_s = self.clock()
        self.counts.in_flight += chunk.rows
        self.counts.sent += len(chunk)
        sent = _Sent(chunk)
        lane = self._lanes.setdefault((chunk.topic, chunk.partition), deque())
        before = lane[-1].ticket if lane else None
        lane.append(sent)
        # Behind a message that was not even sent nothing may be sent; the next look at this lane starts anew.
        if self._driver is not None and (len(lane) == 1 or (before is not None and before.error is None)):
            self._send(sent)

    def poll(self) -> None:
        """Look what was acknowledged, without waiting."""
        if self._driver is not None:
            self._driver.wait(0.0)
            self._reap()

    def drain(self) -> None:
        """Return when everything is acknowledged or refused. Raises ``SinkError`` when the broker does not answer;
        what is not acknowledged is kept, and sent again by the next call."""
        self.open()
        while self.counts.in_flight:
            self._step()

    # --- one producer ---------------------------------------------------------------------------

    def _step(self) -> None:
        self.open()
        assert self._driver is not None
        self._driver.wait(_POLL_S)
        self._reap()

    def _send(self, sent: _Sent) -> None:
        assert self._driver is not None
        self.counts.retried += len(sent.chunk) if sent.again else 0
        sent.again = True
        sent.at_s = self.clock()
        sent.ticket = self._driver.send(sent.chunk)

    def _reap(self) -> None:
        """Forget what is acknowledged; act on what failed, and on silence."""
        now = self.clock()
        if self._driver is not None and self._driver.fatal is not None:
            self._broken([self._driver.fatal])
            return
        for lane in list(self._lanes.values()):
            while lane and lane[0].ticket is not None and lane[0].ticket.settled:
                if lane[0].ticket.failed():
                    self._broken(lane[0].ticket.outcomes())
                    return
                self._done(lane.popleft(), now)
        if self.counts.in_flight and now - self._progress_s > self.stall_s:
            self._give_up()
            raise SinkError(f"Kafka has not acknowledged anything for {self.stall_s:g} s")

    def _done(self, sent: _Sent, now: float) -> None:
        self._progress_s = now
        self.counts.in_flight -= sent.chunk.rows
        self.counts.acknowledged += len(sent.chunk)
        self.counts.latency_s += _SMOOTHING * (now - sent.at_s - self.counts.latency_s)

    def _refuse(self, chunk: Chunk, failure: Failure) -> None:
        kind = MessageTooLarge if failure.too_large else RecordRefused
        self.refused.append(Refused(chunk.batch, chunk.index, kind(failure.text)))
        self.counts.refused += chunk.rows

    # --- from one producer to the next ----------------------------------------------------------

    def _broken(self, outcomes: Sequence[Outcome]) -> None:
        """A message failed. Raises ``SinkError`` unless it is the fault of some message."""
        failures = [one for one in outcomes if isinstance(one, Failure)]
        self._give_up()
        if not any(one.record for one in failures) and not self._doubtful:
            raise SinkError(f"Kafka refused messages: {failures[0].text}")
        self.open()

    @property
    def _doubtful(self) -> bool:
        return any(one.alone for lane in self._lanes.values() for one in lane)

    def _drop(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()

    def _give_up(self) -> None:
        """Close the producer, and note what the next one has to send."""
        self._drop()
        self.counts.rebuilds += 1
        for lane in self._lanes.values():
            left = list(self._left(list(lane)))
            lane.clear()
            lane.extend(left)
        self.counts.in_flight = sum(one.chunk.rows for lane in self._lanes.values() for one in lane)

    def _left(self, lane: list[_Sent]) -> Iterator[_Sent]:
        """What of a partition has to be sent, from the first message that is not acknowledged."""
        known: list[list[Outcome]] = [
            [None] * len(one.chunk) if one.ticket is None else list(one.ticket.outcomes()) for one in lane
        ]
        last = max((place for place, outcomes in enumerate(known) if True in outcomes), default=-1)
        for place, (sent, outcomes) in enumerate(zip(lane, known, strict=True)):
            stored = len(outcomes) if place < last else 0
            if place == last:
                stored = len(outcomes) - outcomes[::-1].index(True)
            self._settle(sent.chunk, outcomes[:stored])
            start = stored
            for alone, group in groupby(outcomes[stored:], lambda one: isinstance(one, Failure) and one.record):
                stop = start + len(list(group))
                yield _Sent(sent.chunk.part(start, stop), alone=alone or sent.alone, again=sent.again)
                start = stop

    def _settle(self, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        """Messages up to the last one that is stored: no other of them can take its place any more."""
        for place, one in enumerate(outcomes):
            if one is True:
                self.counts.acknowledged += 1
            else:
                self._refuse(chunk.part(place, place + 1), one or Failure("a later message was stored before it"))

    def _connect(self) -> None:
        if self._doubtful:
            self._send_alone()
        driver = self.connect(False)
        try:
            # A new producer knows no topic yet, and would wait for each message; if it cannot know, nothing is sent.
            for topic in {topic: None for (topic, _), lane in self._lanes.items() if lane}:
                self._learn(driver, topic)
        except BaseException:
            driver.close()
            raise
        self._driver = driver
        self._progress_s = self.clock()
        for lane in self._lanes.values():
            for sent in lane:
                self._send(sent)
                if sent.ticket is not None and sent.ticket.error is not None:
                    break  # nothing may be sent behind it

    def _learn(self, driver: Driver, topic: str) -> None:
        """Raises ``SinkError``; a dead-letter topic that is gone gives its rows back instead."""
        try:
            driver.partitions(topic)
        except SinkError:
            lanes = [lane for (name, _), lane in self._lanes.items() if name == topic]
            letters = [(sent.chunk, sent.chunk.letter) for lane in lanes for sent in lane]
            if any(why is None for _, why in letters):
                raise
            self.refused += [Refused(chunk.batch, chunk.index, why) for chunk, why in letters if why is not None]
            self.counts.in_flight -= sum(chunk.rows for chunk, _ in letters)
            for lane in lanes:
                lane.clear()

    def _send_alone(self) -> None:
        """Send the doubtful messages, and those before them, so that the guilty ones are found: one by one, unless
        the producer tells them apart."""
        driver = self._driver = self.connect(True)
        try:
            for lane in self._lanes.values():
                while any(one.alone for one in lane):
                    self._send_first_alone(driver, lane)
        finally:
            self._drop()

    def _send_first_alone(self, driver: Driver, lane: deque[_Sent]) -> None:
        sent = lane[0]
        count = len(sent.chunk) if driver.exact else 1
        outcomes = self._answers(driver, sent.chunk.part(0, count))
        count = len(outcomes)
        failures = {place: one for place, one in enumerate(outcomes) if isinstance(one, Failure)}
        for one in failures.values():
            if not one.record:
                raise SinkError(f"Kafka refused a message: {one.text}")
        lane.popleft()
        if failures and sent.chunk.columns:
            halves = self.split(sent.chunk)
            if len(halves) > 1:
                lane.extendleft(_Sent(half, alone=True, again=True) for half in reversed(halves))
                return
        for place, one in failures.items():
            self._refuse(sent.chunk.part(place, place + 1), one)
        self.counts.acknowledged += count - len(failures)
        self.counts.in_flight -= sent.chunk.part(0, count).rows
        if count < len(sent.chunk):
            rest = sent.chunk.part(count, len(sent.chunk))
            lane.appendleft(_Sent(rest, alone=sent.alone, again=True))

    def _answers(self, driver: Driver, chunk: Chunk) -> Sequence[Outcome]:
        """What became of the messages up to the first one, exclusive, behind one that could not be handed over."""
        self.counts.retried += len(chunk)
        deadline = self.clock() + self.stall_s
        ticket = driver.send(chunk)
        while not ticket.settled:
            if self.clock() > deadline:
                raise SinkError(f"Kafka has not acknowledged anything for {self.stall_s:g} s")
            driver.wait(_POLL_S)
        outcomes = list(ticket.outcomes())
        return outcomes[: outcomes.index(None)] if None in outcomes else outcomes
