"""Session times: ordinary days, holidays, special sessions, the end of the table."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest

from marketfeed.calendars import ALWAYS, MarketCalendar, india_day
from marketfeed.clock import NS, to_ns

NSE = MarketCalendar.named("NSE")


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-20 09:14:59", False),
        ("2026-11-20 09:15:00", True),
        ("2026-11-20 15:29:59", True),
        ("2026-11-20 15:30:00", False),
        ("2026-11-21 10:00:00", False),
        ("2026-10-20 10:00:00", False),
        ("2024-11-01 18:30:00", True),
        ("2024-03-02 10:30:00", False),
        ("2024-03-02 11:45:00", True),
        ("2021-02-24 16:30:00", True),
        ("2027-01-04 10:00:00", True),
    ],
)
def test_it_knows_when_the_exchange_trades(moment: str, is_open: bool) -> None:
    assert NSE.is_open(to_ns(moment)) is is_open


def test_the_next_open_skips_holidays_and_weekends() -> None:
    friday_evening = to_ns("2026-10-16 18:00:00")
    assert NSE.next_open(friday_evening) == to_ns("2026-10-19 09:15:00")
    assert NSE.next_open(to_ns("2026-10-19 18:00:00")) == to_ns("2026-10-21 09:15:00")  # the 20th is a holiday
    assert NSE.next_open(to_ns("2026-10-19 10:00:00")) == to_ns("2026-10-19 09:15:00")


def test_the_last_close_is_the_latest_session_that_is_over() -> None:
    assert NSE.last_close(to_ns("2026-11-23 08:00:00")) == to_ns("2026-11-20 15:30:00")
    assert NSE.last_close(to_ns("2026-11-20 15:30:00")) == to_ns("2026-11-20 15:30:00")


def test_always_never_closes() -> None:
    for hour in range(0, 24 * 8, 5):
        assert ALWAYS.is_open(to_ns("2026-11-20") + hour * 3600 * NS)


def test_a_name_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        MarketCalendar.named("NYSE")


def test_days_are_india_days() -> None:
    assert india_day(to_ns("2026-11-20 00:00:00")) == date(2026, 11, 20)
    assert india_day(to_ns("2026-11-20 00:00:00") - 1) == date(2026, 11, 19)


def test_every_observed_trading_day_has_a_session_and_no_other_day_has(shared: Path) -> None:
    path = next((shared / "data" / "calendar").glob("nse_trading_days_observed_*.csv"))
    with path.open() as file:
        observed = {date.fromisoformat(row["date"]) for row in csv.DictReader(file)}
    observed |= {date(2021, 11, 4), date(2022, 8, 8)}  # missing from the collection, traded (see its findings)
    day, last = min(observed), max(observed)
    while day <= last:
        assert bool(NSE.sessions(day)) == (day in observed), day
        day += timedelta(days=1)


def test_a_table_of_ones_own_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mcx.json"
    file.write_text(
        '{"exchange": "MCX", "regular": [["09:00", "23:30"]], "holidays": ["2026-11-10"], "special": {},'
        ' "known_until": "2026-12-31"}'
    )
    mcx = MarketCalendar.named(str(file))
    assert mcx.is_open(to_ns("2026-11-20T20:00"))
    assert not mcx.is_open(to_ns("2026-11-10T20:00"))
    file.write_text('{"exchange": "MCX"}')
    with pytest.raises(ValueError, match="is no calendar"):
        MarketCalendar.named(str(file))


def test_a_table_that_ends_soon_says_so() -> None:
    nse = MarketCalendar.named("NSE")
    assert nse.known_until is not None
    last = to_ns(nse.known_until)
    day_ns = 86_400 * 10**9
    assert [nse.ends_soon(last + days * day_ns) for days in (-40, -20, 40)] == [False, True, True]
    assert not ALWAYS.ends_soon(last)
