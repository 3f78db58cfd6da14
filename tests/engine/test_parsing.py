"""The parse thread on a real memory journal, with parsers of our own."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import numpy as np
import pytest

from marketfeed.clock import Clock, ManualClock
from marketfeed.contract import BadPacket, Frame, Parsed, Parser
from marketfeed.dtypes import Flag, Rows, empty_ticks
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.latest import Latest
from marketfeed.engine.logs import get_log
from marketfeed.engine.parsing import ParseLoop
from marketfeed.errors import JournalError, PluginError
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal


class TextParser:
    """Frames such as b"0:101.5 1:99": instrument and price. b"?" is damage, b"!" makes it raise."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        self.calls += 1
        rows, bad = [], []
        for index, frame in enumerate(frames):
            if frame.data == b"!":
                raise ValueError("a parser's bug")
            for piece in frame.data.split():
                if piece == b"?":
                    bad.append(BadPacket(index, 0, "unreadable"))
                    continue
                number, price = piece.split(b":")
                row = empty_ticks(1)
                row["instrument"], row["last_price"], row["received_ns"] = int(number), float(price), frame.received_ns
                rows.append(row.tobytes())
        return Parsed(np.frombuffer(bytearray(b"".join(rows)), empty_ticks(0).dtype), bad)


def loop_on(journal: Journal, make: type[TextParser] | Parser = TextParser, clock: Clock | None = None) -> ParseLoop:
    clock = clock or ManualClock(10**18)
    parsers: list[TextParser] = []

    def make_parser() -> Parser:
        parsers.append(TextParser())
        return parsers[-1]

    return ParseLoop(
        inbox=Inbox(2, clock),
        make_parser=make_parser,
        journal=journal,
        deadletters=DeadLetters("test", clock),
        latest=Latest(journal.origin),
        clock=clock,
        log=get_log(),
        fail=lambda error: None,
    )


@pytest.fixture
def journal() -> Journal:
    journal = Journal.memory()
    journal.instruments.register(
        [Instrument(exchange="NSE", symbol=symbol, token=symbol) for symbol in ("INFY", "TCS")]
    )
    return journal


def put(loop: ParseLoop, connection: int, *payloads: bytes) -> None:
    loop.inbox.put(connection, [Frame(payload, 10**18 + place) for place, payload in enumerate(payloads)])


def finish(loop: ParseLoop) -> None:
    loop.inbox.close()
    loop.run()


def prices(journal: Journal) -> list[float]:
    with journal.reader(start="oldest") as reader:
        return reader.take()["last_price"].tolist()  # type: ignore[no-any-return]


def test_rows_reach_the_journal_in_order_and_the_law_holds(journal: Journal) -> None:
    loop = loop_on(journal)
    put(loop, 0, b"0:1 1:2", b"0:3")
    finish(loop)
    assert prices(journal) == [1, 2, 3]
    assert (loop.counts.parsed, loop.counts.appended, loop.counts.bad_packets) == (3, 3, 0)
    assert loop.latest["NSE:INFY"].last_price == 3
    assert loop.latest["NSE:TCS"].seq == 1
    assert list(loop.latest) == ["NSE:INFY", "NSE:TCS"]


def test_waiting_frames_of_a_connection_are_parsed_in_one_call(journal: Journal) -> None:
    loop = loop_on(journal)
    parser = TextParser()
    loop.make_parser = lambda: parser
    for price in (b"0:1", b"0:2", b"0:3"):
        put(loop, 0, price)
    finish(loop)
    assert parser.calls == 1
    assert prices(journal) == [1, 2, 3]


def test_a_new_socket_gets_a_new_parser_at_the_right_moment(journal: Journal) -> None:
    loop = loop_on(journal)
    made: list[TextParser] = []

    def make() -> Parser:
        made.append(TextParser())
        return made[-1]

    loop.make_parser = make
    put(loop, 0, b"0:1")
    loop.inbox.renewed(0)
    put(loop, 0, b"0:2")
    finish(loop)
    assert [parser.calls for parser in made] == [1, 1]
    assert prices(journal) == [1, 2]


def test_damage_is_kept_beside_the_good_packets(journal: Journal) -> None:
    loop = loop_on(journal)
    put(loop, 0, b"0:1 ? 0:2")
    finish(loop)
    assert prices(journal) == [1, 2]
    assert loop.counts.bad_packets == 1
    letter = loop.deadletters.recent[0]
    assert (letter.kind, letter.reason, letter.raw) == ("packet", "unreadable", b"0:1 ? 0:2")


