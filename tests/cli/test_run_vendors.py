"""``marketfeed run --sandbox`` for every vendor, and ``marketfeed sandbox`` with a vendor's own option."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from marketfeed.errors import MarketFeedError
from marketfeed.sandbox import spawn_sandbox

pytestmark = pytest.mark.process

CONFIG = """
[feeds.main]
vendor = "{vendor}"
mode = "full"
instruments = ["NSE:RELIANCE", "BSE:RELIANCE", "NSE:NIFTY 50"]
sinks = ["jsonl"]
[vendors.{vendor}]
{more}
[sinks.jsonl]
path = "ticks.jsonl"
[journal]
folder = "journal"
[metrics]
port = false
"""


@pytest.mark.parametrize(
    ("vendor", "more", "token"),
    [
        ("kite", "", "738561"),
        ("flattrade", "", "NSE|2885"),
        ("flattrade", 'connect_generation = "c"', "NSE|2885"),
        ("mstock", 'dialect = "a"', "1:2885"),
        ("mstock", 'dialect = "b"', "1:2885"),
    ],
)
def test_ticks_of_every_vendors_sandbox_reach_the_file(tmp_path: Path, vendor: str, more: str, token: str) -> None:
    (tmp_path / "feed.toml").write_text(CONFIG.format(vendor=vendor, more=more))
    command = [sys.executable, "-m", "marketfeed", "run", "feed.toml", "--sandbox", "--max-ticks", "100"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    ticks = [json.loads(line) for line in (tmp_path / "ticks.jsonl").read_text().splitlines()]
    assert len(ticks) >= 100
    assert {(tick["exchange"], tick["symbol"]) for tick in ticks} == {
        *(("NSE", "RELIANCE"), ("BSE", "RELIANCE"), ("NSE", "NIFTY 50"))
    }
    assert token in {tick["token"] for tick in ticks}
    assert {tick["vendor"] for tick in ticks} == {vendor}


def test_an_option_of_the_vendor_goes_through_to_its_broker() -> None:
    with spawn_sandbox("mstock", dialect="a") as box:
        assert box.settings()["dialect"] == "a"
        assert box.settings()["api_key"] == "test+key/1=@"


def test_an_option_that_nobody_knows_is_refused_by_name() -> None:
    with (
        pytest.raises(MarketFeedError, match="unknown options: dialect; choose from"),
        spawn_sandbox("kite", dialect="a"),
    ):
        pass
    with pytest.raises(MarketFeedError, match="dialect is 'c'; choose a or b"), spawn_sandbox("mstock", dialect="c"):
        pass
