"""One sink's thread on a real memory journal: order, retries, refusals, cursor, stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import attrs
import pytest

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.clock import Clock
from marketfeed.contract import Sink
from marketfeed.dtypes import empty_ticks
from marketfeed.engine.behind import Lag, WhenBehind
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.delivery import Delivery, DeliveryState
from marketfeed.engine.logs import get_log
from marketfeed.engine.pipeline import _locate
from marketfeed.engine.retry import Backoff
from marketfeed.errors import SinkError
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal, Reader


@attrs.define
class Recorder(Sink):
    """Keeps the prices it was given; ``trouble`` may raise before a call counts."""

    trouble: Callable[[str, int], None] = lambda call, number: None
    prices: list[float] = attrs.field(factory=list)
    calls: list[str] = attrs.field(factory=list)

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        self.trouble(call, self.calls.count(call))

    def open(self) -> None:
        self._enter("open")

    def write(self, batch: TickBatch | CandleBatch) -> None:
        self._enter("write")
        self.prices += batch["last_price"].tolist()

    def flush(self) -> None:
        self._enter("flush")

    def close(self) -> None:
        self._enter("close")


@pytest.fixture
def journal() -> Journal:
    journal = Journal.memory()
    journal.instruments.register([Instrument(exchange="NSE", symbol="INFY", token="1")])
    return journal


def append(journal: Journal, *prices: float) -> None:
    rows = empty_ticks(len(prices))
    rows["instrument"] = 0
    rows["received_ns"] = 1
    rows["last_price"] = prices
    journal.append(rows)


def delivery_of(journal: Journal, sink: Sink, **options: object) -> Delivery:
    clock = Clock()
    return Delivery(
        name="test",
        sink=sink,
        open_reader=lambda: journal.reader("test", start="oldest"),
        clock=clock,
        deadletters=DeadLetters("test", clock),
        log=get_log(),
        emit=lambda kind, data: None,
        backoff=Backoff(0.001, 0.002),
        **options,  # type: ignore[arg-type]
    )


def deliver_all(delivery: Delivery) -> None:
    delivery.stop()  # before it starts: take what is there, then end
    delivery.run()


def test_rows_arrive_in_order_and_the_cursor_follows_the_flush(journal: Journal) -> None:
    sink = Recorder()
    append(journal, 1, 2, 3)
    delivery = delivery_of(journal, sink)
    deliver_all(delivery)
    assert sink.prices == [1, 2, 3]
    assert sink.calls == ["open", "write", "flush", "close"]
    assert delivery.state is DeliveryState.DONE
    assert delivery.reader is not None
    assert delivery.reader.counts.delivered == 3


def test_a_batch_is_written_again_after_a_retryable_error(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        if call == "write" and number < 3:
            raise SinkError("server gone")

    sink = Recorder(trouble)
    append(journal, 1, 2)
    delivery = delivery_of(journal, sink)
    deliver_all(delivery)
    assert sink.prices == [1, 2]
    assert delivery.retries == 2
    assert delivery.state is DeliveryState.DONE


def test_a_failed_flush_is_repeated_before_the_cursor_moves(journal: Journal) -> None:
    positions: list[int] = []

    def trouble(call: str, number: int) -> None:
        if call == "flush":
            assert delivery.reader is not None
            positions.append(delivery.reader.position)
            if number == 1:
                raise SinkError("not acknowledged")

    append(journal, 1, 2)
    delivery = delivery_of(journal, Recorder(trouble))
    deliver_all(delivery)
    assert positions == [0, 0]
    assert delivery.reader is not None
    assert delivery.reader.position == 2


def test_refused_rows_are_dead_lettered_and_the_law_holds(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        if call == "write":
            raise SinkError("too large", rejected=[1])

    append(journal, 1, 2, 3)
    delivery = delivery_of(journal, Recorder(trouble))
    deliver_all(delivery)
    assert delivery.reader is not None
    counts = delivery.reader.counts
    assert (counts.delivered, counts.dead_lettered) == (2, 1)
    assert counts.position == counts.start + counts.delivered + counts.skipped + counts.dead_lettered == 3
    assert [letter.first_row for letter in delivery.deadletters.recent] == [1]


def test_a_fatal_error_stops_this_sink_and_leaves_its_rows(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        if call == "write":
            raise SinkError("no such table", retryable=False)

    append(journal, 1)
    delivery = delivery_of(journal, Recorder(trouble))
    deliver_all(delivery)
    assert delivery.state is DeliveryState.FAILED
    assert delivery.error == "no such table"
    assert delivery.reader is not None
    assert delivery.reader.position == 0


def test_a_sink_that_cannot_open_forbids_the_start(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        if call == "open":
            raise SinkError("wrong host")

    delivery = delivery_of(journal, Recorder(trouble))
    delivery.run()
    assert str(delivery.startup_error) == "wrong host"
    assert delivery.opened.is_set()


def test_with_disable_the_feed_may_start_without_it(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        raise SinkError("wrong host")

    delivery = delivery_of(journal, Recorder(trouble), on_startup_error="disable")
    delivery.run()
    assert delivery.startup_error is None
    assert delivery.state is DeliveryState.FAILED


def test_with_retry_it_opens_later_and_misses_nothing(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        if call == "open" and number < 3:
            raise SinkError("not up yet")

    sink = Recorder(trouble)
    append(journal, 1)
    delivery = delivery_of(journal, sink, on_startup_error="retry")
    deliver_all(delivery)
    assert sink.prices == [1]
    assert sink.calls.count("open") == 3


def test_abandon_ends_the_retries_and_keeps_the_rows(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        if call == "write":
            raise SinkError("down for good")

    append(journal, 1)
    delivery = delivery_of(journal, Recorder(trouble))
    thread = threading.Thread(target=delivery.run)
    thread.start()
    delivery.opened.wait(5)
    delivery.abandon()
    thread.join(5)
    assert not thread.is_alive()
    assert delivery.reader is not None
    assert delivery.reader.position == 0


def test_rows_flow_while_it_runs(journal: Journal) -> None:
    got = threading.Event()

    def trouble(call: str, number: int) -> None:
        if call == "write":
            got.set()

    sink = Recorder(trouble)
    delivery = delivery_of(journal, sink, flush_every_s=0.01)
    thread = threading.Thread(target=delivery.run)
    thread.start()
    delivery.opened.wait(5)
    append(journal, 7)
    assert got.wait(5)
    delivery.stop()
    thread.join(5)
    assert sink.prices == [7]


def test_a_cursor_in_use_forbids_the_start(journal: Journal) -> None:
    holder = journal.reader("test")
    sink = Recorder()
    delivery = delivery_of(journal, sink)
    delivery.run()
    assert "in use" in str(delivery.startup_error)
    assert "open" not in sink.calls
    holder.close()


def test_the_cursor_is_made_before_the_sink_opens_so_that_a_late_one_misses_nothing(journal: Journal) -> None:
    """A kill before the first successful open must not lose the rows of that run."""
    append(journal, 1)

    def trouble(call: str, number: int) -> None:
        if call == "open":
            append(journal, 2)  # comes while the sink is opening
            raise SinkError("wrong table", retryable=False)

    delivery = delivery_of(journal, Recorder(trouble))
    delivery.open_reader = lambda: journal.reader("late", start="newest")
    delivery.run()
    with journal.reader("late", start="newest") as again:
        assert again.take()["last_price"].tolist() == [2]


def test_a_position_that_cannot_be_read_is_tried_again_without_opening_twice(journal: Journal) -> None:
    append(journal, 1, 2, 3)
    tries: list[int] = []

    def locate(reader: Reader) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise SinkError("connection reset")
        reader.seek(2)

    sink = Recorder()
    delivery = delivery_of(journal, sink, on_startup_error="retry", locate=locate)
    deliver_all(delivery)
    assert sink.prices == [3]
    assert sink.calls.count("open") == 1
    assert delivery.error == ""


def test_rows_that_a_sink_refuses_twice_or_that_are_not_there_count_once(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        if call == "write":
            raise SinkError("no", rejected=[1, 1, 7, -1])

    append(journal, 1, 2, 3)
    delivery = delivery_of(journal, Recorder(trouble))
    deliver_all(delivery)
    assert delivery.reader is not None
    assert (delivery.reader.counts.delivered, delivery.reader.counts.dead_lettered) == (2, 1)


def test_refusals_are_counted_by_class_and_not_by_text(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        if call == "write":
            raise SinkError(f"row id {number} is taken", rejected=[0])

    delivery = delivery_of(journal, Recorder(trouble), batch_rows=1)
    append(journal, 1, 2, 3)
    deliver_all(delivery)
    assert delivery.deadletters.counts == {("refused", "SinkError"): 3}
    assert delivery.deadletters.recent[0].error == "row id 1 is taken"


def test_a_sink_that_exits_is_a_failed_sink_and_not_silence(journal: Journal) -> None:
    def trouble(call: str, number: int) -> None:
        if call == "write":
            raise SystemExit(3)

    append(journal, 1)
    delivery = delivery_of(journal, Recorder(trouble))
    deliver_all(delivery)
    assert delivery.state is DeliveryState.FAILED


class Positioned(Recorder):
    """Stores how far it got, as a file sink does; does not know of what it did not get."""

    stored: ClassVar[dict[str, int]] = {}

    def position(self, journal: str) -> int | None:
        return self.stored.get(journal)

    def write(self, batch: TickBatch | CandleBatch) -> None:
        super().write(batch)
        self.stored[batch.journal] = int(batch.seq[-1]) + 1


def test_rows_that_were_skipped_before_a_restart_are_counted_once(journal: Journal) -> None:
    Positioned.stored.clear()
    append(journal, *range(10))
    for run in range(3):
        sink = Positioned()
        delivery = delivery_of(journal, sink, lag=Lag(WhenBehind.SKIP, rows=15), locate=partial(_locate, sink, journal))
        append(journal, *range(20) if run < 2 else ())
        deliver_all(delivery)
        assert delivery.reader is not None
        counts = delivery.reader.counts
        assert min(counts) >= 0
        assert counts.delivered + counts.skipped + counts.dead_lettered == counts.position - counts.start
