"""FlatTrade for marketfeed: the hooks. What they return lives in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.hookspecs import hookimpl

if TYPE_CHECKING:
    from marketfeed.batches import CandleBatch
    from marketfeed.brokers import SandboxBroker, SandboxWorld
    from marketfeed.clock import Clock
    from marketfeed.contract import CandleRequest, Http, LoginPage, Parser, Session, Stream, TokenStore, Vendor
    from marketfeed.instruments import InstrumentTable, TokenMap
    from marketfeed_flattrade.settings import FlattradeSettings


@hookimpl
def marketfeed_vendor() -> Vendor:
    from marketfeed.contract import RateLimit, Vendor
    from marketfeed_flattrade.candles import CANDLE_DAYS
    from marketfeed_flattrade.settings import FlattradeSettings

    return Vendor(
        name="flattrade",
        title="FlatTrade",
        settings=FlattradeSettings,
        instruments_per_connection=5000,  # a third party's constant; the manual names no limit
        connections_per_account=1,  # a second socket with the same token evicts the first
        candle_days=CANDLE_DAYS,
        rate_limits=(RateLimit("/PiConnectAPI", 40), RateLimit("/PiConnectAPI", 200, 60.0)),  # manual
    )


@hookimpl
def marketfeed_authenticate(settings: FlattradeSettings, tokens: TokenStore, http: Http, clock: Clock) -> Session:
    from marketfeed_flattrade.auth import authenticate

    return authenticate(settings, tokens, http, clock)


@hookimpl
def marketfeed_login_url(settings: FlattradeSettings) -> LoginPage | None:
    from marketfeed_flattrade.auth import browser_login

    return browser_login(settings)


@hookimpl
def marketfeed_instruments(settings: FlattradeSettings, http: Http) -> InstrumentTable:
    from marketfeed_flattrade.instruments import fetch_instruments

    return fetch_instruments(settings, http)


@hookimpl
def marketfeed_fetch_candles(
    settings: FlattradeSettings, session: Session, http: Http, request: CandleRequest
) -> CandleBatch:
    from marketfeed_flattrade.candles import fetch_candles

    return fetch_candles(settings, session, http, request)


@hookimpl
def marketfeed_connect(settings: FlattradeSettings, session: Session) -> Stream:
    from marketfeed_flattrade.stream import FlattradeStream

    return FlattradeStream(settings, session)


@hookimpl
def marketfeed_parser(instruments: TokenMap) -> Parser:
    from marketfeed_flattrade.parser import FlattradeParser

    return FlattradeParser(instruments)


@hookimpl
def marketfeed_sandbox(world: SandboxWorld) -> SandboxBroker:
    from marketfeed_flattrade.sandbox import FlattradeBroker

    return FlattradeBroker(world)
