"""What a ``[vendors.mstock]`` table may hold. Every guess about the live service is a setting."""

from __future__ import annotations

from typing import Literal

import attrs

from marketfeed.contract import VendorSettings, base_url, secret, setting

__all__ = ["MstockSettings"]


@attrs.frozen(kw_only=True)
class MstockSettings(VendorSettings):
    """mStock. The defaults are those of the official SDKs; a default marked *guess* was never confirmed live."""

    login_url: str = base_url("https://api.mstock.trade")
    """Base URL of the login calls"""
    rest_url: str = base_url("https://api.mstock.trade")
    """Base URL of the REST API"""
    stream_url: str = base_url("wss://ws.mstock.trade")
    """Base URL of the WebSocket"""
    access_token: str | None = secret(default=None, env="MSTOCK_ACCESS_TOKEN")
    """A ready access token of today; leaves out the login"""
    api_key: str | None = secret(default=None, env="MSTOCK_API_KEY")
    """API key of the trading API subscription"""
    client_code: str | None = setting(default=None, env="MSTOCK_CLIENT_CODE")
    """Client code (user id) of the account"""
    password: str | None = secret(default=None, env="MSTOCK_PASSWORD")
    """Password of the account"""
    totp_secret: str | None = secret(default=None, env="MSTOCK_TOTP_SECRET")
    """Base32 secret of the authenticator; without it a person must type the one-time password"""
    totp_alone: bool = False
    """Type A: send the TOTP without the password step (a third party's way)"""
    dialect: Literal["a", "b"] = "b"
    """Protocol of the API key: ``b`` (JSON, little-endian ticks) or ``a`` (Kite-like)"""
    percent_encode: bool = True
    """Percent-encode ``+ & # %`` and space of key and token in the socket's URL (guess; the SDK sends them raw)"""
    time_zone: Literal["auto", "ist", "utc"] = "auto"
    """Zone of the ticks' seconds since 1980: ``auto`` takes India time (guess) unless UTC fits the receive clock"""
    currency_divisor: float = attrs.field(default=1e7, validator=attrs.validators.gt(0))
    """Divides raw prices of the currency segment, exchange type 13 (guess); all others are paise"""
    tokens_per_message: int = attrs.field(default=500, validator=attrs.validators.gt(0))
    """Most tokens in one subscribe message (guess; no limit is documented)"""
    ping_period_s: float = attrs.field(default=20.0, validator=attrs.validators.gt(0))
    """Seconds between protocol pings (a third party's choice; the SDKs send none)"""
    dead_after_s: float = attrs.field(default=45.0, validator=attrs.validators.gt(0))
    """Seconds without bytes or pong after which the line counts as lost outside market hours (inside: 5)"""
    indices: tuple[str, ...] = (
        "NSE:NIFTY 50=26000",
        "NSE:NIFTY BANK=26009",
        "NSE:NIFTY FIN SERVICE=26037",
        "NSE:NIFTY MID SELECT=26074",
        "NSE:INDIA VIX=26017",
        "BSE:SENSEX=51",
    )
    """Indices as ``EXCHANGE:SYMBOL=token``; the master has none, and more than one list of tokens circulates"""

    @property
    def account(self) -> str:
        """Under which name a session is kept; a token of one dialect is not taken by the other."""
        return f"{self.client_code or 'default'}{' (type a)' if self.dialect == 'a' else ''}"
