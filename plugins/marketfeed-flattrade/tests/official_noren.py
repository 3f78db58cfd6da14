"""Runs in an environment of its own: an official Noren client on the sandbox. Knows nothing of marketfeed.

``python official_noren.py TASK.json RESULT.json``: logs in, calls REST, subscribes, and writes what it saw.
"""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

from NorenRestApiPy.NorenApi import NorenApi


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    api = NorenApi(host=task["host"], websocket=task["websocket"])
    result: dict[str, Any] = {}
    if task["code"]:
        # The builds with OAuth: the code of the login page for a token, which goes into a header of REST calls.
        result["wrong"] = api.getAccessToken("no-code", task["secret"], task["key"], "TEST01")
        result["login"] = {"uid": api.getAccessToken(task["code"], task["secret"], task["key"], "TEST01")[1]}
    else:
        result["wrong"] = login(api, task, "000000")
        result["login"] = login(api, task, task["totp"])
    result["search"] = api.searchscrip("NSE", "RELIANCE")
    result["quote"] = api.get_quotes("NSE", "2885")
    result["minutes"] = api.get_time_price_series("NSE", "2885", task["from"], task["to"], 1)
    result["days"] = api.get_daily_price_series("NSE", "RELIANCE-EQ", task["from"], task["to"])
    result |= watch(api, task)
    Path(sys.argv[2]).write_text(json.dumps(result))


def login(api: Any, task: dict[str, Any], code: str) -> Any:
    return api.login("TEST01", task["password"], code, "TEST01_U", task["secret"], "abc1234")


def watch(api: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Messages until there are enough and an order update has come."""
    messages: list[dict[str, Any]] = []
    orders: list[dict[str, Any]] = []
    errors: list[str] = []
    opened, enough, ordered = threading.Event(), threading.Event(), threading.Event()

    def take(message: dict[str, Any]) -> None:
        messages.append(dict(message))
        if len(messages) >= task["messages"]:
            enough.set()

    def order(message: dict[str, Any]) -> None:
        orders.append(message)
        ordered.set()

    api.start_websocket(
        subscribe_callback=take,
        order_update_callback=order,
        socket_open_callback=opened.set,
        socket_error_callback=lambda error: errors.append(str(error)),
    )
    seen = {"opened": opened.wait(20)}
    api.subscribe(task["touchline"], 1)
    api.subscribe(task["depth"], 2)
    seen["enough"] = enough.wait(task["seconds"])
    urllib.request.urlopen(urllib.request.Request(task["control"] + "/sandbox/order", data=b"{}"), timeout=10).close()
    seen["ordered"] = ordered.wait(10)
    api.close_websocket()
    return {**seen, "messages": messages, "orders": orders, "errors": errors}


if __name__ == "__main__":
    main()
