"""The ledger of gaps: what opens one, what it merges, what closes it, and what a new run makes of the last one's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import pytest

from marketfeed.calendars import ALWAYS, MarketCalendar
from marketfeed.clock import NS, Clock, ManualClock, to_ns
from marketfeed.dtypes import empty_ticks
from marketfeed.engine import gapwriter
from marketfeed.engine.gaps import GapLedger
from marketfeed.engine.gapwriter import GapWriter
from marketfeed.engine.logs import get_log
from marketfeed.gaps import Gap, gaps_file, read_book
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal, ticks_folder

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "gap.schema.json"
INFY, TCS, SBIN, ITC = (
    Instrument(exchange="NSE", symbol=symbol, token=str(number))
    for number, symbol in enumerate(("INFY", "TCS", "SBIN", "ITC"))
)
START = to_ns("2026-11-20T10:00")


@attrs.define
class Run:
    """A run of a feed, in virtual time, without threads and sockets."""

    ledger: GapLedger
    journal: Journal
    clock: ManualClock
    events: list[Mapping[str, Any]]

    def tick(self, instrument: int = 0) -> int:
        """A row is received now; gives its time."""
        rows = empty_ticks(1)
        rows["received_ns"], rows["instrument"] = self.clock.wall_ns(), instrument
        self.journal.append(rows)
        return self.clock.wall_ns()

    def data(self, connection: int = 0) -> int:
        """The first data after a silence, as a wire tells it."""
        now_ns = self.clock.wall_ns()
        self.ledger.resumed(connection, now_ns)
        self.tick()
        self.ledger.settle()
        return now_ns

    def lose(self, since_ns: int, cause: str = "outage", connection: int = 0) -> None:
        self.ledger.lost(connection, since_ns, cause, f"why of {cause}")
        self.ledger.settle()

    def stop(self) -> None:
        self.ledger.close()
        self.ledger.settle()
        self.journal.close()

    @property
    def gaps(self) -> list[Gap]:
        return list(self.ledger.all)


def ledger_on(journal: Journal, clock: Clock, events: list[Mapping[str, Any]], path: Path | None) -> GapLedger:
    def emit(kind: str, connection: int | None, data: Mapping[str, Any]) -> None:
        assert kind == "gap"
        events.append({"connection": connection, **data})

    return GapLedger(GapWriter("main", "kite", journal, clock, get_log(), emit, path), row_patience_s=0.0)


Begin = Callable[..., Run]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Begins a run on the journal of this test's folder; ``clock`` goes on where an earlier one stands."""
    clock = ManualClock(START)

    def start(*parts: list[Instrument], calendar: MarketCalendar = ALWAYS) -> Run:
        journal = Journal.create(ticks_folder(tmp_path, "main"), vendor="kite", rows_per_segment=64, sync="os")
        events: list[Mapping[str, Any]] = []
        run = Run(ledger_on(journal, clock, events, gaps_file(tmp_path, "main")), journal, clock, events)
        run.ledger.begin(list(parts) or [[INFY, TCS]], calendar)
        return run

    return start


def kill(run: Run) -> None:
    """The process is gone: nothing more is written to the ledger."""
    run.journal.close()


# --- lines ----------------------------------------------------------------------------------------


def test_waiting_for_the_first_tick_of_all_is_no_gap(begin: Begin) -> None:
    run = begin()
    run.clock.advance(600)
    run.data()
    assert run.gaps == []


def test_an_outage_lasts_from_the_last_data_to_the_first(begin: Begin) -> None:
    run = begin()
    run.data()
    last_ns = run.tick()
    run.clock.advance(3)
    run.lose(last_ns)
    (gap,) = run.gaps
    assert gap.is_open
    assert run.ledger.is_open(0)
    run.clock.advance(4)
    end_ns = run.data()
    (gap,) = run.gaps
    assert (gap.start_ns, gap.end_ns, gap.seconds, gap.in_session_s) == (last_ns, end_ns, 7.0, 7.0)
    assert (gap.cause, gap.connection, gap.instruments) == ("outage", 0, (0, 1))
    assert (gap.row_before, gap.row_after, gap.journal) == (1, 2, run.journal.name)
    assert [(one["state"], one["connection"]) for one in run.events] == [("opened", 0), ("closed", 0)]
    assert run.ledger.writer.opened == {"outage": 1}
    assert run.ledger.writer.seconds == {"outage": 7.0}