def test_a_row_of_an_unknown_instrument_is_put_aside_with_its_reason(journal: Journal) -> None:
    loop = loop_on(journal)
    put(loop, 0, b"0:1 -1:2 0:3")
    finish(loop)
    assert prices(journal) == [1, 3]
    counts = loop.counts
    assert counts.parsed == counts.appended + counts.dropped + counts.dead_lettered + counts.lost == 3
    letter = loop.deadletters.recent[0]
    row: Rows = np.frombuffer(letter.raw, journal.dtype)
    assert letter.reason == "unknown_instrument"
    assert row["flags"][0] & Flag.UNKNOWN_INSTRUMENT


def test_a_parser_that_raises_costs_its_frames_and_nothing_else(journal: Journal) -> None:
    loop = loop_on(journal)
    put(loop, 0, b"!")
    put(loop, 1, b"1:5")
    finish(loop)
    put_after = loop_on(journal)
    put(put_after, 0, b"0:6")
    finish(put_after)
    assert prices(journal) == [5, 6]
    assert loop.deadletters.counts["packet", "parser_raised"] == 1


class FullDisk:
    """Stands before a real journal and refuses like a full disk, a given number of times."""

    committed = 0

    def __init__(self, journal: Journal, refusals: int) -> None:
        self._journal = journal
        self.refusals = refusals

    def append(self, rows: Rows) -> int:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._journal.append(rows)


def test_a_full_disk_delays_rows_but_loses_none(journal: Journal) -> None:
    loop = loop_on(journal, clock=Clock())
    loop.journal = FullDisk(journal, 2)  # type: ignore[assignment]
    put(loop, 0, b"0:1")
    finish(loop)
    assert prices(journal) == [1]
    assert loop.stuck == ""


def test_rows_that_a_full_disk_still_refuses_at_the_end_are_counted_as_lost(journal: Journal) -> None:
    loop = loop_on(journal)
    loop.journal = FullDisk(journal, 10**9)  # type: ignore[assignment]
    loop.stopping.set()
    put(loop, 0, b"0:1 0:2")
    finish(loop)
    assert loop.counts.lost == 2
    assert "No space left" in loop.stuck


def test_a_journal_that_refuses_for_good_fails_the_feed(journal: Journal) -> None:
    loop = loop_on(journal)
    told: list[Exception] = []
    loop.fail = told.append

    class Refusing:
        committed = 0

        def append(self, rows: Rows) -> int:
            raise JournalError("the laggards' bound is reached")

    loop.journal = Refusing()  # type: ignore[assignment]
    put(loop, 0, b"0:1")
    finish(loop)
    assert [type(error) for error in told] == [JournalError]
    assert loop.counts.lost == 1


def test_a_bug_fails_the_feed_loudly_and_the_thread_drains_on(journal: Journal) -> None:
    loop = loop_on(journal)
    told: list[Exception] = []
    loop.fail = told.append

    class Broken:
        committed = 0

        def __init__(self) -> None:
            self.calls = 0

        def append(self, rows: Rows) -> int:
            self.calls += 1
            if self.calls == 1:
                raise ZeroDivisionError
            return journal.append(rows)

    loop.journal = Broken()  # type: ignore[assignment]
    put(loop, 0, b"0:1 0:2 -1:9")
    put(loop, 1, b"1:3")
    finish(loop)  # returns: the readers are never left waiting for a dead thread
    assert [type(error) for error in told] == [ZeroDivisionError]
    assert prices(journal) == [3]
    counts = loop.counts
    assert (counts.parsed, counts.appended, counts.dead_lettered, counts.lost) == (4, 1, 1, 2)
    assert counts.unaccounted == 0


def test_a_parser_that_cannot_be_made_fails_the_feed(journal: Journal) -> None:
    loop = loop_on(journal)
    told: list[Exception] = []
    loop.fail = told.append

    def make() -> Parser:
        raise PluginError("no parser today")

    loop.make_parser = make
    put(loop, 0, b"0:1")
    finish(loop)
    assert [str(error) for error in told] == ["no parser today"]


def test_a_bad_packet_in_a_frame_that_is_not_there_does_not_end_the_thread(journal: Journal) -> None:
    loop = loop_on(journal)
    told: list[Exception] = []
    loop.fail = told.append
    loop.make_parser = lambda: lambda frames: Parsed(empty_ticks(3), [BadPacket(5, 0, "elsewhere")])
    put(loop, 0, b"0:1")
    finish(loop)
    assert [type(error) for error in told] == [IndexError]
    assert (loop.counts.parsed, loop.counts.lost) == (3, 3)  # the good rows of the call are not forgotten
