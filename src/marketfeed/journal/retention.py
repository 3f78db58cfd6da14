"""Which segments may go. Pure; the writer does what it says."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from marketfeed.errors import JournalError
from marketfeed.journal.layout import Geometry

__all__ = ["Bounds", "kept_from", "refuses"]


@attrs.frozen(kw_only=True)
class Bounds:
    """How much of a journal stays, in bytes of rows."""

    keep_bytes: int
    """For rows that every cursor has passed."""
    max_bytes: int | None = None
    """For rows that wait for a laggard; None = half of the disk that is free at the start."""
    when_full: str = "skip"

    def __attrs_post_init__(self) -> None:
        if self.when_full not in ("skip", "stop"):
            raise JournalError(f"when_full is {self.when_full!r}; use 'skip' or 'stop'")
        if self.keep_bytes < 0 or (self.max_bytes is not None and self.max_bytes <= 0):
            raise JournalError("keep_bytes and max_bytes are numbers of bytes above 0")


def kept_from(
    oldest: int, committed: int, positions: Iterable[int], geometry: Geometry, bounds: Bounds, coming: int = 0
) -> int:
    """The new ``oldest``: everything below may be deleted. Whole segments only, never the newest one.

    ``positions`` are those of all keeping cursors; ``coming`` rows need room besides the committed
    ones. A segment goes when they have all passed it and
    ``keep_bytes`` is exceeded, or, with ``when_full="skip"``, when ``max_bytes`` is.
    """
    passed = min(positions, default=committed)
    most = bounds.max_bytes if bounds.max_bytes is not None else 2**63
    while True:
        end = geometry.first_of(oldest) + geometry.rows_per_segment
        kept = (committed + coming - oldest) * geometry.row_size
        if end > committed:
            return oldest
        free = end <= passed and kept > min(bounds.keep_bytes, most)
        forced = bounds.when_full == "skip" and kept > most
        if not free and not forced:
            return oldest
        oldest = end


def refuses(oldest: int, end: int, geometry: Geometry, bounds: Bounds) -> bool:
    """Whether rows up to ``end`` (excluded) must not come because laggards hold ``max_bytes`` already."""
    if bounds.when_full != "stop" or bounds.max_bytes is None:
        return False
    return (end - oldest) * geometry.row_size > bounds.max_bytes
