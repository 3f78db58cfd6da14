"""Instrument masters: asked for once a day, kept on disk, never trusted blindly."""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path
from typing import Any

import attrs
import pytest

from marketfeed.clock import ManualClock, to_ns
from marketfeed.contract import Session, Vendor, VendorSettings
from marketfeed.hookspecs import hookimpl
from marketfeed.http import HttpSession
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.masters import cached_days, load_instruments, master_day, previous_instruments
from marketfeed.plugins import Plugins

MORNING = to_ns("2026-11-20T09:00")
INFY = Instrument(exchange="NSE", symbol="INFY", token="408065", vendor="shop", name="Infosys")
CALL = attrs.evolve(INFY, exchange="NFO", symbol="INFY26NOV1500CE", expiry=date(2026, 11, 26), strike=1500.0, kind="CE")


class Shop:
    """A vendor that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.table = InstrumentTable([INFY, CALL])

    @hookimpl
    def marketfeed_vendor(self) -> Vendor:
        return Vendor(name="shop", title="Shop", settings=VendorSettings)

    @hookimpl
    def marketfeed_instruments(self, session: Session | None) -> InstrumentTable:
        self.asked += 1
        return self.table


class Desk:
    """Asks for instruments at a given time."""

    def __init__(self, folder: Path) -> None:
        self.shop = Shop()
        self.clock = ManualClock(MORNING)
        self.folder = folder

    def load(self, **settings: Any) -> InstrumentTable:
        plugin = Plugins.of(self.shop).vendor("shop")
        given = VendorSettings(**{"rest_url": "https://shop.example", **settings})
        with HttpSession("shop") as http:
            return load_instruments(plugin, given, None, http, self.clock, self.folder)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "cache")


def test_the_broker_is_asked_once_a_day(desk: Desk) -> None:
    tables = [desk.load() for _ in range(3)]
    assert desk.shop.asked == 1
    assert [list(table) for table in tables] == [[INFY, CALL]] * 3
    assert len({*tables[0], *tables[2]}) == 2  # what comes from disk is equal, and may be hashed


def test_a_new_master_is_fetched_the_next_morning_and_the_two_newest_are_kept(desk: Desk) -> None:
    desk.load()
    desk.clock.advance(23 * 3600)  # 08:00
    desk.load()
    assert desk.shop.asked == 1
    desk.clock.advance(3600)  # 09:00
    desk.load()
    assert desk.shop.asked == 2
    desk.clock.advance(24 * 3600)
    desk.load()
    assert sorted(path.stem[-10:] for path in desk.folder.iterdir()) == ["2026-11-21", "2026-11-22"]


def test_the_master_of_the_day_before_can_be_compared(desk: Desk) -> None:
    plugin, settings = Plugins.of(desk.shop).vendor("shop"), VendorSettings(rest_url="https://shop.example")
    today = date(2026, 11, 20)
    desk.load()
    assert previous_instruments(plugin, settings, today, desk.folder) is None
    found = previous_instruments(plugin, settings, date(2026, 11, 23), desk.folder)
    assert found is not None
    assert (found[0], list(found[1])) == (today, [INFY, CALL])
    assert list(cached_days(plugin, settings, desk.folder)) == [today]


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        ("2026-11-20T08:29:59", date(2026, 11, 19)),
        ("2026-11-20T08:30:00", date(2026, 11, 20)),
        ("2026-11-21T00:00:00", date(2026, 11, 20)),
    ],
)
def test_the_day_of_a_master_begins_at_half_past_eight(moment: str, day: date) -> None:
    assert master_day(to_ns(moment)) == day


def test_two_addresses_of_a_vendor_do_not_share_a_master(desk: Desk) -> None:
    desk.load()
    desk.load(rest_url="https://other.example")
    assert desk.shop.asked == 2
    assert len(list(desk.folder.iterdir())) == 2


def test_a_sandbox_is_asked_every_time_and_leaves_nothing_behind(desk: Desk) -> None:
    for _ in range(2):
        desk.load(rest_url="http://127.0.0.1:9999")
    assert desk.shop.asked == 2
    assert not desk.folder.exists()


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x80", b"\x81\xa6format\x63", b"plain text"])
def test_a_damaged_file_is_replaced(desk: Desk, content: bytes) -> None:
    desk.load()
    (file,) = desk.folder.iterdir()
    good = file.read_bytes()
    file.write_bytes(content)
    assert list(desk.load()) == [INFY, CALL]
    assert desk.shop.asked == 2
    assert file.read_bytes() == good


def test_a_folder_that_cannot_be_written_costs_a_warning(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.folder.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert list(desk.load()) == [INFY, CALL]
    assert "cannot keep the instruments" in caplog.text


def test_an_empty_master_is_not_kept_and_one_that_is_not_whole_for_ten_minutes(desk: Desk) -> None:
    desk.shop.table = InstrumentTable([])
    assert len(desk.load()) == 0
    desk.shop.table = InstrumentTable([INFY], missing=["NFO"])
    for _ in range(2):
        assert (list(desk.load()), desk.load().missing) == ([INFY], ("NFO",))
    assert desk.shop.asked == 2
    desk.shop.table = InstrumentTable([INFY, CALL])
    desk.clock.advance(600)
    assert list(desk.load()) == list(desk.load()) == [INFY, CALL]
    assert desk.shop.asked == 3
