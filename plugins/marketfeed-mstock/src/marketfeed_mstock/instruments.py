"""mStock's instrument master: CSV in Type A, JSON in Type B; the indices are in neither."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any, Final

import msgspec

from marketfeed.contract import Http, Session
from marketfeed.enums import Kind
from marketfeed.errors import RequestRejected, SessionExpired
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.symbols import series_of, share_symbol, underlying_of
from marketfeed_mstock.rest import answer, request
from marketfeed_mstock.settings import MstockSettings

__all__ = ["EXCHANGE_TYPES", "fetch_instruments", "read_type_a", "read_type_b"]

_log = logging.getLogger(__name__)
EXCHANGE_TYPES: Final[Mapping[str, int]] = {"NSE": 1, "NFO": 2, "BSE": 3, "BFO": 4, "MCX": 5, "CDS": 13}
"""Official SDK; MCX is an assumption of a third party."""
_DAY: Final = re.compile(r"(\d{2})([A-Za-z]{3})(\d{4})", re.ASCII)
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def fetch_instruments(settings: MstockSettings, session: Session | None, http: Http) -> InstrumentTable:
    """The master of today and the indices of the settings. Raises ``SessionExpired`` without a session."""
    if session is None:
        raise SessionExpired("mStock gives its instruments only after a login")
    if settings.dialect == "a":
        status, body = request(http, settings, session, "GET", "instruments/scriptmaster")
        if status != 200:
            answer(status, body, "the instruments")
        rows = read_type_a(body.decode("utf-8", "replace"))
    else:
        status, body = request(http, settings, session, "GET", "instruments/OpenAPIScripMaster")
        if status != 200:
            answer(status, body, "the instruments")
        rows = read_type_b(body)
    if not rows:
        raise RequestRejected("mStock's instrument master is empty")
    # Indices first: where a token occurs twice the first one wins.
    return InstrumentTable([*_indices(settings.indices), *rows])


def read_type_a(text: str) -> list[Instrument]:
    """The instruments of a Type A CSV. Rows that cannot be read, such as the stray last line, are counted."""
    reader = csv.DictReader(text.replace('"', "").splitlines())
    if "instrument_token" not in (reader.fieldnames or ()):
        raise RequestRejected("mStock's instrument master does not begin with its column names")
    return _collect(_type_a_row, reader)


def read_type_b(body: bytes) -> list[Instrument]:
    """The instruments of a Type B JSON array."""
    try:
        rows: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        raise RequestRejected("mStock's instrument master is not a JSON array")
    return _collect(_type_b_row, rows)


def _collect(read: Any, rows: Iterable[Any]) -> list[Instrument]:
    found, bad = [], 0
    for row in rows:
        try:
            instrument = read(row)
        except (KeyError, ValueError, TypeError, AttributeError):
            bad += 1
            continue
        if instrument is not None:
            found.append(instrument)
    if bad:
        _log.warning("%d rows of mStock's instrument master could not be read", bad)
    return found


def _type_a_row(row: Mapping[str, str]) -> Instrument | None:
    kind = row["instrument_type"]
    exchange = row["exchange"]
    cash = exchange in ("NSE", "BSE")
    symbol = row["tradingsymbol"]
    expiry = date.fromisoformat(row["expiry"]) if row["expiry"] else None
    return _instrument(
        exchange=exchange,
        symbol=share_symbol(symbol, kind if exchange == "NSE" else "") if cash else symbol,
        # The exchange_token of BFO rows is the code of the underlying; the other exchanges repeat this one.
        token=row["instrument_token"],
        name=row["name"] or underlying_of(symbol, expiry),
        kind=Kind.EQUITY if cash else Kind.FUTURE if kind == "XX" else Kind(kind),
        series=kind if cash else "",
        expiry=expiry,
        strike=row["strike"],
        lot_size=row["lot_size"],
        tick_size=row["tick_size"],
        segment=row["segment"],
    )


def _type_b_row(row: Mapping[str, str]) -> Instrument | None:
    segment, exchange = row["instrumenttype"], row["exch_seg"]
    if segment.endswith("CUR"):  # currency rows come as NSE or BSE (third party)
        exchange = {"NSE": "CDS", "BSE": "BCD"}.get(exchange, exchange)
    # `symbol` is the underlying and `name` the trading symbol: the reverse of what the words say.
    symbol, name = row["name"], row["symbol"]
    cash = exchange in ("NSE", "BSE")
    series = series_of(symbol) if cash else ""
    kind = Kind.FUTURE if segment.startswith("FUT") else Kind(symbol[-2:]) if segment.startswith("OPT") else Kind.EQUITY
    return _instrument(
        exchange=exchange,
        symbol=share_symbol(symbol, "") if cash else symbol,
        token=row["token"],
        name=name,
        kind=kind,
        series=series,
        expiry=_day(row["expiry"]) if row["expiry"] else None,
        strike=row["strike"],
        lot_size=row["lotsize"],
        tick_size=row["tick_size"],
        segment=segment,
    )


def _instrument(
    *, exchange: str, token: str, strike: str, lot_size: str, tick_size: str, **same: Any
) -> Instrument | None:
    """An instrument, or None on an exchange that the socket has no number for."""
    if exchange not in EXCHANGE_TYPES:
        return None
    return Instrument(
        exchange=exchange,
        token=f"{EXCHANGE_TYPES[exchange]}:{int(token)}",
        vendor="mstock",
        exchange_token=str(int(token)),
        strike=float(strike or 0),
        lot_size=int(float(lot_size or 1)),
        tick_size=float(tick_size or 0),
        **same,
    )


def _indices(entries: Iterable[str]) -> Iterator[Instrument]:
    for entry in entries:
        key, _, token = entry.rpartition("=")
        exchange, _, symbol = key.partition(":")
        if exchange in EXCHANGE_TYPES and symbol and token.isdecimal():
            yield Instrument(
                exchange=exchange,
                symbol=symbol,
                token=f"{EXCHANGE_TYPES[exchange]}:{token}",
                vendor="mstock",
                exchange_token=token,
                kind=Kind.INDEX,
                segment="INDICES",
            )


def _day(text: str) -> date:
    """The date of ``23Oct2025``, whatever the host's language."""
    hit = _DAY.fullmatch(text)
    if not hit:
        raise ValueError(text)
    return date(int(hit[3]), _MONTHS.index(hit[2].upper()) + 1, int(hit[1]))
