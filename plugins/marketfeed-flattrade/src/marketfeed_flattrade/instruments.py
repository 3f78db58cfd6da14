"""FlatTrade's scrip masters: one CSV a segment, without login."""

from __future__ import annotations

import csv
import logging
import re
from datetime import date
from typing import Final
from urllib.parse import urlsplit

from marketfeed.contract import Http, is_loopback
from marketfeed.enums import Exchange, Kind
from marketfeed.errors import RequestRejected, VendorError
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.symbols import index_named, respell_contracts, share_symbol
from marketfeed_flattrade.settings import FlattradeSettings

__all__ = ["fetch_instruments", "master_url", "read_master"]

_log = logging.getLogger(__name__)
_NEEDED: Final = frozenset(("exchange", "token", "lotsize", "symbol", "tradingsymbol", "instrument"))
_COLUMNS: Final = (
    *("exchange", "token", "lotsize", "symbol", "tradingsymbol", "instrument"),
    *("expiry", "strike", "optiontype", "ticksize"),
)
_ALSO: Final = {"strikeprice": "strike"}
_EXCHANGES: Final = {str(one): str(one) for one in Exchange}
_OPTIONS: Final = (Kind.CALL, Kind.PUT)
_DAY: Final = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{4})", re.ASCII)
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def master_url(settings: FlattradeSettings, name: str) -> str:
    """The address of a master; beside ``rest_url`` when that is on this machine, as a sandbox's is."""
    base = settings.master_url
    if is_loopback(urlsplit(settings.rest_url).hostname) and not is_loopback(urlsplit(base).hostname):
        base = f"{settings.rest_url.rstrip('/')}/scripmaster"
    return f"{base.rstrip('/')}/{name}.csv"


def fetch_instruments(settings: FlattradeSettings, http: Http) -> InstrumentTable:
    """The masters of the settings in one table. A file that is missing or empty on a day is left out with a
    warning (seen by third parties) and named in ``missing``; raises the last error if there is none at all."""
    found: dict[Instrument, None] = {}
    problem: VendorError | None = None
    missing = []
    for name in settings.masters:
        try:
            reply = http.get(master_url(settings, name))
            if reply.status_code != 200:
                raise RequestRejected(f"FlatTrade's scrip master {name} answered HTTP {reply.status_code}")
            found.update(dict.fromkeys(read_master(bytes(reply.content).decode("utf-8", "replace"), name)))
        except VendorError as error:
            _log.warning("left out a scrip master: %s", error)
            problem = error
            missing.append(name)
    if problem and not found:
        raise problem
    return InstrumentTable(found, missing=missing)


def read_master(text: str, name: str = "") -> list[Instrument]:
    """The instruments of one CSV, of FlatTrade or of another Noren broker (more columns, a tick size among
    them). Rows that cannot be read are counted in a warning. Symbols are those of every vendor."""
    rows = csv.reader(text.splitlines())
    header = [_ALSO.get(name.strip().lower(), name.strip().lower()) for name in next(rows, [])]
    if not _NEEDED.issubset(header):
        raise RequestRejected(f"FlatTrade's scrip master {name} does not begin with its column names")
    places = [header.index(column) if column in header else -1 for column in _COLUMNS]
    found, bad = [], 0
    days: dict[str, date | None] = {"": None}
    for row in rows:
        row.append("")  # what a missing column holds, at place -1
        try:
            found.append(_instrument([row[place] for place in places], days))
        except (ValueError, TypeError, LookupError):
            bad += 1
    if bad:
        _log.warning("%d rows of FlatTrade's scrip master %s could not be read", bad, name)
    return respell_contracts(found)


def _instrument(row: list[str], days: dict[str, date | None]) -> Instrument:
    """``days`` keeps the few days of expiry, which thousands of rows share."""
    exchange, number, lot, name, trading_symbol, segment, expiry, strike, side, tick = row
    token = str(int(number))
    cash = exchange in ("NSE", "BSE")
    index = segment.upper() in ("INDEX", "UNDIND")
    kind = _kind(segment, side, index=index)
    series = segment if cash and not index else ""
    if expiry not in days:
        days[expiry] = _day(expiry)
    return Instrument(
        exchange=_EXCHANGES[exchange],
        symbol=_symbol(exchange, name, trading_symbol, series, index=index),
        token=f"{exchange}|{token}",
        vendor="flattrade",
        exchange_token=token,
        name=name or trading_symbol,
        kind=kind,
        series=series,
        expiry=days[expiry],
        strike=float(strike or 0) if kind in _OPTIONS else 0.0,  # futures carry -1e-07 in some masters
        lot_size=int(lot or 1),
        tick_size=float(tick or 0),  # FlatTrade's own masters have no such column
        segment=segment,
        trading_symbol=trading_symbol,
    )


def _symbol(exchange: str, name: str, trading_symbol: str, series: str, *, index: bool) -> str:
    if index:
        known = index_named(exchange, name, trading_symbol)
        return known.symbol if known else (trading_symbol or name).upper()
    return share_symbol(trading_symbol, series if exchange == "NSE" else "") if series else trading_symbol


def _kind(segment: str, option: str, *, index: bool) -> str:
    if index:
        return Kind.INDEX.value
    if option in (Kind.CALL, Kind.PUT):
        return option
    return Kind.FUTURE.value if segment.startswith("FUT") else Kind.EQUITY.value


def _day(text: str) -> date:
    """The date of ``27-OCT-2026``, whatever the host's language."""
    hit = _DAY.fullmatch(text)
    if not hit:
        raise ValueError(text)
    return date(int(hit[3]), _MONTHS.index(hit[2].upper()) + 1, int(hit[1]))