@pytest.mark.parametrize("cause", ["outage", "mute", "taken_over"])
def test_rows_that_were_on_their_way_when_the_line_was_lost_are_no_part_of_the_gap(begin: Begin, cause: str) -> None:
    run = begin()
    run.data()
    last_ns = run.clock.wall_ns()
    run.lose(last_ns, cause)
    for _ in range(3):
        run.tick()  # received before the loss, parsed only now
    run.clock.advance(4)
    run.data()
    (gap,) = run.gaps
    assert (gap.row_before, gap.row_after) == (3, 4)


def test_what_befalls_an_open_gap_is_added_to_its_causes(begin: Begin) -> None:
    run = begin()
    since_ns = run.data()
    run.clock.advance(5)
    run.lose(since_ns, "mute")
    run.clock.advance(5)
    run.lose(since_ns)
    run.lose(since_ns)
    run.clock.advance(1)
    run.data()
    (gap,) = run.gaps
    assert gap.cause == "mute"
    assert gap.causes == ("mute", "outage")
    assert gap.why == "why of mute; why of outage"
    assert gap.seconds == 11.0


def test_connections_have_gaps_of_their_own(begin: Begin) -> None:
    run = begin([INFY], [TCS, SBIN])
    since_ns = run.tick()
    run.lose(since_ns, connection=1)
    run.clock.advance(1)
    run.lose(since_ns, connection=0)
    run.data(connection=1)
    assert [(gap.connection, gap.is_open, gap.instruments) for gap in run.gaps] == [(1, False, (1, 2)), (0, True, (0,))]


def test_a_gap_has_the_instruments_of_the_moment_at_which_it_began(begin: Begin) -> None:
    run = begin([INFY])
    since_ns = run.tick()
    run.ledger.subscribed(0, [INFY, SBIN])
    run.lose(since_ns)
    run.ledger.subscribed(0, [SBIN])
    run.ledger.settle()
    numbers = [run.journal.instruments[number] for number in run.gaps[0].instruments]
    assert numbers == [INFY, SBIN]


def test_a_connection_without_instruments_misses_nothing(begin: Begin) -> None:
    run = begin()
    since_ns = run.tick()
    run.ledger.subscribed(0, [])
    run.lose(since_ns)
    assert run.gaps == []


def test_a_night_costs_no_session_time_and_an_outage_over_the_close_only_its_part(begin: Begin) -> None:
    calendar = MarketCalendar("NSE", (("09:15", "15:30"),))
    run = begin(calendar=calendar)
    run.clock.advance((to_ns("2026-11-20T15:29:50") - run.clock.wall_ns()) / NS)
    run.lose(run.tick())
    run.clock.advance(60)
    run.data()
    run.clock.advance(600)
    run.lose(run.tick())
    run.clock.advance((to_ns("2026-11-21T08:00") - run.clock.wall_ns()) / NS)
    run.data()
    assert [gap.in_session_s for gap in run.gaps] == [10.0, 0.0]


def test_a_clock_that_steps_back_makes_no_gap_of_negative_length(begin: Begin) -> None:
    run = begin()
    since_ns = run.tick()
    run.lose(since_ns)
    run.ledger.resumed(0, since_ns - 5 * NS)
    run.ledger.settle()
    assert run.gaps[0].seconds == 0.0


def test_a_secret_in_a_reason_is_not_written_down(begin: Begin, tmp_path: Path) -> None:
    run = begin()
    run.ledger.lost(0, run.tick(), "outage", "refused wss://x/?access_token=hush-hush-42")
    run.ledger.settle()
    assert "hush-hush" not in gaps_file(tmp_path, "main").read_text()
    assert "refused" in run.gaps[0].why


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "cause"), [(Run.stop, "restart"), (kill, "crash")])
def test_a_new_run_makes_one_gap_from_the_last_row_on(begin: Begin, end: Callable[[Run], None], cause: str) -> None:
    first = begin()
    first.data()
    first.clock.advance(1)
    last_ns = first.tick()
    first.clock.advance(30)
    end(first)
    second = begin()
    (gap,) = second.gaps
    assert (gap.cause, gap.start_ns, gap.is_open, gap.row_before) == (cause, last_ns, True, 1)
    second.clock.advance(30)
    end_ns = second.data()
    (gap,) = second.gaps
    assert (gap.start_ns, gap.end_ns, gap.row_before, gap.row_after) == (last_ns, end_ns, 1, 2)
    second.stop()


