"""Receive times that never step back, so that a moment can be found by bisection."""

from __future__ import annotations

import numpy as np

from marketfeed.dtypes import Rows

__all__ = ["Monotonic"]


class Monotonic:
    """Raises ``received_ns`` of appended rows to at least the one before; does nothing without that field."""

    def __init__(self, dtype: np.dtype[np.void], last_ns: int = 0) -> None:
        self._active = "received_ns" in (dtype.names or ())
        self._last_ns = last_ns

    def raise_(self, rows: Rows) -> None:
        """Change ``rows`` (at least one, writeable) in place where time steps back.

        Doing it twice to the same rows is the same as once, so a failed append can be repeated.
        """
        if not self._active:
            return
        column = rows["received_ns"]
        if column[0] < self._last_ns:
            column[0] = self._last_ns
        if len(column) > 1:
            np.maximum.accumulate(column, out=column)
        self._last_ns = int(column[-1])
