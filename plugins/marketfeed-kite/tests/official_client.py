"""Runs in an environment of its own: the official SDK as a client of the sandbox. Knows nothing of marketfeed.

``python official_client.py TASK.json RESULT.json``: exchanges the request token, calls REST, subscribes,
and writes what KiteConnect and KiteTicker made of it, with the raw frames.
"""

from __future__ import annotations

import base64
import json
import sys
from datetime import date, datetime
from pathlib import Path
from threading import Timer
from typing import Any

from kiteconnect import KiteConnect, KiteTicker
from kiteconnect.exceptions import TokenException


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    client = KiteConnect(api_key=task["api_key"], root=task["url"])
    result: dict[str, Any] = {"wrong_secret": wrong_secret(client, task)}
    session = client.generate_session(task["request_token"], api_secret=task["api_secret"])
    result["session"] = {name: session[name] for name in ("user_id", "api_key", "login_time")}
    client.set_access_token(session["access_token"])
    result["profile"] = client.profile()
    instruments = client.instruments()
    result["instruments"] = instruments
    result["nse"] = len(client.instruments("NSE"))
    result["ltp"] = client.ltp(["NSE:INFY", "NSE:NIFTY 50"])
    token = next(one["instrument_token"] for one in instruments if one["tradingsymbol"] == "INFY")
    days = (task["from"], task["to"])
    result["minutes"] = client.historical_data(token, *days, "minute", oi=True)
    result["days"] = client.historical_data(token, *days, "day")
    tokens = [one["instrument_token"] for one in instruments][: task["subscribe"]]
    result |= watch(task, session["access_token"], tokens)
    Path(sys.argv[2]).write_text(json.dumps(result, default=plain))


def wrong_secret(client: Any, task: dict[str, Any]) -> str:
    try:
        client.generate_session(task["request_token"], api_secret="not-the-secret")
    except TokenException as error:
        return f"{error.code} {type(error).__name__}"
    return "accepted"


def watch(task: dict[str, Any], access_token: str, tokens: list[int]) -> dict[str, Any]:
    """Frames until every token came in full mode and enough frames are there, each with what was decoded."""
    ticker = KiteTicker(task["api_key"], access_token, root=task["ws_url"])
    frames: list[str] = []
    decoded: list[Any] = []
    errors: list[str] = []
    full: set[int] = set()

    def subscribe(ws: Any, _: Any) -> None:
        ws.subscribe(tokens)
        ws.set_mode(ws.MODE_FULL, tokens)

    def keep(_: Any, payload: bytes, is_binary: bool) -> None:
        if is_binary and len(payload) > 4:
            frames.append(base64.b64encode(payload).decode())

    def take(ws: Any, ticks: list[dict[str, Any]]) -> None:
        decoded.append(ticks)
        full.update(tick["instrument_token"] for tick in ticks if tick["mode"] == "full")
        if len(full) == len(tokens) and len(frames) >= task["frames"]:
            ws.on_error = None  # stopping cuts the line, which the SDK calls an error
            ws.stop()

    ticker.on_connect, ticker.on_message, ticker.on_ticks = subscribe, keep, take
    ticker.on_error = lambda _, code, reason: errors.append(f"{code} {reason}")
    deadline = Timer(task["seconds"], ticker.stop)
    deadline.daemon = True
    deadline.start()
    ticker.connect()
    return {"tokens": tokens, "frames": frames[: len(decoded)], "decoded": decoded, "errors": errors}


def plain(value: Any) -> Any:
    """Times as epoch seconds where the SDK made them from such, as text elsewhere."""
    if isinstance(value, datetime):
        return value.timestamp() if value.tzinfo is None else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(type(value).__name__)


if __name__ == "__main__":
    main()
