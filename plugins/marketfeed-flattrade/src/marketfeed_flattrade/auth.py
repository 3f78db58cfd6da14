"""Getting a session."""

from __future__ import annotations

from marketfeed.contract import Http, Session, TokenStore
from marketfeed.errors import AuthError
from marketfeed_flattrade.settings import FlattradeSettings

__all__ = ["authenticate"]

VENDOR = "flattrade"


def authenticate(settings: FlattradeSettings, tokens: TokenStore, http: Http) -> Session:
    """A given access token, or the stored session. Raises ``AuthError`` when there is neither."""
    if not settings.user_id:
        raise AuthError("FlatTrade needs the client id: set vendors.flattrade.user_id or FLATTRADE_USER_ID")
    if settings.access_token:
        return Session(vendor=VENDOR, account=settings.user_id, access_token=settings.access_token)
    stored = tokens.load(VENDOR, settings.user_id)
    if stored is not None:
        return stored
    raise AuthError("FlatTrade needs a login: set vendors.flattrade.access_token to a token made after 06:00 today")
