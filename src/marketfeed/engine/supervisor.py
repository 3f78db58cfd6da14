"""What one connection does next: a pure state machine. It reads no clock and touches no socket.

::

              Started                    Opened
    (new) -----------> CONNECTING ----------------> LIVE
                        ^   | Lost                   | Lost
                  Woke  |   v                        v
                       BACKING_OFF <-----------------+
                            | SessionExpired             LoggedIn -> CONNECTING
                            +---------------> WAITING_FOR_LOGIN ---> FAILED (refused, or expired again at once)

``StopAsked`` leads to CLOSED from everywhere.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import attrs

from marketfeed.engine.retry import Action, Backoff, action_for
from marketfeed.errors import RateLimited

__all__ = [
    "Close",
    "Connect",
    "Happening",
    "LoggedIn",
    "Login",
    "Lost",
    "Next",
    "Opened",
    "Started",
    "State",
    "StopAsked",
    "Supervisor",
    "Wait",
    "Woke",
]

STABLE_S = 30.0
"""A line that stayed up this long has earned a fresh back-off."""


class State(StrEnum):
    """Where a connection stands; also the label in ``/health``."""

    NEW = "new"
    CONNECTING = "connecting"
    LIVE = "live"
    BACKING_OFF = "backing_off"
    WAITING_FOR_LOGIN = "waiting_for_login"
    CLOSED = "closed"
    FAILED = "failed"


class Started(NamedTuple):
    """The thread runs."""


class Opened(NamedTuple):
    """The handshake succeeded."""


class Lost(NamedTuple):
    """The connection ended or could not be made."""

    error: Exception


class Woke(NamedTuple):
    """The wait is over."""


class LoggedIn(NamedTuple):
    """A new session is there."""


class StopAsked(NamedTuple):
    """The feed is stopping."""


Happening = Started | Opened | Lost | Woke | LoggedIn | StopAsked


class Connect(NamedTuple):
    """Open the socket, then read until it ends."""


class Wait(NamedTuple):
    """Do nothing for this long."""

    seconds: float


class Login(NamedTuple):
    """Ask for a new session."""


class Close(NamedTuple):
    """End the thread; ``error`` is why, None for a wish."""

    error: Exception | None


Next = Connect | Wait | Login | Close


@attrs.define
class Supervisor:
    """One connection's mind. ``handle`` is told what happened and when, and says what to do next."""

    backoff: Backoff = attrs.field(factory=Backoff)
    state: State = State.NEW
    opened_s: float | None = None
    """Monotonic seconds of the present connection's handshake."""
    reconnects: int = 0
    _login_spent: bool = False

    def handle(self, what: Happening, now_s: float) -> Next | None:
        """The next step, or None to go on as before. ``now_s`` is the monotonic clock in seconds."""
        match what:
            case StopAsked():
                return self._to(State.CLOSED, Close(None))
            case Started() | Woke() | LoggedIn():
                return self._to(State.CONNECTING, Connect())
            case Opened():
                self.opened_s = now_s
                self.state = State.LIVE
                return None
            case Lost(error):
                return self._lost(error, now_s)

    def _lost(self, error: Exception, now_s: float) -> Next:
        self.reconnects += 1
        if self.opened_s is not None and now_s - self.opened_s >= STABLE_S:
            self.backoff.reset()
            self._login_spent = False
        self.opened_s = None
        match action_for(error):
            case Action.RECONNECT:
                return self._to(State.BACKING_OFF, Wait(self.backoff.next_s()))
            case Action.WAIT:
                asked = error.retry_after_s if isinstance(error, RateLimited) else 0.0
                return self._to(State.BACKING_OFF, Wait(max(asked, self.backoff.next_s())))
            case Action.LOGIN if not self._login_spent:
                self._login_spent = True
                return self._to(State.WAITING_FOR_LOGIN, Login())
        return self._to(State.FAILED, Close(error))

    def _to(self, state: State, step: Next) -> Next:
        self.state = state
        return step
