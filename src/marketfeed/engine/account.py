"""One account at one broker: its session, instruments, streams and parsers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import attrs

from marketfeed.clock import NS, Clock
from marketfeed.contract import Http, Parser, Session, Stream, VendorSettings
from marketfeed.engine.logs import Log
from marketfeed.engine.retry import Backoff
from marketfeed.errors import AuthError, RateLimited, SessionExpired
from marketfeed.instruments import InstrumentTable, TokenMap
from marketfeed.masters import load_instruments
from marketfeed.plugins import VendorPlugin
from marketfeed.tokens import TokenKeeper

Answer = TypeVar("Answer")

__all__ = ["MOST_LOGINS", "MOST_REFUSALS", "Account"]

MOST_REFUSALS = 10
MOST_LOGINS = 10
"""New sessions within an hour; more are needed only when something, such as another program, ends them at once."""
_HOUR_NS = 3600 * NS


@attrs.define
class Account:
    """Knows how to log in once for everybody who uses the account."""

    plugin: VendorPlugin
    settings: VendorSettings
    tokens: TokenKeeper
    http: Http
    clock: Clock
    log: Log
    cache_folder: Path | None = None
    """Where instrument masters are kept; None = the user's cache folder."""
    calls: Callable[[], int] = lambda: 0
    """How many HTTP calls were made so far."""
    closed: threading.Event = attrs.field(factory=threading.Event)
    """Set when nobody wants answers any more: nothing waits for a rate limit from then on."""
    logins: int = 0
    _session: Session | None = None
    _made_ns: deque[int] = attrs.field(factory=lambda: deque(maxlen=MOST_LOGINS))
    """When the broker gave the last sessions."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def session(self) -> Session:
        """The session in use; logs in the first time. Raises ``AuthError`` or what the broker says."""
        with self._lock:
            if self._session is None:
                with self._alone():
                    self._login()
            return self._known()

    def secrets(self) -> set[str]:
        """Values of the session in use that must not be kept or shown."""
        session = self._session
        return set() if session is None else {session.access_token, *session.extra.values()}

    def renew(self, dead: Session) -> Session:
        """A session that is not ``dead``. Whoever lost the same one, feeds of other processes included, shares one
        login. Raises ``RateLimited`` after :data:`MOST_LOGINS` within an hour."""
        with self._lock:
            if self._session is not None and self._session is not dead:
                return self._session
            with self._alone():
                self._replace(dead)
            return self._known()

    def _alone(self) -> AbstractContextManager[None]:
        return self.tokens.alone(self.plugin.info.name, self.settings.account)

    def _known(self) -> Session:
        assert self._session is not None
        return self._session

    def _replace(self, dead: Session) -> None:
        kept = self.tokens.load(dead.vendor, dead.account)
        if kept is None or kept.access_token == dead.access_token:  # else somebody has logged in meanwhile
            self._check_pace()
            self.tokens.forget(dead.vendor, dead.account)
        self._login()

    def _check_pace(self) -> None:
        now_ns = self.clock.wall_ns()
        if len(self._made_ns) == MOST_LOGINS and self._made_ns[0] > now_ns - _HOUR_NS:
            raise RateLimited(
                f"{self.plugin.info.name} ended {MOST_LOGINS} sessions of this account within an hour; "
                "find out who else logs in to it",
                (self._made_ns[0] + _HOUR_NS - now_ns) / NS,
            )

    def _login(self) -> None:
        """Obtain a session. Refused logins are counted in the token store, over restarts of the process,
        and after :data:`MOST_REFUSALS` of them within an hour the broker is left alone."""
        vendor, account = self.plugin.info.name, self.settings.account
        now_ns = self.clock.wall_ns()
        refused = self.tokens.failures_since(vendor, account, now_ns - _HOUR_NS)
        if refused >= MOST_REFUSALS:
            raise AuthError(
                f"{vendor} refused {refused} logins of this account within an hour; "
                "correct the credentials, then wait until the hour is over"
            )
        calls = self.calls()
        try:
            self._session = self.plugin.authenticate(self.settings, self.tokens, self.http, self.clock)
        except AuthError:
            if self.calls() != calls:  # the broker was asked; a missing setting costs no attempt
                self.tokens.count_failure(vendor, account, now_ns)
            raise
        if self.calls() != calls:
            self._made_ns.append(now_ns)
        self.tokens.forgive(vendor, account)
        self.logins += 1
        self.log.info("session ready", account=self._session.account)

    def ask(
        self,
        call: Callable[[Session], Answer],
        *,
        tries: int | None = None,
        renew: bool = True,
        again: tuple[type[Exception], ...] = (RateLimited,),
    ) -> Answer:
        """What ``call`` gives for a session. One that died leads to one new login, if ``renew``.

        After the errors of ``again`` it waits, at least as long as the broker asks for, and calls once more, ``tries``
        times in all (None: as long as it takes) or until ``closed`` is set; then the error is the caller's.
        """
        backoff, session, renewed = Backoff(), self.session(), False
        while True:
            try:
                return call(session)
            except SessionExpired:  # such as a token of the store that died overnight
                if renewed or not renew:
                    raise
                session, renewed = self.renew(session), True
            except again as error:
                wait_s = max(backoff.next_s(), getattr(error, "retry_after_s", 0.0))
                if backoff.attempts == tries or self.clock.wait(self.closed, wait_s):
                    raise
                self.log.warning("asking the broker again", error=str(error), seconds=round(wait_s, 3))

    def instruments(self, *, refresh: bool = False, renew: bool = True) -> InstrumentTable:
        """The instrument master of today, from the cache or the broker; waits where a rate limit asks for it,
        as a start has nothing better to do.

        ``refresh`` asks the broker in any case; without ``renew`` a dead session is the caller's ``SessionExpired``.
        """
        return self.ask(
            lambda session: load_instruments(
                self.plugin, self.settings, session, self.http, self.clock, self.cache_folder, refresh=refresh
            ),
            renew=renew,
        )

    def stream(self, session: Session) -> Stream:
        """The protocol object of one connection."""
        return self.plugin.connect(self.settings, session, self.http)

    def parser(self, tokens: TokenMap) -> Parser:
        """A parser for one socket."""
        return self.plugin.parser(self.settings, tokens)
