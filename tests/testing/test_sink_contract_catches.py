"""The kit finds what it promises to find: a toy sink passes, and each bug planted into it is caught by name."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest

from marketfeed.batches import TickBatch
from marketfeed.contract import Sink, secret
from marketfeed.errors import SinkError
from marketfeed.instruments import Instrument
from marketfeed.testing import SinkContract, sample_ticks
from marketfeed.testing.case import _checks
from marketfeed.testing.reading import documents_of

DOCUMENTATION = "| `folder` | where it writes |\n| `password` | opens the door |"
PATIENCE_S = 5.0


@attrs.define(slots=False)
class Toy(Sink):
    """Everything a sink can do, in one file of JSON lines: a flush appends its rows and their position in one go.

    The "server" is down while a file ``down`` is in the folder, and slow while there is a file ``slow``.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"ticks", "candles"})

    folder: Path = attrs.field(converter=Path)
    """Where it writes"""
    password: str = secret(default="right")
    """Opens the door"""

    _buffer: list[str] = attrs.field(init=False, factory=list, repr=False)
    _next: tuple[str, int] | None = attrs.field(init=False, default=None, repr=False)

    @property
    def file(self) -> Path:
        return self.folder / "rows"

    def open(self) -> None:
        if self.password == "wrong":
            raise SinkError("the password is wrong; set another one", retryable=False)
        self.reach()

    def reach(self) -> None:
        if (self.folder / "slow").exists():
            time.sleep(0.05)
        if (self.folder / "down").exists():
            raise SinkError("the server is gone", retryable=True)

    def position(self, journal: str) -> int | None:
        stored = [line["position"] for line in self.lines() if "position" in line]
        return stored[-1][1] if stored and stored[-1][0] == journal else None

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def write(self, batch: Any) -> None:
        refused = [row for row, symbol in enumerate(batch.symbols) if symbol == "NSE:REFUSED"]
        taken = batch[~np.isin(np.arange(len(batch)), refused)]
        self.take(taken)
        if len(batch):
            self._next = (batch.journal, int(batch.seq[-1]) + 1)
        if refused:
            raise SinkError("the server knows no REFUSED", rejected=refused)

    def take(self, batch: Any) -> None:
        self._buffer += [json.dumps(document) for document in documents_of([batch])]

    def flush(self) -> None:
        self.reach()
        if self._next is not None:
            self.append([*self._buffer, json.dumps({"position": self._next})])
        self.forget()

    def append(self, lines: Sequence[str]) -> None:
        with self.file.open("a") as output:
            output.write("".join(f"{line}\n" for line in lines))

    def forget(self) -> None:
        self._buffer, self._next = [], None


class ToyContract(SinkContract):
    sink = Toy
    options = {"folder": "{folder}"}
    documentation = DOCUMENTATION
    stores_position = True
    can_fail = can_be_slow = can_refuse = can_be_hopeless = True
    patience_s = PATIENCE_S

    def read(self, folder: Path) -> list[dict[str, Any]]:
        return [line for line in Toy(folder).lines() if "position" not in line]

    def break_server(self, folder: Path) -> None:
        (folder / "down").touch()

    def mend_server(self, folder: Path) -> None:
        (folder / "down").unlink(missing_ok=True)
        (folder / "slow").unlink(missing_ok=True)

    def slow_server(self, folder: Path) -> None:
        (folder / "slow").touch()

    def make_hopeless(self, folder: Path) -> Sink:
        return self.sink(folder, "wrong")  # type: ignore[call-arg]

    def refused_ticks(self, folder: Path) -> tuple[TickBatch, Sequence[int]]:
        names = ("RELIANCE", "REFUSED", "INFY")
        listed = [Instrument(exchange="NSE", symbol=name, token=name) for name in names]
        return sample_ticks(9, instruments=listed), [1, 4, 7]


class TestToy(ToyContract):
    """The toy itself is sound."""


# --- planted bugs ---------------------------------------------------------------------------------

BUGS: list[tuple[str, type[Toy]]] = []


def caught_by(check: str) -> Callable[[type[Toy]], type[Toy]]:
    """Plant a bug; the check that must find it."""

    def plant(cls: type[Toy]) -> type[Toy]:
        BUGS.append((check, attrs.define(slots=False)(cls)))
        return cls

    return plant


@caught_by("test_nothing_is_lost_when_the_server_goes_and_comes_back")
class ForgetsRowsThatItCouldNotSend(Toy):
    def flush(self) -> None:
        try:
            super().flush()
        finally:
            self.forget()


