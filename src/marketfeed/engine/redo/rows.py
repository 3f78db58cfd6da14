"""Packets through today's parser, rows through today's validation, and what is good into the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from marketfeed.clock import Clock
from marketfeed.config import Config
from marketfeed.contract import Frame, Parser
from marketfeed.deadletters import DeadLetter
from marketfeed.deadletters.ledger import Intent, Ledger
from marketfeed.deadletters.letter import digests
from marketfeed.dtypes import REASON_MASK, TICK, Flag, Rows
from marketfeed.engine.redo.outcome import Outcome, Result, fresh, outcome
from marketfeed.engine.redo.past import Past
from marketfeed.engine.validation import Validator
from marketfeed.errors import JournalError
from marketfeed.instruments import TokenMap
from marketfeed.journal import Journal, ticks_folder

__all__ = ["Reparsing"]

_LETTERS_AT_ONCE = 256


class Prepared(NamedTuple):
    """A letter's rows that may be published today."""

    letter: DeadLetter
    rows: Rows
    left: int
    """Packets and rows that are as bad as before."""
    dropped: int
    """Rows that validation drops: nobody wants them any more."""
    before: int
    """Rows that an earlier replay took."""
    why_left: str

    @property
    def finished(self) -> bool:
        """Nothing is left to try again."""
        return not self.left and bool(len(self.rows) or self.dropped or self.before)


class Impossible(Exception):
    """This letter cannot be tried again, and the text says why."""


class Reparsing:
    """Tries packets and rows of one feed again; what is good becomes the newest rows of its journal."""

    def __init__(self, config: Config, feed: str, clock: Clock) -> None:
        self.config = config
        self.feed = feed
        self.clock = clock
        self._ticks = ticks_folder(config.journal.folder, feed)
        self._maps: dict[int, TokenMap] = {}

    def run(self, letters: Sequence[DeadLetter], ledger: Ledger, *, dry_run: bool) -> Iterator[Outcome]:
        if not letters:
            return
        with Journal.attach(self._ticks) if dry_run else self._opened() as journal:
            past = Past(Validator(self.config.validation, journal.instruments), journal)
            waiting = iter(sorted(letters, key=_moment))
            while group := list(islice(waiting, _LETTERS_AT_ONCE)):
                ready: list[Prepared] = []
                for letter in group:
                    taken = ledger.taken.get(letter.identity, Counter())
                    try:
                        ready.append(self._prepare(letter, journal, past, taken))
                    except Impossible as error:
                        yield outcome(letter, "impossible", detail=str(error))
                if not dry_run:
                    self._write(journal, ready, ledger)
                yield from map(_outcome, ready)

    def _opened(self) -> Journal:
        """The journal, for writing: what is appended is on the disk before the ledger says so."""
        plan = self.config.journal
        if plan.kind != "disk" or not self._ticks.exists():
            raise JournalError(f"there is no journal on disk for feed {self.feed!r}; rows have nowhere to go")
        try:
            return Journal.create(
                self._ticks,
                feed=self.feed,
                vendor=self.config.vendor_of(self.feed).name,
                rows_per_segment=plan.segment_rows,
                sync="batch",
                keep_bytes=plan.keep_bytes,
                max_bytes=plan.max_bytes,
                when_full=plan.when_full,
            )
        except JournalError as error:
            raise JournalError(f"{error}; stop the feed first, or use --dry-run") from error

    def _prepare(self, letter: DeadLetter, journal: Journal, past: Past, taken: Counter[int]) -> Prepared:
        if letter.cut:
            raise Impossible(f"only {len(letter.raw):,} of its {letter.cut:,} bytes were kept")
        if (letter.is_rows or letter.good) and letter.journal.partition(".")[0] != journal.id:
            raise Impossible("it belongs to another journal, whose instrument numbers mean something else here")
        if letter.is_rows:
            rows, bad = letter.ticks(), Counter[str]()
            if not len(rows) or int(rows["instrument"].max()) >= len(journal.instruments):
                raise Impossible("it holds no rows of this journal")
            rows["flags"] &= np.uint32(~REASON_MASK & 0xFFFFFFFF)
        else:
            rows, bad = self._parse(letter, journal)
        before, rows = len(rows), rows[fresh(rows, taken)]
        before -= len(rows)
        checked = past.check(rows, _moment(letter))
        for reason, rejected in checked.rejected.items():
            bad[str(Flag(reason).name).lower()] += len(rejected)
        dropped = len(rows) - len(checked.rows) - sum(map(len, checked.rejected.values()))
        return Prepared(letter, checked.rows, bad.total(), dropped, before, ", ".join(bad))

    def _parse(self, letter: DeadLetter, journal: Journal) -> tuple[Rows, Counter[str]]:
        """The rows that today's parser finds beyond those of the good packets, and what it cannot read."""
        parser = self._parser(journal, letter.instruments)
        try:
            parsed = parser([Frame(letter.raw, letter.received_ns)])
        except Exception as error:
            return np.zeros(0, TICK), Counter({f"the parser raised {type(error).__name__}": letter.rows})
        rows = parsed.rows[fresh(parsed.rows, Counter(letter.good_digests().tolist()))]
        if letter.good and len(rows) > letter.rows:
            raise Impossible(
                f"today's parser makes {len(rows)} new rows of {letter.rows} bad packets: it reads the good ones "
                "differently, too, and they are in the journal already"
            )
        return rows, Counter(one.reason for one in parsed.bad)

    def _parser(self, journal: Journal, lines: int | None) -> Parser:
        """A new parser, for some vendors' parsers keep state, with the instruments of that moment."""
        lines = len(journal.instruments) if lines is None else min(lines, len(journal.instruments))
        if lines not in self._maps:
            self._maps[lines] = TokenMap({journal.instruments[number].token: number for number in range(lines)})
        vendor = self.config.vendor_of(self.feed)
        return vendor.plugin.parser(vendor.settings, self._maps[lines])

    def _write(self, journal: Journal, ready: Sequence[Prepared], ledger: Ledger) -> None:
        """Append the rows of all letters in one go; the ledger knows before and after."""
        finished = [one.letter.identity for one in ready if one.finished]
        known = {one.letter.identity: digests(one.rows).tolist() for one in ready if len(one.rows)}
        if known:
            ledger.begin(Intent(journal=journal.name, row=journal.committed, letters=known))
            try:
                journal.append(np.frombuffer(bytearray(b"".join(one.rows.tobytes() for one in ready)), TICK))
            except (OSError, JournalError) as error:
                ledger.void()  # nothing was published
                raise JournalError(f"the journal does not take the rows: {error}") from error
        if known or finished:
            self._done(ledger, {**dict.fromkeys(finished, ()), **known}, finished)

    def _done(self, ledger: Ledger, known: Mapping[str, Sequence[int]], finished: Sequence[str]) -> None:
        ledger.done(known, finished, at_ns=self.clock.wall_ns(), target="journal")

    def ask_journal(self, ledger: Ledger, intent: Intent) -> None:
        """An earlier replay was killed while it appended: the journal says whether the rows are there."""
        wanted = [one for rows in intent.letters.values() for one in rows]
        with Journal.attach(self._ticks) as journal:
            row = journal.locate(intent.journal, intent.row)
            found = _rows_at(journal, row, len(wanted)) if row is not None else None
        if found is not None and digests(found).tolist() == wanted:
            self._done(ledger, intent.letters, [])  # what was left of them is tried again; what is there is not
        else:
            ledger.void()


