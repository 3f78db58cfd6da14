"""What to do after an error: one table from class to action, and one way to wait."""

from __future__ import annotations

import random
from enum import StrEnum

import attrs

from marketfeed.errors import (
    AuthError,
    JournalError,
    LineLost,
    PluginError,
    RateLimited,
    RequestRejected,
    SessionExpired,
    SinkError,
)

__all__ = ["ACTIONS", "Action", "Backoff", "action_for"]


class Action(StrEnum):
    """What the engine does next."""

    RECONNECT = "reconnect with back-off and jitter"
    LOGIN = "log in again once, then stop"
    WAIT = "wait as long as the broker says, then go on"
    SKIP = "give up this one request, go on with the others"
    RETRY = "try the same rows again with back-off"
    STOP = "stop; the message says what to do"


ACTIONS: dict[type[BaseException], Action] = {
    AuthError: Action.STOP,
    SessionExpired: Action.LOGIN,
    RateLimited: Action.WAIT,
    LineLost: Action.RECONNECT,
    RequestRejected: Action.SKIP,
    SinkError: Action.RETRY,
    PluginError: Action.STOP,
    JournalError: Action.STOP,
}
"""The retry policy. ``SinkError(retryable=False)`` is the one exception to its line: it stops that sink."""


def action_for(error: BaseException) -> Action:
    """The line of :data:`ACTIONS` for an error: the nearest class wins, an unknown one stops."""
    if isinstance(error, SinkError) and not error.retryable:
        return Action.STOP
    for kind in type(error).__mro__:
        if kind in ACTIONS:
            return ACTIONS[kind]
    return Action.STOP


@attrs.define
class Backoff:
    """Exponential waits with jitter: 0.5, 1, 2, ... up to ``cap_s``, each drawn from its upper half.

    Half of each wait is random, so that many clients which lost the same broker do not come back in
    step; the other half is not, so that no draw makes a storm.
    """

    first_s: float = 0.5
    cap_s: float = 60.0
    random: random.Random = attrs.field(factory=random.Random)
    attempts: int = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        # 2.0**63 is far past any cap; the bound keeps the power finite after days of failing.
        full = min(self.cap_s, self.first_s * 2.0 ** min(self.attempts, 63))
        self.attempts += 1
        return full / 2 + self.random.random() * full / 2

    def reset(self) -> None:
        """The thing works again: start over."""
        self.attempts = 0
