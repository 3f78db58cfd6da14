"""The checks together, and what becomes of the rows that they doubt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

from marketfeed.config import ValidationConfig
from marketfeed.dtypes import REASON_MASK, TICK, Flag, Rows
from marketfeed.engine.validation.columns import Places, sorted_columns
from marketfeed.engine.validation.content import check_content
from marketfeed.engine.validation.order import OrderCheck
from marketfeed.engine.validation.prices import PriceCheck
from marketfeed.instruments import Instrument

__all__ = ["REASONS", "Checked", "Validator", "validate"]

REASONS: Final = tuple(flag for flag in Flag if flag & REASON_MASK)
"""Every reason, in the order of their bits."""
_NOTHING: Final[Mapping[Flag, Rows]] = MappingProxyType({})
# Rows are moved as opaque items of their size: a structured assignment would copy field by field.
_WHOLE: Final = np.dtype(f"V{TICK.itemsize}")


class Checked(NamedTuple):
    """What became of a batch; rows in neither of the two were dropped."""

    rows: Rows
    """For the journal, in order."""
    rejected: Mapping[Flag, Rows] = _NOTHING
    """For the dead letters, by reason; a row with several such reasons stands under the one with the
    lowest bit, and its ``flags`` name them all."""


class Validator:
    """Checks one feed's rows in the order in which they came. Not safe for threads: the parse thread owns it.

    What an instrument said before is remembered across connections; it begins anew with the process.
    Every row becomes part of that past, whatever its action, so flags do not depend on the settings
    of actions, nor on how a stream was cut into batches. ``instruments`` is the journal's catalogue.
    """

    def __init__(self, config: ValidationConfig | None = None, instruments: Sequence[Instrument] = ()) -> None:
        config = config or ValidationConfig()
        self.actions: Mapping[Flag, str] = {flag: getattr(config, _word(flag)) for flag in REASONS}
        """What happens to a row for each reason."""
        self.counts: dict[Flag, int] = dict.fromkeys(REASONS, 0)
        """Rows by reason; a row with two reasons counts in both."""
        self._dropping = _bits(flag for flag, action in self.actions.items() if action == "drop")
        self._rejecting = _bits(flag for flag, action in self.actions.items() if action == "dead-letter")
        self._size = 0
        self._order = OrderCheck(config.ahead_s)
        self._prices = PriceCheck(config.spike_percent, instruments)

    def check(self, rows: Rows) -> Checked:
        """Set the reason bits of these rows, in place if they are writeable, and part them by action."""
        if not len(rows):
            return Checked(rows)
        if not (rows.flags.c_contiguous and rows.flags.writeable):
            rows = rows.copy()
        columns, unknown = sorted_columns(rows)
        doubts = check_content(rows)
        if len(columns.numbers):
            if columns.numbers[-1] >= self._size:
                self._grow(int(columns.numbers[-1]) + 1)
            past = self._order.check(columns) + self._prices.check(columns)
            doubts += [(reason, columns.order[places]) for reason, places in past]
        if len(unknown):
            doubts.append((Flag.UNKNOWN_INSTRUMENT, unknown))
        return self._part(rows, doubts) if doubts else Checked(rows)

    def status(self) -> dict[str, dict[str, Any]]:
        """Action and number of rows of every reason that occurred, ready for JSON."""
        return {
            _word(flag): {"action": self.actions[flag], "rows": count} for flag, count in self.counts.items() if count
        }

    def _grow(self, need: int) -> None:
        self._size = max(64, 2 * self._size, need)
        self._order.grow(self._size)
        self._prices.grow(self._size)

    def _part(self, rows: Rows, doubts: Sequence[tuple[Flag, Places]]) -> Checked:
        """Write the doubts into the flags and give each row to where it belongs."""
        found = np.zeros(len(rows), np.uint32)
        for reason, places in doubts:
            found[places] |= np.uint32(reason)
        for reason in {reason for reason, _ in doubts}:  # a price may be found not finite by two checks
            self.counts[reason] += int(np.count_nonzero(found & np.uint32(reason)))
        rows["flags"] |= found
        out = found & (self._rejecting | self._dropping)
        if not np.count_nonzero(out):
            return Checked(rows)
        rejecting = found & self._rejecting
        lowest = rejecting & (~rejecting + np.uint32(1))
        letters = sorted({int(bit) for bit in np.unique(lowest)} - {0})
        rejected = {Flag(bit): _pick(rows, np.flatnonzero(lowest == bit)) for bit in letters}
        return Checked(_pick(rows, np.flatnonzero(out == 0)), rejected)


def validate(rows: Rows, config: ValidationConfig | None = None, instruments: Sequence[Instrument] = ()) -> Checked:
    """Check rows that have no past, such as a dead letter's: as if the feed began with them."""
    return Validator(config, instruments).check(rows)


def _word(flag: Flag) -> str:
    return str(flag.name).lower()


def _bits(flags: Iterator[Flag]) -> np.uint32:
    return np.uint32(sum(flags))


def _pick(rows: Rows, places: Places) -> Rows:
    return rows.view(_WHOLE)[places].view(TICK)
