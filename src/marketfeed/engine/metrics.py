"""Counting without cost: plain numbers owned by one thread, read when somebody asks."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter

import attrs

__all__ = ["LATENCY_BOUNDS_S", "ApiCalls", "Histogram"]

LATENCY_BOUNDS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper ends of the buckets, seconds, inclusive."""


@attrs.define
class Histogram:
    """Observations in buckets, for one writer."""

    bounds: tuple[float, ...] = LATENCY_BOUNDS_S
    buckets: list[int] = attrs.field(init=False)
    """Count per bucket (not cumulative); the last one is for everything above the bounds."""
    total: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.buckets = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value, in seconds; below zero, as when a clock was set back, is zero."""
        value = max(0.0, value)
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    def plus(self, other: Histogram) -> Histogram:
        """A new one with the observations of both."""
        both = Histogram(self.bounds, total=self.total + other.total)
        both.buckets = [one + another for one, another in zip(self.buckets, other.buckets, strict=True)]
        return both


@attrs.define
class ApiCalls:
    """HTTP calls to brokers, counted by the core's session; any thread may count."""

    calls: Counter[tuple[str, str, str]] = attrs.field(factory=Counter)
    """By (vendor, endpoint, HTTP status); status 0 stands for no answer."""
    seconds: dict[tuple[str, str], Histogram] = attrs.field(factory=dict)
    """Durations by (vendor, endpoint)."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def count(self, vendor: str, endpoint: str, status: int, seconds: float) -> None:
        """Count one call."""
        with self._lock:
            self.calls[vendor, endpoint, str(status)] += 1
            self.seconds.setdefault((vendor, endpoint), Histogram()).observe(seconds)

    def total(self) -> int:
        """All calls so far."""
        with self._lock:
            return self.calls.total()
