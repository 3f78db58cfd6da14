"""What a ``[vendors.flattrade]`` table may hold. Every guess about the live service is a setting."""

from __future__ import annotations

from typing import Literal

import attrs

from marketfeed.contract import VendorSettings, base_url, secret, setting

__all__ = ["FlattradeSettings"]


@attrs.frozen(kw_only=True)
class FlattradeSettings(VendorSettings):
    """FlatTrade ("Pi API"). The defaults are those of the manual of 2026."""

    login_url: str = base_url("https://authapi.flattrade.in")
    """Base URL of the token exchange"""
    rest_url: str = base_url("https://piconnect.flattrade.in/PiConnectAPI")
    """Base URL of the REST API"""
    stream_url: str = base_url("wss://piconnect.flattrade.in/PiConnectWSAPI/")
    """Base URL of the WebSocket"""
    access_token: str | None = secret(default=None, env="FLATTRADE_ACCESS_TOKEN")
    """A ready access token of today; leaves out the login"""
    master_url: str = base_url("https://flattrade.s3.ap-south-1.amazonaws.com/scripmaster")
    """Base URL of the scrip masters; not used when ``rest_url`` is on this machine"""
    user_id: str | None = setting(default=None, env="FLATTRADE_USER_ID")
    """Client id (UCC) of the account"""
    api_key: str | None = secret(default=None, env="FLATTRADE_API_KEY")
    """API key"""
    api_secret: str | None = secret(default=None, env="FLATTRADE_API_SECRET")
    """API secret"""
    request_code: str | None = secret(default=None, env="FLATTRADE_REQUEST_CODE")
    """What the login page handed to the redirect URL, or that whole address; good once, for a few minutes"""
    password: str | None = secret(default=None, env="FLATTRADE_PASSWORD")
    """Password; used by the automatic login only"""
    totp_secret: str | None = secret(default=None, env="FLATTRADE_TOTP_SECRET")
    """Base32 secret of the authenticator; used by the automatic login only"""
    automatic_login: bool = False
    """Log in with password and TOTP through the undocumented back end of the login page"""
    connect_generation: Literal["a", "c"] = "a"
    """Connect message: ``a`` (manual of 2026, ``accesstoken``) or ``c`` (older servers, ``susertoken``)"""
    scrips_per_message: int = attrs.field(default=50, validator=[attrs.validators.ge(1), attrs.validators.le(100)])
    """Most instruments in one subscribe message, 1 to 100 (third parties use 50 or 100; no limit is documented)"""
    heartbeat_s: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds between text heartbeats (manual)"""
    dead_after_s: float = attrs.field(default=75.0, validator=attrs.validators.gt(0))
    """Seconds without bytes or pong after which the line counts as lost outside market hours (inside: 5)"""
    login_within_s: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """Seconds in which the broker must acknowledge the login on the socket; else the attempt failed (guess)"""
    takeover_wait_s: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """Seconds to stay away after another session took the connection; doubled each time, up to 15 minutes"""
    masters: tuple[str, ...] = (
        "NSE_Equity",
        "Nfo_Equity_Derivatives",
        "Nfo_Index_Derivatives",
        "BSE_Equity",
        "Bfo_Index_Derivatives",
        "Bfo_Equity_Derivatives",
        "Currency_Derivatives",
        "Commodity",
    )
    """Scrip masters to read"""

    @property
    def account(self) -> str:
        """Under which name a session is kept."""
        return self.user_id or "default"
