"""Order updates, several accounts in one process, several connections of one account; against real sandboxes."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import marketfeed_flattrade
import marketfeed_kite
from waiting import until

from marketfeed import Feed, TickBatch, hookimpl
from marketfeed.config import load
from marketfeed.contract import Event
from marketfeed.plugins import Plugins
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore


def grown(feed: Feed, beyond: int) -> bool:
    return feed.pipeline.journal.committed > beyond


class Watcher:
    """A plugin that hears every event."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    @hookimpl
    def marketfeed_event(self, event: Event) -> None:
        self.heard.append(event)

    def of(self, kind: str) -> list[Event]:
        return [event for event in list(self.heard) if event.kind == kind]


def test_a_plugin_hears_kites_order_updates_while_ticks_flow() -> None:
    watcher = Watcher()
    with Sandbox("kite", seed=1, instruments=20, ticks_per_second=500, rate_limits=False) as box:
        feed = Feed(
            "kite",
            instruments=["NSE:INFY", "NSE:TCS"],
            mode="full",
            settings=box.settings(),
            plugins=Plugins.of(marketfeed_kite, watcher),
            tokens=MemoryTokenStore(),
        )
        with feed:
            until(lambda: "NSE:INFY" in feed.latest)
            for number in range(5):
                before = feed.pipeline.journal.committed
                assert box.order(order_id=f"K{number}", status="COMPLETE") == 1
                until(partial(grown, feed, before + 20))
            until(lambda: len(watcher.of("order_update")) == 5)
            assert feed.pipeline.parse is not None
            assert feed.pipeline.parse.counts.dead_lettered == 0
    assert [event.data["order_id"] for event in watcher.of("order_update")] == [f"K{number}" for number in range(5)]
    assert watcher.of("stopped")


TWO_ACCOUNTS = """
[feeds.first]
vendor = "mine"
instruments = ["NSE:INFY"]

[feeds.second]
vendor = "yours"
instruments = ["NSE:INFY", "NSE:TCS"]

[journal]
kind = "memory"
"""


def vendor_table(name: str, box: Sandbox) -> str:
    lines = [f"[vendors.{name}]", 'type = "flattrade"']
    for key, value in box.settings().items():
        lines.append(f"{key} = {str(value).lower()}" if isinstance(value, bool) else f'{key} = "{value}"')
    return "\n".join(lines) + "\n\n"


def test_two_accounts_of_one_broker_log_in_for_themselves_and_feed_one_consumer(tmp_path: Path) -> None:
    plugins, tokens = Plugins.of(marketfeed_flattrade), MemoryTokenStore()
    rows: Counter[str] = Counter()
    with (
        Sandbox("flattrade", instruments=20, ticks_per_second=300, user_id="FT1", access_token=None) as mine,
        Sandbox("flattrade", instruments=20, ticks_per_second=300, user_id="FT2", access_token=None) as yours,
    ):
        file = tmp_path / "feed.toml"
        file.write_text(TWO_ACCOUNTS + vendor_table("mine", mine) + vendor_table("yours", yours))
        config = load(file, plugins, {})
        first, second = (Feed.from_config(config, name, plugins=plugins, tokens=tokens) for name in ("first", "second"))

        def note(batch: TickBatch) -> None:
            rows[batch.origin.feed] += len(batch)

        first.on_batch(note)
        second.on_batch(note)
        with first, second:
            until(lambda: rows["first"] > 50 and rows["second"] > 50)
            sessions = [tokens.load("flattrade", user) for user in ("FT1", "FT2")]
            assert [one.account for one in sessions if one is not None] == ["FT1", "FT2"]
            assert len({one.access_token for one in sessions if one is not None}) == 2
            mine.expire()
            mine.drop()
            until(lambda: first.account.logins == 2)
            before = rows["first"]
            until(lambda: rows["first"] > before + 50)
            assert second.account.logins == 1
            assert second.pipeline.wires[0].counts.connects == 1
            assert set(second.latest) == {"NSE:INFY", "NSE:TCS"}


def test_three_connections_of_one_kite_key_carry_what_one_cannot_and_nothing_comes_twice() -> None:
    count = 6_010  # a Kite connection carries 3,000, a key three connections
    with Sandbox(
        "kite", seed=1, instruments=count, ticks_per_second=2000, rate_limits=False, log=True, log_kinds={"ticks"}
    ) as box:
        names = [one.key for one in box.instruments]
        feed = Feed("kite", instruments=names, mode="ltp", settings=box.settings(), tokens=MemoryTokenStore())
        with feed:
            until(lambda: len(feed.latest) == count)
            until(lambda: feed.pipeline.journal.committed > count + 1000)
            box.set_rate(0)
            until(lambda: feed.pipeline.journal.committed == sent(box).total())
            assert [wire.counts.connects for wire in feed.pipeline.wires] == [1, 1, 1]
            arrived: Counter[str] = Counter()
            reader = feed.pipeline.journal.reader(start=0)
            while len(batch := reader.take()):
                arrived.update(batch.origin.instruments[number].key for number in batch.rows["instrument"].tolist())
            reader.close()
            assert arrived == sent(box)
        carried = defaultdict(set)
        for frame in box.log:
            carried[frame.connection].update(frame.rows["instrument"].tolist())
    assert sorted(len(lines) for lines in carried.values()) == [10, 3000, 3000]
    assert len(set().union(*carried.values())) == count


def sent(box: Sandbox) -> Counter[str]:
    """Ticks put on the wire, per instrument."""
    keys = [one.key for one in box.instruments]
    return Counter(keys[line] for frame in list(box.log) for line in frame.rows["instrument"].tolist())
