"""mStock (Mirae Asset) for marketfeed: the hooks. What they return lives in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.hookspecs import hookimpl

if TYPE_CHECKING:
    from marketfeed.batches import CandleBatch
    from marketfeed.brokers import SandboxBroker, SandboxWorld
    from marketfeed.clock import Clock
    from marketfeed.contract import CandleRequest, Http, Parser, Session, Stream, TokenStore, Vendor
    from marketfeed.instruments import InstrumentTable, TokenMap
    from marketfeed_mstock.settings import MstockSettings


@hookimpl
def marketfeed_vendor() -> Vendor:
    from marketfeed.contract import RateLimit, Vendor
    from marketfeed_mstock.candles import CANDLE_DAYS
    from marketfeed_mstock.settings import MstockSettings

    return Vendor(
        name="mstock",
        title="mStock (Mirae Asset)",
        settings=MstockSettings,
        instruments_per_connection=1000,  # guess: nothing found documents a limit
        candle_days=CANDLE_DAYS,
        dead_token_statuses=frozenset({502}),  # third parties; also off hours, so only past the token's end
        # Official documentation: of "data APIs", which history and today's candles are taken for together, and quotes.
        rate_limits=tuple(
            RateLimit(tuple(f"/openapi/type{dialect}/instruments/{call}" for call in paths), calls, per_s)
            for dialect in "ab"
            for paths, calls, per_s in (
                (("historical", "intraday"), 1, 1.0),
                (("historical", "intraday"), 1000, 60.0),
                (("historical", "intraday"), 5000, 3600.0),
                (("quote",), 20, 1.0),
            )
        ),
    )


@hookimpl
def marketfeed_authenticate(settings: MstockSettings, tokens: TokenStore, http: Http, clock: Clock) -> Session:
    from marketfeed_mstock.auth import authenticate

    return authenticate(settings, tokens, http, clock)


@hookimpl
def marketfeed_instruments(settings: MstockSettings, session: Session | None, http: Http) -> InstrumentTable:
    from marketfeed_mstock.instruments import fetch_instruments

    return fetch_instruments(settings, session, http)


@hookimpl
def marketfeed_fetch_candles(
    settings: MstockSettings, session: Session, http: Http, request: CandleRequest
) -> CandleBatch:
    from marketfeed_mstock.candles import fetch_candles

    return fetch_candles(settings, session, http, request)


@hookimpl
def marketfeed_connect(settings: MstockSettings, session: Session) -> Stream:
    from marketfeed_mstock.stream import TypeAStream, TypeBStream

    return TypeAStream(settings, session) if settings.dialect == "a" else TypeBStream(settings, session)


@hookimpl
def marketfeed_parser(settings: MstockSettings, instruments: TokenMap) -> Parser:
    from marketfeed_mstock.times import ZoneCheck
    from marketfeed_mstock.type_a import TypeAParser
    from marketfeed_mstock.type_b import TypeBParser

    kind = TypeAParser if settings.dialect == "a" else TypeBParser
    return kind(instruments, ZoneCheck(settings.time_zone), settings.currency_divisor)


@hookimpl
def marketfeed_sandbox(world: SandboxWorld) -> SandboxBroker:
    from marketfeed_mstock.sandbox import MstockBroker

    return MstockBroker(world)
