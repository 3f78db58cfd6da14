"""What became of a dead letter that was tried again."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.deadletters import DeadLetter
from marketfeed.deadletters.letter import digests
from marketfeed.dtypes import Rows

__all__ = ["Outcome", "Result", "fresh", "outcome"]

Result = Literal["replayed", "partly", "still-bad", "done-before", "impossible", "failed"]


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of one letter."""

    id: str
    kind: str
    reason: str
    result: Result
    """``replayed``: all of it. ``partly``: ``left`` packets or rows are as bad as before. ``still-bad``: all of
    them are. ``done-before``: an earlier replay took it. ``impossible``: ``detail`` says why. ``failed``: the
    sink is in trouble; try later."""
    rows: int = 0
    """Rows that were accepted; in a dry run, that would be offered."""
    left: int = 0
    target: str = ""
    """``journal``, or the sink's name"""
    detail: str = ""


def outcome(
    letter: DeadLetter, result: Result, *, rows: int = 0, left: int = 0, target: str = "", detail: str = ""
) -> Outcome:
    """The outcome for a letter."""
    return Outcome(
        id=letter.id,
        kind=letter.kind,
        reason=letter.reason,
        result=result,
        rows=rows,
        left=left,
        target=target,
        detail=detail,
    )


def fresh(rows: Rows, known: Counter[int]) -> NDArray[np.bool_]:
    """Which rows are not among the known digests, each of which stands for as many rows as it is counted."""
    keep = np.ones(len(rows), bool)
    if not len(rows) or not known:
        return keep
    left = known.copy()
    for place, value in enumerate(digests(rows).tolist()):
        if left[value] > 0:
            left[value] -= 1
            keep[place] = False
    return keep
