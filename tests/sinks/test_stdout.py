"""Standard output: lines for eyes in a terminal, JSON in a pipe."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.clock import ManualClock
from marketfeed.errors import SinkError
from marketfeed.instruments import Instrument
from marketfeed.sinks.encode import TickEncoder
from marketfeed.sinks.stdout import StdoutSink

MakeTicks = Callable[..., TickBatch]
HERE = Path(__file__).parent


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def opened(stream: TextIO | None = None, clock: ManualClock | None = None, **options: Any) -> StdoutSink:
    """A sink on that stream, by default on what pytest captures."""
    sink = StdoutSink(**options)
    sink.clock = clock or ManualClock()
    with contextlib.redirect_stdout(stream or sys.stdout):
        sink.open()
    return sink


# --- a pipe ---------------------------------------------------------------------------------------


def test_a_pipe_gets_every_row_as_json(capfdbinary: pytest.CaptureFixture[bytes], ticks: MakeTicks) -> None:
    sink = opened(format="auto")
    sink.write(ticks(0))
    sink.write(ticks(600))
    sink.write(ticks(1, 600))
    sink.flush()
    sink.close()
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row["seq"] for row in rows] == list(range(601))


def test_the_layout_of_the_json_can_be_compact(capfdbinary: pytest.CaptureFixture[bytes], ticks: MakeTicks) -> None:
    sink = opened(format="json", layout="compact")
    sink.write(ticks(2))
    assert capfdbinary.readouterr().out == TickEncoder("compact").lines(ticks(2))


def test_candles_are_json_too(capfdbinary: pytest.CaptureFixture[bytes], candles: Callable[..., CandleBatch]) -> None:
    sink = opened()
    sink.write(candles(2))
    sink.close()
    assert [json.loads(line)["interval"] for line in capfdbinary.readouterr().out.splitlines()] == ["1m", "1m"]


def test_a_stream_that_takes_text_only_is_served(ticks: MakeTicks) -> None:
    notebook = io.StringIO()
    sink = opened(notebook)
    sink.write(ticks(2))
    assert notebook.getvalue().encode() == TickEncoder().lines(ticks(2))


BROKEN = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import make_ticks
from marketfeed.errors import SinkError
from marketfeed.sinks.stdout import StdoutSink

sink = StdoutSink()
sink.open()
try:
    for row in range(0, 10**6, 1000):
        sink.write(make_ticks(1000, row))
        sink.flush()
except SinkError as error:
    print(error.retryable, error, file=sys.stderr)
    sink.close()
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="pipes break in another way")
def test_a_reader_that_leaves_ends_the_sink_with_a_sentence() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", BROKEN, HERE], stdout=pipe, stderr=pipe) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert json.loads(child.stdout.readline())["seq"] == 0
        child.stdout.close()
        said = child.stderr.read().decode()
    assert child.returncode == 0
    assert said.startswith("False the program that read standard output has ended")
    assert said.count("\n") == 1  # nothing more when the interpreter ends


# --- a terminal -----------------------------------------------------------------------------------


def test_a_terminal_gets_a_line_for_each_instrument(terminal: Terminal, ticks: MakeTicks) -> None:
    sink = opened(terminal)
    sink.write(ticks(3))
    assert terminal.getvalue().splitlines() == [
        "10:00:00.000  NSE:RELIANCE                 2,500.00  vol              0  bid    2,499.95  ask    2,500.05",
        "10:00:00.000  NSE:M&M                      2,500.05  vol              1  bid    2,499.95  ask    2,500.05",
        '10:00:00.000  NFO:NIFTY, "weekly" ₹ é      2,500.10  vol              2  bid    2,499.95  ask    2,500.05',
    ]


def test_the_color_tells_up_from_down(terminal: Terminal, ticks: MakeTicks) -> None:
    sink = opened(terminal)
    for row in (0, 30, 30, 3):  # of the first instrument: up, the same, down
        sink.write(ticks(1, row))
    lines = terminal.getvalue().splitlines()
    assert ["\x1b[32m" in line for line in lines] == [False, True, False, False]
    assert ["\x1b[31m" in line for line in lines] == [False, False, False, True]


def test_no_color_is_respected(terminal: Terminal, ticks: MakeTicks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    sink = opened(terminal)
    sink.write(ticks(1))
    sink.write(ticks(1, 30))
    assert "\x1b" not in terminal.getvalue()


def test_a_flood_is_folded_to_the_newest_of_each_instrument(terminal: Terminal, ticks: MakeTicks) -> None:
    sink = opened(terminal)
    sink.write(ticks(3000))
    lines = terminal.getvalue().splitlines()
    assert [line.split("vol")[1].split()[0] for line in lines[:3]] == ["2,997", "2,998", "2,999"]
    assert lines[3:] == ["    (2997 more ticks folded)"]


def test_the_terminal_gets_no_more_lines_than_an_eye_can_take(terminal: Terminal, ticks: MakeTicks) -> None:
    many = [Instrument(exchange="NSE", symbol=f"S{number}", token=str(number)) for number in range(500)]
    clock = ManualClock()
    sink = opened(terminal, clock, lines_per_s=20)
    for batch in range(100):  # one second
        sink.write(ticks(200, batch * 200, instruments=many))
        sink.flush()
        clock.advance(0.01)
    lines = terminal.getvalue().splitlines()
    assert 20 <= sum("vol" in line for line in lines) <= 40
    sink.close()
    every = terminal.getvalue().splitlines()
    folded = sum(int(line.split("(")[1].split()[0]) for line in every if "folded" in line)
    assert sum("vol" in line for line in every) + folded == 20_000  # every tick was shown or counted


def test_what_a_burst_held_back_is_shown_by_a_later_flush(terminal: Terminal, ticks: MakeTicks) -> None:
    clock = ManualClock()
    sink = opened(terminal, clock, lines_per_s=3)
    sink.write(ticks(3))
    sink.write(ticks(3, 3))
    assert len(terminal.getvalue().splitlines()) == 3
    clock.advance(1)
    sink.flush()
    assert len(terminal.getvalue().splitlines()) == 6


def test_control_characters_in_a_name_do_not_reach_the_terminal(terminal: Terminal, ticks: MakeTicks) -> None:
    sink = opened(terminal)
    sink.write(ticks(1, instruments=[Instrument(exchange="NSE", symbol="\x1b[2JX", token="1")]))
    assert "NSE:?[2JX" in terminal.getvalue()


def test_candles_are_lines_too(terminal: Terminal, candles: Callable[..., CandleBatch]) -> None:
    sink = opened(terminal)
    sink.write(candles(1))
    assert terminal.getvalue().startswith("2026-11-20 09:15  NSE:RELIANCE ")
    assert "o 101.05  h 103.05  l 100.05  c 102.05  vol 0\n" in terminal.getvalue()


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        StdoutSink(format="xml")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_device_ends_the_sink(ticks: MakeTicks) -> None:
    with Path("/dev/full").open("w") as full:
        sink = opened(full)
        with pytest.raises(SinkError, match=r"No space left.*use the jsonl sink") as raised:
            sink.write(ticks(100))
    assert not raised.value.retryable
