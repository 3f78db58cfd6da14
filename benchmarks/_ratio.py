"""Comparing two pieces of code in one run: a shared machine drifts, a ratio of neighbours does not."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Result", "compare", "seconds"]


class Result(NamedTuple):
    """One line of the report."""

    name: str
    ratio: float
    """How many times faster than the rival; for an upper bound, the measured value."""
    target: float
    at_most: bool = False
    """The target is an upper bound."""
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


def seconds(function: Callable[[], object], at_least_s: float = 0.02) -> float:
    """Seconds per call, over as many calls as fill ``at_least_s``; garbage collection paused."""
    calls = 1
    gc.collect()
    gc.disable()
    try:
        while True:
            start = time.perf_counter()
            for _ in range(calls):
                function()
            spent = time.perf_counter() - start
            if spent >= at_least_s:
                return spent / calls
            calls = max(calls * 2, int(calls * at_least_s / max(spent, 1e-9)))
    finally:
        gc.enable()


def compare(ours: Callable[[], object], rival: Callable[[], object], rounds: int = 7) -> float:
    """The median over rounds of rival's time divided by ours, the two taken in turn."""
    ours(), rival()
    return statistics.median(seconds(rival) / seconds(ours) for _ in range(rounds))
