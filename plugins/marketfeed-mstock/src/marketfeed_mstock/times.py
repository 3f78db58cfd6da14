"""Times of mStock packets: whole seconds since 1980-01-01, in a zone that nobody states."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from marketfeed.clock import NS

__all__ = ["MAX_RAW_S", "ZoneCheck"]

_EPOCH_1980_S: Final = 315_532_800
"""1980-01-01 00:00 UTC in seconds since 1970 (read in the official SDKs of both dialects)."""
_IST_S: Final = 19_800
_NEAR_S: Final = 900
"""A quarter of an hour: closer than that to the receive clock decides for a zone."""
MAX_RAW_S: Final = 0xFFFF_FFFF
"""Later than the year 2100: not seconds since 1980, so the packet is not trusted."""


class ZoneCheck:
    """Turns raw seconds to UTC nanoseconds; finds out once per socket whether they are India time or UTC.

    India time is assumed until a packet's time, read as UTC, is within 15 minutes of the receive
    clock. An instrument that last traded five and a half hours ago would fool that, so UTC stays
    provisional: the first time that fits as India time decides for good.
    """

    def __init__(self, zone: Literal["auto", "ist", "utc"] = "auto") -> None:
        self.zone: Literal["ist", "utc"] = "utc" if zone == "utc" else "ist"
        self.settled = zone != "auto"

    def observe(self, raw: NDArray[np.int64], received_ns: int) -> None:
        """Look at the newest of these raw seconds (zeros mean no time) beside the receive clock."""
        newest = int(raw.max(initial=0))
        if self.settled or not newest:
            return
        ahead_s = newest + _EPOCH_1980_S - received_ns // NS
        if abs(ahead_s - _IST_S) <= _NEAR_S:
            self.zone, self.settled = "ist", True
        elif abs(ahead_s) <= _NEAR_S:
            self.zone = "utc"

    def to_ns(self, raw: NDArray[np.int64]) -> NDArray[np.int64]:
        """UTC nanoseconds since 1970; a raw 0 means "no time" and stays 0."""
        shift_s = _EPOCH_1980_S - (_IST_S if self.zone == "ist" else 0)
        found: NDArray[np.int64] = np.where(raw > 0, (raw + shift_s) * NS, 0)
        return found
