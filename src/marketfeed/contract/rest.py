"""What goes over HTTP: logins that work, the one way to call a broker, what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs

from marketfeed.contract.settings import secret
from marketfeed.enums import Interval
from marketfeed.instruments import Instrument

if TYPE_CHECKING:
    import requests

__all__ = [
    "CandleRequest",
    "Http",
    "LoginPage",
    "QuoteKind",
    "Session",
    "TokenStore",
]


@attrs.frozen(kw_only=True)
class Session:
    """A login that works. Kept by the token store until the broker says otherwise."""

    vendor: str
    account: str
    """The broker's user id, or the API key where there is none."""
    access_token: str = secret()
    expires_ns: int | None = None
    """When the token may be dead (UTC); the truth is the broker's refusal."""
    extra: Mapping[str, str] = secret(factory=dict)
    """Whatever else the vendor needs, such as a feed token."""


@attrs.frozen(kw_only=True)
class LoginPage:
    """Where a person logs in with a browser, and what the browser brings back.

    After the login the browser is sent to the address registered for the app, with a token that is good
    once. ``marketfeed login`` takes it from there and calls ``marketfeed_authenticate`` with ``setting`` set.
    """

    url: str
    setting: str
    """Vendor setting that takes the token: ``request_token``"""
    parameters: tuple[str, ...]
    """Query parameters of the redirect address that may hold it; the first one there counts."""


class TokenStore(Protocol):
    """Sessions on disk, mode 0600, one per vendor and account."""

    def load(self, vendor: str, account: str) -> Session | None: ...
    def save(self, session: Session) -> None: ...
    def forget(self, vendor: str, account: str) -> None: ...


class Http(Protocol):
    """The one way to call a broker: verified TLS, proxy, time limit, pacing, metrics, redaction."""

    @property
    def session(self) -> requests.Session:
        """For vendor SDKs that want a requests session; everything above holds for it too."""

    def get(self, url: str, **options: Any) -> requests.Response: ...
    def post(self, url: str, **options: Any) -> requests.Response: ...
    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """As ``requests.Session.request``. Raises ``LineLost`` when no answer came, ``RateLimited`` on 429."""


@attrs.frozen(kw_only=True)
class CandleRequest:
    """Candles of one instrument whose start lies in ``[start_ns, end_ns)``, UTC nanoseconds."""

    instrument: Instrument
    interval: Interval
    start_ns: int
    end_ns: int
    open_interest: bool = False


QuoteKind = Literal["ltp", "ohlc", "quote"]
"""How much a quote is to tell: last price; with open to close; everything."""
