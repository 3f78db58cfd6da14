"""Waiting for what other threads and processes do: as long as it takes, and no longer than is bearable."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]


def until(condition: Callable[[], object], seconds: float = 30.0, *, pause_s: float = 0.01) -> None:
    """Return as soon as the condition holds; a generous limit turns a hang into a failure that says where."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {seconds:g} s"
        time.sleep(pause_s)
