"""FlatTrade's names and scrip masters of the sandbox's instruments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import attrs

from marketfeed.enums import Kind
from marketfeed.instruments import Instrument

__all__ = ["MASTERS", "Scrip", "make_master", "make_scrips"]

MASTERS = (
    *("NSE_Equity", "Nfo_Equity_Derivatives", "Nfo_Index_Derivatives", "Currency_Derivatives"),
    *("Commodity", "BSE_Equity", "Bfo_Index_Derivatives", "Bfo_Equity_Derivatives"),
)
_HEADER = "Exchange,Token,Lotsize,Symbol,Tradingsymbol,Instrument,Expiry,Strike,Optiontype"
_INDEX_NAMES = {"NIFTY 50": "Nifty 50", "NIFTY BANK": "Nifty Bank", "INDIA VIX": "India VIX"}
_UNDERLYING_INDICES = ("NIFTY", "BANKNIFTY", "SENSEX")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_OPTIONS = {Kind.CALL: "C", Kind.PUT: "P"}


@attrs.frozen(kw_only=True)
class Scrip:
    """One instrument as FlatTrade lists it."""

    exchange: str
    token: str
    trading_symbol: str
    instrument: str
    """``EQ``, ``INDEX``, ``FUTIDX``, ``OPTSTK``, ..."""
    option: str
    """``CE``, ``PE``, ``XX`` for futures, empty for the rest."""
    expiry: str
    """``27-OCT-2026``, or empty."""
    strike: float
    master: str
    lot: int
    symbol: str
    tick_size: float
    digits: int
    """Decimals of a price: 4 for currencies."""

    @property
    def key(self) -> str:
        return f"{self.exchange}|{self.token}"

    @property
    def is_index(self) -> bool:
        return self.instrument == "INDEX"

    @property
    def head(self) -> Mapping[str, str]:
        """The fields that only a snapshot has, and that name the scrip."""
        return {
            "ts": self.trading_symbol,
            "pp": str(self.digits),
            "ls": str(self.lot),
            "ti": f"{self.tick_size:.{self.digits}f}",
        }

    @property
    def search(self) -> Mapping[str, str]:
        """As ``SearchScrip`` gives it; there is no strike field."""
        found = {
            "exch": self.exchange,
            "token": self.token,
            "tsym": self.trading_symbol,
            "symname": self.symbol,
            "instname": self.instrument,
            "pp": str(self.digits),
            "ti": f"{self.tick_size:.{self.digits}f}",
            "ls": str(self.lot),
        }
        return found | ({"exd": self.expiry, "optt": self.option} if self.expiry else {})


def make_scrips(instruments: Sequence[Instrument]) -> list[Scrip]:
    return [_scrip(one) for one in instruments]


def make_master(name: str, scrips: Sequence[Scrip]) -> str:
    """The CSV of one master; a strike and an option type stand in rows of derivatives only."""
    rows = [_HEADER]
    for one in scrips:
        if one.master == name:
            strike = f"{one.strike:.2f}" if one.expiry else ""
            fields: list[Any] = [one.exchange, one.token, one.lot, one.symbol, one.trading_symbol, one.instrument]
            rows.append(",".join(map(str, [*fields, one.expiry, strike, one.option])))
    return "\r\n".join([*rows, ""])


def _scrip(one: Instrument) -> Scrip:
    index = one.kind == Kind.INDEX
    return Scrip(
        exchange=one.exchange,
        token=one.exchange_token,
        trading_symbol=_trading_symbol(one),
        instrument=_segment(one),
        option="" if one.expiry is None else one.kind if one.kind in _OPTIONS else "XX",
        expiry=_day(one.expiry, "-") if one.expiry else "",
        strike=one.strike,
        master=_master(one),
        lot=one.lot_size,
        symbol=_INDEX_NAMES.get(one.symbol, one.symbol) if index else one.name or one.symbol,
        tick_size=one.tick_size,
        digits=4 if one.exchange in ("CDS", "BCD") else 2,
    )


def _trading_symbol(one: Instrument) -> str:
    """``INFY-EQ``, ``NIFTY27OCT26F``, ``NIFTY27OCT26C25000``, ``CRUDEOIL19SEP22`` (recorded); BSE: bare."""
    if one.kind == Kind.INDEX:
        return _INDEX_NAMES.get(one.symbol, one.symbol)
    if one.expiry is None:
        return f"{one.symbol}-EQ" if one.exchange == "NSE" else one.symbol
    stem = f"{one.name}{_day(one.expiry, '')}"
    if one.kind in _OPTIONS:
        return f"{stem}{_OPTIONS[Kind(one.kind)]}{one.strike:g}"
    return stem if one.exchange == "MCX" else f"{stem}F"


def _day(day: date, between: str) -> str:
    """``27-OCT-2026``, without separators ``27OCT26``; spelt here because ``%b`` follows the host's language."""
    year = str(day.year) if between else f"{day.year % 100:02d}"
    return f"{day.day:02d}{between}{_MONTHS[day.month - 1]}{between}{year}"


def _segment(one: Instrument) -> str:
    if one.kind == Kind.INDEX:
        return "INDEX"
    if one.expiry is None:
        return one.series or "EQ"
    kind = "OPT" if one.kind in _OPTIONS else "FUT"
    if one.exchange in ("CDS", "BCD"):
        return f"{kind}CUR"
    if one.exchange in ("MCX", "NCO"):
        return f"{kind}COM"
    return f"{kind}{'IDX' if one.name in _UNDERLYING_INDICES else 'STK'}"


def _master(one: Instrument) -> str:
    words = {"NSE": "NSE_Equity", "BSE": "BSE_Equity", "CDS": "Currency_Derivatives", "BCD": "Currency_Derivatives"}
    if one.exchange in ("NFO", "BFO"):
        kind = "Index" if one.name in _UNDERLYING_INDICES else "Equity"
        return f"{one.exchange.capitalize()}_{kind}_Derivatives"
    return words.get(one.exchange, "Commodity")
