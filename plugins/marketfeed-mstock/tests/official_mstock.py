"""Runs in an environment of its own: an official mStock SDK on the sandbox. Knows nothing of marketfeed.

``python official_mstock.py TASK.json RESULT.json``: logs in, calls REST, subscribes, and writes what the SDK made of
it, with the raw messages. The SDK writes its logs into the working directory.
"""

from __future__ import annotations

import base64
import importlib
import json
import logging
import sys
import urllib.request
from pathlib import Path
from threading import Timer
from typing import Any


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    package = f"tradingapi_{task['dialect']}"
    sdk = importlib.import_module(f"{package}.mconnect")
    result = rest_a(sdk.MConnect(), task) if task["dialect"] == "a" else rest_b(sdk.MConnectB(), task)
    ticker = importlib.import_module(f"{package}.mticker")
    logging.getLogger("mticker.log").setLevel(logging.CRITICAL)  # it writes five lines per quote packet
    result |= watch(ticker.MTicker(task["key"], result.pop("token"), task["ws_url"]), task)
    Path(sys.argv[2]).write_text(json.dumps(result))


def rest_a(client: Any, task: dict[str, Any]) -> dict[str, Any]:
    client.default_root_uri = task["url"] + "/"
    result: dict[str, Any] = {"login": client.login(task["user"], task["password"]).json()}
    result["wrong"] = refused(lambda: client.verify_totp(task["key"], "000000"))
    session = client.verify_totp(task["key"], task["totp"]).json()["data"]
    client.set_api_key(task["key"])
    client.set_access_token(session["access_token"])
    result["instruments"] = client.get_instruments().decode()
    result["minutes"] = client.get_historical_chart("NSE", "2885", "minute", *task["window"]).json()["data"]["candles"]
    result["today"] = client.get_intraday_chart("1", "2885", "minute").json()["data"]["candles"]
    result["quotes"] = client.get_ohlc(["NSE:INFY", "NSE:RELIANCE"]).json()["data"]
    return result | {"token": session["access_token"]}


def rest_b(client: Any, task: dict[str, Any]) -> dict[str, Any]:
    client.default_root_uri = task["url"] + "/"
    client.set_api_key(task["key"])
    first = client.login(task["user"], task["password"]).json()
    result: dict[str, Any] = {"login": first}
    step = first["data"]["jwtToken"]
    result["wrong"] = refused(lambda: client.verify_totp(task["key"], step, "000000"))
    session = client.verify_totp(task["key"], step, task["totp"]).json()["data"]
    client.set_access_token(session["jwtToken"])
    result["instruments"] = plain(client.get_instruments())
    window = [one[:16] for one in task["window"]]
    answer = client.get_historical_chart("NSE", "2885", "ONE_MINUTE", *window)
    result["minutes"] = answer.json()["data"]["candles"]
    result["today"] = client.get_intraday_chart("1", "2885", "ONE_MINUTE").json()["data"]["candles"]
    quotes = client.get_market_quote("OHLC", {"NSE": ["1594", "2885"]}).json()["data"]["fetched"]
    result["quotes"] = {f"{one['exchange']}:{one['tradingSymbol'].removesuffix('-EQ')}": one for one in quotes}
    return result | {"token": session["jwtToken"]}


def plain(answer: Any) -> str:
    return answer.decode() if isinstance(answer, bytes) else answer.text


def refused(call: Any) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def watch(ticker: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Messages until there are enough, then an order update; each message with what was decoded."""
    frames: list[str] = []
    decoded: list[Any] = []
    orders: list[Any] = []
    errors: list[str] = []

    def opened(_: Any) -> None:
        ticker.send_login_after_connect()
        for exchange, mode, tokens in task["subscribe"]:
            if task["dialect"] == "a":
                ticker.subscribe(tokens)
                ticker.set_mode(mode, tokens)
            else:
                ticker.subscribe(exchange, tokens, mode)

    def keep(_: Any, payload: bytes, is_binary: bool) -> None:
        if is_binary and len(payload) > 4:
            frames.append(base64.b64encode(payload).decode())

    def take(_: Any, ticks: list[dict[str, Any]]) -> None:
        decoded.append(ticks)
        if len(decoded) == task["messages"]:
            request = urllib.request.Request(task["url"] + "/sandbox/order", data=b"{}")
            urllib.request.urlopen(request, timeout=10).close()

    def ordered(_: Any, order: dict[str, Any]) -> None:
        orders.append(order)
        ticker.on_error = None  # stopping cuts the line, which the SDK calls an error
        ticker.stop()

    ticker.on_open, ticker.on_message, ticker.on_ticks, ticker.on_order_update = opened, keep, take, ordered
    ticker.on_connect = lambda ws, _: None
    ticker.on_error = lambda _, code, reason: errors.append(f"{code} {reason}")
    deadline = Timer(task["seconds"], ticker.stop)
    deadline.daemon = True
    deadline.start()
    ticker.connect()
    return {"frames": frames[: len(decoded)], "decoded": decoded, "orders": orders, "errors": errors}


if __name__ == "__main__":
    main()
