"""Importing the package is quick, starts nothing and drags nothing in."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = [
    "pandas",
    "pyarrow",
    "kiteconnect",
    "twisted",
    "websocket",
    "prometheus_client",
    "structlog",
    "aiohttp",
    "click",
]


@pytest.mark.process
def test_import_starts_no_thread_and_imports_nothing_heavy() -> None:
    code = (
        "import json, sys, threading\n"
        "import marketfeed\n"
        "from marketfeed import TickBatch, Sink, hookimpl, Instrument\n"
        f"print(json.dumps([threading.active_count(), [n for n in {HEAVY!r} if n in sys.modules]]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == [1, []]


def test_the_front_door_offers_what_it_names() -> None:
    import marketfeed

    assert all(getattr(marketfeed, name) is not None for name in marketfeed.__all__)
    assert marketfeed.__all__ == sorted(marketfeed.__all__, key=lambda name: (name.strip("_")[0].islower(), name))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import marketfeed

    with pytest.raises(AttributeError, match="no attribute 'Fede'"):
        marketfeed.Fede  # noqa: B018
