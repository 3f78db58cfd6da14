"""The ``[vendors.kite]`` table."""

from __future__ import annotations

import attrs

from marketfeed.contract import VendorSettings, base_url, secret

__all__ = ["KiteSettings"]


@attrs.frozen(kw_only=True)
class KiteSettings(VendorSettings):
    """One Kite Connect app. Its plan must include market data: the free one logs in, but its stream answers 403."""

    login_url: str = base_url("https://kite.zerodha.com")
    """Base URL of the login page"""
    rest_url: str = base_url("https://api.kite.trade")
    """Base URL of the REST API"""
    stream_url: str = base_url("wss://ws.kite.trade")
    """Base URL of the WebSocket"""
    api_key: str = secret(env="KITE_API_KEY", validator=attrs.validators.min_len(1))
    """Key of the app, from the developer console"""
    api_secret: str | None = secret(env="KITE_API_SECRET", default=None)
    """Secret of the app; needed to exchange a request token"""
    request_token: str | None = secret(env="KITE_REQUEST_TOKEN", default=None)
    """What the login page handed to the redirect URL, or that whole URL; good once, for a few minutes"""
    access_token: str | None = secret(env="KITE_ACCESS_TOKEN", default=None)
    """A ready access token, good until about 06:00 India time; leaves out the login"""
    user_id: str | None = None
    """User whose session it is, such as AB1234; tells two users of one app apart"""

    @property
    def account(self) -> str:
        """Under which name a session is kept."""
        return self.user_id or self.api_key
