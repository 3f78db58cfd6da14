"""Getting a session."""

from __future__ import annotations

from marketfeed.contract import Http, Session, TokenStore
from marketfeed.errors import AuthError
from marketfeed_mstock.settings import MstockSettings

__all__ = ["authenticate"]

VENDOR = "mstock"


def account_of(settings: MstockSettings) -> str:
    """The name under which a session is kept: the client code, or ``default`` where none is given."""
    return settings.client_code or "default"


def authenticate(settings: MstockSettings, tokens: TokenStore, http: Http) -> Session:
    """A given access token, or the stored session. Raises ``AuthError`` when there is neither."""
    account = account_of(settings)
    if settings.access_token:
        return Session(vendor=VENDOR, account=account, access_token=settings.access_token)
    stored = tokens.load(VENDOR, account)
    if stored is not None:
        return stored
    raise AuthError(
        "mStock needs a login: set vendors.mstock.access_token to a token of today "
        "(the jwtToken that the login of the trading API gives)"
    )
