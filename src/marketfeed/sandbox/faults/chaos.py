"""A schedule drawn by lot: the same seed gives the same faults at the same times."""

from __future__ import annotations

import random

from marketfeed.sandbox.faults.script import Planned, parse

__all__ = ["random_plan"]

_LINES = (
    "drop",
    "drop how=rst",
    "close code=1001",
    "close code=1011",
    "half-open for {long}s",
    "mute for {long}s",
    "mute for {long}s until=resubscribed",
    "heartbeats-only for {long}s",
    "silent for {long}s share=1",
    "silent for {long}s share=0.3",
    "no-pong for {long}s",
    "late-mode for {short}s",
    "throttle for {short}s bytes_per_second=20000",
    "refuse status=502 attempts=2",
    "refuse status=429 for {short}s",
    "damage count=5 extra=yes",
    "damage count=2",
    "repeat for {short}s every=3",
    "out-of-order for {short}s",
    "big-frames for {short}s packets=50",
    "zero-time count=20",
    "time-shift count=20 by_s=-60",
    "spike count=3",
    "crossed count=20",
    "http-error status=429 attempts=2",
    "http-error attempts=2",
    "http-slow delay_s=2",
    "http-short",
)


def random_plan(seed: int, *, hours: float = 24.0, gap_s: tuple[float, float] = (5.0, 25.0)) -> list[Planned]:
    """Faults of every kind that a client can survive, one after the other, from the first subscription on.

    Between two starts lie ``gap_s`` seconds, drawn evenly, beyond the length of the first.
    """
    dice, at, plan = random.Random(seed), 0.0, []
    while (at := at + dice.uniform(*gap_s)) < hours * 3600:
        kind, _, rest = dice.choice(_LINES).partition(" ")
        rest = rest.format(long=round(dice.uniform(8, 20), 1), short=round(dice.uniform(1, 5), 1))
        planned = parse(f"{kind}@live+{at:.1f}s {rest}")
        plan.append(planned)
        at += planned.fault.seconds or 0.0
    return plan
