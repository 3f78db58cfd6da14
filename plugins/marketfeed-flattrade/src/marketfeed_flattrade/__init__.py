"""FlatTrade for marketfeed: the hooks. What they return lives in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.hookspecs import hookimpl

if TYPE_CHECKING:
    from marketfeed.contract import Http, Parser, Session, Stream, TokenStore, Vendor
    from marketfeed.instruments import TokenMap
    from marketfeed_flattrade.settings import FlattradeSettings


@hookimpl
def marketfeed_vendor() -> Vendor:
    from marketfeed.contract import RateLimit, Vendor
    from marketfeed_flattrade.settings import FlattradeSettings

    return Vendor(
        name="flattrade",
        title="FlatTrade",
        settings=FlattradeSettings,
        instruments_per_connection=5000,  # a third party's constant; the manual names no limit
        connections_per_account=1,  # a second socket with the same token evicts the first
        rate_limits=(RateLimit("/PiConnectAPI", 40), RateLimit("/PiConnectAPI", 200, 60.0)),
    )


@hookimpl
def marketfeed_authenticate(settings: FlattradeSettings, tokens: TokenStore, http: Http) -> Session:
    from marketfeed_flattrade.auth import authenticate

    return authenticate(settings, tokens, http)


@hookimpl
def marketfeed_connect(settings: FlattradeSettings, session: Session) -> Stream:
    from marketfeed_flattrade.stream import FlattradeStream

    return FlattradeStream(settings, session)


@hookimpl
def marketfeed_parser(instruments: TokenMap) -> Parser:
    from marketfeed_flattrade.parser import FlattradeParser

    return FlattradeParser(instruments)
