"""mStock's numbers and masters of the sandbox's instruments, in both dialects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date

import attrs

from marketfeed.enums import Kind
from marketfeed.instruments import Instrument

__all__ = ["INTRADAY", "Scrip", "make_scrips", "master_a", "master_b"]

EXCHANGE_TYPES = {"NSE": 1, "NFO": 2, "BSE": 3, "BFO": 4, "MCX": 5, "CDS": 13}
"""Of the socket (official SDK; MCX is a third party's assumption)."""
INTRADAY = {"1": "NSE", "2": "NFO", "3": "CDS", "4": "BSE", "5": "BFO"}
"""Of the intraday call (documentation)."""
_INDEX_TOKENS = {"BSE:SENSEX": "51"}
_UNDERLYING_INDICES = ("NIFTY", "BANKNIFTY", "SENSEX")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HEADER = (
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,"
    "tick_size,lot_size,instrument_type,segment,exchange"
)


@attrs.frozen(kw_only=True)
class Scrip:
    """One instrument as mStock knows it."""

    instrument: Instrument
    token: str
    number: int
    """Exchange type of the socket; 0 = mStock does not have this exchange."""
    segment: str
    """``EQ``, ``FUTIDX``, ``OPTSTK``, ...; ``INDICES`` for what no master lists."""
    underlying_code: str = ""

    @property
    def key(self) -> str:
        """Exchange type and token, as Type B names it."""
        return f"{self.number}:{self.token}"

    @property
    def listed(self) -> bool:
        return self.number > 0 and self.segment != "INDICES"

    @property
    def symbol_b(self) -> str:
        one = self.instrument
        return f"{one.symbol}-EQ" if self.segment == "EQ" and one.exchange == "NSE" else one.symbol


def make_scrips(instruments: Sequence[Instrument]) -> list[Scrip]:
    codes = {one.name: one.exchange_token for one in instruments if one.exchange == "BSE"}
    return [
        Scrip(
            instrument=one,
            token=_INDEX_TOKENS.get(one.key, one.exchange_token),
            number=EXCHANGE_TYPES.get(one.exchange, 0),
            segment=_segment(one),
            underlying_code=codes.get(one.name, one.exchange_token),
        )
        for one in instruments
    ]


def master_a(scrips: Sequence[Scrip]) -> str:
    """The CSV of Type A, with its stray last line."""
    return "\r\n".join([_HEADER, *(_row_a(one) for one in scrips if one.listed), '"""', ""])


def _row_a(scrip: Scrip) -> str:
    one = scrip.instrument
    kind = "XX" if one.kind == Kind.FUTURE else one.kind if one.expiry else scrip.segment
    fields = (
        scrip.token,
        scrip.underlying_code if one.exchange == "BFO" else scrip.token,
        one.symbol,
        "" if one.expiry else one.name,
        "",
        one.expiry or "",
        f"{one.strike:g}" if one.expiry else "",
        "",  # the tick size is always empty
        one.lot_size,
        kind,
        scrip.segment,
        one.exchange,
    )
    return ",".join(map(str, fields))


def master_b(scrips: Sequence[Scrip]) -> bytes:
    """The JSON of Type B: ``symbol`` is the underlying, ``name`` the trading symbol."""
    return json.dumps([_row_b(one) for one in scrips if one.listed]).encode()


def _row_b(scrip: Scrip) -> dict[str, str]:
    one = scrip.instrument
    return {
        "token": scrip.token,
        "symbol": one.name,
        "name": scrip.symbol_b,
        "expiry": _day(one.expiry) if one.expiry else "",
        "strike": f"{one.strike:g}" if one.expiry else "",
        "lotsize": str(one.lot_size),
        "instrumenttype": scrip.segment,
        "exch_seg": "NSE" if one.exchange == "CDS" else one.exchange,  # currency comes as NSE (third party)
        "tick_size": f"{one.tick_size:g}",
    }


def _day(day: date) -> str:
    """``23Oct2025``; spelt here because ``%b`` follows the host's language."""
    return f"{day.day:02d}{_MONTHS[day.month - 1]}{day.year}"


def _segment(one: Instrument) -> str:
    if one.kind == Kind.INDEX:
        return "INDICES"
    if one.expiry is None:
        return "EQ"
    kind = "FUT" if one.kind == Kind.FUTURE else "OPT"
    tail = {"CDS": "CUR", "BCD": "CUR", "MCX": "COM", "NCO": "COM"}.get(one.exchange)
    return kind + (tail or ("IDX" if one.name in _UNDERLYING_INDICES else "STK"))