@caught_by("test_nothing_is_lost_when_the_server_goes_and_comes_back")
class SendsRowsAgainThatWereTaken(Toy):
    def flush(self) -> None:
        if (self.folder / "down").exists():
            self.append(self._buffer)  # they got through; only the answer was lost
        super().flush()


@caught_by("test_a_server_that_is_gone_is_a_retryable_error")
class GivesUpAtOnce(Toy):
    def reach(self) -> None:
        if (self.folder / "down").exists():
            raise SinkError("the server is gone", retryable=False)


@caught_by("test_a_server_that_is_gone_is_a_retryable_error")
class RaisesWhateverItsLibraryRaises(Toy):
    def reach(self) -> None:
        if (self.folder / "down").exists():
            raise ConnectionResetError("reset by peer")


@caught_by("test_a_server_that_is_gone_is_a_retryable_error")
class WaitsForTheServerForEver(Toy):
    def reach(self) -> None:
        while (self.folder / "down").exists():
            time.sleep(0.02)


@caught_by("test_a_feed_rides_out_an_outage")
class NeedsAnOpenAfterEveryOutage(Toy):
    _lost: bool = attrs.field(init=False, default=False)

    def reach(self) -> None:
        self._lost = self._lost or (self.folder / "down").exists()
        if self._lost:
            raise SinkError("the connection is closed", retryable=True)


@caught_by("test_closing_while_the_server_is_gone_returns")
class WaitsForTheServerToClose(Toy):
    def close(self) -> None:
        while (self.folder / "down").exists():
            time.sleep(0.02)


@caught_by("test_opening_without_a_server_says_so_and_can_be_repeated")
class RemembersAFailedOpen(Toy):
    _failed: bool = attrs.field(init=False, default=False)

    def open(self) -> None:
        if self._failed:
            raise SinkError("already opened", retryable=False)
        self._failed = True
        super().open()


@caught_by("test_a_slow_server_costs_time_and_no_rows")
class DropsWhatTakesTooLong(Toy):
    def flush(self) -> None:
        if (self.folder / "slow").exists():
            self.forget()
        super().flush()


@caught_by("test_refused_rows_are_named_and_the_others_are_taken")
class RefusesTheBatchForOneRow(Toy):
    def write(self, batch: Any) -> None:
        if "NSE:REFUSED" in batch.symbols:
            raise SinkError("the server knows no REFUSED", rejected=range(len(batch)))
        super().write(batch)


@caught_by("test_a_hopeless_setting_is_a_fatal_error_of_open")
class TriesAWrongPasswordForEver(Toy):
    def open(self) -> None:
        if self.password == "wrong":
            raise SinkError("cannot log in", retryable=True)


@caught_by("test_flushed_rows_are_there_before_close")
class FlushesWhenItCloses(Toy):
    def flush(self) -> None:
        pass

    def close(self) -> None:
        super().flush()


@caught_by("test_a_second_run_adds_to_the_first")
class BeginsANewFile(Toy):
    def open(self) -> None:
        super().open()
        self.file.write_text("")


@caught_by("test_closing_twice_is_harmless")
class ClosesOnlyOnce(Toy):
    _closed: bool = attrs.field(init=False, default=False)

    def close(self) -> None:
        assert not self._closed
        self._closed = True


@caught_by("test_closing_what_was_never_opened_is_harmless")
class ClosesWhatItDidNotOpen(Toy):
    _output: Any = attrs.field(init=False, default=None)

    def close(self) -> None:
        self._output.close()


@caught_by("test_making_it_does_nothing")
class OpensWhenItIsMade(Toy):
    def __attrs_post_init__(self) -> None:
        self.file.touch()


@caught_by("test_two_sinks_of_one_type_share_nothing")
class SharesItsBuffer(Toy):
    shared: ClassVar[list[str]] = []

    def write(self, batch: Any) -> None:
        super().write(batch)
        self.shared.extend(self._buffer)
        self._buffer = []

    def flush(self) -> None:
        self._buffer = [*self.shared]
        self.shared.clear()
        super().flush()


@caught_by("test_everything_is_there_when_a_feed_stops")
class KeepsTheLastRowsForCompany(Toy):
    def flush(self) -> None:
        self._buffer, last = self._buffer[:-1], self._buffer[-1:]
        super().flush()
        self._buffer = last


@caught_by("test_a_very_large_batch")
class TakesOnlySoMany(Toy):
    def take(self, batch: Any) -> None:
        super().take(batch[:4096])


@caught_by("test_an_empty_batch_writes_nothing")
class LooksAtTheFirstRow(Toy):
    def write(self, batch: Any) -> None:
        assert batch.rows[0] is not None
        super().write(batch)


