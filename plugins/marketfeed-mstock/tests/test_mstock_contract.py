"""mStock keeps the contract of all vendors, in both dialects."""

from __future__ import annotations

from pathlib import Path

from marketfeed.testing import VendorContract

PAGE = Path(__file__).resolve().parents[3] / "docs" / "vendors" / "mstock.md"


class TestTypeA(VendorContract):
    vendor = "mstock"
    settings = {"dialect": "a"}
    wrong_login = {"password": "wrong"}
    documentation = PAGE


class TestTypeB(VendorContract):
    vendor = "mstock"
    settings = {"dialect": "b"}
    wrong_login = {"password": "wrong"}
    documentation = PAGE
