"""Instrument numbers: never taken back, safe on disk before they are used."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import attrs
import pytest

from marketfeed.errors import JournalError
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal
from marketfeed.journal.catalog import UNKNOWN, Catalog, FileCatalog
from marketfeed.journal.disk import DiskJournal

INFY = Instrument(exchange="NSE", symbol="INFY", token="408065", vendor="kite")
FUTURE = Instrument(exchange="NFO", symbol="NIFTY26NOVFUT", token="1", vendor="kite", expiry=date(2026, 11, 24))


@pytest.fixture
def catalog(tmp_path: Path) -> FileCatalog:
    return FileCatalog(tmp_path / "instruments.jsonl", writable=True)


def test_an_instrument_keeps_its_number(catalog: Catalog) -> None:
    assert catalog.register([INFY, FUTURE, INFY]) == [0, 1, 0]
    assert catalog.register([FUTURE]) == [1]
    assert list(catalog) == [INFY, FUTURE]


def test_a_changed_attribute_is_a_new_line(catalog: Catalog) -> None:
    changed = attrs.evolve(INFY, lot_size=75)
    assert catalog.register([INFY]) == [0]
    assert catalog.register([changed, changed]) == [1, 1]
    assert (catalog[0].lot_size, catalog[1].lot_size) == (1, 75)


def test_another_expiry_or_vendor_is_another_instrument(catalog: Catalog) -> None:
    later = attrs.evolve(FUTURE, expiry=date(2026, 12, 29))
    assert catalog.register([FUTURE, later, attrs.evolve(FUTURE, vendor="mstock")]) == [0, 1, 2]


def test_a_reopened_catalog_knows_everything(tmp_path: Path) -> None:
    path = tmp_path / "instruments.jsonl"
    FileCatalog(path, writable=True).register([INFY, FUTURE])
    again = FileCatalog(path, writable=True)
    assert (again.register([FUTURE, INFY]), list(again)) == ([1, 0], [INFY, FUTURE])


def test_a_reader_elsewhere_looks_again_for_a_number_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "instruments.jsonl"
    writer, reader = FileCatalog(path, writable=True), FileCatalog(path, writable=False)
    writer.register([INFY])
    assert reader[0] == INFY
    writer.register([FUTURE])
    assert reader[1] == FUTURE


def test_the_length_elsewhere_is_that_of_now(tmp_path: Path) -> None:
    path = tmp_path / "instruments.jsonl"
    reader = FileCatalog(path, writable=False)  # attached before there was any instrument
    assert len(reader) == 0
    writer = FileCatalog(path, writable=True)
    writer.register([INFY, FUTURE])
    assert len(reader) == 2
    writer.register([attrs.evolve(INFY, lot_size=75)])
    assert (len(reader), reader[2].lot_size) == (3, 75)


def test_only_the_writer_registers(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="only the process that writes"):
        FileCatalog(tmp_path / "instruments.jsonl", writable=False).register([INFY])


def test_a_line_that_a_kill_left_unfinished_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "instruments.jsonl"
    FileCatalog(path, writable=True).register([INFY])
    with path.open("ab") as file:
        file.write(b'{"exchange":"NFO","sym')
    assert len(FileCatalog(path, writable=False)) == 1
    assert FileCatalog(path, writable=True).register([FUTURE]) == [1]
    assert list(FileCatalog(path, writable=False)) == [INFY, FUTURE]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "instruments.jsonl"
    FileCatalog(path, writable=True).register([INFY])
    with path.open("ab") as file:
        file.write(b"\0\0\0\n")
    with pytest.raises(JournalError, match="line 2"):
        FileCatalog(path, writable=False)


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "instruments.jsonl"
    path.write_text('{"exchange":"NSE","symbol":"X","token":"1","colour":"red"}\n')
    assert FileCatalog(path, writable=False)[0] == Instrument(exchange="NSE", symbol="X", token="1")


def test_minus_one_is_the_unknown_instrument_and_other_numbers_are_errors(catalog: Catalog) -> None:
    catalog.register([INFY])
    assert catalog[-1] is UNKNOWN
    for number in (1, -2):
        with pytest.raises(IndexError, match=f"no instrument {number}"):
            catalog[number]


def test_rows_of_an_attached_journal_find_instruments_added_later(journal: DiskJournal, folder: Path) -> None:
    attached = Journal.attach(folder)
    journal.instruments.register([INFY, FUTURE])
    assert attached.origin.instruments[1] == FUTURE
