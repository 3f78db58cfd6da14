"""FlatTrade's REST routes for the sandbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, unquote_plus

import numpy as np

from marketfeed.brokers import HttpReply, HttpRequest, SandboxWorld
from marketfeed.clock import IST, NS
from marketfeed.dtypes import Rows
from marketfeed_flattrade._sandbox_login import Login, answer, refused
from marketfeed_flattrade._sandbox_messages import DEPTH, Messages
from marketfeed_flattrade._sandbox_scrips import MASTERS, Scrip, make_master

__all__ = ["Rest"]

_MINUTES = ("1", "3", "5", "10", "15", "30", "60", "120", "240")
_NO_DATA = 'Error Occurred : 5 "no data"'
_IST_S = 19_800
_DAY_S = 86_400
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


class Rest:
    """``/PiConnectAPI/`` and the masters."""

    def __init__(self, world: SandboxWorld, login: Login, scrips: Sequence[Scrip], messages: Messages) -> None:
        self._world = world
        self._login = login
        self._scrips = scrips
        self._messages = messages
        self._by_key = {(one.exchange, one.token): line for line, one in enumerate(scrips)}
        self._by_name = {f"{one.exchange}:{one.trading_symbol}": line for line, one in enumerate(scrips)}
        self._routes = {
            "UserDetails": self._user,
            "Logout": self._logout,
            "TPSeries": self._minutes,
            "EODChartData": self._days,
            "SearchScrip": self._search,
            "GetQuotes": self._quotes,
            "GetSecurityInfo": self._security,
            "GetIndexList": self._indices,
            "GetOptionChain": self._chain,
        }

    def master(self, path: str) -> HttpReply:
        name = path.rpartition("/")[2].removesuffix(".csv")
        if name not in MASTERS:  # what the file store answers for a file that is not there
            body = b"<Error><Code>AccessDenied</Code></Error>"
            return HttpReply(status=403, body=body, content_type="application/xml")
        return HttpReply(body=make_master(name, self._scrips).encode(), content_type="text/csv")

    def http(self, request: HttpRequest, route: str) -> HttpReply:
        """One call. ``jData`` is read literally: percent-encoded it is no JSON (third parties, live)."""
        fields = _body(request.body)
        try:
            data = json.loads(fields.get("jData", ""))
        except ValueError:
            data = None
        if not isinstance(data, dict):
            return refused("jData is not valid json object", 400)
        if route == "QuickAuth":
            return self._login.quick_auth(data)
        if route == "GenAcsTok":
            return self._login.access_token(data)
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        token = fields.get("jKey") or bearer
        if not self._login.knows(str(data.get("uid") or self._world.credentials.user_id), token):
            return refused("Session Expired :  Invalid Session Key", 401)
        call = self._routes.get(route)
        if call is None:
            return refused(f"Invalid Input : {route} is not a route", 404)
        try:
            return call({**data, "": token})
        except (KeyError, ValueError, TypeError):
            return refused("Error Occurred : 1 Invalid Input")

    def _line(self, data: dict[str, Any]) -> int:
        return self._by_key[str(data["exch"]), str(data["token"])]

    def _user(self, _: dict[str, Any]) -> HttpReply:
        user = self._world.credentials.user_id
        exchanges = sorted({one.exchange for one in self._scrips})
        return answer({"stat": "Ok", "uid": user, "actid": user, "uname": "SANDBOX USER", "exarr": exchanges})

    def _logout(self, data: dict[str, Any]) -> HttpReply:
        self._login.logout(str(data[""]))
        return answer({"stat": "Ok", "request_time": self._now("%H:%M:%S %d-%m-%Y")})

    # --- candles ------------------------------------------------------------------------------

    def _minutes(self, data: dict[str, Any]) -> HttpReply:
        """Newest first; both ends are included (guess). The longest range is not documented, so there is none."""
        line = self._by_key.get((str(data.get("exch")), str(data.get("token"))))
        interval = str(data.get("intrv") or "1")
        if line is None or interval not in _MINUTES:
            return refused("Invalid Input : exchange, token or interval")
        first = int(float(data["st"]))  # the official client writes 1795132800.0
        last = int(float(data.get("et") or self._world.now_ns() / NS))
        midnight = (first + _IST_S) // _DAY_S * _DAY_S - _IST_S
        rows = self._world.market.candles(line, int(interval) * 60, midnight * NS, last * NS + 1)
        bars = self._bars(line, rows)
        found = [bar for bar in reversed(bars) if int(bar["ssboe"]) >= first]
        return answer(found) if found else refused(_NO_DATA)

    def _bars(self, line: int, rows: Rows) -> list[dict[str, str]]:
        digits, day, volume, bars = self._scrips[line].digits, 0, 0, []
        for row in rows:
            start = int(row["start_ns"]) // NS
            if (start + _IST_S) // _DAY_S != day:
                day, volume = (start + _IST_S) // _DAY_S, 0
            volume += int(row["volume"])
            average = float(row["open"] + row["high"] + row["low"] + row["close"]) / 4
            interest = str(max(int(row["open_interest"]), 0))
            bars.append(
                {
                    "stat": "Ok",
                    "time": datetime.fromtimestamp(start, IST).strftime("%d-%m-%Y %H:%M:%S"),
                    "ssboe": str(start),
                    **_prices(row, digits),
                    "intvwap": f"{average:.{digits}f}",
                    "intv": str(int(row["volume"])),
                    "intoi": "0",
                    "v": str(volume),
                    "oi": interest,
                }
            )
        return bars

    def _days(self, data: dict[str, Any]) -> HttpReply:
        """A list of JSON texts, newest first; ``ssboe`` is UTC midnight of the date (recorded)."""
        line = self._by_name.get(unquote(str(data.get("sym"))))
        if line is None:
            return refused(_NO_DATA)
        first, last = int(float(data["from"])), int(float(data.get("to") or self._world.now_ns() / NS))
        rows = self._world.market.candles(line, _DAY_S, (first - _DAY_S) * NS, last * NS)
        bars = []
        for row in rows[::-1]:
            day = (int(row["start_ns"]) // NS + _IST_S) // _DAY_S * _DAY_S
            if first <= day <= last:
                date = datetime.fromtimestamp(day, UTC)
                name = f"{date.day:02d}-{_MONTHS[date.month - 1]}-{date.year}"
                prices = _prices(row, self._scrips[line].digits)
                bars.append(json.dumps({"time": name, **prices, "ssboe": str(day), "intv": f"{int(row['volume'])}.00"}))
        return answer(bars) if bars else refused(_NO_DATA)

    # --- scrips and quotes --------------------------------------------------------------------

    def _search(self, data: dict[str, Any]) -> HttpReply:
        words = unquote_plus(str(data["stext"])).upper().split()
        exchange = str(data.get("exch") or "NSE")
        found = [
            one.search
            for one in self._scrips
            if one.exchange == exchange and all(word in one.trading_symbol.upper() for word in words)
        ]
        return answer({"stat": "Ok", "values": found}) if found and words else refused("No Data : ")

    def _quotes(self, data: dict[str, Any]) -> HttpReply:
        key = (str(data.get("exch")), str(data.get("token")))
        if key not in self._by_key:
            return refused(_NO_DATA)
        line = self._by_key[key]
        rows = self._world.market.snapshot(np.array([line], np.int64))
        fields = self._messages.texts(DEPTH, line, self._messages.values(DEPTH, rows)[0])
        head = {"request_time": self._now("%H:%M:%S %d-%m-%Y"), "stat": "Ok", **self._scrips[line].search}
        return answer({**head, **fields, "ltd": self._now("%d-%m-%Y")})

    def _security(self, data: dict[str, Any]) -> HttpReply:
        line = self._by_key.get((str(data.get("exch")), str(data.get("token"))))
        if line is None:
            return refused(_NO_DATA)
        now = {"request_time": self._now("%H:%M:%S %d-%m-%Y"), "stat": "Ok"}
        return answer({**now, **self._scrips[line].search})

    def _indices(self, data: dict[str, Any]) -> HttpReply:
        exchange = str(data.get("exch"))
        found = [
            {"idxname": one.trading_symbol, "token": one.token}
            for one in self._scrips
            if one.is_index and one.exchange == exchange
        ]
        return answer({"stat": "Ok", "values": found}) if found else refused(_NO_DATA)

    def _chain(self, data: dict[str, Any]) -> HttpReply:
        """Options of the same name and expiry as the one named, ``cnt`` strikes on each side of ``strprc``."""
        name = unquote_plus(str(data["tsym"]))
        like = next((one for one in self._scrips if one.exchange == data["exch"] and one.trading_symbol == name), None)
        if like is None or not like.expiry:
            return refused(_NO_DATA)
        options = [
            one for one in self._scrips if one.option in ("CE", "PE") and (one.symbol, one.expiry) == _series(like)
        ]
        middle, count = float(data["strprc"]), int(data.get("cnt") or 5)
        strikes = sorted({one.strike for one in options})
        near = {
            *[one for one in strikes if one < middle][-count:],
            *[one for one in strikes if one >= middle][: count + 1],
        }
        found = [{**one.search, "strprc": f"{one.strike:.2f}"} for one in options if one.strike in near]
        return answer({"stat": "Ok", "values": found}) if found else refused(_NO_DATA)

    def _now(self, form: str) -> str:
        return datetime.fromtimestamp(self._world.now_ns() // NS, IST).strftime(form)


def _series(scrip: Scrip) -> tuple[str, str]:
    return scrip.symbol, scrip.expiry


def _prices(row: Any, digits: int) -> dict[str, str]:
    names = {"into": "open", "inth": "high", "intl": "low", "intc": "close"}
    return {field: f"{float(row[name]):.{digits}f}" for field, name in names.items()}


def _body(body: bytes) -> dict[str, str]:
    """``jData=...&jKey=...`` split literally: an ampersand inside the JSON ends it."""
    pairs = (part.partition("=") for part in body.decode("utf-8", "replace").split("&"))
    return {name: value for name, _, value in pairs}
