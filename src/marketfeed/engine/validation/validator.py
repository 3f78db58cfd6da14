"""The checks together, and what becomes of the rows that they doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.config import ValidationConfig
from marketfeed.dtypes import REASON_MASK, TICK, Flag, Rows
from marketfeed.engine.validation.columns import Doubt, Places, sorted_columns
from marketfeed.engine.validation.content import check_content
from marketfeed.engine.validation.order import OrderCheck
from marketfeed.engine.validation.prices import PriceCheck
from marketfeed.instruments import Instrument

__all__ = ["REASONS", "Checked", "Validator", "validate"]

REASONS: Final = tuple(flag for flag in Flag if flag & REASON_MASK)
"""Every reason, in the order of their bits."""
_BITS: Final = {flag: np.uint32(flag) for flag in REASONS}
_FEW_MARKS: Final = 4
_BLOCK_ROWS: Final = 4096
"""Rows looked at together: what they touch stays in the processor's cache."""
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
    Up to ``few`` rows of instruments that something is wrong with are looked at one by one, more of them
    in columns; the result is the same.
    """

    def __init__(
        self, config: ValidationConfig | None = None, instruments: Sequence[Instrument] = (), *, few: int = 24
    ) -> None:
        config = config or ValidationConfig()
        self.actions: Mapping[Flag, str] = {flag: getattr(config, _word(flag)) for flag in REASONS}
        """What happens to a row for each reason."""
        self.counts: dict[Flag, int] = dict.fromkeys(REASONS, 0)
        """Rows by reason; a row with two reasons counts in both."""
        self._size = 0
        self._order = OrderCheck(config.ahead_s, few)
        self._prices = PriceCheck(config.spike_percent, instruments, few)

    def check(self, rows: Rows, *, consume: bool = False) -> Checked:
        """Set the reason bits of these rows, in place if they are writeable, and part them by action.

        ``consume``: nobody needs the array afterwards, so rows that stay may move together in it.
        """
        if not len(rows):
            return Checked(rows)
        if not (rows.flags.c_contiguous and rows.flags.writeable):
            rows = rows.copy()
        found: list[Doubt] = []
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = self._doubts(rows[start : start + _BLOCK_ROWS])
            found += [(reason, places + start) for reason, places in block] if start else block
        return self._part(rows, _merged(found), consume) if found else Checked(rows)

    def _doubts(self, rows: Rows) -> list[Doubt]:
        columns, unknown = sorted_columns(rows)
        found = check_content(rows)
        if len(columns.numbers):
            if columns.numbers[-1] >= self._size:
                self._grow(int(columns.numbers[-1]) + 1)
            past = self._order.check(columns) + self._prices.check(columns)
            found += [(reason, columns.order[places]) for reason, places in past]
        if len(unknown):
            found.append((Flag.UNKNOWN_INSTRUMENT, unknown))
        return found

    def status(self) -> dict[str, dict[str, Any]]:
        """Action and number of rows of every reason that occurred, ready for JSON."""
        return {
            _word(flag): {"action": self.actions[flag], "rows": count} for flag, count in self.counts.items() if count
        }

    def _grow(self, need: int) -> None:
        self._size = max(64, 2 * self._size, need)
        self._order.grow(self._size)
        self._prices.grow(self._size)

    def _part(self, rows: Rows, doubts: Mapping[Flag, Places], consume: bool) -> Checked:
        """Write the doubts into the flags and give each row to where it belongs."""
        flags, refused = rows["flags"], []
        for reason, places in doubts.items():
            _mark(flags, places, _BITS[reason])
            self.counts[reason] += len(places)
            if (action := self.actions[reason]) != "keep":
                refused.append((reason, action == "drop", places))
        if not refused:
            return Checked(rows)
        kept = np.ones(len(rows), bool)
        rejected: dict[Flag, Rows] = {}
        for reason, dropped, places in sorted(refused, key=_aside_first):
            if not dropped and len(places := places[kept[places]]):
                rejected[reason] = _pick(rows, np.sort(places))
            kept[places] = False
        if consume:
            return Checked(_without(rows, np.flatnonzero(~kept).tolist()), rejected)
        return Checked(_pick(rows, np.flatnonzero(kept)), rejected)


def validate(rows: Rows, config: ValidationConfig | None = None, instruments: Sequence[Instrument] = ()) -> Checked:
    """Check rows that have no past, such as a dead letter's: as if the feed began with them."""
    return Validator(config, instruments).check(rows)


def _word(flag: Flag) -> str:
    return str(flag.name).lower()


def _mark(flags: NDArray[np.uint32], places: Places, bit: np.uint32) -> None:
    if len(places) > _FEW_MARKS:
        flags[places] |= bit
    else:
        for place in places.tolist():  # an index at a time costs 0.2 us, numpy's way at least 1
            flags[place] |= bit


def _aside_first(refused: tuple[Flag, bool, Places]) -> tuple[bool, int]:
    """Dead letters before what is dropped, then by bit."""
    reason, dropped, _ = refused
    return dropped, int(reason)


def _merged(doubts: Sequence[Doubt]) -> dict[Flag, Places]:
    """Each row once for a reason: two checks may find its prices not finite."""
    merged: dict[Flag, list[Places]] = {}
    for reason, places in doubts:
        merged.setdefault(reason, []).append(places)
    return {
        reason: found[0] if len(found) == 1 else np.unique(np.concatenate(found)) for reason, found in merged.items()
    }


def _pick(rows: Rows, places: Places) -> Rows:
    return rows.view(_WHOLE)[places].view(TICK)


def _without(rows: Rows, gone: list[int]) -> Rows:
    """The other rows, moved together in place: a copy of a large batch is new memory, and each page of it costs
    a fault, which was the larger part of what one bad row among a hundred cost."""
    data = rows.view(np.uint8).data
    size, end = TICK.itemsize, gone[0]
    for place, following in pairwise([*gone, len(rows)]):
        count = following - place - 1
        data[end * size : (end + count) * size] = data[(place + 1) * size : following * size]
        end += count
    return rows[:end]
