"""Tells a quiet line from a mute one by what came over it. Pure: told the time, reads no clock.

Two things prove that a line lives. A *sign* is any byte, pongs and heartbeats included; in market hours
a line without one for :data:`DEAD_S` is dead. *Data* are ticks: how long they may stay away depends on
how they came so far.

Where a broker always sends something by itself, pongs alone prove nothing (``pongs_prove``): they keep a line for
``dead_after_s``, no longer.

* The line was busy (over the last minute no second without a tick): :data:`DEAD_S`.
* Otherwise ten times the largest gap of the last ten minutes of market hours, at least :data:`DEAD_S`.
* With fewer than :data:`FEW` arrivals nothing is known of it. Asking again costs nothing, so after
  :data:`UNKNOWN_S` (then twice, four times, ... as long) the subscription is repeated; but silence alone
  never ends such a line.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

import attrs

__all__ = ["DEAD_S", "FEW", "UNKNOWN_S", "Verdict", "Watchdog"]

DEAD_S = 5.0
UNKNOWN_S = 30.0
FEW = 10
_BUSY_GAP_S = 1.0
_BUSY_WINDOW_S = 60.0
_BUCKET_S = 10.0
_BUCKETS = 60
_TIMES_LARGEST = 10.0


class Verdict(Enum):
    """What the line looks like."""

    LIVE = auto()
    """Ticks come."""
    QUIET = auto()
    """No ticks, and nothing wrong with that: the market is closed, or they often stay away so long."""
    MUTE = auto()
    """Ticks stay away longer than they should."""
    UNSURE = auto()
    """Ticks stay away, and nobody can say whether they should."""
    DEAD = auto()
    """Not even a sign of life."""


@attrs.define
class Watchdog:
    """One connection's memory. Times are monotonic seconds; it outlives the sockets."""

    dead_after_s: float = 15.0
    """How long a line may give no sign outside market hours."""
    pongs_prove: bool = True
    _sign_s: float = 0.0
    _byte_s: float = 0.0
    """The last sign that was more than a pong."""
    _data_s: float | None = None
    _opened_s: float = 0.0
    _lived_s: float = 0.0
    """How long sockets were open, up to the present one's opening: gaps are reckoned in this time."""
    _session_lived_s: float = 0.0
    """The same, when the present session began."""
    _session_s: float = float("inf")
    """When the present session began; infinite while the market is closed."""
    _in_session: bool = False
    _arrivals: int = 0
    _gaps: deque[tuple[int, float]] = attrs.field(factory=lambda: deque(maxlen=_BUCKETS))
    """Largest gap per bucket of ten seconds of life, newest last."""

    def opened(self, now_s: float) -> None:
        """A new socket is open."""
        self._opened_s = self._sign_s = self._byte_s = now_s
        self._data_s = None

    def closed(self, now_s: float) -> None:
        """The socket is gone; the outage itself is no gap between ticks."""
        self._lived_s += max(0.0, now_s - self._opened_s)
        self._opened_s = now_s

    def sign(self, now_s: float, *, pong: bool = False) -> None:
        """Something came; ``pong`` where it was nothing but the answer to a ping."""
        self._sign_s = now_s
        if not pong:
            self._byte_s = now_s

    def data(self, now_s: float) -> None:
        """Ticks came."""
        self.sign(now_s)
        if self._data_s is not None:
            gap_s = now_s - max(self._data_s, self._session_s)  # the night is no gap between ticks
            if gap_s >= 0:
                self._note(now_s, gap_s if gap_s < DEAD_S else self._believed(now_s, gap_s))
        self._data_s = now_s
        self._arrivals += 1

    def _believed(self, now_s: float, gap_s: float) -> float:
        """A gap that was called mute is hardly a habit of the line: it may double the limit, no more.

        So one mute does not hide the next, and a line that really slowed down is understood after a few.
        """
        limit_s = self.limit_s(now_s)
        return min(gap_s, 2 * limit_s / _TIMES_LARGEST) if gap_s >= limit_s else gap_s

    def _note(self, now_s: float, gap_s: float) -> None:
        bucket = int(self._life(now_s) / _BUCKET_S)
        gaps = self._gaps
        if not gaps or gaps[-1][0] != bucket:
            gaps.append((bucket, gap_s))
        elif gap_s > gaps[-1][1]:
            gaps[-1] = (bucket, gap_s)

    def _life(self, now_s: float) -> float:
        return self._lived_s + now_s - self._opened_s

    def silence_s(self, now_s: float, session_age_s: float | None) -> float:
        """Seconds without data, market hours only."""
        since = self._opened_s if self._data_s is None else self._data_s
        silence = now_s - since
        return silence if session_age_s is None else min(silence, session_age_s)

    def limit_s(self, now_s: float) -> float:
        """How long data may stay away at this moment; infinite where nothing is known."""
        if self._arrivals < FEW:
            return float("inf")
        if self._is_busy(now_s):
            return DEAD_S
        return max(DEAD_S, _TIMES_LARGEST * max((gap for _, gap in self._gaps), default=0.0))

    def _is_busy(self, now_s: float) -> bool:
        """No second without a tick, from a minute before the last tick up to it, all in one session."""
        last = self._data_s if self._data_s is not None else self._opened_s
        life = self._life(last)
        if life - self._session_lived_s < _BUSY_WINDOW_S:
            return False
        oldest = int((life - _BUSY_WINDOW_S) / _BUCKET_S)
        recent = [gap for bucket, gap in self._gaps if bucket >= oldest]
        covered = len(recent) >= _BUSY_WINDOW_S / _BUCKET_S
        return covered and max(recent) <= _BUSY_GAP_S

    def judge(self, now_s: float, session_age_s: float | None) -> Verdict:
        """``session_age_s`` is how long the market has been open, None while it is closed."""
        in_session = session_age_s is not None
        self._session_s = float("inf") if session_age_s is None else now_s - session_age_s
        if in_session and not self._in_session:
            self._session_lived_s = self._life(now_s)
        self._in_session = in_session
        if self._is_dead(now_s, in_session=in_session):
            return Verdict.DEAD
        silence_s = self.silence_s(now_s, session_age_s)
        if silence_s < DEAD_S:
            return Verdict.LIVE
        if not in_session:
            return Verdict.QUIET
        if silence_s >= self.limit_s(now_s):
            return Verdict.MUTE
        return Verdict.UNSURE if self._arrivals < FEW and silence_s >= UNKNOWN_S else Verdict.QUIET

    def _is_dead(self, now_s: float, *, in_session: bool) -> bool:
        if now_s - self._sign_s >= (DEAD_S if in_session else self.dead_after_s):
            return True
        return not self.pongs_prove and now_s - self._byte_s >= self.dead_after_s

    def signless_s(self, now_s: float) -> float:
        """Seconds without a sign that proves something."""
        return now_s - (self._sign_s if self.pongs_prove else self._byte_s)
