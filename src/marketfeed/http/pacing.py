"""Rate limits, kept exactly: no window of a limit's length ever holds more calls than it allows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from marketfeed.clock import Clock
from marketfeed.contract import RateLimit

__all__ = ["Pacer", "slack_s"]


def slack_s(per_s: float) -> float:
    """How much longer a window is kept than the broker's: the broker counts when calls arrive, and one that was
    held up on its way falls into the window of the next ones. 8 % of the window, half a second at most."""
    return min(0.08 * per_s, 0.5)


class Pacer:
    """Turns for calls to one vendor. A call counts against every limit whose prefix begins its path.

    Each limit remembers its last ``calls`` turns. A new turn is at least ``per_s`` and a little after the
    oldest of them and never before the newest, so turns are in order and a sliding window cannot overflow.
    """

    def __init__(self, limits: tuple[RateLimit, ...], clock: Clock, wait: Callable[[float], None]) -> None:
        self._limits = tuple((limit, deque[float](maxlen=limit.calls)) for limit in limits)
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()

    def take(self, path: str) -> None:
        """Wait for the next turn of a path. The turn is taken before waiting, so threads queue up fairly."""
        turn = self._reserve(path)
        # A wait may end a little early, and the host's clock has steps: the turn is what counts.
        while (left := turn - self._clock.monotonic()) > 0:
            self._wait(left)

    def _reserve(self, path: str) -> float:
        with self._lock:
            mine = [(limit, turns) for limit, turns in self._limits if path.startswith(limit.prefix)]
            turn = self._clock.monotonic()
            for limit, turns in mine:
                if turns:
                    turn = max(turn, turns[-1])
                if len(turns) == limit.calls:
                    turn = max(turn, turns[0] + limit.per_s + slack_s(limit.per_s))
            for _, turns in mine:
                turns.append(turn)
            return turn
