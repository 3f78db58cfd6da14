"""The day's instrument master and silent instruments, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from threading import Event
from typing import Any

import attrs
import numpy as np

from marketfeed.batches import Origin
from marketfeed.calendars import MarketCalendar
from marketfeed.clock import ManualClock, to_ns
from marketfeed.contract import Subscription
from marketfeed.dtypes import empty_ticks
from marketfeed.engine.latest import Latest
from marketfeed.engine.logs import get_log
from marketfeed.engine.upkeep import SilenceWatch, Upkeep
from marketfeed.enums import Mode
from marketfeed.errors import LineLost, MarketFeedError, SessionExpired
from marketfeed.instruments import Instrument, InstrumentTable

INFY = Instrument(exchange="NSE", symbol="INFY", token="408065")
GOLD = Instrument(exchange="NFO", symbol="GOLD26NOVFUT", token="99", expiry=date(2026, 11, 19))


def test_only_an_instrument_that_ticked_every_minute_is_missed_and_its_return_is_told() -> None:
    watch = SilenceWatch()
    newest = np.array([0, 0, 0])
    for minute in range(1, 12):
        newest = newest + np.array([1, minute % 2, 0])  # every minute, every other minute, never
        assert watch.round(newest) == ([], [])
    assert watch.round(newest) == ([0], [])
    assert watch.round(newest) == ([], [])
    assert watch.round(newest + 1) == ([], [0])


def test_a_closed_market_is_no_silence() -> None:
    watch = SilenceWatch()
    for minute in range(1, 15):
        watch.round(np.array([minute]))
    watch.pause(np.array([14]))
    assert watch.round(np.array([14])) == ([], [])


class Master:
    """Stands for the account: gives the tables it is told, raises the errors it is told."""

    def __init__(self, *answers: InstrumentTable | Exception) -> None:
        self.answers = list(answers)
        self.logins = 1
        self.asked: list[tuple[bool, bool]] = []

    def instruments(self, *, refresh: bool, renew: bool) -> InstrumentTable:
        self.asked.append((refresh, renew))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, SessionExpired) and renew:
            self.logins += 1  # as an account does before it gives up
        if isinstance(answer, Exception):
            raise answer
        return answer


class Book:
    """Stands for the lines: notes what upkeep changed."""

    def __init__(self, *instruments: Instrument) -> None:
        self.wanted = Subscription.of(instruments, Mode.FULL)
        self.done: list[tuple[Any, ...]] = []
        self.broken: list[str] = []
        """Errors of the next calls."""

    def replace(self, pairs: list[tuple[Instrument, Instrument]]) -> None:
        if self.broken:
            raise OSError(self.broken.pop())
        for old, new in pairs:
            self.wanted = self.wanted + Subscription.of([new], Mode.FULL) - [old]
            self.done.append(("replace", old.token, new.token))

    def unsubscribe(self, gone: list[Instrument]) -> None:
        if gone:
            self.done.append(("unsubscribe", *[one.key for one in gone]))

    def subscribe(self, fresh: list[Instrument], mode: Mode) -> None:
        if GOLD in fresh:
            raise MarketFeedError("the account is full")
        self.done.append(("subscribe", mode, *[one.key for one in fresh]))


def upkeep_of(master: Master, book: Book, *again: Instrument) -> tuple[Upkeep, ManualClock, list[str]]:
    told: list[str] = []

    def emit(kind: str, connection: int | None, data: Mapping[str, Any]) -> None:
        told.append(kind)

    clock = ManualClock(to_ns("2026-11-19 15:00:00"))
    account: Any = master
    lines: Any = book
    latest = Latest(Origin([INFY]))
    calendar = MarketCalendar.named("NSE")
    moving = Subscription.of(again, Mode.QUOTE)
    upkeep = Upkeep(account, lines, latest, calendar, clock, get_log(), emit, Event(), lambda _: moving)
    upkeep.round()
    return upkeep, clock, told


def test_the_next_mornings_master_brings_new_tokens_and_takes_expired_instruments() -> None:
    master = Master(InstrumentTable([attrs.evolve(INFY, token="777")]))
    book = Book(INFY, GOLD)
    upkeep, clock, told = upkeep_of(master, book)
    clock.advance(3600)
    upkeep.round()
    assert book.done == []  # the same day
    clock.advance(17 * 3600)
    upkeep.round()
    assert book.done == [("unsubscribe", "NFO:GOLD26NOVFUT"), ("replace", "408065", "777")]
    assert told == ["instrument_gone", "instrument_changed"]
    clock.advance(60)
    upkeep.round()
    assert upkeep.reloads == 1


def test_a_master_that_cannot_be_had_is_asked_for_again_after_ever_longer_pauses() -> None:
    master = Master(LineLost("no answer"), LineLost("no answer"), InstrumentTable([INFY]))
    upkeep, clock, _ = upkeep_of(master, Book(INFY))
    clock.advance(18 * 3600)
    asked = []
    for _ in range(6):
        upkeep.round()
        asked.append(len(master.asked))
    assert asked == [1, 2, 2, 3, 3, 3]
    assert upkeep.reloads == 1


def test_a_master_that_never_takes_the_session_costs_one_login_and_some_questions_an_hour() -> None:
    master = Master(SessionExpired("dead"))
    upkeep, clock, _ = upkeep_of(master, Book(INFY))
    clock.advance(18 * 3600)
    for _ in range(180):
        upkeep.round()
    assert master.logins == 2
    assert len(master.asked) <= 12


def test_a_new_day_is_tried_afresh_whatever_the_last_one_was_like() -> None:
    master = Master(SessionExpired("dead"))
    upkeep, clock, _ = upkeep_of(master, Book(INFY))
    clock.advance(18 * 3600)
    for _ in range(50):
        upkeep.round()
    master.answers = [InstrumentTable([INFY])]
    asked = len(master.asked)
    clock.advance(24 * 3600)
    upkeep.round()
    assert (master.asked[asked:], upkeep.reloads) == ([(False, True)], 1)


def test_a_broker_that_cannot_be_reached_is_asked_again_within_minutes() -> None:
    master = Master(LineLost("no answer"))
    upkeep, clock, _ = upkeep_of(master, Book(INFY))
    clock.advance(18 * 3600)
    for _ in range(32):
        upkeep.round()
    asked = len(master.asked)
    master.answers = [InstrumentTable([INFY])]
    for _ in range(5):
        upkeep.round()
    assert (upkeep.reloads, len(master.asked)) == (1, asked + 1)


def test_a_master_without_a_whole_exchange_ends_no_subscription() -> None:
    bse = attrs.evolve(INFY, exchange="BSE", token="5")
    tables = [InstrumentTable([]), InstrumentTable([bse]), InstrumentTable([INFY, bse], missing=["NFO"])]
    master = Master(*tables)
    book = Book(INFY, bse)
    upkeep, clock, told = upkeep_of(master, book)
    clock.advance(18 * 3600)
    for _ in range(20):
        upkeep.round()
    assert (book.done, upkeep.reloads) == ([], 1)
    assert told == ["master_incomplete"] * 2
    assert [refresh for refresh, _ in master.asked] == [False, True, True]  # that NFO is missing is no matter here


def test_a_share_that_is_not_listed_any_more_stays_subscribed_until_its_token_is_another_ones() -> None:
    tcs = attrs.evolve(INFY, symbol="TCS", token="9")
    book = Book(INFY, tcs)
    upkeep, clock, told = upkeep_of(Master(InstrumentTable([INFY])), book)
    clock.advance(18 * 3600)
    upkeep.round()
    assert (book.done, told, upkeep.reloads) == ([], ["instrument_unlisted"], 1)
    taken = attrs.evolve(INFY, symbol="NEWCO", token="9")
    book = Book(INFY, tcs)
    upkeep, clock, told = upkeep_of(Master(InstrumentTable([INFY, taken])), book)
    clock.advance(18 * 3600)
    upkeep.round()
    assert (book.done, told) == ([("unsubscribe", "NSE:TCS")], ["instrument_gone"])


def test_a_full_disk_while_the_master_is_taken_is_tried_again() -> None:
    book = Book(INFY)
    book.broken.append("disk full")
    upkeep, clock, told = upkeep_of(Master(InstrumentTable([attrs.evolve(INFY, token="777")])), book)
    clock.advance(18 * 3600)
    upkeep.round()
    assert (book.done, upkeep.reloads) == ([], 0)
    upkeep.round()
    assert (book.done, told) == ([("replace", "408065", "777")], ["instrument_changed"])


def test_a_silent_instrument_is_an_event_while_the_market_is_open() -> None:
    upkeep, clock, told = upkeep_of(Master(), Book(INFY))
    rows = empty_ticks(1)
    rows["instrument"] = 0
    for minute in range(12):
        upkeep.latest.update(rows, minute)
        clock.advance(60)
        upkeep.round()
    clock.advance(60)
    upkeep.round()
    assert told == ["instrument_silent"]
    upkeep.latest.update(rows, 99)
    upkeep.round()
    assert told == ["instrument_silent", "instrument_back"]


NEXT = attrs.evolve(GOLD, symbol="GOLD26DECFUT", token="100", expiry=date(2026, 12, 19))


def test_the_next_future_is_subscribed_in_the_morning_after_the_last_one_expired() -> None:
    book = Book(INFY, GOLD)
    upkeep, clock, told = upkeep_of(Master(InstrumentTable([INFY, NEXT])), book, NEXT, INFY)
    clock.advance(18 * 3600)
    upkeep.round()
    assert book.done == [("unsubscribe", GOLD.key), ("subscribe", Mode.QUOTE, NEXT.key)]
    assert told == ["instrument_gone", "instrument_added"]


def test_a_full_account_keeps_what_it_has() -> None:
    book = Book(INFY)
    upkeep, clock, told = upkeep_of(Master(InstrumentTable([INFY, GOLD])), book, GOLD)
    clock.advance(18 * 3600)
    upkeep.round()
    assert (book.done, told, upkeep.reloads) == ([], [], 1)


def test_a_share_that_was_renamed_overnight_is_followed_by_its_number() -> None:
    old = attrs.evolve(INFY, symbol="TATAMOTORS", exchange_token="3456")
    book = Book(old)
    renamed = attrs.evolve(old, symbol="TMPV", token="884737")
    upkeep, clock, told = upkeep_of(Master(InstrumentTable([INFY, renamed])), book)
    clock.advance(18 * 3600)
    upkeep.round()
    assert book.done == [("replace", old.token, "884737")]
    assert told == ["instrument_renamed"]