@caught_by("test_candles")
class ReadsCandlesAsTicks(Toy):
    def take(self, batch: Any) -> None:
        batch["last_price"]
        super().take(batch)


@caught_by("test_absent_fields_stay_absent")
class WritesZeroForAbsent(Toy):
    def take(self, batch: Any) -> None:
        self._buffer += [json.dumps({"average_price": 0.0, **document}) for document in documents_of([batch])]


@caught_by("test_numbers_that_are_not_finite_do_not_stop_it")
class RefusesNan(Toy):
    def take(self, batch: Any) -> None:
        if "last_price" in (batch.rows.dtype.names or ()) and np.isnan(batch["last_price"]).any():
            raise ValueError("NaN is not JSON")
        super().take(batch)


@caught_by("test_prices_read_back_as_the_same_number")
class RoundsPrices(Toy):
    def take(self, batch: Any) -> None:
        for document in documents_of([batch]):
            self._buffer.append(json.dumps({**document, "last_price": round(document["last_price"], 2)}))


@caught_by("test_symbols_in_any_script")
class KnowsAsciiOnly(Toy):
    def take(self, batch: Any) -> None:
        for document in documents_of([batch]):
            symbol = document["symbol"].encode("ascii", "replace").decode()
            self._buffer.append(json.dumps({**document, "symbol": symbol}))


@caught_by("test_an_unknown_instrument_does_not_stop_it")
class NamesUnknownInstrumentsAfterTheLastOne(Toy):
    def take(self, batch: Any) -> None:
        known = list(batch.origin.instruments)
        for number, document in zip(batch["instrument"].tolist(), documents_of([batch]), strict=True):
            self._buffer.append(json.dumps({**document, "symbol": known[number].symbol}))


@caught_by("test_each_instrument_is_in_order")
class WritesTheNewestFirst(Toy):
    def append(self, lines: Sequence[str]) -> None:
        super().append([*reversed(lines[:-1]), *lines[-1:]])


@caught_by("test_rows_that_were_skipped_leave_the_numbers_of_the_others_alone")
class CountsRowsItself(Toy):
    def take(self, batch: Any) -> None:
        for place, document in enumerate(documents_of([batch])):
            self._buffer.append(json.dumps({**document, "seq": batch.first_row + place}))


@caught_by("test_it_keeps_no_view_of_the_journal")
class KeepsViews(Toy):
    _kept: list[Any] = attrs.field(init=False, factory=list)

    def write(self, batch: Any) -> None:
        self._kept.append(batch)

    def flush(self) -> None:
        while self._kept:
            super().write(self._kept.pop(0))
        super().flush()


@caught_by("test_what_is_published_keeps_to_the_schema")
class AddsAFieldOfItsOwn(Toy):
    def take(self, batch: Any) -> None:
        self._buffer += [json.dumps({**document, "host": "db1"}) for document in documents_of([batch])]


@caught_by("test_only_the_exact_name_of_the_journal_counts")
class TakesAnyEpoch(Toy):
    def position(self, journal: str) -> int | None:
        stored = [line["position"] for line in self.lines() if "position" in line]
        same = stored and stored[-1][0].partition(".")[0] == journal.partition(".")[0]
        return stored[-1][1] if same else None


@caught_by("test_the_position_counts_skipped_rows")
class AddsUpLengths(Toy):
    def write(self, batch: Any) -> None:
        super().write(batch)
        self._next = (batch.journal, batch.first_row + len(batch))


@caught_by("test_a_kill_between_write_and_flush_leaves_each_row_once")
class StoresThePositionBeforeTheRows(Toy):
    def write(self, batch: Any) -> None:
        super().write(batch)
        self.append([json.dumps({"position": self._next})])


@caught_by("test_a_kill_after_the_flush_repeats_nothing")
class StoresThePositionWhenItCloses(Toy):
    _last: Any = attrs.field(init=False, default=None)

    def flush(self) -> None:
        self.append(self._buffer)
        self._last = self._next or self._last
        self.forget()

    def close(self) -> None:
        if self._last:
            self.append([json.dumps({"position": self._last})])


