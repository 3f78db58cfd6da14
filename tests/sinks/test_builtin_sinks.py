"""The core's own sinks as a plugin: found by the hook, described by their options, light to import."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from marketfeed.contract import Sink
from marketfeed.sinks import marketfeed_sinks

SINKS = marketfeed_sinks()
REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "sinks.md"


def options(cls: Any) -> list[str]:
    return [field.name for field in attrs.fields(cls) if field.init]


def test_the_hook_names_them() -> None:
    assert sorted(SINKS) == ["callable", "csv", "jsonl", "memory", "stdout"]


@pytest.mark.parametrize("name", list(SINKS))
def test_each_is_an_attrs_class_whose_fields_are_options(name: str) -> None:
    cls = SINKS[name]
    assert issubclass(cls, Sink)
    assert options(cls)
    assert not [one for one in options(cls) if one.startswith("_")]
    assert cls.accepts == {"ticks", "candles"}


@pytest.mark.parametrize("name", list(SINKS))
def test_each_option_stands_in_the_reference(name: str) -> None:
    section = re.search(rf"^## `{name}`\n(.*?)(?=^## |\Z)", REFERENCE.read_text(encoding="utf-8"), re.M | re.S)
    assert section, name
    assert [one for one in options(SINKS[name]) if f"| `{one}` |" not in section[1]] == []


@pytest.mark.process
def test_importing_the_plugin_loads_no_sink() -> None:
    code = (
        "import sys, marketfeed.sinks; print(*(name for name in sys.modules if name.startswith('marketfeed.sinks.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == ""
