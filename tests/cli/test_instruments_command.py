"""``marketfeed instruments``, against sandboxes and against masters on disk."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from marketfeed import cli
from marketfeed.clock import Clock
from marketfeed.contract import VendorSettings
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.masters import _prefix, _write, master_day
from marketfeed.plugins import Plugins

SHARES = [
    Instrument(exchange="NSE", symbol=symbol, token=str(number * 256 + 1), vendor="kite", exchange_token=str(number))
    for symbol, number in (("INFY", 1594), ("TMPV", 3456), ("LT", 11483), ("NEW", 5))
]


def rest_url(vendor: str) -> str:
    return str(attrs.fields_dict(Plugins.discover().vendor(vendor).info.settings)["rest_url"].default)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.main, ["instruments", *words])


def documents(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def masters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with today's masters of two brokers, and yesterday's of Kite."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    import platformdirs

    folder = platformdirs.user_cache_path("marketfeed") / "instruments"
    today = master_day(Clock().wall_ns())
    noren = [attrs.evolve(one, vendor="flattrade", token=f"NSE|{one.exchange_token}") for one in SHARES[:3]]
    noren[1] = attrs.evolve(noren[1], symbol="TATAMOTORS", tick_size=0.1)
    yesterday = [attrs.evolve(SHARES[2], lot_size=9), attrs.evolve(SHARES[1], symbol="TATAMOTORS"), *SHARES[:1]]
    for vendor, day, table in (
        ("kite", today - timedelta(days=1), yesterday),
        ("kite", today, SHARES),
        ("flattrade", today, noren),
    ):
        prefix = _prefix(vendor, VendorSettings(rest_url=rest_url(vendor)))
        _write(folder / f"{prefix}{day}.msgpack", prefix, InstrumentTable(table), 0)
    return folder


def test_search_and_show_speak_of_kept_masters_without_credentials(masters: Path) -> None:
    (found,) = documents(run("search", "tmp"))
    assert (found["instrument"], found["token"]) == ("NSE:TMPV", "884737")
    rows = documents(run("show", "NSE:TMPV", "--vendor", "kite", "--vendor", "flattrade"))
    assert [(row["vendor"], row["instrument"], row["token"]) for row in rows] == [
        ("kite", "NSE:TMPV", "884737"),
        ("flattrade", "NSE:TATAMOTORS", "NSE|3456"),
    ]


def test_show_says_what_is_near(masters: Path) -> None:
    result = run("show", "NSE:INFI", "--vendor", "kite")
    assert result.exit_code == 2
    assert "did you mean 'NSE:INFY'" in result.output


def test_map_lists_doubts_and_writes_a_list_that_feeds_take(masters: Path, tmp_path: Path) -> None:
    output = tmp_path / "pairs.json"
    result = run("map", "kite", "flattrade", "--output", str(output))
    assert {row["doubt"] for row in documents(result)} == {"renamed", "tick size"}
    assert "3 pairs, 1 only at kite, 0 only at flattrade; doubts: 1 renamed, 1 tick size" in result.stderr
    for vendor, name in (("kite", "NSE:TMPV"), ("flattrade", "NSE:TATAMOTORS")):
        found = documents(run("search", f"@{output}", "--vendor", vendor))
        assert [row["instrument"] for row in found] == ["NSE:INFY", name, "NSE:LT"]


def test_map_lists_pairs_and_what_one_side_alone_has(masters: Path) -> None:
    pairs = documents(run("map", "kite", "flattrade", "--list", "pairs", "--instruments", "NSE:INFY"))
    assert [(row["first"]["token"], row["second"]["token"]) for row in pairs] == [("408065", "NSE|1594")]
    (alone,) = documents(run("map", "kite", "flattrade", "--list", "only-first"))
    assert alone["instrument"] == "NSE:NEW"


def test_diff_compares_with_the_day_before(masters: Path) -> None:
    result = run("diff")
    changes = {(row["change"], row["instrument"]): row["fields"] for row in documents(result)}
    assert changes == {
        ("changed", "NSE:LT"): {"lot_size": {"was": 9, "now": 1}},
        ("renamed", "NSE:TMPV"): {"symbol": {"was": "TATAMOTORS", "now": "TMPV"}},
        ("new", "NSE:NEW"): {},
    }
    assert "3 changes since" in result.stderr
    assert "no older master" in run("diff", "--vendor", "flattrade").output


@pytest.mark.process
def test_sync_asks_a_sandbox() -> None:
    (row,) = documents(run("sync", "kite", "--sandbox"))
    assert (row["vendor"], row["instruments"]) == ("kite", 119)
    assert "NFO" in row["exchanges"]
