"""Checks of a vendor in a whole feed, against its own sandbox over real sockets."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from marketfeed.clock import OffsetClock
from marketfeed.contract import Event
from marketfeed.dtypes import Rows
from marketfeed.feed import Feed
from marketfeed.instruments import Instrument
from marketfeed.sandbox.log import SentFrame
from marketfeed.testing.bench import Bench
from marketfeed.testing.manners import _settled
from marketfeed.testing.vendor_case import VendorCase

__all__ = ["FeedChecks"]

_DROPS = 3
_COUNT = 12


class Seen(NamedTuple):
    """A batch that a consumer got, copied."""

    symbols: list[str]
    rows: Rows


class FeedChecks(VendorCase):
    """Login, master, subscription, ticks, outages."""

    def _feed(self, bench: Bench, seen: list[Seen], names: Sequence[str]) -> Feed:
        feed = Feed(
            self.vendor,
            instruments=names,
            mode=self.modes[-1].word,
            settings={**bench.box.settings(), **bench.given},
            plugins=bench.plugins,
            tokens=bench.tokens,
            clock=OffsetClock(bench.box.clock_offset_ns),
            environ={},
        )
        feed.on_batch(lambda batch: seen.append(Seen(batch.symbols, batch.rows.copy())))
        return feed

    def _until(self, reached: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + self.patience_s
        while not reached():
            assert time.monotonic() < end, f"{what} did not happen within {self.patience_s:g} s"
            time.sleep(0.02)

    def _names(self, bench: Bench) -> list[str]:
        table = bench.plugin.instruments(bench.settings(), bench.session(), bench.http)
        return [one.key for one in bench.instruments if one.key in table][:_COUNT]

    def test_a_feed_loses_nothing_over_drops(self) -> None:
        with self.bench(ticks_per_second=400.0) as bench:
            seen: list[Seen] = []
            names = self._names(bench)
            with self._feed(bench, seen, names) as feed:
                for drop in range(_DROPS):
                    self._until(partial(_ticking, bench, seen, drop + 1), f"tick after {drop} drops")
                    bench.box.drop()
                self._until(lambda: bench.box.counts["connections"] > _DROPS, "the last reconnect")
                rows = _rows(seen)
                self._until(lambda: _rows(seen) > rows + 100, "ticks after the last reconnect")
                bench.box.set_rate(0)
                time.sleep(0.3)
                gaps = len(feed.gaps)
            lost = list(_lost(bench.box.log, bench.instruments, seen))
            assert lost == []
            assert gaps >= _DROPS, "an outage is a gap"
            assert set(names) == {symbol for batch in seen for symbol in batch.symbols}

    def test_a_feed_gives_no_unknown_instruments(self) -> None:
        with self.bench(ticks_per_second=400.0) as bench:
            seen: list[Seen] = []
            with self._feed(bench, seen, self._names(bench)):
                self._until(lambda: _rows(seen) > 300, "ticks")
            assert all((batch.rows["instrument"] >= 0).all() for batch in seen)

    def test_a_feed_subscribes_and_unsubscribes_while_it_runs(self) -> None:
        with self.bench(ticks_per_second=400.0) as bench:
            seen: list[Seen] = []
            names = self._names(bench)
            with self._feed(bench, seen, names[:3]) as feed:
                self._until(lambda: _rows(seen) > 20, "ticks")
                feed.subscribe(names[3:6])
                self._until(lambda: set(names[:6]) <= _symbols(seen), "ticks of added instruments")
                feed.unsubscribe(names[:3])
                time.sleep(0.5)
                seen.clear()
                self._until(lambda: _rows(seen) > 50, "ticks of the others")
                assert _symbols(seen) <= set(names[3:6]), "unsubscribed instruments still tick"

    def test_an_order_update_reaches_the_listeners(self) -> None:
        with self.bench(ticks_per_second=100.0) as bench:
            seen: list[Seen] = []
            events: list[Event] = []
            feed = self._feed(bench, seen, self._names(bench)[:3])
            feed.on_event(events.append)
            with feed:
                self._until(lambda: _rows(seen) > 5, "ticks")
                bench.box.order()
                self._until(lambda: any(one.kind == "order_update" for one in events), "the event")

    def test_a_feed_leaves_no_thread(self) -> None:
        with self.bench(ticks_per_second=100.0) as bench:
            before = Counter(map(repr, threading.enumerate()))
            seen: list[Seen] = []
            with self._feed(bench, seen, self._names(bench)[:3]):
                self._until(lambda: _rows(seen) > 5, "ticks")
            assert not _settled(lambda: Counter(map(repr, threading.enumerate())) - before), "threads are left"


def _ticking(bench: Bench, seen: Sequence[Seen], times: int) -> bool:
    """The feed has connected so often, and got ticks each time."""
    return bench.box.counts["connections"] >= times and _rows(seen) > 100 * times


def _rows(seen: Sequence[Seen]) -> int:
    return sum(len(batch.rows) for batch in list(seen))


def _symbols(seen: Sequence[Seen]) -> set[str]:
    return {symbol for batch in list(seen) for symbol in batch.symbols}


def _lost(sent: Sequence[SentFrame], instruments: Sequence[Instrument], seen: Sequence[Seen]) -> Iterator[str]:
    """Intact rows that were sent and not seen, instrument by instrument, in order."""
    wanted: dict[str, list[float]] = defaultdict(list)
    for frame in sent:
        if frame.intact:
            for row in frame.rows:
                wanted[instruments[int(row["instrument"])].key].append(float(row["last_price"]))
    found: dict[str, list[float]] = defaultdict(list)
    for batch in seen:
        for symbol, price in zip(batch.symbols, batch.rows["last_price"].tolist(), strict=True):
            found[symbol].append(price)
    for symbol, prices in wanted.items():
        rest = iter(found[symbol])
        for place, price in enumerate(prices):
            if not any(np.isclose(price, one, rtol=0, atol=1e-6) for one in rest):
                yield f"{symbol}: tick {place} of {len(prices)} ({price}) is lost or out of order"
                break