@caught_by("test_what_was_flushed_survives_a_kill")
class LeavesRowsInItsBuffer(Toy):
    _output: Any = attrs.field(init=False, default=None)

    def append(self, lines: Sequence[str]) -> None:
        self._output = self._output or self.file.open("a")
        self._output.write("".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        if self._output:
            self._output.close()


@caught_by("test_every_option_is_documented")
class HasAnOptionThatNobodyKnows(Toy):
    turbo: bool = False
    """Faster"""


@caught_by("test_every_option_is_explained_under_its_field")
class SaysNothingUnderAField(Toy):
    turbo: bool = False


@caught_by("test_an_option_of_the_wrong_kind_is_refused")
class TakesAnyTextAsANumber(Toy):
    rows: int = attrs.field(default=1, converter=lambda value: value)


@caught_by("test_every_metric_is_documented")
class CountsWhatNobodyKnows(Toy):
    def metrics(self) -> dict[str, float]:
        return {"toy_rows_total": 0}


@caught_by("test_metrics_are_plain_numbers_at_any_moment")
class CountsOnlyWhileItIsOpen(Toy):
    _count: Any = attrs.field(init=False, default=None)

    def open(self) -> None:
        self._count = 0

    def metrics(self) -> dict[str, float]:
        return {"toy_rows_total": self._count}


@caught_by("test_metrics_are_plain_numbers_at_any_moment")
class CountsDown(Toy):
    def metrics(self) -> dict[str, float]:
        return {"toy_rows_total": len(self._buffer)}


@caught_by("test_refused_rows_are_named_and_the_others_are_taken")
class RefusesOneRowTooFewLate(Toy):
    _late: Any = attrs.field(init=False, default=None)

    def write(self, batch: Any) -> None:
        bad = np.array([symbol == "NSE:REFUSED" for symbol in batch.symbols])
        super().write(batch[~bad])
        self._late = batch[bad][1:]

    def flush(self) -> None:
        super().flush()
        late, self._late = self._late, None
        if late is not None and len(late):
            raise SinkError("the server knows no REFUSED", refused=late)


@caught_by("test_secret_options_are_marked")
class ShowsItsPasswordField(Toy):
    api_key: str = "abc"


@caught_by("test_secrets_do_not_show")
class LogsItsPassword(Toy):
    def open(self) -> None:
        logging.getLogger("toy").debug("logging in with %s", self.password)


@caught_by("test_secrets_do_not_show")
class ShowsItsPasswordInErrors(Toy):
    def open(self) -> None:
        if self.password != "right":
            raise SinkError(f"{self.password!r} was refused", retryable=False)


@caught_by("test_no_thread_and_no_open_file_is_left")
class LeavesAThread(Toy):
    def open(self) -> None:
        super().open()
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()


@caught_by("test_no_thread_and_no_open_file_is_left")
class LeavesAFileOpen(Toy):
    left: ClassVar[list[Any]] = []

    def open(self) -> None:
        super().open()
        self.left.append(self.file.open("a"))


@caught_by("test_it_prints_nothing")
class Prints(Toy):
    def flush(self) -> None:
        print("flushing")
        super().flush()


@pytest.mark.parametrize(("check", "buggy"), BUGS, ids=lambda one: getattr(one, "__name__", None))
@pytest.mark.process
def test_a_planted_bug_is_caught(check: str, buggy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketfeed.testing.manners._SETTLE_S", 0.2)

    class Case(ToyContract):
        sink = buggy
        patience_s = 1.0

    method = getattr(Case(), check)
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        method(*[tmp_path] * ("tmp_path" in method.__code__.co_varnames))
    print(f"{buggy.__name__}: {str(caught.value).splitlines()[0]}")
    for kept in getattr(buggy, "left", ()):
        kept.close()


def test_there_are_enough_of_both() -> None:
    assert len(_checks(SinkContract)) >= 25
    assert len({check for check, _ in BUGS}) >= 12


def test_a_check_that_a_sink_cannot_be_put_to_is_not_collected() -> None:
    class Plain(SinkContract):
        sink = Sink

    collected = {name for name in dir(Plain) if name.startswith("test_") and getattr(Plain, name)}
    assert "test_a_server_that_is_gone_is_a_retryable_error" not in collected
    assert "test_candles" not in collected
    assert "test_a_sink_that_stores_no_position_says_none" in collected
    assert collected < set(_checks(SinkContract))


def test_an_author_may_switch_a_check_off_and_replace_another() -> None:
    class Mine(ToyContract):
        test_candles = None

        def test_it_prints_nothing(self) -> None:  # type: ignore[override]
            """Of my own."""

    class Derived(Mine):
        can_fail = False

    class Again(Derived):
        can_fail = True

    for cls in (Mine, Derived, Again):
        assert cls.test_candles is None
        assert cls.test_it_prints_nothing.__doc__ == "Of my own."
    assert Derived.test_a_feed_rides_out_an_outage is None
    assert Again.test_a_feed_rides_out_an_outage is Mine.test_a_feed_rides_out_an_outage is not None
