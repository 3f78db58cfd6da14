"""The two laws of conservation, looked at from outside: no part that counts also judges.

``parsed = appended + dropped + dead_lettered + lost`` and ``appended = rows of this run in the journal``;
per sink ``position = start + delivered + skipped + dead_lettered``, not beyond the journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from marketfeed.runs import Tally, Totals

if TYPE_CHECKING:
    from marketfeed.engine.pipeline import Pipeline

__all__ = ["Laws", "laws_of"]

_LOOKS = 20


@attrs.frozen(kw_only=True)
class Laws:
    """Whether they hold; None where it cannot be said at this moment, because a batch is on its way."""

    parsing: bool | None
    journal: bool | None
    sinks: Mapping[str, bool]
    on_the_way: int
    """Rows parsed and not settled yet, such as those that wait for a full disk."""
    totals: Totals | None
    """Over all runs on this journal; None for a journal in memory."""
    rows: int
    """Rows that the journal was ever given, less those a power cut took."""

    @property
    def broken(self) -> tuple[str, ...]:
        """What does not hold, in words."""
        said = [(self.parsing, "parsing"), (self.journal, "journal")]
        said += [(holds, f"sink {name}") for name, holds in self.sinks.items()]
        if self.totals is not None:
            said += [(self.totals.holds, "parsing over all runs")]
            said += [(self.totals.rows == self.rows, "journal over all runs")]
        return tuple(word for holds, word in said if holds is False)

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        totals = msgspec.to_builtins(self.totals) if self.totals is not None else None
        return {
            "hold": not self.broken,
            "parsing": self.parsing,
            "journal": self.journal,
            "sinks": dict(self.sinks),
            "on_the_way": self.on_the_way,
            "totals": totals,
        }


def laws_of(pipeline: Pipeline) -> Laws:
    """Look at a pipeline, running or stopped."""
    tally, committed = _resting(pipeline)
    parse, books = pipeline.parse, pipeline.books
    return Laws(
        parsing=None if tally is None else tally.holds,
        journal=None if tally is None else tally.appended == committed - pipeline.first_row,
        sinks={one.name: one.holds and one.left >= 0 for one in pipeline.summary_of_sinks()},
        on_the_way=parse.counts.unaccounted if parse is not None and tally is None else 0,
        totals=books.totals() if books is not None and tally is not None else None,
        rows=committed,
    )


def _resting(pipeline: Pipeline) -> tuple[Tally | None, int]:
    """Counts and rows of one moment between two batches. Without a parse thread nothing is counted."""
    books, journal = pipeline.books, pipeline.journal
    if books is None or pipeline.parse is None:
        return None, journal.committed
    for _ in range(_LOOKS):
        before = journal.committed
        tally = None if pipeline.parse.stuck else books.settled()
        if tally is None:
            break
        if journal.committed == before:
            return tally, before
    return None, journal.committed
