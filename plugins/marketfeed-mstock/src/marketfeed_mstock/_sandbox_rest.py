"""mStock's REST calls for the sandbox, in both dialects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from marketfeed.brokers import HttpReply, HttpRequest, SandboxWorld
from marketfeed.clock import IST, NS
from marketfeed.dtypes import Rows
from marketfeed_mstock._sandbox_login import good, refused
from marketfeed_mstock._sandbox_scrips import INTRADAY, Scrip, master_a, master_b

__all__ = ["Rest"]

BARS = 1000
"""Most candles in an answer (documentation); that the first ones come is a guess."""
_DAY_S = 86_400
_IST_S = 19_800
_SECONDS_A = {
    "minute": 60,
    "3minute": 180,
    "5minute": 300,
    "10minute": 600,
    "15minute": 900,
    "30minute": 1800,
    "60minute": 3600,
    "day": _DAY_S,
}
_WORDS_B = ("ONE_MINUTE", "THREE_MINUTE", "FIVE_MINUTE", "TEN_MINUTE", "FIFTEEN_MINUTE", "THIRTY_MINUTE")
_SECONDS_B = dict(zip((*_WORDS_B, "ONE_HOUR", "ONE_DAY"), _SECONDS_A.values(), strict=True))
_PRICES = ("open", "high", "low", "close")


class _InputError(Exception):
    """What a call asks for makes no sense; the text goes to the client."""


class Rest:
    """Calls behind ``/openapi/typea/`` and ``/openapi/typeb/`` that need a session."""

    def __init__(self, world: SandboxWorld, scrips: Sequence[Scrip]) -> None:
        self._world = world
        self._scrips = scrips
        self._lines = {(one.instrument.exchange, one.token): line for line, one in enumerate(scrips) if one.number}
        self._names = {(one.instrument.exchange, one.instrument.symbol): line for line, one in enumerate(scrips)}

    def http(self, dialect: str, call: str, request: HttpRequest) -> HttpReply:
        try:
            return self._a(call, request) if dialect == "a" else self._b(call, request)
        except _InputError as error:
            return refused(dialect, 400, "InputException", "IA400", str(error))

    def _a(self, call: str, request: HttpRequest) -> HttpReply:
        words = call.split("/")
        if request.method != "GET" or words[0] != "instruments":
            return refused("a", 404, "GeneralException", "", "Route not found")
        if call == "instruments/scriptmaster":
            return HttpReply(body=master_a(self._scrips).encode(), content_type="text/csv")
        if call in ("instruments/quote/ltp", "instruments/quote/ohlc"):
            return self._quote_a(request, with_day=words[2] == "ohlc")
        if len(words) == 5 and words[1] == "historical":
            query = dict(request.query)
            rows = self._history(words[2], words[3], _SECONDS_A.get(words[4]), query.get("from"), query.get("to"))
            return good("a", {"candles": _candles(rows)})
        if len(words) == 5 and words[1] == "intraday":
            rows = self._today(words[2], words[3], _SECONDS_A.get(words[4]))
            return good("a", {"candles": _newest_first(rows)})
        return refused("a", 404, "GeneralException", "", "Route not found")

    def _b(self, call: str, request: HttpRequest) -> HttpReply:
        """History and quotes are taken with GET and a body, too (documentation)."""
        if call == "instruments/OpenAPIScripMaster" and request.method == "GET":
            return HttpReply(body=master_b(self._scrips))
        if call not in ("instruments/historical", "instruments/intraday", "instruments/quote"):
            return refused("b", 404, "", "IA404", "Route not found")
        try:
            body = json.loads(request.body)
            exchange, token, word = (str(body.get(name)) for name in ("exchange", "symboltoken", "interval"))
        except (ValueError, AttributeError):
            raise _InputError("Please provide valid json.") from None
        if call == "instruments/historical":
            rows = self._history(exchange, token, _SECONDS_B.get(word), body.get("fromdate"), body.get("todate"))
            return good("b", {"candles": _candles(rows)}, "success")
        if call == "instruments/intraday":
            return good("b", {"candles": _newest_first(self._today(exchange, token, _SECONDS_B.get(word)))})
        return self._quote_b(body)

    # --- candles ------------------------------------------------------------------------------

    def _history(self, exchange: str, token: str, seconds: int | None, first: Any, last: Any) -> Rows:
        """Completed days only (third parties); both ends are included; a bare date is its midnight."""
        line = self._line(exchange, token)
        if seconds is None:
            raise _InputError("Please provide valid interval.")
        start, end = _moment(first), _moment(last)
        if end < start:
            raise _InputError("From date should be before to date.")
        today = (self._world.now_ns() // NS + _IST_S) // _DAY_S * _DAY_S - _IST_S
        until = min(end + 1, today)
        # A day is labelled 09:15, so it is asked for from its midnight and then picked by its label.
        since = (start + _IST_S) // _DAY_S * _DAY_S - _IST_S if seconds == _DAY_S else start
        rows = _labelled(self._world.market.candles(line, seconds, since * NS, until * NS), seconds)
        starts = rows["start_ns"] // NS
        return rows[(starts >= start) & (starts < until)][:BARS]

    def _today(self, number: str, token: str, seconds: int | None) -> Rows:
        if number not in INTRADAY:
            raise _InputError("Please provide valid exchange.")
        if seconds is None:
            raise _InputError("Please provide valid interval.")
        line = self._line(INTRADAY[number], token)
        now_ns = self._world.now_ns()
        today = (now_ns // NS + _IST_S) // _DAY_S * _DAY_S - _IST_S
        return _labelled(self._world.market.candles(line, seconds, today * NS, now_ns), seconds)[-BARS:]

    def _line(self, exchange: str, token: str) -> int:
        line = self._lines.get((exchange, token), self._names.get((exchange, token)))  # older pages pass a symbol
        if line is None:
            raise _InputError("Please provide valid symboltoken.")
        return line

    # --- quotes -------------------------------------------------------------------------------

    def _row(self, line: int) -> Any:
        return self._world.market.snapshot(np.array([line], np.int64))[0]

    def _quote_a(self, request: HttpRequest, *, with_day: bool) -> HttpReply:
        """In rupees (guess: a copy of the documentation shows paise); unknown symbols are null."""
        found: dict[str, Any] = {}
        for name, value in request.query:
            exchange, _, symbol = value.partition(":")
            line = self._names.get((exchange, symbol))
            if name != "i":
                continue
            found[value] = None
            if line is not None and self._scrips[line].number:
                row = self._row(line)
                quote = {"instrument_token": int(self._scrips[line].token), "last_price": float(row["last_price"])}
                found[value] = quote | ({"ohlc": _day_prices(row)} if with_day else {})
        return good("a", found)

    def _quote_b(self, body: Any) -> HttpReply:
        mode, asked = body.get("mode"), body.get("exchangeTokens")
        if mode not in ("LTP", "OHLC") or not isinstance(asked, dict):
            raise _InputError("Please provide valid mode and exchangeTokens.")
        fetched, unfetched = [], []
        for exchange, tokens in asked.items():
            for token in tokens:
                line = self._lines.get((exchange, str(token)))
                if line is None:
                    unfetched.append({"exchange": exchange, "symbolToken": str(token), "message": "Symbol not found"})
                    continue
                row = self._row(line)
                names = {"exchange": exchange, "tradingSymbol": self._scrips[line].symbol_b, "symbolToken": str(token)}
                prices = _day_prices(row) if mode == "OHLC" else {}
                fetched.append({**names, "ltp": float(row["last_price"]), **prices})
        return good("b", {"fetched": fetched, "unfetched": unfetched})


def _labelled(rows: Rows, seconds: int) -> Rows:
    """Days are labelled with the opening of the market (vendor's samples)."""
    if seconds == _DAY_S:
        midnight = (rows["start_ns"] // NS + _IST_S) // _DAY_S * _DAY_S - _IST_S
        rows["start_ns"] = (midnight + 33_300) * NS
    return rows


def _candles(rows: Rows) -> list[list[Any]]:
    """Oldest first. ``+05`` is India's offset cut short (documentation and mock)."""
    return [[f"{_text(row, 'T%H:%M:%S')}+05", *_numbers(row)] for row in rows]


def _newest_first(rows: Rows) -> list[list[Any]]:
    return [[_text(row, " %H:%M"), *_numbers(row)] for row in rows[::-1]]


def _text(row: Any, clock: str) -> str:
    return datetime.fromtimestamp(int(row["start_ns"]) // NS, IST).strftime(f"%Y-%m-%d{clock}")


def _numbers(row: Any) -> list[float | int]:
    return [*(float(row[name]) for name in _PRICES), int(row["volume"])]


def _day_prices(row: Any) -> dict[str, float]:
    return {name: float(row[name]) for name in _PRICES}


def _moment(text: Any) -> int:
    """Epoch seconds of India time as clients write it."""
    try:
        return int(datetime.fromisoformat(str(text)).replace(tzinfo=IST).timestamp())
    except ValueError:
        raise _InputError("Please provide valid date.") from None
