"""Zerodha Kite for marketfeed: the hook implementations. What they return does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.contract import RateLimit, Vendor
from marketfeed.enums import Interval, Mode
from marketfeed.hookspecs import hookimpl
from marketfeed_kite.settings import KiteSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.batches import CandleBatch
    from marketfeed.brokers import SandboxBroker, SandboxWorld
    from marketfeed.contract import CandleRequest, Http, LoginPage, Parser, QuoteKind, Session, Stream, TokenStore
    from marketfeed.dtypes import Rows
    from marketfeed.instruments import Instrument, InstrumentTable, TokenMap

__all__ = ["KiteSettings"]

_VENDOR = Vendor(
    name="kite",
    title="Zerodha Kite",
    settings=KiteSettings,
    modes=(Mode.LTP, Mode.QUOTE, Mode.FULL),
    instruments_per_connection=3000,
    connections_per_account=3,
    candle_days={
        Interval.M1: 60,
        Interval.M3: 100,
        Interval.M5: 100,
        Interval.M10: 100,
        Interval.M15: 200,
        Interval.M30: 200,
        Interval.H1: 400,
        Interval.D1: 2000,
    },
    rate_limits=(RateLimit("/quote", 1), RateLimit("/instruments/historical", 3), RateLimit("/", 10)),
)


@hookimpl
def marketfeed_vendor() -> Vendor:
    return _VENDOR


@hookimpl
def marketfeed_authenticate(settings: KiteSettings, tokens: TokenStore, http: Http) -> Session:
    from marketfeed_kite.auth import authenticate

    return authenticate(settings, tokens, http)


@hookimpl
def marketfeed_login_url(settings: KiteSettings) -> LoginPage:
    from marketfeed_kite.auth import browser_login

    return browser_login(settings)


@hookimpl
def marketfeed_instruments(settings: KiteSettings, session: Session | None, http: Http) -> InstrumentTable:
    from marketfeed_kite.instruments import fetch_instruments

    return fetch_instruments(settings, session, http)


@hookimpl
def marketfeed_connect(settings: KiteSettings, session: Session) -> Stream:
    from marketfeed_kite.stream import KiteStream

    return KiteStream(settings, session)


@hookimpl
def marketfeed_parser(instruments: TokenMap) -> Parser:
    from marketfeed_kite.parser import KiteParser

    return KiteParser(instruments)


@hookimpl
def marketfeed_fetch_candles(
    settings: KiteSettings, session: Session, http: Http, request: CandleRequest
) -> CandleBatch:
    from marketfeed_kite.candles import fetch_candles

    return fetch_candles(settings, session, http, request)


@hookimpl
def marketfeed_quotes(
    settings: KiteSettings, session: Session, http: Http, instruments: Sequence[Instrument], kind: QuoteKind
) -> Rows:
    from marketfeed_kite.quotes import fetch_quotes

    return fetch_quotes(settings, session, http, instruments, kind)


@hookimpl
def marketfeed_sandbox(world: SandboxWorld) -> SandboxBroker:
    from marketfeed_kite.sandbox import KiteBroker

    return KiteBroker(world)
