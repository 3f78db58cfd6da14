"""The plugin keeps the contract of all vendors."""

from __future__ import annotations

from pathlib import Path

import marketfeed_myvendor

from marketfeed.plugins import Plugins
from marketfeed.testing import VendorContract


class TestMyvendor(VendorContract):
    vendor = "myvendor"
    found = Plugins.of(marketfeed_myvendor)
    wrong_login = {"api_secret": "wrong"}
    documentation = Path(__file__).resolve().parents[1] / "README.md"
