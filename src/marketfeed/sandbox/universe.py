"""The instruments of a sandbox. Symbols and exchange tokens are real, every price is invented.

Derivatives expire relative to the sandbox's day, so their symbols change with the month.
"""

from __future__ import annotations

import calendar
import csv
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import attrs

from marketfeed.enums import Kind
from marketfeed.instruments import Instrument

__all__ = ["Listing", "from_file", "listing_for", "make_universe"]


@attrs.frozen(kw_only=True)
class Listing:
    """An instrument and how it behaves."""

    instrument: Instrument
    price: float
    """Close of the day before, in rupees."""
    swing: float = 1.0
    """How strongly it moves: 1 = about 1 % a day."""
    follows: str = ""
    """Key of the instrument whose random numbers it shares; empty = its own."""
    open_interest: int = 0


# symbol:exchange token:tick size in paise:invented price
_EQUITIES = """
RELIANCE:2885:10:1412 INFY:1594:10:1540 TCS:11536:10:3120 HDFCBANK:1333:10:985 ICICIBANK:4963:10:1388 SBIN:3045:5:872
AXISBANK:5900:10:1156 M&M:2031:10:3410 BAJAJ-AUTO:16669:50:8720 TATAMOTORS:3456:5:702 ITC:1660:5:411 LT:11483:10:3660
KOTAKBANK:1922:10:2015 BHARTIARTL:10604:10:1905 HINDUNILVR:1394:10:2540 MARUTI:10999:100:14850 TITAN:3506:10:3480
SUNPHARMA:3351:10:1642 NTPC:11630:5:338 ONGC:2475:1:242 POWERGRID:14977:5:287 WIPRO:3787:1:251 TATASTEEL:3499:1:168
BAJFINANCE:317:10:942 BAJAJFINSV:16675:10:2044 HCLTECH:7229:10:1488 TECHM:13538:10:1510 ADANIENT:25:10:2390
ADANIPORTS:15083:10:1422 ASIANPAINT:236:10:2466 BEL:383:5:389 CIPLA:694:10:1533 COALINDIA:20374:5:391
DRREDDY:881:10:1275 EICHERMOT:910:50:6870 ETERNAL:5097:5:318 GRASIM:1232:10:2790 HDFCLIFE:467:5:766
HEROMOTOCO:1348:50:5320 HINDALCO:1363:5:744 INDUSINDBK:5258:5:772 JIOFIN:18143:5:312 JSWSTEEL:11723:10:1102
NESTLEIND:17963:10:1184 SBILIFE:21808:10:1821 SHRIRAMFIN:4306:5:628 TATACONSUM:3432:10:1095 TRENT:1964:10:5110
ULTRACEMCO:11532:100:12240 APOLLOHOSP:157:50:7610"""
_BSE = "RELIANCE:500325:5:1412.5 INFY:500209:5:1540.25 TCS:532540:5:3121 HDFCBANK:500180:5:985.4 SBIN:500112:5:872.3"


def make_universe(count: int | None, day: date) -> list[Listing]:
    """The first ``count`` listings of the sandbox's catalogue for that day; None = all of our own.

    Order: three indices, fifty NSE shares, futures and options, BSE, MCX, currency; then, as many as
    asked for, synthetic NSE shares ``SYN00001`` ...
    """
    catalogue = [*_cash(), *_derivatives(day)]
    if count is None:
        return catalogue
    missing = count - len(catalogue)
    return catalogue[:count] + [_synthetic(number) for number in range(1, missing + 1)]


def listing_for(name: str, price: float) -> Listing:
    """A share called ``SYMBOL`` or ``EXCHANGE:SYMBOL`` that the catalogue does not have."""
    exchange, _, symbol = name.rpartition(":")
    return _share(exchange or "NSE", symbol, _own_token(name), 0.05, price)


def from_file(path: Path, day: date) -> list[Listing]:
    """The listings named in a file: one ``EXCHANGE:SYMBOL[,price]`` a line, ``#`` begins a comment.

    Names of the catalogue bring their own description; others become shares. Raises ``OSError``, and
    ``ValueError`` for a price that is not a number.
    """
    known = {one.instrument.key: one for one in make_universe(None, day)}
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.reader(lines) if row and row[0].strip() and not row[0].startswith("#")]
    found: dict[str, Listing] = {}
    for name, *price in rows:
        key = name.strip() if ":" in name else f"NSE:{name.strip()}"
        listing = known.get(key) or listing_for(key, 100.0)
        found[key] = attrs.evolve(listing, price=float(price[0])) if price else listing
    return list(found.values())


def _own_token(name: str) -> int:
    from marketfeed.sandbox.noise import identity

    return 10_000_000 + identity(name) % 6_000_000  # below 2**24, so that it fits beside a segment byte


def _share(exchange: str, symbol: str, token: int, tick: float, price: float, follows: str = "") -> Listing:
    instrument = Instrument(
        exchange=exchange,
        symbol=symbol,
        token=str(token),
        exchange_token=str(token),
        name=symbol,
        series="EQ" if exchange == "NSE" else "A",
        tick_size=tick,
    )
    return Listing(instrument=instrument, price=price, follows=follows)


def _synthetic(number: int) -> Listing:
    price = 20.0 + (number * 7919) % 3000
    return _share("NSE", f"SYN{number:05d}", 900_000 + number, 0.05, price)


def _fields(table: str) -> Iterator[list[str]]:
    return (entry.split(":") for entry in table.split())


