"""Checks of what a sink does when its server, its disk or its settings fail, and of going on after a restart."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketfeed.batches import TickBatch
from marketfeed.contract import Sink
from marketfeed.engine.delivery import DeliveryState
from marketfeed.errors import SinkError
from marketfeed.journal import Journal
from marketfeed.testing.basics import append_sample, delivery_of
from marketfeed.testing.case import SinkCase, needs
from marketfeed.testing.driving import Driver, killed
from marketfeed.testing.samples import JOURNAL

__all__ = ["ResumeChecks", "TroubleChecks"]

_ID = JOURNAL.partition(".")[0]
_OLD, _NEW, _FOREIGN = f"{_ID}.3", f"{_ID}.4", "f0" * 16 + ".3"


class TroubleChecks(SinkCase):
    """A server that goes away, is slow, refuses."""

    @contextlib.contextmanager
    def broken(self, folder: Path) -> Iterator[None]:
        """A stretch in which the server is gone."""
        try:
            self.break_server(folder)
            yield
        finally:
            self.mend_server(folder)

    @needs("can_fail")
    def test_a_server_that_is_gone_is_a_retryable_error(self, tmp_path: Path) -> None:
        with self.driven(tmp_path) as sink, self.broken(tmp_path):
            with pytest.raises(SinkError) as raised:
                _write_and_flush(sink, self)
            assert raised.value.retryable, "the server may come back"
            assert not raised.value.rejected, "no row is at fault"

    @needs("can_fail")
    def test_opening_without_a_server_says_so_and_can_be_repeated(self, tmp_path: Path) -> None:
        batches = self.ticks(10)
        sink = Driver(self.make(tmp_path), self.patience_s)
        with self.broken(tmp_path):
            with pytest.raises(SinkError) as raised:  # of open, or else of the first flush
                _open_write_flush(sink, self)
            assert raised.value.retryable, "the server may come back"
        with sink:
            sink.deliver(batches)
        self.expect(tmp_path, batches, repeats=True)

    @needs("can_fail")
    def test_nothing_is_lost_when_the_server_goes_and_comes_back(self, tmp_path: Path) -> None:
        before, during, after = self.ticks(10, 20, 10)
        with self.driven(tmp_path) as sink:
            sink.write(before)
            with self.broken(tmp_path), contextlib.suppress(SinkError):
                sink.flush()
            sink.deliver([])
            written = False
            with self.broken(tmp_path), contextlib.suppress(SinkError):
                sink.write(during)
                written = True
                sink.flush()
            sink.deliver([after] if written else [during, after])
        self.expect(tmp_path, [before, during, after], repeats=not self.stores_position)

    @needs("can_fail")
    def test_a_write_after_a_failure_takes_the_same_batch_again(self, tmp_path: Path) -> None:
        batches = self.ticks(10, 20, 10)
        with self.driven(tmp_path) as sink:
            sink.deliver(batches[:1])
            with self.broken(tmp_path):
                for _ in range(3):
                    with contextlib.suppress(SinkError):
                        sink.write(batches[1])
                        sink.flush()
            sink.deliver(batches[1:])
        self.expect(tmp_path, batches, repeats=True)

    @needs("can_fail")
    def test_closing_while_the_server_is_gone_returns(self, tmp_path: Path) -> None:
        with self.driven(tmp_path) as sink, self.broken(tmp_path):
            with contextlib.suppress(SinkError):
                sink.write(*self.ticks(10))
            with contextlib.suppress(SinkError):  # the feed logs it
                sink.close()

    @needs("can_fail")
    def test_a_feed_rides_out_an_outage(self, tmp_path: Path) -> None:
        journal = Journal.memory()
        delivery = delivery_of(self.make(tmp_path), journal)
        thread = threading.Thread(target=delivery.run, name="sink under test", daemon=True)
        thread.start()
        assert delivery.opened.wait(self.patience_s)
        batches = [append_sample(journal, 100)]
        with self.broken(tmp_path):
            batches.append(append_sample(journal, 100))
            end = time.monotonic() + self.patience_s
            while not delivery.retries and thread.is_alive() and time.monotonic() < end:
                time.sleep(0.01)
            assert delivery.retries, f"the delivery is {delivery.state} while the server is gone: {delivery.error}"
        batches.append(append_sample(journal, 100))
        delivery.stop()
        thread.join(self.patience_s)
        assert not thread.is_alive(), "the delivery did not end after the outage"
        assert delivery.state is DeliveryState.DONE, delivery.error
        self.expect(tmp_path, batches, repeats=not self.stores_position)

    @needs("can_be_slow")
    def test_a_slow_server_costs_time_and_no_rows(self, tmp_path: Path) -> None:
        batches = self.ticks(10, 20, 10)
        try:
            with self.driven(tmp_path) as sink:
                sink.write(batches[0])
                self.slow_server(tmp_path)
                sink.deliver(batches[1:])
        finally:
            self.mend_server(tmp_path)
        self.expect(tmp_path, batches, repeats=not self.stores_position)

    @needs("can_refuse")
    def test_refused_rows_are_named_and_the_others_are_taken(self, tmp_path: Path) -> None:
        batch, refused = self.refused_ticks(tmp_path)
        assert refused, "refused_ticks() must name at least one row"
        with self.driven(tmp_path) as sink:
            told = _refused(sink, batch)
            assert sorted(told) == sorted(refused), "these are the rows that it says it refused"
            sink.deliver(after := self.ticks(5, first_row=int(batch.seq[-1]) + 1))
        taken = [batch[row : row + 1] for row in range(len(batch)) if row not in refused]
        self.expect(tmp_path, [*taken, *after], repeats=not self.stores_position)

    @needs("can_be_hopeless")
    def test_a_hopeless_setting_is_a_fatal_error_of_open(self, tmp_path: Path) -> None:
        driver = Driver(self.make_hopeless(tmp_path), self.patience_s)
        with pytest.raises(SinkError) as raised:
            driver.open()
        assert not raised.value.retryable, "trying again will never help, so the feed must end with this message"
        assert str(raised.value).strip(), "the message says what to do"
        driver.close()
        driver.__exit__(None, None, None)


class ResumeChecks(SinkCase):
    """After a restart, a kill, a new journal."""

    @needs("not_stores_position")
    def test_a_sink_that_stores_no_position_says_none(self, tmp_path: Path) -> None:
        self._run(tmp_path, 0, 10)
        with self.driven(tmp_path) as sink:
            assert sink.position(JOURNAL) is None, "it answers position(), so set stores_position = True"

    @needs("survives_kill", "kill")
    def test_what_was_flushed_survives_a_kill(self, tmp_path: Path) -> None:
        batches = self.ticks(2, 1)  # few, so that they fit into a buffer which nobody flushed

        def work() -> Sink:
            sink = self.make(tmp_path)
            sink.open()
            for batch in batches:
                sink.write(batch)
            sink.flush()
            return sink

        killed(work, self.patience_s)
        self.expect(tmp_path, batches)

    @needs("stores_position")
    def test_the_position_is_the_next_row_wanted(self, tmp_path: Path) -> None:
        with self.driven(tmp_path) as sink:
            assert sink.position(JOURNAL) is None, "nothing is stored yet"
        self._run(tmp_path, 5, 20)
        with self.driven(tmp_path) as sink:
            assert sink.position(JOURNAL) == 20

    @needs("stores_position")
    def test_the_position_counts_skipped_rows(self, tmp_path: Path) -> None:
        (batch,) = self.ticks(30)
        with self.driven(tmp_path) as sink:
            sink.write(batch[batch.seq % 7 == 0])
            sink.flush()
        with self.driven(tmp_path) as sink:
            assert sink.position(JOURNAL) == 29

    @needs("stores_position")
    def test_only_the_exact_name_of_the_journal_counts(self, tmp_path: Path) -> None:
        self._run(tmp_path, 0, 10, _OLD)
        with self.driven(tmp_path) as sink:
            wrong = [
                name for name in (_NEW, f"{_ID}.30", f"{_ID}.", _ID, _FOREIGN, "") if sink.position(name) is not None
            ]
            assert wrong == []
            assert sink.position(_OLD) == 10

    @needs("stores_position")
    def test_an_older_epoch_is_known_until_the_new_one_is_written(self, tmp_path: Path) -> None:
        self._run(tmp_path, 0, 10, _OLD)
        with self.driven(tmp_path) as sink:  # the core asks the newest name first, then older ones
            assert (sink.position(_NEW), sink.position(_OLD)) == (None, 10)
            sink.deliver(new := self.ticks(10, first_row=10, journal=_NEW))
        with self.driven(tmp_path) as sink:
            assert sink.position(_NEW) == 20
        self.expect(tmp_path, [*self.ticks(10, journal=_OLD), *new])

    @needs("stores_position")
    def test_a_foreign_journal_begins_at_its_own_row(self, tmp_path: Path) -> None:
        self._run(tmp_path, 0, 10, _OLD)
        with self.driven(tmp_path) as sink:
            assert sink.position(_FOREIGN) is None
            sink.deliver(foreign := self.ticks(5, first_row=3, journal=_FOREIGN))
        with self.driven(tmp_path) as sink:
            assert sink.position(_FOREIGN) == 8
        self.expect(tmp_path, [*self.ticks(10, journal=_OLD), *foreign])

    @needs("stores_position")
    def test_a_close_without_a_flush_leaves_rows_and_position_together(self, tmp_path: Path) -> None:
        with self.driven(tmp_path) as sink:
            sink.write(*self.ticks(10))
            sink.flush()
            sink.write(*self.ticks(10, first_row=10))
        self._resume(tmp_path, 10, 20)

    @needs("stores_position", "kill")
    def test_a_kill_between_write_and_flush_leaves_each_row_once(self, tmp_path: Path) -> None:
        def work() -> Sink:
            sink = self.make(tmp_path)
            sink.open()
            sink.write(self.ticks(10)[0])
            sink.flush()
            sink.write(self.ticks(10, first_row=10)[0])
            return sink

        killed(work, self.patience_s)
        self._resume(tmp_path, 10, 20)

    @needs("stores_position", "kill")
    def test_a_kill_after_the_flush_repeats_nothing(self, tmp_path: Path) -> None:
        def work() -> Sink:
            sink = self.make(tmp_path)
            sink.open()
            sink.write(self.ticks(10)[0])
            sink.flush()
            return sink

        killed(work, self.patience_s)
        self._resume(tmp_path, 10, 10)

    def _run(self, folder: Path, first: int, end: int, journal: str = JOURNAL) -> None:
        with self.driven(folder) as sink:
            sink.write(*self.ticks(end - first, first_row=first, journal=journal))
            sink.flush()

    def _resume(self, folder: Path, earliest: int, latest: int) -> None:
        """Go on where the sink says, as the core does: then every row is there once."""
        with self.driven(folder) as sink:
            row = sink.position(JOURNAL)
            assert row is not None, "the position is gone"
            assert earliest <= row <= latest, (
                f"the position is {row}, after {earliest} rows flushed of {latest} written"
            )
            sink.deliver(self.ticks(30 - row, first_row=row))
        self.expect(folder, self.ticks(30))


def _refused(sink: Driver, batch: TickBatch) -> list[int]:
    """Write and flush as a feed does: the indices of the rows that were refused, at once or late."""
    first = batch.seq.tolist()
    told: list[int] = []
    try:
        sink.write(batch)
    except SinkError as error:
        if not error.rejected:
            raise
        told += error.rejected
    for _ in range(len(batch) + 1):
        try:
            sink.flush()
        except SinkError as error:
            if error.refused is None or not len(error.refused):
                raise
            told += [first.index(seq) for seq in error.refused.seq.tolist()]
        else:
            break
    return told


def _open_write_flush(sink: Driver, case: SinkCase) -> None:
    sink.open()
    _write_and_flush(sink, case)


def _write_and_flush(sink: Driver, case: SinkCase) -> None:
    sink.write(*case.ticks(10))
    sink.flush()
