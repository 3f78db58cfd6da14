"""mStock (Mirae Asset) for marketfeed: the hooks. What they return lives in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.hookspecs import hookimpl

if TYPE_CHECKING:
    from marketfeed.contract import Http, Parser, Session, Stream, TokenStore, Vendor
    from marketfeed.instruments import TokenMap
    from marketfeed_mstock.settings import MstockSettings


@hookimpl
def marketfeed_vendor() -> Vendor:
    from marketfeed.contract import RateLimit, Vendor
    from marketfeed_mstock.settings import MstockSettings

    return Vendor(
        name="mstock",
        title="mStock (Mirae Asset)",
        settings=MstockSettings,
        instruments_per_connection=1000,  # guess: nothing found documents a limit
        rate_limits=(
            RateLimit("/openapi/typeb/instruments/quote", 20),
            RateLimit("/openapi/typea/instruments/quote", 20),
            RateLimit("/openapi/typeb/instruments", 1),
            RateLimit("/openapi/typea/instruments", 1),
        ),
    )


@hookimpl
def marketfeed_authenticate(settings: MstockSettings, tokens: TokenStore, http: Http) -> Session:
    from marketfeed_mstock.auth import authenticate

    return authenticate(settings, tokens, http)


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
