"""Kite keeps the contract of all vendors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from marketfeed_kite import KiteSettings
from marketfeed_kite.auth import login_page

from marketfeed.clock import NS
from marketfeed.contract import Frame
from marketfeed.sandbox import Sandbox, totp
from marketfeed.testing import VendorContract

ROOT = Path(__file__).resolve().parents[3]
FRAMES = ROOT.parent / "shared" / "fixtures" / "kite" / "frames"


def browse(box: Sandbox) -> str:
    """What a person does in the browser; returns the address at which it ends."""
    account = box.world.credentials
    with requests.Session() as browser:
        form = {"user_id": account.user_id, "password": account.password}
        step = browser.post(f"{box.url}/api/login", data=form, timeout=10).json()["data"]
        code = totp(account.totp_secret, box.world.now_ns() // NS)
        form = {"user_id": account.user_id, "request_id": step["request_id"], "twofa_value": code}
        browser.post(f"{box.url}/api/twofa", data=form, timeout=10).raise_for_status()
        address = login_page(KiteSettings(api_key=account.api_key, login_url=box.url))
        while "request_token" not in address:
            address = browser.get(address, allow_redirects=False, timeout=10).headers["Location"]
            if not urlsplit(address).hostname:
                address = box.url + address
        return address


class TestKite(VendorContract):
    vendor = "kite"
    wrong_login = {"api_secret": "wrong"}
    documentation = ROOT / "docs" / "vendors" / "kite.md"

    def login(self, box: Sandbox) -> Mapping[str, Any]:
        return {"request_token": browse(box)}

    def captured(self) -> Sequence[Frame]:
        files = sorted(FRAMES.glob("*.bin"))
        if not files:
            pytest.skip("the captured frames are not here")
        return [Frame(file.read_bytes(), 1_600_000_000 * NS + place) for place, file in enumerate(files)]
