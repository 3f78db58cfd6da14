"""``marketfeed tail``: the ticks of a journal as they come."""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from marketfeed.cli._output import on_terminal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marketfeed.batches import TickBatch
    from marketfeed.instruments import Instrument
    from marketfeed.journal import Journal

__all__ = ["command"]

_PIECE_ROWS = 16_384


@click.command(name="tail", short_help="Follow the ticks of a journal.")
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
@click.option("--instrument", metavar="GLOB", help="Only these, such as NSE:RELIANCE or NFO:NIFTY*FUT.")
@click.option("--rows", type=click.IntRange(min=0), default=10, show_default=True, help="Begin with the last N rows.")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait for more while the writer lives.")
def command(folder: Path, instrument: str | None, rows: int, follow: bool) -> None:
    """Show the last ticks of the journal in FOLDER and follow it until its writer ends.

    On a terminal one aligned line a tick, in a pipe one JSON document a line. It only looks: the
    feed does not notice, and rows are not held back.
    """
    from marketfeed.journal import Journal, admin

    try:
        journal = Journal.attach(admin.only(folder))
        wanted = _Wanted(instrument)
        start = _start(journal, wanted, rows)
        batches = journal.follow(start=start) if follow else _between(journal, start, journal.committed)
        for batch in batches:
            _show(wanted.of(batch))
    except BrokenPipeError:
        # `| head` has had enough. What is still buffered would raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        pass  # how one leaves


class _Wanted:
    """The rows of instruments that match a glob; upper and lower case are the same."""

    def __init__(self, pattern: str | None) -> None:
        self._pattern = pattern.upper() if pattern else None
        self._matches: list[bool] = []

    def of(self, batch: TickBatch) -> TickBatch:
        """The matching rows, in order."""
        if self._pattern is None or not len(batch):
            return batch
        numbers = batch["instrument"]
        known = batch.origin.instruments
        highest = int(numbers.max())
        if highest >= len(self._matches):
            self._matches += [self._fits(known[number]) for number in range(len(self._matches), highest + 1)]
        mask: NDArray[np.bool_] = np.array([*self._matches, False])[numbers]  # the last one is for number -1
        return batch[mask]

    def _fits(self, one: Instrument) -> bool:
        assert self._pattern is not None
        name = one.key if ":" in self._pattern else one.symbol
        return fnmatch.fnmatchcase(name.upper(), self._pattern)


def _start(journal: Journal, wanted: _Wanted, rows: int) -> int:
    """The row from which on ``rows`` wanted rows are there, or the oldest."""
    end = journal.committed
    while rows and end > journal.oldest:
        first = max(journal.oldest, end - _PIECE_ROWS)
        seq = [row for batch in _between(journal, first, end) for row in wanted.of(batch).seq.tolist()]
        if len(seq) >= rows:
            return int(seq[-rows])
        rows -= len(seq)
        end = first
    return end


def _between(journal: Journal, first: int, end: int) -> Iterator[TickBatch]:
    """The rows from ``first`` up to ``end``, excluded, that are still kept."""
    from marketfeed.errors import Overrun

    with journal.reader("tail", start=first, keep=False) as reader:
        while reader.next_row < end:
            try:
                batch = reader.take(end - reader.next_row)
            except Overrun:
                continue
            if not len(batch):
                return
            yield batch


def _show(batch: TickBatch) -> None:
    if not len(batch):
        return
    from marketfeed.batches import CandleBatch
    from marketfeed.sinks.encode import CandleEncoder, TickEncoder

    if isinstance(batch, CandleBatch):
        lines = CandleEncoder().lines(batch)
    else:
        lines = _text(batch).encode() if on_terminal() else TickEncoder().lines(batch)
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()


def _text(batch: TickBatch) -> str:
    from marketfeed.clock import ist_text
    from marketfeed.dtypes import Flag

    lines = []
    for tick in batch:
        volume = f"{tick.volume:>14,}" if tick.flags & Flag.VOLUME else " " * 14
        book = ""
        if tick.flags & Flag.DEPTH:
            bid, ask = (tick.bid_quantity[0], tick.bid_price[0]), (tick.ask_price[0], tick.ask_quantity[0])
            book = f"  {bid[0]:>8,} x {bid[1]:>11,.2f}  {ask[0]:>11,.2f} x {ask[1]:<8,}"
        moment = ist_text(tick.exchange_ns or tick.received_ns)[11:]
        name = "".join(letter if letter.isprintable() else "?" for letter in tick.describe.key)
        lines.append(f"{moment}  {name:<24} {tick.last_price:>12,.2f}  vol {volume}{book}".rstrip())
    return "\n".join(lines) + "\n"
