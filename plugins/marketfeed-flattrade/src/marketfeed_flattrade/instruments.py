"""FlatTrade's scrip masters: one CSV a segment, without login."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Mapping
from datetime import date
from typing import Final
from urllib.parse import urlsplit

from marketfeed.contract import Http, is_loopback
from marketfeed.enums import Exchange, Kind
from marketfeed.errors import RequestRejected, VendorError
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed_flattrade.settings import FlattradeSettings

__all__ = ["fetch_instruments", "master_url", "read_master"]

_log = logging.getLogger(__name__)
_COLUMNS: Final = (
    *("Exchange", "Token", "Lotsize", "Symbol", "Tradingsymbol", "Instrument", "Expiry", "Strike", "Optiontype"),
)
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
    warning (seen by third parties); raises the last error if there is none at all."""
    found: dict[Instrument, None] = {}
    problem: VendorError | None = None
    for name in settings.masters:
        try:
            reply = http.get(master_url(settings, name))
            if reply.status_code != 200:
                raise RequestRejected(f"FlatTrade's scrip master {name} answered HTTP {reply.status_code}")
            found.update(dict.fromkeys(read_master(bytes(reply.content).decode("utf-8", "replace"), name)))
        except VendorError as error:
            _log.warning("left out a scrip master: %s", error)
            problem = error
    if problem and not found:
        raise problem
    return InstrumentTable(found)


def read_master(text: str, name: str = "") -> list[Instrument]:
    """The instruments of one CSV. Rows that cannot be read are counted in a warning."""
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ())[: len(_COLUMNS)] != _COLUMNS:
        raise RequestRejected(f"FlatTrade's scrip master {name} does not begin with its column names")
    found, bad = [], 0
    for row in reader:
        try:
            found.append(_instrument(row))
        except (ValueError, TypeError, AttributeError):
            bad += 1
    if bad:
        _log.warning("%d rows of FlatTrade's scrip master %s could not be read", bad, name)
    return found


def _instrument(row: Mapping[str, str]) -> Instrument:
    exchange, trading_symbol, segment = row["Exchange"], row["Tradingsymbol"], row["Instrument"]
    token = str(int(row["Token"]))
    cash = exchange in (Exchange.NSE, Exchange.BSE)
    index = segment.upper() in ("INDEX", "UNDIND")
    return Instrument(
        exchange=str(Exchange(exchange)),
        # Users write NSE:INFY and NSE:NIFTY 50 for every vendor.
        symbol=trading_symbol.upper() if index else trading_symbol.removesuffix("-EQ") if cash else trading_symbol,
        token=f"{exchange}|{token}",
        vendor="flattrade",
        exchange_token=token,
        name=trading_symbol,
        kind=_kind(segment, row["Optiontype"], index=index),
        series=segment if cash and not index else "",
        expiry=_day(row["Expiry"]) if row["Expiry"] else None,
        strike=float(row["Strike"] or 0),
        lot_size=int(row["Lotsize"] or 1),
        tick_size=0.0,  # the masters have no such column
        segment=segment,
    )


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
