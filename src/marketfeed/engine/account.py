"""One account at one broker: its session, instruments, streams and parsers."""

from __future__ import annotations

import threading
from pathlib import Path

import attrs

from marketfeed.clock import Clock
from marketfeed.contract import Http, Parser, Session, Stream, TokenStore, VendorSettings
from marketfeed.engine.logs import Log
from marketfeed.errors import RateLimited
from marketfeed.instruments import InstrumentTable, TokenMap
from marketfeed.masters import load_instruments
from marketfeed.plugins import VendorPlugin

__all__ = ["Account"]


@attrs.define
class Account:
    """Knows how to log in once for everybody who uses the account."""

    plugin: VendorPlugin
    settings: VendorSettings
    tokens: TokenStore
    http: Http
    clock: Clock
    log: Log
    cache_folder: Path | None = None
    """Where instrument masters are kept; None = the user's cache folder."""
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
            self.tokens.forget(dead.vendor, dead.account)
            return self._login()

    def _login(self) -> Session:
        self._session = self.plugin.authenticate(self.settings, self.tokens, self.http)
        self.logins += 1
        self.log.info("session ready", account=self._session.account)
        return self._session

    def instruments(self) -> InstrumentTable:
        """The instrument master of today, from the cache or the broker; waits where a rate limit asks for it."""
        while True:
            try:
                return load_instruments(
                    self.plugin, self.settings, self.session(), self.http, self.clock, self.cache_folder
                )
            except RateLimited as error:  # the broker names the wait, and a start has nothing better to do
                self.log.warning("asked to wait before the instruments", seconds=error.retry_after_s)
                self.clock.wait(threading.Event(), error.retry_after_s)

    def stream(self, session: Session) -> Stream:
        """The protocol object of one connection."""
        return self.plugin.connect(self.settings, session, self.http)

    def parser(self, tokens: TokenMap) -> Parser:
        """A parser for one socket."""
        return self.plugin.parser(self.settings, tokens)
