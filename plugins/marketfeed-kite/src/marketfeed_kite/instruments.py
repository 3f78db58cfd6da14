"""Kite's instrument master: one CSV of all exchanges, made anew each morning."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from datetime import date
from typing import Final

from marketfeed.contract import Http, Session
from marketfeed.enums import Kind
from marketfeed.errors import RequestRejected
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.symbols import series_of
from marketfeed_kite.rest import get
from marketfeed_kite.settings import KiteSettings

__all__ = ["fetch_instruments", "read_instruments"]

_log = logging.getLogger(__name__)
_COLUMNS: Final = (
    *("instrument_token", "exchange_token", "tradingsymbol", "name", "last_price", "expiry"),
    *("strike", "tick_size", "lot_size", "instrument_type", "segment", "exchange"),
)


def fetch_instruments(settings: KiteSettings, session: Session | None, http: Http) -> InstrumentTable:
    """The master of today; needs no session (official documentation), sends it if there is one."""
    return read_instruments(get(http, settings, session, "/instruments").decode())


def read_instruments(text: str) -> InstrumentTable:
    """The table in a CSV dump. A row that cannot be read is left out and counted in a warning.

    Raises ``RequestRejected`` for text that is not such a dump. Tokens of derivatives are used again
    after expiry: a token alone names an instrument for one day only.
    """
    rows = csv.reader(text.splitlines())
    header = tuple(next(rows, ()))
    if header != _COLUMNS:
        raise RequestRejected(
            f"Kite's instrument dump begins with {','.join(header)[:80]!r}, not with its column names"
        )
    bad: list[int] = []
    table = InstrumentTable(_instruments(rows, bad))
    if bad:
        _log.warning("%d rows of Kite's instrument dump could not be read, the first at line %d", len(bad), bad[0])
    return table


def _instruments(rows: Iterator[list[str]], bad: list[int]) -> Iterator[Instrument]:
    expiries: dict[str, date | None] = {"": None}
    for line, row in enumerate(rows, 2):
        try:
            token, exchange_token, symbol, name, _, expiry, strike, tick, lot, kind, segment, exchange = row
            if expiry not in expiries:
                expiries[expiry] = date.fromisoformat(expiry)
            yield Instrument(
                exchange=exchange,
                symbol=symbol,
                token=str(int(token)),
                vendor="kite",
                exchange_token=exchange_token,
                name=name,
                kind=Kind.INDEX.value if segment == "INDICES" else kind,
                series=series_of(symbol) if segment == "NSE" else "",
                expiry=expiries[expiry],
                strike=float(strike),
                lot_size=int(lot),
                tick_size=float(tick),
                segment=segment,
            )
        except ValueError:
            bad.append(line)
