"""Login and master: the calls over HTTP."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

from marketfeed.contract import Http, Session, TokenStore
from marketfeed.enums import Kind
from marketfeed.errors import AuthError, RequestRejected
from marketfeed.instruments import Instrument, InstrumentTable


def authenticate(settings: Any, tokens: TokenStore, http: Http) -> Session:
    """A given token, else the one kept, else a login."""
    if settings.access_token:
        return Session(vendor="myvendor", account=settings.account, access_token=settings.access_token)
    kept = tokens.load("myvendor", settings.account)
    if kept is not None:
        return kept
    if not settings.api_key or not settings.api_secret:
        raise AuthError("set api_key and api_secret in [vendors.myvendor], or MYVENDOR_API_KEY and MYVENDOR_API_SECRET")
    reply = http.post(f"{settings.login_url}/login", json={"key": settings.api_key, "secret": settings.api_secret})
    if reply.status_code != 200:
        raise AuthError(f"myvendor refused the login with HTTP {reply.status_code}; look at api_key and api_secret")
    session = Session(vendor="myvendor", account=settings.account, access_token=reply.json()["token"])
    tokens.save(session)
    return session


def fetch_instruments(settings: Any, http: Http) -> InstrumentTable:
    """All instruments of the day."""
    reply = http.get(f"{settings.rest_url}/instruments")
    try:
        return InstrumentTable(_instrument(one) for one in json.loads(reply.content))
    except (ValueError, TypeError, KeyError) as error:
        raise RequestRejected(f"this is no list of instruments: {error!r}") from None


def _instrument(one: dict[str, Any]) -> Instrument:
    expiry = date.fromisoformat(one["expiry"]) if one["expiry"] else None
    return Instrument(vendor="myvendor", **{**one, "expiry": expiry, "kind": Kind(one["kind"])})
