"""Receive times that never step back, so that a moment can be found by bisection."""

from __future__ import annotations

import numpy as np

from marketfeed.dtypes import Rows

__all__ = ["Monotonic"]


class Monotonic:
    """Raises ``received_ns`` of appended rows to at least the one before; does nothing without that field."""

    def __init__(self, dtype: np.dtype[np.void], last_ns: int = 0) -> None:
        self._active = "received_ns" in (dtype.names or ())
        self.last_ns = last_ns
        """``received_ns`` of the newest published row. Set it when the rows are published and not before:
        an append that failed is repeated, and must find the same times."""

    def raised(self, rows: Rows) -> int:
        """Change ``rows`` (at least one, writeable) in place where time steps back; returns the last time."""
        if not self._active:
            return 0
        column = rows["received_ns"]
        if column[0] < self.last_ns:
            column[0] = self.last_ns
        if len(column) > 1:
            np.maximum.accumulate(column, out=column)
        return int(column[-1])
