"""Validation in a feed that runs: the sandbox is clean, and the settings arrive."""

from __future__ import annotations

import tomllib

import pytest

from marketfeed import Feed
from marketfeed.clock import OffsetClock
from marketfeed.config import build
from marketfeed.dtypes import REASON_MASK, Flag
from marketfeed.errors import ConfigError
from marketfeed.plugins import Plugins
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

FEED = '[feeds.main]\nvendor = "kite"\ninstruments = ["NSE:INFY"]\n'
CREDENTIALS = {"KITE_API_KEY": "k", "KITE_ACCESS_TOKEN": "t"}


def test_the_sandbox_is_not_doubted_and_the_actions_are_those_that_were_given() -> None:
    with Sandbox("kite", instruments=40, ticks_per_second=1000, rate_limits=False) as box:
        feed = Feed(
            "kite",
            instruments=["NSE:INFY", "NSE:TCS", "NSE:RELIANCE"],  # an index repeats itself within a second
            settings=box.settings(),
            validation={"repeat": "drop", "ahead_s": 2.5},
            tokens=MemoryTokenStore(),
            clock=OffsetClock(box.clock_offset_ns),
        )
        with feed:
            for batch in feed:
                assert not (batch["flags"] & REASON_MASK).any()
                if batch.first_row > 1500:
                    break
            assert feed.status()["validation"] == {}
            assert feed.pipeline.parse is not None
            assert feed.pipeline.parse.validator.actions[Flag.REPEAT] == "drop"


def test_the_table_says_what_is_wrong_with_it() -> None:
    text = FEED + '[validation]\nrepeat = "ignore"\nunknown_instrument = "keep"\nahead_s = -1\nspike = 3\n'
    with pytest.raises(ConfigError) as raised:
        build(tomllib.loads(text), Plugins.discover(environ={}), CREDENTIALS)
    assert {one.path for one in raised.value.problems} == {
        f"validation.{name}" for name in ("repeat", "unknown_instrument", "ahead_s", "spike")
    }
