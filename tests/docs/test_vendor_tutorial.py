"""The tutorial on vendors, followed to the letter, and how long its code is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from docs._reader import ROOT, Here

PAGE = ROOT / "docs" / "tutorial" / "vendor.md"
TEMPLATE = ROOT / "plugins" / "_template-vendor" / "src" / "marketfeed_myvendor"


@pytest.mark.process
def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    reader = Here(tmp_path, PAGE.name, "marketfeed-acme")
    reader.follow()
    checks, plugins, check, _, found = reader.shown[1:]
    assert re.search(r" 1\d\d passed", checks), checks
    assert "acme" in plugins
    assert "problem" not in check
    assert "NSE:RELIANCE" in found
    ticks = [json.loads(line) for line in (tmp_path / "ticks.jsonl").read_text().splitlines()]
    assert 500 <= len(ticks) < 600  # the batch that reaches it is finished
    assert {(tick["vendor"], tick["symbol"]) for tick in ticks} == {("acme", "RELIANCE"), ("acme", "INFY")}


def test_the_vendor_is_as_short_as_the_page_says() -> None:
    lines = {file.name: sum(map(bool, map(str.strip, file.read_text().splitlines()))) for file in TEMPLATE.glob("*.py")}
    sandbox = lines.pop("sandbox.py")
    said = re.search(r"your own in (\d+) lines, and its sandbox in (\d+) more", PAGE.read_text(encoding="utf-8"))
    assert said is not None
    assert (sum(lines.values()), sandbox) == tuple(map(int, said.groups()))
    assert sum(lines.values()) < 150
