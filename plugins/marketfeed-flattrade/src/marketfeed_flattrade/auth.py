"""Getting a session: a given token, a kept one, or the exchange of a request code.

The code comes from the login page in a browser. With ``automatic_login`` the page's own back end is asked
instead, which no manual describes; it is off by default.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from marketfeed.clock import IST, NS, Clock, to_ns
from marketfeed.contract import Http, LoginPage, Session, TokenStore
from marketfeed.errors import AuthError, LineLost
from marketfeed.totp import totp
from marketfeed_flattrade.settings import FlattradeSettings

__all__ = ["authenticate", "browser_login", "login_page", "session_end_ns"]

_VENDOR: Final = "flattrade"
_FLUSH: Final = time(6, 0)
"""Tokens are cleared between 05:00 and 06:00 India time (manual)."""
_PAGE: Final = "https://auth.flattrade.in/"


def authenticate(settings: FlattradeSettings, tokens: TokenStore, http: Http, clock: Clock | None = None) -> Session:
    """A session that should work: ``access_token``, else the one kept since 06:00, else a new token.

    A new token ends the one before (third parties), so a kept one is used as long as it may live. Raises
    ``AuthError`` with the address of the login page when a person is needed.
    """
    clock = clock or Clock()
    user = _user(settings)
    if settings.access_token:
        return Session(vendor=_VENDOR, account=user, access_token=settings.access_token)
    kept = tokens.load(_VENDOR, user)
    if kept is not None and (kept.expires_ns is None or clock.wall_ns() < kept.expires_ns):
        return kept
    key, secret = _key_and_secret(settings)
    code = _automatic_code(settings, key, http, clock) if settings.automatic_login else _given_code(settings, key)
    token = _exchange(settings, key, secret, code, http)
    found = Session(vendor=_VENDOR, account=user, access_token=token, expires_ns=session_end_ns(clock.wall_ns()))
    tokens.save(found)
    return found


def browser_login(settings: FlattradeSettings) -> LoginPage | None:
    """The page, for ``marketfeed login``; None with ``automatic_login``. Raises ``AuthError`` when its code
    could not be exchanged."""
    _user(settings)
    key, _ = _key_and_secret(settings)
    if settings.automatic_login:
        return None
    return LoginPage(url=login_page(key), setting="request_code", parameters=("code", "request_code"))


def login_page(api_key: str) -> str:
    """Where a person logs in; afterwards the browser is at the app's redirect URL with ``code=``."""
    return f"{_PAGE}?{urlencode({'app_key': api_key})}"


def session_end_ns(login_ns: int) -> int:
    """The first 06:00 India time after a login, UTC nanoseconds."""
    login = datetime.fromtimestamp(login_ns // NS, UTC).astimezone(IST)
    flush = datetime.combine(login.date(), _FLUSH, IST)
    return to_ns(flush if login < flush else flush + timedelta(days=1))


def _user(settings: FlattradeSettings) -> str:
    if not settings.user_id:
        raise AuthError("FlatTrade needs the client id: set vendors.flattrade.user_id (or FLATTRADE_USER_ID)")
    return settings.user_id


def _key_and_secret(settings: FlattradeSettings) -> tuple[str, str]:
    key, secret = settings.api_key, settings.api_secret
    if not key or not secret:
        raise AuthError(
            "FlatTrade needs a login: set api_key and api_secret in [vendors.flattrade] (or FLATTRADE_API_KEY "
            "and FLATTRADE_API_SECRET), or access_token to a token made after 06:00 today"
        )
    return key, secret


def _given_code(settings: FlattradeSettings, key: str) -> str:
    if not settings.request_code:
        raise AuthError(
            f"FlatTrade needs a login: run `marketfeed login flattrade`, or open {login_page(key)} and set "
            "FLATTRADE_REQUEST_CODE to the address that the browser ends at (or request_code in "
            "[vendors.flattrade]); it is good once, for a few minutes"
        )
    return _code_in(settings.request_code) or settings.request_code.strip()


def _code_in(address: str) -> str:
    """The code of a redirect address: the manual calls it ``request_code``, working programs read ``code``."""
    query = parse_qs(urlsplit(address).query)
    return next((query[name][0] for name in ("code", "request_code") if name in query), "")


def _exchange(settings: FlattradeSettings, key: str, secret: str, code: str, http: Http) -> str:
    proof = hashlib.sha256(f"{key}{code}{secret}".encode()).hexdigest()
    body = {"api_key": key, "request_code": code, "api_secret": proof}
    content = _object(http.post(f"{settings.login_url.rstrip('/')}/trade/apitoken", json=body), "the request code")
    token = content.get("token")
    # The status field is `status` in the manual and `stat` in the vendor's script: the token itself tells.
    if isinstance(token, str) and token:
        return token
    raise AuthError(
        f"FlatTrade gave no token: {str(content.get('emsg'))[:200]}; a request code is good once and for a few "
        "minutes, and the token is given only to the IP address registered for the API key"
    )


def _automatic_code(settings: FlattradeSettings, key: str, http: Http, clock: Clock) -> str:
    """A request code from the back end of the login page (third parties; undocumented)."""
    if not settings.password or not settings.totp_secret:
        raise AuthError("automatic_login needs FLATTRADE_PASSWORD and FLATTRADE_TOTP_SECRET")
    base = settings.login_url.rstrip("/")
    form = {
        "UserName": settings.user_id,
        "Password": hashlib.sha256(settings.password.encode()).hexdigest(),
        "PAN_DOB": _totp(settings.totp_secret, clock),
        "App": "",
        "ClientID": "",
        "Key": "",
        "APIKey": key,
        "Sid": http.post(f"{base}/auth/session", headers={"Referer": _PAGE}).text.strip(),
        "Override": "",
        "Source": "AUTHPAGE",
    }
    content = _object(http.post(f"{base}/ftauth", json=form), "the automatic login")
    if content.get("emsg") == "DUPLICATE":  # another session exists: say that it may end
        content = _object(http.post(f"{base}/ftauth", json={**form, "Override": "Y"}), "the automatic login")
    code = _code_in(str(content.get("RedirectURL") or ""))
    if code:
        return code
    raise AuthError(f"FlatTrade refused the automatic login: {str(content.get('emsg'))[:200]}")


def _totp(secret: str, clock: Clock) -> str:
    try:
        return totp(secret, clock.wall_ns() // NS)
    except ValueError:
        pass
    raise AuthError("vendors.flattrade.totp_secret is not a base32 text such as the authenticator shows at set-up")


def _object(reply: Any, what: str) -> dict[str, Any]:
    try:
        content: Any = msgspec.json.decode(bytes(reply.content))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise LineLost(f"FlatTrade answered {what} with HTTP {reply.status_code} and something that is no object")
    return content
