"""What an account's instruments are: the selection of a configuration, resolved in the master of today."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final

from marketfeed.clock import IST, NS
from marketfeed.contract import CandleRequest
from marketfeed.engine.account import Account
from marketfeed.enums import Interval
from marketfeed.errors import MarketFeedError, RequestRejected
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.selection import Found, select

__all__ = ["choose", "india_day", "reference_price"]

_DAY_NS: Final = 86_400 * NS
_LOOK_BACK: Final = ((Interval.M1, 5), (Interval.D1, 14))
"""Candles whose last close is a price, and how many days they may be old."""


def india_day(wall_ns: int) -> date:
    """The date in India at a moment (UTC nanoseconds)."""
    return datetime.fromtimestamp(wall_ns // NS, UTC).astimezone(IST).date()


def choose(account: Account, texts: Iterable[str], table: InstrumentTable | None = None) -> Found:
    """Resolve a selection in ``table``, by default the master of today.

    Raises what loading the master raises; what cannot be had is in ``problems``.
    """
    return select(
        texts,
        account.instruments() if table is None else table,
        vendor=account.plugin.info.name,
        today=india_day(account.clock.wall_ns()),
        price=lambda one: reference_price(account, one),
    )


def reference_price(account: Account, instrument: Instrument) -> float:
    """The close of the newest candle, of a minute if there is one, else of a day. Raises ``MarketFeedError``."""
    problem: MarketFeedError = RequestRejected("there is no recent candle")
    for interval, days in _LOOK_BACK:
        most = account.plugin.info.candle_days.get(interval)
        if most is None:
            continue
        try:
            closes = _closes(account, instrument, interval, min(days, most))
        except MarketFeedError as error:
            problem = error
            continue
        if len(closes):
            return closes[-1]
    raise problem


def _closes(account: Account, instrument: Instrument, interval: Interval, days: int) -> list[float]:
    now_ns = account.clock.wall_ns()
    request = CandleRequest(
        instrument=instrument, interval=interval, start_ns=now_ns - days * _DAY_NS, end_ns=now_ns, open_interest=False
    )
    rows = account.ask(
        lambda session: account.plugin.fetch_candles(account.settings, session, account.http, request).rows, again=()
    )
    closes: list[float] = rows["close"].tolist()
    return closes