def test_the_gap_of_a_crash_is_on_the_disk_before_the_first_new_row(begin: Begin, tmp_path: Path) -> None:
    first = begin()
    first.data()
    kill(first)
    second = begin()
    kill(second)
    assert [gap.cause for gap in read_book(gaps_file(tmp_path, "main")).gaps.values()] == ["crash"]


def test_a_run_without_data_goes_on_with_the_gap_of_the_one_before(begin: Begin) -> None:
    first = begin()
    last_ns = first.data()
    first.stop()
    for _ in range(2):
        begin().stop()
    last = begin()
    last.clock.advance(10)
    last.data()
    (gap,) = last.gaps
    assert (gap.causes, gap.start_ns, gap.seconds) == (("restart",), last_ns, 10.0)


def test_an_outage_goes_on_over_a_crash(begin: Begin) -> None:
    first = begin()
    last_ns = first.data()
    first.clock.advance(1)
    first.lose(last_ns)
    kill(first)
    second = begin()
    second.clock.advance(1)
    second.data()
    (gap,) = second.gaps
    assert (gap.causes, gap.seconds) == (("outage", "crash"), 2.0)


def test_an_outage_whose_end_was_not_written_down_is_not_made_shorter(begin: Begin) -> None:
    first = begin()
    last_ns = first.data()
    first.lose(last_ns + 50)  # the row of the last data never reached the journal
    kill(first)
    assert begin().gaps[0].start_ns == last_ns


def test_instruments_that_change_connections_are_covered_without_a_break(begin: Begin) -> None:
    first = begin([INFY, TCS], [SBIN])
    first.data()
    lost_ns = first.tick()
    first.lose(lost_ns)
    first.clock.advance(20)
    last_ns = first.tick(2)
    first.stop()
    second = begin([INFY], [TCS, SBIN])
    outage, *restarts = second.gaps
    assert (outage.start_ns, outage.end_ns, outage.instruments) == (lost_ns, last_ns, (0, 1))
    assert [(gap.cause, gap.start_ns, gap.is_open, gap.instruments) for gap in restarts] == [
        ("restart", last_ns, True, (0,)),
        ("restart", last_ns, True, (1, 2)),
    ]


def test_an_instrument_that_was_not_subscribed_before_has_missed_nothing(begin: Begin) -> None:
    first = begin([INFY])
    first.data()
    first.stop()
    second = begin([INFY, TCS], [SBIN])
    assert [(gap.connection, gap.instruments) for gap in second.gaps] == [(0, (0,))]


def test_an_instrument_subscribed_at_run_time_counts_after_a_crash(begin: Begin) -> None:
    first = begin([INFY])
    first.data()
    first.ledger.subscribed(0, [INFY, ITC])
    first.ledger.settle()
    kill(first)
    second = begin([ITC, TCS])
    assert [second.journal.instruments[number] for number in second.gaps[0].instruments] == [ITC]


def test_the_open_gap_of_an_instrument_that_nobody_wants_any_more_ends(begin: Begin) -> None:
    first = begin([INFY])
    last_ns = first.data()
    first.lose(last_ns)
    first.stop()
    second = begin([TCS])
    assert [gap.end_ns for gap in second.gaps] == [last_ns]


def test_a_journal_older_than_its_ledger_has_a_gap_of_all_instruments(begin: Begin, tmp_path: Path) -> None:
    first = begin([INFY])
    last_ns = first.data()
    first.stop()
    gaps_file(tmp_path, "main").unlink()
    second = begin([INFY, TCS])
    assert [(gap.cause, gap.start_ns, gap.instruments) for gap in second.gaps] == [("restart", last_ns, (0, 1))]


