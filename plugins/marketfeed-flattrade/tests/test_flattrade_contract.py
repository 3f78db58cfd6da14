"""FlatTrade keeps the contract of all vendors."""

from __future__ import annotations

from pathlib import Path

from marketfeed.enums import Mode
from marketfeed.testing import VendorContract


class TestFlattrade(VendorContract):
    vendor = "flattrade"
    wrong_login = {"password": "wrong"}
    wire_modes = {Mode.LTP: Mode.QUOTE}  # a touchline is the least there is
    documentation = Path(__file__).resolve().parents[3] / "docs" / "vendors" / "flattrade.md"
