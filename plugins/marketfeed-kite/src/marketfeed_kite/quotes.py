"""Kite's quotes: prices, open to close, and the full market quote, as rows of ``TICK``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from marketfeed.clock import to_ns
from marketfeed.contract import Http, QuoteKind, Session
from marketfeed.dtypes import DEPTH_LEVELS, Flag, Rows, empty_ticks
from marketfeed.enums import Mode
from marketfeed.errors import RequestRejected
from marketfeed.instruments import Instrument
from marketfeed_kite.rest import get
from marketfeed_kite.settings import KiteSettings

__all__ = ["fetch_quotes", "read_quotes"]

_CALLS: Final = {  # path, most instruments in one request (official documentation), mode of the rows
    "ltp": ("/quote/ltp", 1000, Mode.LTP),
    "ohlc": ("/quote/ohlc", 1000, Mode.QUOTE),
    "quote": ("/quote", 500, Mode.FULL),
}
_NAMES: Final = {  # ours -> theirs, with the group; absent for indices
    "last_quantity": ("last_quantity", Flag.QUANTITIES),
    "buy_quantity": ("buy_quantity", Flag.QUANTITIES),
    "sell_quantity": ("sell_quantity", Flag.QUANTITIES),
    "volume": ("volume", Flag.VOLUME),
    "open_interest": ("oi", Flag.OPEN_INTEREST),
    "oi_day_high": ("oi_day_high", Flag.OI_RANGE),
    "oi_day_low": ("oi_day_low", Flag.OI_RANGE),
    "lower_circuit": ("lower_circuit_limit", Flag.CIRCUITS),
    "upper_circuit": ("upper_circuit_limit", Flag.CIRCUITS),
}
_TIMES: Final = {
    "exchange_ns": ("timestamp", Flag.EXCHANGE_TIME),
    "last_trade_ns": ("last_trade_time", Flag.TRADE_TIME),
}


def fetch_quotes(
    settings: KiteSettings, session: Session, http: Http, instruments: Sequence[Instrument], kind: QuoteKind
) -> Rows:
    """Rows for the instruments that Kite knows; ``instrument`` is the index in ``instruments``.

    Asks in pieces of 1,000 (``quote``: 500), at the pace of ``http``.
    Raises ``SessionExpired``, ``RateLimited``, ``LineLost`` or ``RequestRejected``.
    """
    path, most, mode = _CALLS[kind]
    found: list[tuple[int, Any]] = []
    for start in range(0, len(instruments), most):
        keys = [one.key for one in instruments[start : start + most]]
        quotes = _data(get(http, settings, session, path, i=keys))
        # A name that Kite does not know is simply absent.
        found += [(start + place, quotes[key]) for place, key in enumerate(keys) if key in quotes]
    return read_quotes(found, mode)


def read_quotes(quotes: Sequence[tuple[int, Any]], mode: Mode) -> Rows:
    """Rows of ``TICK`` for (instrument number, quote). Raises ``RequestRejected`` for what is no quote."""
    rows = empty_ticks(len(quotes))
    for row, (number, quote) in zip(rows, quotes, strict=True):
        row["instrument"] = number
        try:
            row["flags"] = mode | _fill(row, quote)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RequestRejected(f"Kite's quotes do not look as documented: {type(error).__name__}") from None
    return rows


def _data(body: bytes) -> Mapping[str, Any]:
    try:
        data = msgspec.json.decode(body)["data"]
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError, TypeError):
        data = None
    if not isinstance(data, dict):
        raise RequestRejected("Kite's quotes do not look as documented")
    return data


def _fill(row: Any, quote: Mapping[str, Any]) -> int:
    """Write what a quote holds into a row; returns the bits of the groups that it carried."""
    row["last_price"] = quote["last_price"]
    groups = 0
    if "ohlc" in quote:
        groups |= Flag.OHLC
        for name in ("open", "high", "low", "close"):
            row[name] = quote["ohlc"][name]
    for ours, (theirs, group) in _NAMES.items():
        if theirs in quote:
            row[ours] = quote[theirs]
            groups |= group
    for ours, (theirs, group) in _TIMES.items():
        if quote.get(theirs):  # null before the first trade
            row[ours] = to_ns(datetime.fromisoformat(quote[theirs]))  # India time, no zone in the text
            groups |= group
    if "average_price" in quote:
        row["average_price"] = quote["average_price"]
    if "depth" in quote:
        groups |= Flag.DEPTH
        _fill_depth(row, quote["depth"])
    return groups


def _fill_depth(row: Any, depth: Mapping[str, Any]) -> None:
    """Five levels of each side, the best first; a level of quantity and price 0 is absent."""
    for side, word in (("bid", "buy"), ("ask", "sell")):
        for level, entry in enumerate(depth[word][:DEPTH_LEVELS]):
            if entry["price"] or entry["quantity"]:
                row[f"{side}_price"][level] = entry["price"]
                row[f"{side}_quantity"][level] = entry["quantity"]
                row[f"{side}_orders"][level] = entry["orders"]
