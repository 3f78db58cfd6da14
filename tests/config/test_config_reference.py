"""The reference page of the configuration names every option with its default, and its example is a good one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from marketfeed.config import (
    CaptureConfig,
    DeadLettersConfig,
    FeedConfig,
    JournalConfig,
    LoggingConfig,
    MetricsConfig,
    SinkConfig,
    ValidationConfig,
    build,
)
from marketfeed.config.options import options_of, parse_bytes
from marketfeed.contract import VendorSettings
from marketfeed.plugins import Plugins

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
SECTIONS = {
    "[feeds.NAME]": (FeedConfig, {"name"}),
    "[vendors.NAME]": (VendorSettings, set[str]()),
    "[sinks.NAME]": (SinkConfig, {"name", "cls", "options"}),
    "[journal]": (JournalConfig, set[str]()),
    "[capture]": (CaptureConfig, set[str]()),
    "[dead_letters]": (DeadLettersConfig, set[str]()),
    "[validation]": (ValidationConfig, set[str]()),
    "[metrics]": (MetricsConfig, set[str]()),
    "[log]": (LoggingConfig, set[str]()),
}


def rows(section: str) -> dict[str, str]:
    """Option -> default of one table of the page."""
    text = PAGE.split(f"## `{section}`\n")[1].split("\n## ")[0]
    found: dict[str, str] = {}
    for names, default in re.findall(r"^\| (`.+?`) \| (.+?) \|", text, re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), default)
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_has_a_row_and_every_row_an_option(section: str) -> None:
    cls, hidden = SECTIONS[section]
    extra = {"type"} if cls is VendorSettings else set()
    assert set(rows(section)) == (set(options_of(cls)) - hidden) | extra


@pytest.mark.parametrize("section", SECTIONS)
def test_the_defaults_on_the_page_are_those_of_the_code(section: str) -> None:
    options = options_of(SECTIONS[section][0])
    for name, text in rows(section).items():
        if not text.startswith("`"):
            continue  # told in words
        value = tomllib.loads(f"x = {text.strip('`')}")["x"]
        default = options[name].default
        if name.endswith("_bytes"):
            value = parse_bytes(value)
        assert getattr(default, "word", default) == value or str(default) == value or list(default) == value


def test_the_example_is_a_good_configuration() -> None:
    example = PAGE.split("```toml\n")[1].split("```")[0]
    config = build(tomllib.loads(example), Plugins.discover(environ={}), {"KITE_API_KEY": "k"})
    assert config.feeds["main"].sinks == ("stdout", "archive")
