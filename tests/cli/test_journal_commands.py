"""``marketfeed journal`` and ``marketfeed tail``, in a pipe and on a terminal."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from marketfeed import cli
from marketfeed.cli import journal as journal_module
from marketfeed.cli import tail as tail_module
from marketfeed.dtypes import Flag, Rows, empty_ticks
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal, ticks_folder
from marketfeed.journal.disk import DiskJournal
from marketfeed.journal.layout import PAGE, segment_name

INFY = Instrument(exchange="NSE", symbol="INFY", token="408065", vendor="kite")
FUTURE = Instrument(exchange="NFO", symbol="NIFTY26NOVFUT", token="99", vendor="kite")


def ticks(count: int, first: int = 0) -> Rows:
    """Ticks of the two instruments in turn, a second apart."""
    rows = empty_ticks(count)
    numbers = np.arange(first, first + count)
    rows["received_ns"] = rows["exchange_ns"] = 1_795_150_800_000_000_000 + numbers * 10**9
    rows["instrument"] = numbers % 2
    rows["last_price"] = 1500.5 + numbers
    rows["volume"] = numbers
    rows["flags"] = 1 | Flag.VOLUME | Flag.EXCHANGE_TIME
    return rows


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(root: Path) -> Iterator[DiskJournal]:
    with Journal.create(ticks_folder(root, "main"), vendor="kite", rows_per_segment=100, sync="os") as journal:
        journal.instruments.register([INFY, FUTURE])
        journal.append(ticks(250))
        yield journal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody reads standard output."""
    for module in (journal_module, tail_module):
        monkeypatch.setattr(module, "on_terminal", lambda: True)


def run(*arguments: object, code: int = 0) -> str:
    """Everything that ``marketfeed`` with these arguments prints."""
    result = CliRunner().invoke(cli.main, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_list_in_a_pipe_is_a_json_document_a_journal(journal: DiskJournal, root: Path) -> None:
    (line,) = run("journal", "list", root).splitlines()
    found = json.loads(line)
    assert (found["name"], found["feed"], found["vendor"], found["committed"]) == (journal.name, "main", "kite", 250)


def test_list_of_an_empty_folder_says_nothing(tmp_path: Path) -> None:
    assert run("journal", "list", tmp_path) == ""


@pytest.mark.usefixtures("terminal")
def test_list_on_a_terminal_is_a_table(journal: DiskJournal, root: Path) -> None:
    text = run("journal", "list", root)
    assert "newest row" in text
    assert "250" in text


@pytest.mark.usefixtures("terminal")
def test_info_on_a_terminal_shows_rows_writer_and_cursors(journal: DiskJournal, root: Path) -> None:
    with journal.reader("kafka", start=200):
        text = run("journal", "info", root)
    for part in (journal.name, "250: 0 up to 249", "process ", "kafka", "200", "yes", "2026-11-20"):
        assert part in text


def test_info_in_a_pipe_holds_the_cursors(journal: DiskJournal, root: Path) -> None:
    journal.reader("kafka", start=200)
    (cursor,) = json.loads(run("journal", "info", root))["cursors"]
    assert (cursor["name"], cursor["position"], cursor["lag"], cursor["in_use"]) == ("kafka", 200, 50, True)


def test_verify_of_a_whole_journal(journal: DiskJournal, root: Path) -> None:
    found = json.loads(run("journal", "verify", root))
    assert (found["rows"], found["damage"]) == (250, [])


def damage(journal: DiskJournal) -> None:
    with (journal.folder / segment_name(100)).open("r+b") as file:
        file.seek(PAGE)
        file.write(bytes(100))


def test_verify_of_a_damaged_journal_exits_with_1(journal: DiskJournal, root: Path) -> None:
    damage(journal)
    found = json.loads(run("journal", "verify", root, code=1))
    assert found["damage"] == [{"first_row": 100, "rows": 1, "what": "damaged"}]


@pytest.mark.usefixtures("terminal")
def test_verify_on_a_terminal_names_the_rows(journal: DiskJournal, root: Path) -> None:
    assert "250 rows from row 0 on: all whole" in run("journal", "verify", root)
    damage(journal)
    assert "rows 100 to 100: damaged" in run("journal", "verify", root, code=1)


def test_forget_removes_a_cursor_and_refuses_one_in_use(journal: DiskJournal, root: Path) -> None:
    with journal.reader("kafka"):
        assert "in use" in run("journal", "forget", root, "kafka", code=1)
    run("journal", "forget", root, "kafka")
    assert journal.cursors() == []
    assert "there is no cursor 'kafka'" in run("journal", "forget", root, "kafka", code=1)


def test_a_folder_without_a_journal_is_one_line(tmp_path: Path) -> None:
    for command in ("info", "verify"):
        assert run("journal", command, tmp_path, code=1).startswith("error: there is no journal in")
    assert run("tail", tmp_path, code=1).startswith("error: there is no journal in")


# --- tail -----------------------------------------------------------------------------------


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_tail_shows_the_last_rows_as_json_lines(journal: DiskJournal, root: Path) -> None:
    found = documents(run("tail", root, "--rows", 3, "--no-follow"))
    assert [(one["seq"], one["symbol"]) for one in found] == [
        (247, "NIFTY26NOVFUT"),
        (248, "INFY"),
        (249, "NIFTY26NOVFUT"),
    ]
    assert found[0]["journal"] == journal.name


@pytest.mark.parametrize("pattern", ["NSE:INFY", "inf*", "NSE:*"])
def test_tail_shows_the_last_rows_of_some_instruments(journal: DiskJournal, root: Path, pattern: str) -> None:
    found = documents(run("tail", root, "--rows", 120, "--no-follow", "--instrument", pattern))
    assert [one["seq"] for one in found] == list(range(10, 250, 2))


def test_tail_of_nothing_that_matches(journal: DiskJournal, root: Path) -> None:
    assert run("tail", root, "--no-follow", "--instrument", "TCS") == ""


def test_tail_follows_until_the_writer_ends(journal: DiskJournal, root: Path) -> None:
    def finish() -> None:
        journal.append(ticks(5, first=250))
        journal.close()

    timer = threading.Timer(0.2, finish)
    timer.start()
    found = documents(run("tail", root, "--rows", 0))
    timer.join()
    assert [one["seq"] for one in found] == [250, 251, 252, 253, 254]


@pytest.mark.usefixtures("terminal")
def test_tail_on_a_terminal_is_a_line_a_tick(journal: DiskJournal, root: Path) -> None:
    (line,) = run("tail", root, "--rows", 1, "--no-follow").splitlines()
    assert line.split() == ["10:34:09.000", "NFO:NIFTY26NOVFUT", "1,749.50", "vol", "249"]


def test_tail_holds_nothing_back(journal: DiskJournal, root: Path) -> None:
    run("tail", root, "--no-follow")
    assert journal.cursors() == []


def test_importing_the_commands_is_light() -> None:
    import subprocess

    code = (
        "import sys, marketfeed.cli.journal, marketfeed.cli.tail\n"
        "assert not {'rich', 'marketfeed.journal.disk', 'fcntl'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
