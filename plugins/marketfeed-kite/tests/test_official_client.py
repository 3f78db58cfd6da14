"""The official SDK, in an environment of its own, as a client of the sandbox and as the judge of our parser."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests

from marketfeed.clock import IST, NS, to_ns
from marketfeed.contract import Frame
from marketfeed.instruments import TokenMap
from marketfeed.sandbox import Sandbox, totp

pytestmark = [pytest.mark.oracle, pytest.mark.process]

SDK = "kiteconnect==5.2.2"
ROOT = Path(__file__).resolve().parents[3]
DRIVER = Path(__file__).with_name("official_client.py")
SUBSCRIBED, FRAMES = 500, 60


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """One process at a time; a lock older than ten minutes was left by a dead one."""
    end = time.monotonic() + 600
    while True:
        try:
            lock.touch(exist_ok=False)
            break
        except FileExistsError:
            age = time.time() - lock.stat().st_mtime if lock.exists() else 0
            if age > 600 or time.monotonic() > end:
                lock.unlink(missing_ok=True)
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def official_python() -> Path:
    """An interpreter that has the official SDK; made once, kept under ``.tox``."""
    folder = ROOT / ".tox" / f"official-kite-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = folder / "ready"
    folder.parent.mkdir(exist_ok=True)
    with only_one(folder.with_suffix(".lock")):
        if not ready.exists() or ready.read_text() != SDK:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)

            install = [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                SDK,
                "setuptools<81",
            ]
            done = subprocess.run(install, capture_output=True, text=True, timeout=500, check=False)
            if done.returncode:
                pytest.skip(f"{SDK} could not be installed: {done.stderr.strip()[-300:]}")
            ready.write_text(SDK)
    return python


def request_token(box: Sandbox) -> str:
    """What the login page hands to the redirect URL."""
    form = {"user_id": "TEST01", "password": "test-pass-1"}
    with requests.Session() as browser:
        first = browser.post(box.url + "/api/login", data=form, timeout=10).json()["data"]
        code = totp("JBSWY3DPEHPK3PXP", int(time.time()))
        second = {"user_id": "TEST01", "request_id": first["request_id"], "twofa_value": code}
        browser.post(box.url + "/api/twofa", data=second, timeout=10)
        url = box.url + "/connect/login?api_key=testkey&v=3"
        for _ in range(3):
            location = browser.get(url, allow_redirects=False, timeout=10).headers["Location"]
            token = parse_qs(urlsplit(location).query).get("request_token")
            if token:
                return token[0]
            url = box.url + location
    raise AssertionError("no request token")


@pytest.fixture(scope="module")
def session(
    official_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sandbox, dict[str, Any]]]:
    """The sandbox after the official client has been there, and what that client saw."""
    folder = tmp_path_factory.mktemp("official")
    options: dict[str, Any] = {"instruments": 600, "ticks_per_second": 4000.0, "start": "2026-11-20 10:00:00"}
    with Sandbox("kite", access_token=None, log=True, **options) as box:
        task = {
            "url": box.url,
            "ws_url": box.url.replace("http", "ws"),
            "api_key": "testkey",
            "api_secret": "testsecret",
            "request_token": request_token(box),
            "from": "2026-11-18 00:00:00",
            "to": "2026-11-20 09:59:00",
            "subscribe": SUBSCRIBED,
            "frames": FRAMES,
            "seconds": 60,
        }
        (folder / "task.json").write_text(json.dumps(task))
        command = [str(official_python), str(DRIVER), str(folder / "task.json"), str(folder / "result.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        yield box, json.loads((folder / "result.json").read_text())


@pytest.fixture
def seen(session: tuple[Sandbox, dict[str, Any]]) -> dict[str, Any]:
    return session[1]


@pytest.fixture
def box(session: tuple[Sandbox, dict[str, Any]]) -> Sandbox:
    return session[0]


def test_it_logs_in_and_meets_the_refusal_of_a_wrong_checksum(seen: dict[str, Any]) -> None:
    assert seen["wrong_secret"] == "403 TokenException"
    assert (seen["session"]["user_id"], seen["session"]["api_key"]) == ("TEST01", "testkey")
    assert seen["profile"]["user_id"] == "TEST01"


def test_it_reads_the_instruments(seen: dict[str, Any], box: Sandbox) -> None:
    assert len(seen["instruments"]) == len(box.instruments)
    assert seen["nse"] == sum(one.exchange == "NSE" for one in box.instruments)
    for read, made in zip(seen["instruments"], box.instruments, strict=True):
        assert (read["tradingsymbol"], read["exchange"]) == (made.symbol, made.exchange)
        assert read["expiry"] == (made.expiry.isoformat() if made.expiry else "")
        assert (read["strike"], read["instrument_token"] >> 8) == (made.strike, int(read["exchange_token"]))


def test_it_reads_the_history(seen: dict[str, Any]) -> None:
    starts = [datetime.fromisoformat(candle["date"]) for candle in seen["minutes"]]
    assert len(starts) == 375 + 375 + 45
    assert starts[0] == datetime(2026, 11, 18, 9, 15, tzinfo=IST)
    assert starts[-1] == datetime(2026, 11, 20, 9, 59, tzinfo=IST)
    assert all(early < late for early, late in pairwise(starts))
    assert all(candle["low"] <= candle["close"] <= candle["high"] for candle in seen["minutes"])
    assert "oi" in seen["minutes"][0]
    assert len(seen["days"]) == 3
    assert sum(candle["volume"] for candle in seen["minutes"]) == sum(day["volume"] for day in seen["days"])


def test_it_gets_every_instrument_in_full_mode_without_an_error(seen: dict[str, Any]) -> None:
    full = {tick["instrument_token"] for ticks in seen["decoded"] for tick in ticks if tick["mode"] == "full"}
    assert full == set(seen["tokens"])
    assert len(full) == SUBSCRIBED
    assert seen["errors"] == []


def test_what_it_received_is_what_the_sandbox_logged(seen: dict[str, Any], box: Sandbox) -> None:
    sent = np.concatenate([frame.rows[["instrument", "last_price"]] for frame in box.log])
    received = [(tick["instrument_token"], tick["last_price"]) for ticks in seen["decoded"] for tick in ticks]
    logged = [(int(box.broker.token(line)), price) for line, price in sent[: len(received)].tolist()]
    assert received == [(token, pytest.approx(price)) for token, price in logged]


def test_our_parser_reads_the_frames_as_the_official_one_does(seen: dict[str, Any]) -> None:
    from marketfeed_kite.parser import KiteParser

    tokens = cast("list[int]", seen["tokens"])
    parse: Callable[..., Any] = KiteParser(TokenMap({str(token): number for number, token in enumerate(tokens)}))
    compared = 0
    for text, ticks in zip(seen["frames"], seen["decoded"], strict=True):
        parsed = parse([Frame(base64.b64decode(text), 1)])
        assert list(parsed.bad) == []
        assert len(parsed.rows) == len(ticks)
        for row, tick in zip(parsed.rows, ticks, strict=True):
            assert tokens[row["instrument"]] == tick["instrument_token"]
            compared += compare(row, tick)
    assert compared > 10_000


PLAIN = {
    "last_price": "last_price",
    "last_traded_quantity": "last_quantity",
    "average_traded_price": "average_price",
    "volume_traded": "volume",
    "total_buy_quantity": "buy_quantity",
    "total_sell_quantity": "sell_quantity",
    "oi": "open_interest",
    "oi_day_high": "oi_day_high",
    "oi_day_low": "oi_day_low",
}
TIMES = {"last_trade_time": "last_trade_ns", "exchange_timestamp": "exchange_ns"}


def compare(row: Any, tick: dict[str, Any]) -> int:
    """Every field of the official dict against our row; returns how many."""
    pairs = [(tick[name], row[ours]) for name, ours in PLAIN.items() if name in tick]
    pairs += [(int(tick[name]) * NS, row[ours]) for name, ours in TIMES.items() if name in tick]
    pairs += [(value, row[name]) for name, value in tick.get("ohlc", {}).items()]
    for side, ours in (("buy", "bid"), ("sell", "ask")):
        for level, entry in enumerate(tick.get("depth", {}).get(side, [])):
            pairs += [(entry[name], row[f"{ours}_{name}"][level]) for name in ("price", "quantity", "orders")]
    for official, parsed in pairs:
        assert parsed == official, (tick["instrument_token"], tick)
    return len(pairs)


def test_the_login_time_is_on_the_sandboxs_clock(seen: dict[str, Any]) -> None:
    # The SDK drops the zone, so its number is off by the machine's; whole hours and a half are all that can differ.
    offset = (seen["session"]["login_time"] - to_ns("2026-11-20 10:00:00") / NS) % 1800
    assert offset < 60
