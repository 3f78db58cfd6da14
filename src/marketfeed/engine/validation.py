"""Looks at rows before they are published: vectorized, once per batch.

A doubt is a bit in ``flags``. So far one thing keeps a row out of the journal: an instrument that
nobody subscribed, which the journal could not name.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import Flag, Rows

__all__ = ["Checked", "validate"]


class Checked(NamedTuple):
    """``rows`` go to the journal; ``rejected`` are the indices that do not, by reason."""

    rows: Rows
    rejected: dict[Flag, NDArray[np.intp]]


def validate(rows: Rows) -> Checked:
    """Split rows into those that may be published and those that may not, with the reason."""
    numbers = rows["instrument"]
    if len(rows) == 0 or numbers.min() >= 0:
        return Checked(rows, {})
    known = numbers >= 0
    unknown = np.flatnonzero(~known)
    rows["flags"][unknown] |= np.uint32(Flag.UNKNOWN_INSTRUMENT)
    return Checked(rows[known], {Flag.UNKNOWN_INSTRUMENT: unknown})
