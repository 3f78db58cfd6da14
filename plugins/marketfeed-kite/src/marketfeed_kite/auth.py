"""Logging in to Kite: a given token, a kept one, or the exchange of a request token.

There is no unattended login: Zerodha asks for a manual one each day and forbids to script its web
pages (staff answers in the official forum).
"""

from __future__ import annotations

import warnings
from datetime import datetime, time, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from marketfeed.clock import IST, to_ns
from marketfeed.contract import Http, LoginPage, Session, TokenStore
from marketfeed.errors import AuthError, LineLost, RateLimited, VendorError
from marketfeed_kite.rest import refusal
from marketfeed_kite.settings import KiteSettings

__all__ = ["authenticate", "browser_login", "login_page", "session_end_ns"]

_VENDOR: Final = "kite"
_FLUSH: Final = time(6, 0)  # official documentation: a token lives until 06:00 India time


def authenticate(settings: KiteSettings, tokens: TokenStore, http: Http) -> Session:
    """A session that should work: ``access_token``, else the kept one, else ``request_token`` is exchanged.

    A second login ends the first token, so a kept one is used as long as the broker takes it. Raises
    ``AuthError`` with the address of the login page when a person is needed.
    """
    if settings.access_token:
        return Session(vendor=_VENDOR, account=settings.account, access_token=settings.access_token)
    kept = tokens.load(_VENDOR, settings.account)
    if kept is not None:
        return kept
    if not settings.request_token:
        raise AuthError(
            f"Kite needs a login: run `marketfeed login kite`, or open {login_page(settings)} and set"
            " KITE_REQUEST_TOKEN to the address that the browser ends at (or request_token in [vendors.kite]);"
            " KITE_ACCESS_TOKEN takes a ready token"
        )
    session = _exchange(settings, settings.request_token, _api_secret(settings), http)
    tokens.save(session)
    return session


def login_page(settings: KiteSettings) -> str:
    """Where a person logs in; afterwards the browser is at the app's redirect URL with ``request_token=``."""
    query = urlencode({"v": "3", "api_key": settings.api_key})
    return f"{settings.login_url.rstrip('/')}/connect/login?{query}"


def browser_login(settings: KiteSettings) -> LoginPage:
    """The page, for ``marketfeed login``. Raises ``AuthError`` when its token could not be exchanged."""
    _api_secret(settings)
    return LoginPage(url=login_page(settings), setting="request_token", parameters=("request_token",))


def session_end_ns(login: datetime) -> int:
    """The first 06:00 India time after a login (India time), UTC nanoseconds: from then a token may be dead."""
    flush = datetime.combine(login.date(), _FLUSH, IST)
    if login.replace(tzinfo=IST) >= flush:
        flush += timedelta(days=1)
    return to_ns(flush)


def _api_secret(settings: KiteSettings) -> str:
    if not settings.api_secret:
        raise AuthError("Kite exchanges a request token only with api_secret: set KITE_API_SECRET")
    return settings.api_secret


def _exchange(settings: KiteSettings, given: str, api_secret: str, http: Http) -> Session:
    client, failures = _client(settings, http)
    failure: VendorError
    try:
        reply = client.generate_session(_request_token(given), api_secret)
        return Session(
            vendor=_VENDOR,
            account=settings.account,
            access_token=str(reply["access_token"]),
            expires_ns=session_end_ns(reply["login_time"]),
            extra={"user_id": str(reply.get("user_id", ""))},
        )
    except failures.KiteException as error:
        failure = _meaning(error)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        # The SDK's own way of saying that the answer is not what it should be.
        failure = AuthError(f"Kite answered the login with something unexpected ({type(error).__name__})")
    # Outside the except block: the original may hold the answer, and with it a token.
    raise failure


def _client(settings: KiteSettings, http: Http) -> tuple[Any, Any]:
    """The official client on the core's HTTP session, and its exceptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports its ticker, and with it old parts of Twisted and autobahn
        from kiteconnect import KiteConnect, exceptions
    client = KiteConnect(api_key=settings.api_key, root=settings.rest_url)
    client.reqsession = http.session
    return client, exceptions


def _request_token(given: str) -> str:
    """The token itself, also out of a whole redirect URL."""
    found = parse_qs(urlsplit(given).query).get("request_token")
    return found[0] if found else given.strip()


def _meaning(error: Any) -> VendorError:
    """Our error for one of the SDK's; its text is left out where it may quote the answer."""
    kind = type(error).__name__
    quiet = kind == "DataException"
    found = refusal(kind, int(error.code), "unreadable answer" if quiet else str(error))
    if isinstance(found, RateLimited | LineLost):
        return found
    return AuthError(f"{found}; a request token is good once and for a few minutes, so log in again for a new one")
