"""One account at one broker: its session, instruments, streams and parsers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import attrs

from marketfeed.clock import NS, Clock
from marketfeed.contract import Http, Parser, Session, Stream, VendorSettings
from marketfeed.engine.logs import Log
from marketfeed.errors import AuthError, RateLimited, SessionExpired
from marketfeed.instruments import InstrumentTable, TokenMap
from marketfeed.masters import load_instruments
from marketfeed.plugins import VendorPlugin
from marketfeed.tokens import TokenKeeper

__all__ = ["MOST_REFUSALS", "Account"]

MOST_REFUSALS = 10
_REFUSALS_NS = 3600 * NS


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
    logins: int = 0
    _session: Session | None = None
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def session(self) -> Session:
        """The session in use; logs in the first time. Raises ``AuthError`` or what the broker says."""
        with self._lock:
            return self._session or self._login()

    def secrets(self) -> set[str]:
        """Values of the session in use that must not be kept or shown."""
        session = self._session
        return set() if session is None else {session.access_token, *session.extra.values()}

    def renew(self, dead: Session) -> Session:
        """A session that is not ``dead``. Connections that lost the same one share one login."""
        with self._lock:
            if self._session is not None and self._session is not dead:
                return self._session
            kept = self.tokens.load(dead.vendor, dead.account)
            if kept is None or kept.access_token == dead.access_token:  # else somebody has logged in meanwhile
                self.tokens.forget(dead.vendor, dead.account)
            return self._login()

    def _login(self) -> Session:
        """Obtain a session. Refused logins are counted in the token store, over restarts of the process,
        and after :data:`MOST_REFUSALS` of them within an hour the broker is left alone."""
        vendor, account = self.plugin.info.name, self.settings.account
        now_ns = self.clock.wall_ns()
        refused = self.tokens.failures_since(vendor, account, now_ns - _REFUSALS_NS)
        if refused >= MOST_REFUSALS:
            raise AuthError(
                f"{vendor} refused {refused} logins of this account within an hour; "
                "correct the credentials, then wait until the hour is over"
            )
        calls = self.calls()
        try:
            self._session = self.plugin.authenticate(self.settings, self.tokens, self.http)
        except AuthError:
            if self.calls() != calls:  # the broker was asked; a missing setting costs no attempt
                self.tokens.count_failure(vendor, account, now_ns)
            raise
        self.tokens.forgive(vendor, account)
        self.logins += 1
        self.log.info("session ready", account=self._session.account)
        return self._session

    def instruments(self, *, refresh: bool = False) -> InstrumentTable:
        """The instrument master of today, from the cache or the broker; waits where a rate limit asks for it.

        ``refresh`` asks the broker in any case.
        """
        session = self.session()
        renewed = False
        while True:
            try:
                return load_instruments(
                    self.plugin, self.settings, session, self.http, self.clock, self.cache_folder, refresh=refresh
                )
            except SessionExpired:  # a token of the store that died overnight: worth one login
                if renewed:
                    raise
                session, renewed = self.renew(session), True
            except RateLimited as error:  # the broker names the wait, and a start has nothing better to do
                self.log.warning("asked to wait before the instruments", seconds=error.retry_after_s)
                self.clock.wait(threading.Event(), error.retry_after_s)

    def stream(self, session: Session) -> Stream:
        """The protocol object of one connection."""
        return self.plugin.connect(self.settings, session, self.http)

    def parser(self, tokens: TokenMap) -> Parser:
        """A parser for one socket."""
        return self.plugin.parser(self.settings, tokens)
