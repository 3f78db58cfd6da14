"""Kite, mStock and FlatTrade side by side on one market: the same prices at the end, nothing altered on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray
from trials._report import Report
from waiting import until

from marketfeed import Feed
from marketfeed.clock import NS, OffsetClock
from marketfeed.dtypes import MODE_MASK, TICK, Rows
from marketfeed.enums import Kind, Mode
from marketfeed.journal import Journal, ticks_folder
from marketfeed.sandbox import Sandbox
from marketfeed.sandbox.log import SentFrame

pytestmark = pytest.mark.process

VENDORS: dict[str, tuple[str, dict[str, Any]]] = {
    "kite": ("kite", {}),
    "mstock a": ("mstock", {"dialect": "a"}),
    "mstock b": ("mstock", {"dialect": "b"}),
    "flattrade": ("flattrade", {}),
}
INSTRUMENTS = 53
"""The three indices and fifty shares of the catalogue, which all three vendors name alike."""
START = "2026-11-20 10:00:00"
PRICES = ("last_price", "open", "high", "low", "close")
DAY = ("average_price", "last_quantity", "volume", "buy_quantity", "sell_quantity")
DEPTH = (*("last_trade_ns", "bid_price", "ask_price", "bid_quantity", "ask_quantity"), "bid_orders", "ask_orders")

Table = NDArray[np.int64]
Modes = NDArray[np.integer[Any]]


@attrs.define(eq=False)
class Pair:
    """A sandbox and the feed on it."""

    name: str
    box: Sandbox
    feed: Feed
    folder: Path


def table(rows: Rows, modes: Modes, is_index: NDArray[np.bool_]) -> Table:
    """Every field that all vendors transmit, as whole numbers; what a mode or an index has not is 0.

    An index has prices and a time only: what else its row holds differs by the vendor and means nothing.
    """
    share = ~is_index[rows["instrument"]][:, None]
    full = (modes == Mode.FULL)[:, None]
    columns = [rows["instrument"].astype(np.int64)[:, None], (rows["exchange_ns"] // NS)[:, None] * full]
    for name in (*PRICES, *DAY, *DEPTH):
        scale = 100 if "price" in name or name in PRICES else 1
        part = np.rint(np.nan_to_num(rows[name]) * scale).astype(np.int64)
        part = part if part.ndim == 2 else part[:, None]
        if name not in PRICES:
            part = part * share
        columns.append(part * full if name in DEPTH else part)
    return np.concatenate(columns, axis=1)


def sent_tables(box: Sandbox) -> Iterator[tuple[Table, Table]]:
    """For each connection what must have arrived, and what may have: its last frames, lost with the line."""
    by_connection: dict[int, tuple[list[SentFrame], list[SentFrame]]] = {}
    is_index = indices(box)
    for frame in box.log:
        intact, lost = by_connection.setdefault(frame.connection, ([], []))
        (intact if frame.intact else lost).append(frame)
        assert frame.intact or frame.faults == ("cut",)
        assert not (frame.intact and lost), "an intact frame behind a lost one"
    for intact, lost in by_connection.values():
        yield joined(intact, is_index), joined(lost, is_index)


def joined(frames: Sequence[SentFrame], is_index: NDArray[np.bool_]) -> Table:
    """One table of all frames; the rows are joined as plain words, which is quicker."""
    words = [frame.rows.view(np.uint64) for frame in frames]
    modes = [frame.modes for frame in frames]
    rows = np.concatenate([np.empty(0, np.uint64), *words]).view(TICK)
    return table(rows, np.concatenate([np.empty(0, np.uint8), *modes]), is_index)


def keys(box: Sandbox) -> list[str]:
    return [one.key for one in box.instruments]


def indices(box: Sandbox) -> NDArray[np.bool_]:
    return np.array([one.kind == Kind.INDEX for one in box.instruments], bool)


def journal_table(pair: Pair) -> Table:
    names, is_index = keys(pair.box), indices(pair.box)
    parts = []
    with Journal.attach(ticks_folder(pair.folder, "main")) as journal:
        lines = np.array([names.index(one.key) for one in journal.instruments], np.int32)
        reader = journal.reader(start="oldest")
        while len(batch := reader.take()):
            rows = batch.rows.copy()
            rows["instrument"] = lines[rows["instrument"]]
            parts.append(table(rows, rows["flags"] & MODE_MASK, is_index))
        reader.close()
    return np.concatenate(parts)


def compare(pair: Pair) -> tuple[int, int]:
    """Rows that had to arrive and did, unaltered and in order; and lost ones that arrived all the same."""
    found, at, extra = journal_table(pair), 0, 0
    connections = list(sent_tables(pair.box))
    for number, (must, may) in enumerate(connections):
        same = found[at : at + len(must)] == must if len(found) >= at + len(must) else np.zeros((1, 1), bool)
        assert same.all(), (pair.name, number, at, np.argwhere(~same)[:3].tolist())
        at += len(must)
        following = connections[number + 1][0][:20] if number + 1 < len(connections) else found[len(found) :]
        more = arrived(found[at:], may, following)
        at, extra = at + more, extra + more
    assert at == len(found), f"{pair.name}: {len(found) - at} rows that nobody sent"
    return at - extra, extra


def arrived(rest: Table, may: Table, following: Table) -> int:
    """How many of the lost rows came: as many as make what follows fit."""
    for count in range(len(may), -1, -1):
        head, tail = rest[:count], rest[count : count + len(following)]
        if np.array_equal(head, may[:count]) and np.array_equal(tail, following) and (len(tail) or count == len(rest)):
            return count
    raise AssertionError("what follows a lost line fits nothing that was sent")


def level(pairs: Sequence[Pair]) -> None:
    """Let every market make as many ticks of each instrument as the one that is furthest."""
    target = np.max([pair.box.world.simulated.ticks for pair in pairs], axis=0)
    for pair in pairs:
        market = pair.box.world.simulated
        while len(lines := np.flatnonzero(market.ticks < target)):
            pair.box.push(market.advance(lines, pair.box.world.now_ns()))


def start(stack: ExitStack, name: str, folder: Path, rate: float) -> Pair:
    vendor, options = VENDORS[name]
    fixed: dict[str, Any] = {"seed": 7, "instruments": INSTRUMENTS, "start": START, "rate_limits": False}
    box = stack.enter_context(Sandbox(vendor, log=True, ticks_per_second=0.0, **fixed, **options))
    names = [one.key for one in box.instruments]
    clock = OffsetClock(box.clock_offset_ns)
    feed = Feed(vendor, instruments=names, settings=box.settings(), journal=folder, clock=clock)
    stack.enter_context(feed)
    until(lambda: len(feed.latest) == INSTRUMENTS)
    box.set_rate(rate)
    return Pair(name, box, feed, folder)


def settle(pairs: Sequence[Pair]) -> None:
    """Stop the markets, wait until every feed is connected again, and bring the markets to the same tick."""
    for pair in pairs:
        pair.box.set_rate(0)
    until(lambda: all(len(pair.box.hub.subscribed) == INSTRUMENTS for pair in pairs))
    level(pairs)
    for pair in pairs:
        until(partial(shows, pair, pair.box.world.market.snapshot(np.arange(INSTRUMENTS))))


def last_prices(pair: Pair) -> list[float]:
    return [pair.feed.latest[key].last_price for key in keys(pair.box)]


def shows(pair: Pair, newest: Rows) -> bool:
    """Every price and, as a price may stay, every volume is the newest one; an index has no volume."""
    share = ~indices(pair.box)
    volumes = np.array([pair.feed.latest[key].volume for key in keys(pair.box)])
    return last_prices(pair) == newest["last_price"].tolist() and bool((volumes == newest["volume"])[share].all())


def trial(tmp_path: Path, report: Report, seconds: float, drops: Sequence[float], rate: float) -> None:
    with ExitStack() as stack:
        pairs = [start(stack, name, tmp_path / name.replace(" ", "-"), rate) for name in VENDORS]
        began = time.monotonic()
        for moment in drops:
            time.sleep(max(0.0, began + moment - time.monotonic()))
            for pair in pairs:
                assert pair.box.drop() == 1
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        settle(pairs)
        prices = [last_prices(pair) for pair in pairs]
        gaps = [[gap.cause for gap in pair.feed.gaps] for pair in pairs]
    assert all(one == prices[0] for one in prices)
    assert gaps == [["outage"] * len(drops)] * len(pairs)
    counts = {pair.name: compare(pair) for pair in pairs}
    total = sum(must for must, _ in counts.values())
    assert total > 0.5 * rate * seconds * len(pairs)
    words = f"last prices identical at {len(pairs)} feeds, every row as sent, {len(drops)} drops each"
    report("4 three vendors on one market", total, words, aim="all equal")


FAULTS = (
    *("mute for 400ms", "damage how=any every=7 for 600ms", "repeat every=5 for 400ms", "drop how=rst"),
    *(
        "silent share=0.5 for 400ms",
        "throttle bytes_per_second=300000 for 400ms",
        "refuse status=502",
        "close code=1001",
    ),
)


def behind(found: Table, must: Table) -> int:
    """Number of the first row of ``must`` that is not in ``found``, in order; -1 = all are there."""
    rest = iter([row.tobytes() for row in found])
    for number, row in enumerate(must):
        if not any(one == row.tobytes() for one in rest):
            return number
    return -1


def arrive(pair: Pair) -> int:
    """Wait for the last rows, which may be on their way: a price that stayed shows before they are there."""
    must = joined([frame for frame in pair.box.log if frame.intact], indices(pair.box))
    end = time.monotonic() + 10.0
    while (missing := behind(journal_table(pair), must)) >= 0:
        assert time.monotonic() < end, f"{pair.name}: row {missing} of {len(must)}"
        time.sleep(0.05)
    return len(must)


def test_whatever_faults_do_what_went_out_intact_arrives_at_every_vendors_feed(tmp_path: Path, report: Report) -> None:
    with ExitStack() as stack:
        pairs = [start(stack, name, tmp_path / name.replace(" ", "-"), 1000.0) for name in VENDORS]
        for fault in FAULTS:
            for pair in pairs:
                pair.box.fault(fault)
            time.sleep(0.8)
        for pair in pairs:
            pair.box.set_rate(0)
        until(lambda: all(len(pair.box.hub.subscribed) == INSTRUMENTS for pair in pairs))
        for pair in pairs:
            pair.box.push(pair.box.world.market.snapshot(np.arange(INSTRUMENTS)))
            until(partial(shows, pair, pair.box.world.market.snapshot(np.arange(INSTRUMENTS))))
        total = sum(arrive(pair) for pair in pairs)  # while the feeds run: one that stops leaves what is in the socket
    for pair in pairs:
        assert {one.kind for one in pair.box.injected} == {fault.split()[0] for fault in FAULTS}
    report(
        "4 faults at every vendor", total, f"every intact row is there, {len(FAULTS)} kinds of fault", aim="all there"
    )


def test_three_vendors_show_the_same_market_through_drops(tmp_path: Path, report: Report) -> None:
    trial(tmp_path, report, seconds=6, drops=(1.5, 4), rate=2000.0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_vendors_show_the_same_market_for_ten_minutes(tmp_path: Path, report: Report) -> None:
    trial(tmp_path, report, seconds=600, drops=tuple(range(30, 590, 40)), rate=2000.0)
