"""Ticks for eyes in a terminal, JSON lines for programs in a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import ClassVar, TextIO

import attrs
import numpy as np

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.clock import Clock, ist_text
from marketfeed.contract import Sink
from marketfeed.dtypes import Flag, Rows
from marketfeed.errors import SinkError
from marketfeed.instruments import Instrument
from marketfeed.sinks.columns import BLOCK_ROWS, instrument_at
from marketfeed.sinks.encode import CandleEncoder, Layout, TickEncoder

__all__ = ["StdoutSink"]

Batch = TickBatch | CandleBatch

_UP, _DOWN, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


@attrs.define(slots=False)
class StdoutSink(Sink):
    """Writes to standard output: aligned lines in a terminal, every row as JSON anywhere else.

    In a terminal only the newest tick of each instrument is shown, at most ``lines_per_s`` lines a second;
    the rest is folded and counted. A reader that takes its time slows down this sink, never the feed.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"ticks", "candles"})

    format: str = attrs.field(default="auto", validator=attrs.validators.in_(("auto", "lines", "json")))
    """``lines`` for eyes, ``json`` for programs, ``auto``: lines in a terminal"""
    layout: Layout = attrs.field(default="full", validator=attrs.validators.in_(("full", "compact")))
    """Layout of the JSON: ``full`` or ``compact``"""
    lines_per_s: int = attrs.field(default=50, validator=attrs.validators.gt(0))
    """Most lines shown a second in a terminal, so that an eye and a slow terminal keep up"""

    clock: Clock = attrs.field(init=False, factory=Clock, repr=False, eq=False)
    _stream: TextIO | None = attrs.field(init=False, default=None, repr=False, eq=False)
    _view: _Terminal | None = attrs.field(init=False, default=None, repr=False, eq=False)
    _ticks: TickEncoder = attrs.field(init=False, repr=False, eq=False)
    _candles: CandleEncoder = attrs.field(init=False, factory=CandleEncoder, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self._ticks = TickEncoder(self.layout)

    def open(self) -> None:
        self._stream = sys.stdout
        terminal = self._stream.isatty()
        if self.format == "lines" or (self.format == "auto" and terminal):
            color = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
            self._view = _Terminal(self.lines_per_s, self.clock, color=color)

    def write(self, batch: Batch) -> None:
        if self._stream is None:
            self.open()
        if isinstance(batch, CandleBatch):
            self._put(_candle_lines(batch) if self._view else self._candles.lines(batch))
        elif self._view:
            self._view.take(batch)
            self._put(self._view.text())
        else:
            for start in range(0, len(batch), BLOCK_ROWS):
                self._put(self._ticks.lines(batch[start : start + BLOCK_ROWS]))

    def flush(self) -> None:
        if self._view:  # a burst's last ticks, which were held back
            self._put(self._view.text())

    def close(self) -> None:
        if self._view and self._stream is not None:
            self._put(self._view.text(last=True))
        self._stream = self._view = None

    def _put(self, data: bytes | str) -> None:
        if not data:
            return
        stream = self._stream
        assert stream is not None
        with _broken_pipes(stream):
            if isinstance(data, str):
                stream.write(data)
            elif hasattr(stream, "buffer"):
                stream.buffer.write(data)
            else:  # a notebook's stream takes text only
                stream.write(data.decode())
            stream.flush()


@contextlib.contextmanager
def _broken_pipes(stream: TextIO) -> Iterator[None]:
    """Errors of standard output as ``SinkError``; never retryable, as nobody knows how much of a block got out."""
    try:
        yield
    except BrokenPipeError as error:
        _silence(stream)
        raise SinkError(
            "the program that read standard output has ended (such as head after its last line); "
            "start the feed again with a reader that stays, or use the jsonl sink",
            retryable=False,
        ) from error
    except OSError as error:
        _silence(stream)
        message = f"cannot write standard output: {error.strerror or error}; for files use the jsonl sink"
        raise SinkError(message, retryable=False) from error


def _silence(stream: TextIO) -> None:
    """What is still buffered would raise again when the interpreter ends, so let it go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Terminal:
    """Keeps the newest tick of each instrument and turns them into lines, no more than an eye can take."""

    def __init__(self, lines_per_s: int, clock: Clock, *, color: bool) -> None:
        self._limit = lines_per_s
        self._clock = clock
        self._color = color
        self._newest: dict[int, str] = {}
        self._prices: dict[int, float] = {}
        self._folded = 0
        self._allowed = float(lines_per_s)
        self._refilled = clock.monotonic()

    def take(self, batch: TickBatch) -> None:
        """Fold a batch; costs one line for each instrument in it, however many rows it has."""
        rows, known = batch.rows, batch.origin.instruments
        numbers = rows["instrument"]
        _, last = np.unique(numbers[::-1], return_index=True)
        for index in np.sort(len(rows) - 1 - last).tolist():
            number = int(numbers[index])
            self._newest.pop(number, None)  # so that the newest comes last
            self._newest[number] = self._line(rows[index : index + 1], instrument_at(known, number), number)
        self._folded += len(rows)

    def text(self, *, last: bool = False) -> str:
        """The lines due now; empty while the allowance is used up."""
        now = self._clock.monotonic()
        self._allowed = min(self._limit, self._allowed + (now - self._refilled) * self._limit)
        self._refilled = now
        count = len(self._newest) if last else min(len(self._newest), int(self._allowed))
        # After a burst wait until there is room for a screenful: single lines out of many mislead.
        if count == 0 or (not last and count < len(self._newest) and count < self._limit // 4):
            return ""
        shown = list(self._newest.values())[-count:]
        folded = self._folded - count
        self._allowed -= count
        self._newest.clear()
        self._folded = 0
        return "".join(shown) + (f"    ({folded} more ticks folded)\n" if folded else "")

    def _line(self, row: Rows, one: Instrument, number: int) -> str:
        price = float(row["last_price"][0])
        before = self._prices.get(number, price)
        self._prices[number] = price
        ns = int(row["exchange_ns"][0]) or int(row["received_ns"][0])
        shown = f"{price:>12,.2f}"
        if self._color and price != before:
            shown = f"{_UP if price > before else _DOWN}{shown}{_PLAIN}"
        flags = int(row["flags"][0])
        volume = f"{int(row['volume'][0]):>14,}" if flags & Flag.VOLUME else " " * 14
        book = ""
        if flags & Flag.DEPTH:
            book = f"  bid {row['bid_price'][0, 0]:>11,.2f}  ask {row['ask_price'][0, 0]:>11,.2f}"
        return f"{ist_text(ns)[11:]}  {_printable(one.key):<24} {shown}  vol {volume}{book}\n"


def _candle_lines(batch: CandleBatch) -> str:
    known: Sequence[Instrument] = batch.origin.instruments
    return "".join(
        f"{ist_text(candle.start_ns)[:16]}  {_printable(instrument_at(known, candle.instrument).key):<24} "
        f"o {candle.open:,.2f}  h {candle.high:,.2f}  l {candle.low:,.2f}  c {candle.close:,.2f}  "
        f"vol {candle.volume:,}\n"
        for candle in batch
    )


def _printable(text: str) -> str:
    """Without control characters: a name must not drive somebody's terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