def _index(exchange: str, symbol: str, token: str, price: float, swing: float = 0.7) -> Listing:
    instrument = Instrument(
        exchange=exchange,
        symbol=symbol,
        token=token,
        exchange_token=token,
        name=symbol,
        kind=Kind.INDEX,
        tick_size=0.05,
    )
    return Listing(instrument=instrument, price=price, swing=swing)


def _cash() -> Iterator[Listing]:
    yield _index("NSE", "NIFTY 50", "26000", 24850.0)
    yield _index("NSE", "NIFTY BANK", "26009", 54300.0)
    yield _index("NSE", "INDIA VIX", "26017", 13.2, swing=3.0)
    for symbol, token, tick, price in _fields(_EQUITIES):
        yield _share("NSE", symbol, int(token), int(tick) / 100, float(price))


def _derivatives(day: date) -> Iterator[Listing]:
    for months in (0, 1):
        yield from _futures(day, months)
    for step in range(-5, 6):
        yield from _option_pair("NIFTY", 24850 + step * 50, 24850.0, step, day, token=48_000, lot=75)
    for step in range(-3, 4):
        yield from _option_pair("BANKNIFTY", 54300 + step * 100, 54300.0, step, day, token=48_100, lot=35)
    yield _index("BSE", "SENSEX", "1", 81200.0)
    for symbol, code, tick, price in _fields(_BSE):
        yield _share("BSE", symbol, int(code), int(tick) / 100, float(price), f"NSE:{symbol}")


# exchange, name, key followed, price, tick, lot, exchange token of the near month, open interest
_FUTURES: Sequence[tuple[str, str, str, float, float, int, int, int]] = (
    ("NFO", "NIFTY", "NSE:NIFTY 50", 24892.0, 0.1, 75, 47_000, 14_250_000),
    ("NFO", "BANKNIFTY", "NSE:NIFTY BANK", 54391.0, 0.2, 35, 47_010, 2_380_000),
    ("NFO", "RELIANCE", "NSE:RELIANCE", 1418.0, 0.1, 500, 47_020, 91_000_000),
    ("NFO", "INFY", "NSE:INFY", 1546.0, 0.1, 400, 47_030, 48_000_000),
    ("NFO", "SBIN", "NSE:SBIN", 875.0, 0.05, 750, 47_040, 88_500_000),
    ("BFO", "SENSEX", "BSE:SENSEX", 81330.0, 0.05, 20, 860_000, 640_000),
    ("MCX", "CRUDEOIL", "", 5480.0, 1.0, 100, 440_000, 1_420_000),
    ("MCX", "GOLD", "", 121450.0, 1.0, 1, 440_010, 14_800),
    ("MCX", "NATURALGAS", "", 388.4, 0.1, 1250, 440_020, 21_500_000),
    ("CDS", "USDINR", "", 88.74, 0.0025, 1, 10_400, 2_900_000),
    ("CDS", "EURINR", "", 102.605, 0.0025, 1, 10_410, 310_000),
    ("BCD", "USDINR", "CDS:USDINR", 88.7425, 0.0025, 1, 1_020_000, 640_000),
)


def _futures(day: date, months: int) -> Iterator[Listing]:
    for exchange, name, follows, price, tick, lot, token, interest in _FUTURES:
        expiry = _expiry(day, months)
        instrument = Instrument(
            exchange=exchange,
            symbol=f"{name}{_month(expiry)}FUT",
            token=str(token + months),
            exchange_token=str(token + months),
            name=name,
            kind=Kind.FUTURE,
            expiry=expiry,
            lot_size=lot,
            tick_size=tick,
        )
        yield Listing(
            instrument=instrument,
            price=round(round(price * (1 + 0.005 * months) / tick) * tick, 4),
            follows=follows or f"{exchange}:{name}",
            open_interest=interest // (1 + 6 * months) // lot * lot,
        )


def _option_pair(
    name: str, strike: int, spot: float, step: int, day: date, *, token: int, lot: int
) -> Iterable[Listing]:
    expiry = _expiry(day, 0)
    time_value = spot * 0.006 / (1 + step * step / 8)
    for side, kind in enumerate((Kind.CALL, Kind.PUT)):
        intrinsic = max(0.0, (spot - strike) * (1 - 2 * side))
        number = str(token + 2 * (step + 20) + side)
        instrument = Instrument(
            exchange="NFO",
            symbol=f"{name}{_month(expiry)}{strike}{kind.value}",
            token=number,
            exchange_token=number,
            name=name,
            kind=kind,
            expiry=expiry,
            strike=float(strike),
            lot_size=lot,
            tick_size=0.05,
        )
        price = round(round((intrinsic + time_value) / 0.05) * 0.05, 2)
        yield Listing(instrument=instrument, price=price, swing=4.0, open_interest=lot * (9000 - 700 * abs(step)))


def _month(expiry: date) -> str:
    """``26NOV``; spelt here because ``%b`` follows the host's language."""
    return f"{expiry.year % 100:02d}" + "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"[expiry.month * 3 - 3 : expiry.month * 3]


def _expiry(day: date, months: int) -> date:
    """The last Tuesday of the month, ``months`` after the nearest one that is not before ``day``."""
    year, month = day.year, day.month
    if _last_tuesday(year, month) < day:
        months += 1
    year, month = year + (month + months - 1) // 12, (month + months - 1) % 12 + 1
    return _last_tuesday(year, month)


def _last_tuesday(year: int, month: int) -> date:
    last = date(year, month, calendar.monthrange(year, month)[1])
    return last - timedelta(days=(last.weekday() - calendar.TUESDAY) % 7)
