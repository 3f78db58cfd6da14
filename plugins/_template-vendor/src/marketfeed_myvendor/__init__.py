"""The broker ``myvendor`` for marketfeed: hooks and settings. What the hooks return does the work."""

from __future__ import annotations

from typing import Any

import attrs

from marketfeed import hookimpl
from marketfeed.contract import Vendor, VendorSettings, base_url, secret
from marketfeed.enums import Mode


@attrs.frozen(kw_only=True)
class MyvendorSettings(VendorSettings):
    """One account."""

    login_url: str = base_url("https://login.myvendor.example")
    """Base URL of the login"""
    rest_url: str = base_url("https://api.myvendor.example")
    """Base URL of the REST API"""
    stream_url: str = base_url("wss://stream.myvendor.example")
    """Base URL of the WebSocket"""
    access_token: str | None = secret(default=None, env="MYVENDOR_ACCESS_TOKEN")
    """A ready access token; leaves out the login"""
    api_key: str | None = secret(default=None, env="MYVENDOR_API_KEY")
    """API key"""
    api_secret: str | None = secret(default=None, env="MYVENDOR_API_SECRET")
    """API secret"""


@hookimpl
def marketfeed_vendor() -> Vendor:
    return Vendor(name="myvendor", title="Myvendor", settings=MyvendorSettings, modes=(Mode.QUOTE,))


@hookimpl
def marketfeed_authenticate(settings: Any, tokens: Any, http: Any) -> Any:
    from marketfeed_myvendor.rest import authenticate

    return authenticate(settings, tokens, http)


@hookimpl
def marketfeed_instruments(settings: Any, http: Any) -> Any:
    from marketfeed_myvendor.rest import fetch_instruments

    return fetch_instruments(settings, http)


@hookimpl
def marketfeed_connect(settings: Any, session: Any) -> Any:
    from marketfeed_myvendor.stream import MyvendorStream

    return MyvendorStream(settings, session)


@hookimpl
def marketfeed_parser(instruments: Any) -> Any:
    from marketfeed_myvendor.stream import MyvendorParser

    return MyvendorParser(instruments)


@hookimpl
def marketfeed_sandbox(world: Any) -> Any:
    from marketfeed_myvendor.sandbox import MyvendorBroker

    return MyvendorBroker(world)