def test_a_ledger_older_than_its_journal_is_left_as_it_is(begin: Begin, tmp_path: Path) -> None:
    import shutil

    first = begin()
    first.lose(first.data())
    first.stop()
    shutil.rmtree(ticks_folder(tmp_path, "main"))
    second = begin()
    assert [gap.causes for gap in second.gaps] == [("outage",)]
    assert not second.ledger.is_open(0)


# --- rows -----------------------------------------------------------------------------------------


def test_rows_that_a_sink_does_not_get_are_a_gap_of_that_sink(begin: Begin) -> None:
    run = begin()
    times = []
    for _ in range(10):
        run.clock.advance(1)
        times.append(run.tick())
    run.ledger.skipped("kafka", 3, 6, 3, "too slow")
    run.ledger.settle()
    run.clock.advance(2)
    run.ledger.skipped("kafka", 7, 9, 2, "too slow")
    run.ledger.settle()
    assert run.gaps[0].is_open
    run.clock.advance(5)
    run.ledger.settle()
    (gap,) = run.gaps
    assert (gap.cause, gap.sink, gap.connection, gap.rows) == ("skipped", "kafka", None, 5)
    assert (gap.row_before, gap.row_after, gap.start_ns, gap.end_ns) == (2, 9, times[2], times[9])
    assert not run.ledger.is_open(0)


def test_rows_that_never_reach_the_journal_are_a_gap(begin: Begin) -> None:
    run = begin()
    last_ns = run.data()
    run.clock.advance(1)
    lost_ns = run.clock.wall_ns()
    run.ledger.dropped(lost_ns, lost_ns + NS, 40, "no space left on device")
    run.stop()
    (gap,) = run.gaps
    assert (gap.cause, gap.start_ns, gap.end_ns, gap.rows) == ("dropped", last_ns, lost_ns + NS, 40)
    assert (gap.row_before, gap.row_after) == (0, None)
    assert gap.why == "no space left on device"


# --- threads, disk --------------------------------------------------------------------------------


def test_the_thread_waits_for_the_row_that_ends_a_gap() -> None:
    journal = Journal.memory()
    ledger = ledger_on(journal, Clock(), [], None)
    ledger.row_patience_s = 10.0
    ledger.begin([[INFY]], ALWAYS)
    thread = threading.Thread(target=ledger.run)
    thread.start()
    ledger.lost(0, 1000, "outage", "gone")
    ledger.resumed(0, 2000)
    rows = empty_ticks(1)
    rows["received_ns"] = 2000
    journal.append(rows)
    ledger.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [(gap.row_before, gap.row_after) for gap in ledger.all] == [(None, 0)]


def test_a_disk_that_refuses_costs_nothing_once_it_takes_again(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin()
    since_ns = run.data()
    with monkeypatch.context() as patch:
        patch.setattr(gapwriter, "append_events", lambda fd, data: (0, OSError("no space left on device")))
        run.lose(since_ns)
        assert "no space" in run.ledger.status()["error"]
    run.clock.advance(1)
    run.data()
    assert run.ledger.status() == {"opened": 1, "open": 0, "error": None}
    assert list(read_book(gaps_file(tmp_path, "main")).gaps.values()) == run.gaps


def test_a_bug_in_the_ledger_does_not_end_its_thread(begin: Begin) -> None:
    run = begin()
    since_ns = run.data()
    run.ledger.skipped("kafka", "three", 6, 3, "a bug")  # type: ignore[arg-type]
    run.lose(since_ns)
    assert len(run.gaps) == 1
    assert run.ledger.status()["error"]


def test_what_is_told_keeps_to_the_schema(begin: Begin) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    run = begin()
    since_ns = run.data()
    run.ledger.skipped("kafka", 0, 1, 1, "too slow")
    run.lose(since_ns)
    run.clock.advance(6)
    run.data()
    run.lose(run.tick(), "mute")
    for gap in run.gaps:
        document = json.loads(json.dumps(gap.document(["NSE:INFY"])))
        jsonschema.validate(document, schema)
        assert set(document) == set(schema["properties"])
    assert [gap.is_open for gap in run.gaps] == [False, False, True]
