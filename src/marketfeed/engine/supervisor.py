"""What one connection does next: a pure state machine. It reads no clock and touches no socket.

::

              Started                  Opened (*)      Checked
    (new) -----------> CONNECTING --------------> LIVE <-------> QUIET
                        ^  | Lost                  |  ^ data        | too long
                  Woke  |  |                       v  |             v
                        |  |                      MUTE <------------+   (resubscribes, then reconnects)
                        |  v                       |
                       BACKING_OFF <---------------+--- Lost from anywhere
                       CLOSED_FOR_DAY                   ... when the market is closed for long
                       WAITING_FOR_LOGIN                ... on SessionExpired; LoggedIn -> CONNECTING
                       FAILED                           ... refused, or expired again at once

``StopAsked`` leads to CLOSED from everywhere. (*) Where the broker answers a login on the socket, ``Answered``
leads to LIVE; without it in time the attempt has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import attrs

from marketfeed.engine.retry import Action, Backoff, action_for
from marketfeed.engine.watchdog import DEAD_S, UNKNOWN_S, Verdict, Watchdog
from marketfeed.errors import LineLost, RateLimited, TakenOver

__all__ = [
    "OPEN",
    "Answered",
    "Checked",
    "Close",
    "Connect",
    "Happening",
    "LoggedIn",
    "Login",
    "Lost",
    "Market",
    "Next",
    "Opened",
    "Resubscribe",
    "Started",
    "State",
    "StopAsked",
    "Supervisor",
    "Wait",
    "Woke",
]

STABLE_S = 30.0
"""A line that stayed up this long has earned a fresh back-off."""
_LONG_CLOSED_S = 1800.0
"""A line lost when the market opens later than this is left alone until shortly before."""
_UNDISTURBED_S = 3600.0
"""A line that stayed up this long is no longer in a quarrel over the account's connection."""
_LONGEST_TAKEOVER_S = 900.0
"""Most that is waited because another session has the connection."""
_EARLY_S = 900.0
"""How long before the opening the line is tried again."""


class State(StrEnum):
    """Where a connection stands; also the label in ``/health``, events and metrics."""

    NEW = "new"
    CONNECTING = "connecting"
    LIVE = "live"
    QUIET = "quiet"
    MUTE = "mute"
    BACKING_OFF = "backing_off"
    WAITING_FOR_LOGIN = "waiting_for_login"
    CLOSED_FOR_DAY = "closed_for_day"
    CLOSED = "closed"
    FAILED = "failed"


class Market(NamedTuple):
    """The market at a moment."""

    open_for_s: float | None
    """How long it has been open; None while it is closed."""
    opens_in_s: float = 0.0
    """How long until it opens; 0 while it is open."""

    @property
    def is_far(self) -> bool:
        """It is closed, and not for a moment: nobody needs the line."""
        return self.open_for_s is None and self.opens_in_s > _LONG_CLOSED_S


OPEN = Market(float("inf"))
"""A market that never closes."""


class Started(NamedTuple):
    """The thread runs."""


class Opened(NamedTuple):
    """The handshake succeeded."""

    login_within_s: float | None = None
    """How long the broker may take to answer a login on the socket; None = there is none."""


class Answered(NamedTuple):
    """The broker accepted the login on the socket."""


class Lost(NamedTuple):
    """The connection ended or could not be made."""

    error: Exception
    market: Market = OPEN


class Checked(NamedTuple):
    """Some time went by on an open line."""

    market: Market = OPEN


class Woke(NamedTuple):
    """The wait is over."""


class LoggedIn(NamedTuple):
    """A new session is there."""


class StopAsked(NamedTuple):
    """The feed is stopping."""


Happening = Started | Opened | Answered | Lost | Checked | Woke | LoggedIn | StopAsked


class Connect(NamedTuple):
    """Open the socket, then read until it ends."""


class Resubscribe(NamedTuple):
    """Ask for everything again on the open line."""


class Wait(NamedTuple):
    """Do nothing for this long."""

    seconds: float


class Login(NamedTuple):
    """Ask for a new session."""


class Close(NamedTuple):
    """End the line; ``error`` is why, None for a wish. On an open line: hang up, then tell ``Lost``."""

    error: Exception | None


Next = Connect | Resubscribe | Wait | Login | Close


def _nobody(old: State, new: State, why: str) -> None:
    """Nobody listens to transitions."""