def _outcome(one: Prepared) -> Outcome:
    rows, left, detail = len(one.rows), one.left, one.why_left
    result: Result = "partly" if left else "replayed"
    if not rows and not one.finished:
        result, left = "still-bad", left or one.letter.rows
        detail = detail or "today's parser finds nothing wrong and no row either"
    elif not rows and not left:
        result = "replayed" if one.dropped else "done-before"
        detail = f"validation drops {one.dropped} rows" if one.dropped else ""
    elif not rows:
        result = "still-bad"
    return outcome(one.letter, result, rows=rows, left=left, target="journal", detail=detail)


def _moment(letter: DeadLetter) -> int:
    """When what it holds was received (UTC nanoseconds)."""
    if letter.received_ns or not letter.is_rows or len(letter.raw) < TICK.itemsize:
        return letter.received_ns or letter.at_ns
    return int(letter.ticks()["received_ns"][0])


def _rows_at(journal: Journal, row: int, count: int) -> Rows | None:
    """``count`` rows from ``row`` on; None if they are not all there, or no longer."""
    parts: list[Rows] = []
    end = row + count
    if end > journal.committed or row < journal.oldest:
        return None
    while row < end:
        block = journal.block(row)
        if block is None:
            return None
        piece = block.rows[row - block.first_row : end - block.first_row]
        parts.append(piece)
        row += len(piece)
    return np.concatenate([np.frombuffer(part.tobytes(), TICK) for part in parts])
