"""Getting a session: a given token, a kept one, or a login in two steps.

Failed logins are counted by the broker ("9 attempts remaining"), so nothing is sent unless both steps
can be done, and nothing is tried twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from marketfeed.clock import IST, NS, Clock, to_ns
from marketfeed.contract import Http, Session, TokenStore
from marketfeed.errors import AuthError, RequestRejected, SessionExpired
from marketfeed.totp import totp
from marketfeed_mstock.rest import VERSION, answer, url
from marketfeed_mstock.settings import MstockSettings

__all__ = ["authenticate", "session_end_ns"]

_VENDOR: Final = "mstock"
_LONGEST_NS: Final = 12 * 3600 * NS
Ask = Callable[[], str]
"""Gets the one-time password from a person."""


def authenticate(
    settings: MstockSettings, tokens: TokenStore, http: Http, clock: Clock | None = None, ask: Ask | None = None
) -> Session:
    """A session that should work: ``access_token``, else the one kept since this morning, else a login.

    ``ask`` is called for the password of the SMS when there is no ``totp_secret``; by default the person at
    the terminal, if there is one. Raises ``AuthError`` that says what is missing or was refused.
    """
    clock = clock or Clock()
    account = settings.account
    if settings.access_token:
        return Session(vendor=_VENDOR, account=account, access_token=settings.access_token)
    kept = tokens.load(_VENDOR, account)
    if kept is not None and (kept.expires_ns is None or clock.wall_ns() < kept.expires_ns):
        return kept
    login = _Login(settings, http, ask or _terminal())
    found = login.run(clock)
    tokens.save(found)
    return found


def session_end_ns(login_ns: int) -> int:
    """Twelve hours after a login or midnight India time, whichever comes first (official documentation).

    The JWT's own ``exp`` is five minutes after the login on working tokens, so it is not read.
    """
    day = datetime.fromtimestamp(login_ns // NS, UTC).astimezone(IST).date()
    return min(login_ns + _LONGEST_NS, to_ns(day + timedelta(days=1)))


def _terminal() -> Ask | None:
    if not sys.stdin or not sys.stdin.isatty():
        return None
    return lambda: input("mStock one-time password (SMS or mail): ").strip()


class _Login:
    """One attempt of both steps."""

    def __init__(self, settings: MstockSettings, http: Http, ask: Ask | None) -> None:
        self._settings = settings
        self._http = http
        self._ask = ask

    def run(self, clock: Clock) -> Session:
        settings = self._settings
        self._require(clock)
        data = self._type_a(clock) if settings.dialect == "a" else self._type_b(clock)
        token = data.get("access_token" if settings.dialect == "a" else "jwtToken")
        if not isinstance(token, str) or not token:
            raise AuthError("mStock took the login but gave no token; try again, or set vendors.mstock.access_token")
        names = ("refreshToken", "feedToken", "refresh_token", "enctoken")
        return Session(
            vendor=_VENDOR,
            account=settings.account,
            access_token=token,
            expires_ns=session_end_ns(clock.wall_ns()),
            extra={name: str(data[name]) for name in names if data.get(name)},
        )

    def _require(self, clock: Clock) -> None:
        """Raise ``AuthError`` before anything is sent if a step could not be done."""
        needed = ["api_key"] if self._settings.totp_alone else ["api_key", "client_code", "password"]
        missing = [name for name in needed if not getattr(self._settings, name)]
        if missing:
            names = ", ".join(f"vendors.mstock.{name} (or MSTOCK_{name.upper()})" for name in missing)
            raise AuthError(f"mStock needs a login: set {names}, or access_token to a token of today")
        if not self._settings.totp_secret and self._ask is None:
            raise AuthError(
                "mStock sends a one-time password: set vendors.mstock.totp_secret (or MSTOCK_TOTP_SECRET), "
                "run from a terminal to type it, or set access_token"
            )
        if self._settings.totp_secret:
            self._totp(clock)

    def _type_a(self, clock: Clock) -> dict[str, Any]:
        settings = self._settings
        if not settings.totp_alone:
            form = {"username": settings.client_code, "password": settings.password}
            self._post("connect/login", data=form)
        if settings.totp_secret:
            form = {"api_key": settings.api_key, "totp": self._totp(clock)}
            return self._post("session/verifytotp", data=form)
        # The checksum is a constant letter in the vendor's examples; no hash is computed anywhere.
        form = {"api_key": settings.api_key, "request_token": self._typed(), "checksum": "W"}
        return self._post("session/token", data=form)

    def _type_b(self, clock: Clock) -> dict[str, Any]:
        settings = self._settings
        # The TOTP is left empty here: filled in, the answer is a short token that only the socket takes.
        first = {"clientcode": settings.client_code, "password": settings.password, "totp": "", "state": ""}
        data = self._post("connect/login", json=first)
        # The id for the second step stands in jwtToken, while refreshToken is empty.
        step = {"refreshToken": data.get("refreshToken") or data.get("jwtToken")}
        if settings.totp_secret:
            return self._post("session/verifytotp", json={**step, "totp": self._totp(clock)})
        return self._post("session/token", json={**step, "otp": self._typed()})

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        settings = self._settings
        headers = {**VERSION, **({"X-PrivateKey": settings.api_key or ""} if settings.dialect == "b" else {})}
        reply = self._http.post(url(settings, path, settings.login_url), headers=headers, **body)
        refused = ""
        try:
            data = answer(reply.status_code, bytes(reply.content), f"the login ({path})")
        except (RequestRejected, SessionExpired) as error:
            refused = str(error)
        if refused:  # outside the except block: there is nothing more to see in the original
            raise AuthError(refused)
        return data if isinstance(data, dict) else {}

    def _totp(self, clock: Clock) -> str:
        try:
            return totp(self._settings.totp_secret or "", clock.wall_ns() // NS)
        except ValueError:
            pass
        raise AuthError("vendors.mstock.totp_secret is not a base32 text such as the authenticator shows at set-up")

    def _typed(self) -> str:
        return self._ask() if self._ask else ""