@attrs.define
class Supervisor:
    """One connection's mind. ``handle`` is told what happened and when, and says what to do next."""

    backoff: Backoff = attrs.field(factory=Backoff)
    watchdog: Watchdog = attrs.field(factory=Watchdog)
    changed: Callable[[State, State, str], None] = _nobody
    """Called as ``changed(old, new, why)`` for each transition."""
    state: State = State.NEW
    opened_s: float | None = None
    """Monotonic seconds of the present connection's handshake."""
    _login_spent: bool = False
    _login_due: bool = False
    """The login got no answer: it comes first after the wait, for the old session is dead."""
    _login_within_s: float | None = None
    """The login on the open socket is not answered yet, and may take this long."""
    _takeovers: int = 0
    """How often another session took the connection since it was left in peace."""
    _asked_s: float | None = None
    """When the subscription was last repeated because nothing came."""
    _asked_wait_s: float = UNKNOWN_S

    def handle(self, what: Happening, now_s: float) -> Next | None:
        """The next step, or None to go on as before. ``now_s`` is the monotonic clock in seconds."""
        match what:
            case StopAsked():
                return self._to(State.CLOSED, Close(None), "stop")
            case Woke() if self._login_due:
                return self._to(State.WAITING_FOR_LOGIN, Login(), "woke")
            case Started() | Woke() | LoggedIn():
                return self._to(State.CONNECTING, Connect(), type(what).__name__.lower())
            case Opened(login_within_s):
                self._open(login_within_s, now_s)
                return None
            case Answered():
                self._login_within_s = None
                self._enter(State.LIVE, "login answered")
                return None
            case Lost(error, market):
                return self._lost(error, market, now_s)
            case Checked(market):
                return self._check(market, now_s)

    # --- an open line ---------------------------------------------------------------------------

    def _open(self, login_within_s: float | None, now_s: float) -> None:
        self.opened_s = now_s
        self._login_within_s = login_within_s
        self._asked_s = None
        self._asked_wait_s = UNKNOWN_S
        self.watchdog.opened(now_s)
        if login_within_s is None:
            self._enter(State.LIVE, "handshake done")

    def _check(self, market: Market, now_s: float) -> Next | None:
        verdict = self.watchdog.judge(now_s, market.open_for_s)
        if self._login_within_s is not None and verdict is not Verdict.DEAD:
            return self._check_login(self._login_within_s, now_s)
        silence_s = self.watchdog.silence_s(now_s, market.open_for_s)
        match verdict:
            case Verdict.LIVE:
                self._asked_s = None
                self._asked_wait_s = UNKNOWN_S
                self._enter(State.LIVE, "ticks come")
            case Verdict.QUIET:
                self._enter(State.QUIET, f"no ticks for {silence_s:.0f} s")
            case Verdict.DEAD:
                self._enter(State.MUTE, "no sign of life")
                return Close(LineLost(f"no sign of life for {self.watchdog.signless_s(now_s):.0f} s"))
            case Verdict.UNSURE:
                return self._ask_again(now_s, silence_s)
            case Verdict.MUTE:
                return self._mute(now_s, silence_s)
        return None

    def _check_login(self, within_s: float, now_s: float) -> Next | None:
        """Not subscribed before the answer: that no ticks come means nothing yet."""
        if self.opened_s is None or now_s - self.opened_s < within_s:
            return None
        return Close(LineLost(f"the broker did not answer the login on the socket within {within_s:g} s"))

    def _ask_again(self, now_s: float, silence_s: float) -> Next | None:
        """Nothing is known of how often this line ticks: repeat the question, ever more rarely."""
        self._enter(State.QUIET, f"no ticks for {silence_s:.0f} s")
        if self._asked_s is not None and now_s - self._asked_s < self._asked_wait_s:
            return None
        if self._asked_s is not None:
            self._asked_wait_s *= 2
        self._asked_s = now_s
        return Resubscribe()

    def _mute(self, now_s: float, silence_s: float) -> Next | None:
        if self.state is not State.MUTE:
            self._asked_s = now_s
            return self._to(State.MUTE, Resubscribe(), f"no ticks for {silence_s:.1f} s")
        if self._asked_s is not None and now_s - self._asked_s < DEAD_S:
            return None
        return Close(LineLost(f"mute: no ticks for {silence_s:.1f} s, nor after asking again"))

    # --- a line that ended ----------------------------------------------------------------------

    def _lost(self, error: Exception, market: Market, now_s: float) -> Next:
        if self.opened_s is not None:
            self.watchdog.closed(now_s)
            self._earn(now_s - self.opened_s)
        self.opened_s = None
        self._login_due = self.state is State.WAITING_FOR_LOGIN
        why = str(error)
        match action_for(error):
            case Action.RECONNECT:
                return self._retry(self._stay_away_s(error), market, why)
            case Action.WAIT:
                return self._retry(error.retry_after_s if isinstance(error, RateLimited) else 0.0, market, why)
            case Action.LOGIN if not self._login_spent:
                self._login_spent = True
                return self._to(State.WAITING_FOR_LOGIN, Login(), why)
        return self._to(State.FAILED, Close(error), why)

    def _earn(self, up_s: float) -> None:
        """A line that was up for long starts over; one whose login was never answered was not up."""
        if self._login_within_s is None and up_s >= STABLE_S:
            self.backoff.reset()
            self._login_spent = False
        if self._login_within_s is None and up_s >= _UNDISTURBED_S:
            self._takeovers = 0

    def _stay_away_s(self, error: Exception) -> float:
        """Longer each time another session took the connection, so that two never drive each other out for ever."""
        if not isinstance(error, TakenOver):
            return 0.0
        self._takeovers += 1
        return min(_LONGEST_TAKEOVER_S, error.wait_s * 2.0 ** min(self._takeovers - 1, 20))

    def _retry(self, at_least_s: float, market: Market, why: str) -> Next:
        if market.is_far:
            self.backoff.reset()
            return self._to(State.CLOSED_FOR_DAY, Wait(market.opens_in_s - _EARLY_S), why)
        return self._to(State.BACKING_OFF, Wait(max(at_least_s, self.backoff.next_s())), why)

    def _to(self, state: State, step: Next, why: str) -> Next:
        self._enter(state, why)
        return step

    def _enter(self, state: State, why: str) -> None:
        if state is not self.state:
            old, self.state = self.state, state
            self.changed(old, state, why)
