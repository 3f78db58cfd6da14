"""Offering refused rows to their sink again, without disturbing where it goes on afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import attrs
import numpy as np

from marketfeed.batches import TickBatch
from marketfeed.clock import Clock
from marketfeed.config import Config
from marketfeed.contract import Sink
from marketfeed.deadletters import DeadLetter
from marketfeed.deadletters.ledger import Ledger
from marketfeed.deadletters.letter import digests
from marketfeed.engine.redo.outcome import Outcome, Result, fresh, outcome
from marketfeed.errors import JournalError, SinkError
from marketfeed.journal import Journal, ticks_folder
from marketfeed.journal.attached import FileJournal

__all__ = ["Redelivery"]


class Redelivery:
    """Gives the rows of letters to the sinks that refused them.

    A sink that stores its position with its rows gets each letter under a journal name of its own
    (:meth:`DeadLetter.delivery_name`): its position in the real journal stays what it was, and a letter
    that it got before a kill is recognized. So does one whose readers go by the numbers (``read_by_number``),
    for they take no row that comes behind later ones. Any other sink gets the real name.
    """

    def __init__(self, config: Config, feed: str, clock: Clock) -> None:
        self._config = config
        self._feed = feed
        self._clock = clock

    def run(self, name: str, letters: Sequence[DeadLetter], ledger: Ledger, *, dry_run: bool) -> Iterator[Outcome]:
        """Offer ``letters`` to the sink ``name``. Raises ``JournalError`` while a feed uses it."""
        if name not in self._config.feeds[self._feed].sinks:
            text = f"the feed has no sink {name!r} in the configuration"
            yield from (outcome(letter, "impossible", detail=text) for letter in letters)
            return
        with ExitStack() as stack:
            journal = stack.enter_context(Journal.attach(ticks_folder(self._config.journal.folder, self._feed)))
            good = [letter for letter in letters if letter.journal.partition(".")[0] == journal.id]
            for letter in letters:
                if letter not in good:
                    yield outcome(letter, "impossible", detail="it belongs to another journal")
            if dry_run:
                yield from (outcome(one, "replayed", rows=one.rows, target=name) for one in good)
                return
            sink = self._config.sinks[name].make(self._feed, "ticks").for_replay()
            stack.callback(sink.close)
            try:
                _take_place(stack, sink, name, journal)
            except SinkError as error:
                yield from (outcome(one, "failed", left=one.rows, target=name, detail=str(error)) for one in good)
                return
            trouble = ""
            for letter in good:
                # A sink in trouble may still hold rows of that letter, and would send them with those of the next.
                if trouble:
                    found = outcome(letter, "failed", left=letter.rows, target=name, detail=trouble)
                else:
                    found = self._offer(letter, sink, name, journal, ledger)
                    trouble = found.detail if found.result == "failed" else ""
                yield found

    def _offer(self, letter: DeadLetter, sink: Sink, name: str, journal: Journal, ledger: Ledger) -> Outcome:
        taken = ledger.taken.get(letter.identity, Counter())
        batch = _batch(letter, journal, taken, sink, ledger.attempts[letter.identity])
        try:
            refused, why = _give(batch, sink)
        except SinkError as error:  # nothing is written down: the same rows are offered next time
            return outcome(letter, "failed", left=letter.rows, target=name, detail=str(error))
        accepted = np.delete(batch.rows, refused)
        rows = digests(accepted).tolist()
        finished = [] if refused else [letter.identity]
        ledger.done({letter.identity: rows}, finished, at_ns=self._clock.wall_ns(), target=name)
        if not refused:
            return outcome(letter, "replayed", rows=letter.rows - taken.total(), target=name)
        result: Result = "partly" if len(accepted) else "still-bad"
        return outcome(letter, result, rows=len(accepted), left=len(refused), target=name, detail=why)


def _give(batch: TickBatch, sink: Sink) -> tuple[list[int], str]:
    """Write and flush; the places of the rows that the sink refuses, and why. Raises ``SinkError`` in other trouble."""
    refused, why = set[int](), ""
    try:
        if len(batch):
            sink.write(batch)
    except SinkError as error:
        if not error.rejected:
            raise
        refused, why = {one for one in error.rejected if 0 <= one < len(batch)}, str(error)
    while True:
        try:
            sink.flush()
            return sorted(refused), why
        except SinkError as error:
            if error.refused is None:
                raise
            late = set(np.flatnonzero(np.isin(batch.seq, error.refused.seq)).tolist()) - refused
            if not late:  # it repeats itself, or means rows of somebody else
                raise
            refused, why = refused | late, str(error)


def _take_place(stack: ExitStack, sink: Sink, name: str, journal: FileJournal) -> None:
    """Hold the sink's cursor, so that no feed uses it, and let it know what the sink has stored: afterwards
    the cursor alone must be enough to go on."""
    reader = None
    if any(one.name == name for one in journal.cursors()):
        try:
            reader = stack.enter_context(journal.reader(name))
        except JournalError as error:
            raise JournalError(f"{error}; stop the feed first, or use --dry-run") from error
    sink.open()
    if reader is None:
        return
    for epoch in range(journal.epoch, 0, -1):
        row = sink.position(f"{journal.id}.{epoch}")
        if row is not None:
            here = journal.locate(f"{journal.id}.{epoch}", row) or 0
            reader.seek(max(here, min(reader.position, journal.oldest)))
            return


def _batch(letter: DeadLetter, journal: Journal, taken: Counter[int], sink: Sink, attempt: int) -> TickBatch:
    """The rows that the sink does not have yet, with their numbers in the journal."""
    rows, first = letter.ticks(), letter.first_row or 0
    seq = np.arange(first, first + len(rows), dtype=np.int64)
    name, wanted = letter.journal, fresh(rows, taken)
    if sink.read_by_number or type(sink).position is not Sink.position:
        name = letter.delivery_name(attempt)
        stored = sink.position(name)
        if stored is not None:  # it got them, and a kill came before that was written down
            wanted &= seq >= stored
    return TickBatch(rows[wanted], attrs.evolve(journal.origin, journal=name), seq[wanted])
