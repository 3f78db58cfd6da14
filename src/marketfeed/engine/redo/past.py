"""Validation as it would have judged a row when it came: with what its instrument had said before."""

from __future__ import annotations

from typing import Final

from marketfeed.dtypes import TICK, Rows
from marketfeed.engine.validation import Checked, Validator
from marketfeed.journal import Journal

__all__ = ["Past"]

PAST_ROWS: Final = 65_536
"""So many rows before a letter tell what was usual; an account's full load is seven seconds of it."""
_PIECE_ROWS = 16_384


class Past:
    """A validator that is shown the journal's rows up to each letter's moment. Letters come oldest first.

    Where retention has removed those rows, only what a row says about itself can be judged.
    """

    def __init__(self, validator: Validator, journal: Journal) -> None:
        self._validator = validator
        self._journal = journal
        self._next = 0

    def check(self, rows: Rows, at_ns: int) -> Checked:
        """Judge rows that were received at ``at_ns`` (UTC)."""
        self._advance(self._journal.row_at(at_ns) if len(rows) else self._next)
        return self._validator.check(rows)

    def _advance(self, end: int) -> None:
        row = max(self._next, end - PAST_ROWS, self._journal.oldest)
        while row < end:
            block = self._journal.block(row)
            if block is None:
                row = max(row + 1, self._journal.oldest)
                continue
            place = row - block.first_row
            piece = block.rows[place : min(place + _PIECE_ROWS, end - block.first_row)]
            self._validator.check(piece.astype(TICK))  # a copy: flags are set in place
            row += len(piece)
        self._next = max(self._next, end)
