"""The JSON and CSV texts of Kite's REST API, for the sandbox."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import numpy as np

from marketfeed.brokers import Credentials, HttpReply
from marketfeed.clock import IST, NS, ist_text
from marketfeed.dtypes import Rows
from marketfeed.enums import Kind
from marketfeed.instruments import Instrument

__all__ = ["DUMP_HEADER", "ORDER", "candles_of", "dump_row", "moment", "person", "quote_of", "refused", "success"]


def success(data: Any) -> HttpReply:
    return HttpReply(body=json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode())


def refused(status: int, error_type: str, message: str) -> HttpReply:
    body = {"status": "error", "message": message, "data": None, "error_type": error_type}
    return HttpReply(status=status, body=json.dumps(body, separators=(",", ":")).encode())


DUMP_HEADER = (
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,"
    "tick_size,lot_size,instrument_type,segment,exchange"
)


def dump_row(one: Instrument, token: int) -> str:
    """One line of the instruments dump. Made before the market opens, so the price is 0."""
    index = one.kind == Kind.INDEX
    derivative = one.kind in (Kind.FUTURE, Kind.CALL, Kind.PUT)
    kind = one.kind if derivative else "EQ"  # indices are EQ too
    segment = "INDICES" if index else f"{one.exchange}-{_SEGMENT_WORDS[kind]}" if derivative else one.exchange
    fields = (
        token,
        token >> 8,
        one.symbol,
        one.name,
        0.0,
        one.expiry or "",
        float(one.strike),
        0.0 if index else one.tick_size,
        0 if index else one.lot_size,
        kind,
        segment,
        one.exchange,
    )
    return ",".join(map(str, fields))


_SEGMENT_WORDS = {"FUT": "FUT", "CE": "OPT", "PE": "OPT"}


def quote_of(row: Any, token: int) -> dict[str, Any]:
    """A market quote. Times are India time without a zone; an index has fewer fields."""
    times = [ist_text(int(row[name]))[:19] if row[name] else None for name in ("exchange_ns", "last_trade_ns")]
    quote = {
        "instrument_token": token,
        "timestamp": times[0],
        "last_price": _number(row["last_price"]),
        "net_change": round(_number(row["last_price"]) - _number(row["close"]), 4),
        "ohlc": {name: _number(row[name]) for name in ("open", "high", "low", "close")},
    }
    if np.isnan(row["lower_circuit"]) and not row["last_trade_ns"]:  # an index
        return quote
    return quote | {
        "last_trade_time": times[1],
        "last_quantity": int(row["last_quantity"]),
        "average_price": _number(row["average_price"]),
        "volume": int(row["volume"]),
        "buy_quantity": int(row["buy_quantity"]),
        "sell_quantity": int(row["sell_quantity"]),
        "oi": int(row["open_interest"]),
        "oi_day_high": int(row["oi_day_high"]),
        "oi_day_low": int(row["oi_day_low"]),
        "lower_circuit_limit": _number(row["lower_circuit"]),
        "upper_circuit_limit": _number(row["upper_circuit"]),
        "depth": {"buy": _levels(row, "bid"), "sell": _levels(row, "ask")},
    }


def _levels(row: Any, side: str) -> list[dict[str, Any]]:
    columns = zip(row[f"{side}_price"], row[f"{side}_quantity"], row[f"{side}_orders"], strict=True)
    return [
        {"price": _number(price), "quantity": int(quantity), "orders": int(orders)}
        for price, quantity, orders in columns
    ]


def _number(price: Any) -> float | int:
    """A price as Kite writes it: whole numbers without a point, absent as 0."""
    if np.isnan(price):
        return 0
    value = float(price)
    return int(value) if value.is_integer() else value


def candles_of(rows: Rows, *, with_interest: bool) -> list[list[Any]]:
    """``[time, open, high, low, close, volume]``, and the open interest if asked for."""
    names = ["open", "high", "low", "close", "volume"] + ["open_interest"] * with_interest
    columns: list[list[Any]] = [rows[name].tolist() for name in names]
    if with_interest:
        columns[-1] = [max(value, 0) for value in columns[-1]]
    starts = (rows["start_ns"] // NS).tolist()
    texts = [datetime.fromtimestamp(start, IST).strftime("%Y-%m-%dT%H:%M:%S+0530") for start in starts]
    bars = zip(texts, *columns, strict=True)
    return [[_whole(value) for value in bar] for bar in bars]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def moment(text: str) -> int:
    """India time as the client writes it -> epoch seconds. A date alone is its midnight."""
    return int(datetime.fromisoformat(text).replace(tzinfo=IST).timestamp())


def person(account: Credentials) -> dict[str, Any]:
    return {
        "user_id": account.user_id,
        "user_type": "individual",
        "email": "sandbox@example.com",
        "user_name": "Sandbox User",
        "user_shortname": "Sandbox",
        "broker": "ZERODHA",
        "exchanges": ["NSE", "NFO", "BFO", "CDS", "BSE", "MCX", "BCD"],
        "products": ["CNC", "NRML", "MIS", "BO", "CO"],
        "order_types": ["MARKET", "LIMIT", "SL", "SL-M"],
        "avatar_url": None,
    }


ORDER: dict[str, Any] = {
    "unfilled_quantity": 0,
    "app_id": 1,
    "checksum": "",
    "order_id": "261120000000001",
    "exchange_order_id": "1000000000000001",
    "parent_order_id": None,
    "status": "COMPLETE",
    "status_message": None,
    "status_message_raw": None,
    "order_timestamp": "",
    "exchange_update_timestamp": "",
    "exchange_timestamp": "",
    "variety": "regular",
    "exchange": "NSE",
    "tradingsymbol": "RELIANCE",
    "instrument_token": 738561,
    "order_type": "MARKET",
    "transaction_type": "BUY",
    "validity": "DAY",
    "product": "CNC",
    "quantity": 1,
    "disclosed_quantity": 0,
    "price": 0,
    "trigger_price": 0,
    "average_price": 1412,
    "filled_quantity": 1,
    "pending_quantity": 0,
    "cancelled_quantity": 0,
    "market_protection": 0,
    "meta": {},
    "tag": None,
    "guid": "sandbox",
}
