"""A stream of which one row in a hundred is bad: through the validator, and through the parse thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date

import numpy as np
import pytest

from marketfeed.clock import NS, ManualClock, to_ns
from marketfeed.config import ValidationConfig
from marketfeed.contract import Frame, Parsed
from marketfeed.dtypes import REASON_MASK, TICK, Flag, Rows
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.latest import Latest
from marketfeed.engine.logs import get_log
from marketfeed.engine.parsing import ParseLoop
from marketfeed.engine.validation import Validator
from marketfeed.enums import Exchange
from marketfeed.journal import Journal
from marketfeed.sandbox.market import Market
from marketfeed.sandbox.universe import make_universe

DAY, TEN = date(2026, 11, 20), to_ns("2026-11-20T10:00:00")
INSTRUMENTS, SECONDS, WARM_UP = 80, 150, 10
Poison = Callable[[Rows, Rows], None]
"""Changes a row of shape ``(1,)``; the second argument is the instrument's row before it."""


def market_rows() -> Rows:
    """The sandbox's market with every group of fields, in order of time."""
    market = Market(make_universe(INSTRUMENTS, DAY), seed=3, start_ns=TEN)
    lines = np.arange(len(market))
    rows = np.concatenate([market.advance(lines, TEN + second * NS) for second in range(SECONDS)])
    place = np.arange(len(rows))
    rows["received_ns"] = TEN + place // INSTRUMENTS * NS + 300_000_000 + place % INSTRUMENTS
    return rows


def fields(**values: float) -> Poison:
    def poison(row: Rows, before: Rows) -> None:
        for name, value in values.items():
            row[name] = value

    return poison


def shifted(name: str, by: int) -> Poison:
    def poison(row: Rows, before: Rows) -> None:
        row[name] += by

    return poison


def crossed(row: Rows, before: Rows) -> None:
    row["bid_price"], row["ask_price"] = row["ask_price"].copy(), row["bid_price"].copy()


def unsorted(row: Rows, before: Rows) -> None:
    row["bid_price"] = row["bid_price"][:, [0, 2, 1, 3, 4]]


def spike(row: Rows, before: Rows) -> None:
    row["last_price"] = row["last_price"] * 1.4 + 10


def repeat(row: Rows, before: Rows) -> None:
    received = row["received_ns"].copy()
    row[:] = before
    row["received_ns"] = received


POISON: dict[Flag, Poison] = {
    Flag.NOT_FINITE: fields(last_price=np.inf),
    Flag.NOT_POSITIVE: fields(last_price=-1),
    Flag.OHLC_INCONSISTENT: fields(high=0.01),
    Flag.OUTSIDE_CIRCUIT: fields(upper_circuit=0.01),
    Flag.CROSSED_DEPTH: crossed,
    Flag.UNSORTED_DEPTH: unsorted,
    Flag.TIME_ZERO: fields(exchange_ns=0),
    Flag.TIME_AHEAD: shifted("exchange_ns", 60 * NS),
    Flag.TIME_BACK: shifted("exchange_ns", -60 * NS),
    Flag.VOLUME_BACK: fields(volume=0),
    Flag.REPEAT: repeat,
    Flag.PRICE_SPIKE: spike,
    Flag.UNKNOWN_INSTRUMENT: fields(instrument=-1),
}


def poisoned(seed: int) -> tuple[Rows, dict[int, Flag]]:
    """The market with one bad row in a hundred, and which they are. The first seconds stay whole, and so do indices
    and commodities, of which not everything is bad that would be for shares."""
    rows, draw = market_rows(), np.random.default_rng(seed)
    commodity = np.array([one.instrument.exchange == Exchange.MCX for one in make_universe(INSTRUMENTS, DAY)])
    index = rows["flags"] & np.uint32(Flag.VOLUME) == 0
    shares = np.flatnonzero(~index & ~commodity[rows["instrument"]] & (rows["volume"] > 0))
    bad = draw.choice(shares[shares >= WARM_UP * INSTRUMENTS], len(rows) // 100, replace=False)
    kinds = dict(zip(sorted(bad.tolist()), draw.permutation(np.resize(list(POISON), len(bad))).tolist(), strict=True))
    for place, kind in kinds.items():
        POISON[Flag(kind)](rows[place : place + 1], rows[place - INSTRUMENTS : place - INSTRUMENTS + 1])
    return rows, {place: Flag(kind) for place, kind in kinds.items()}


def test_the_market_itself_is_not_doubted() -> None:
    rows = market_rows()
    assert len(Validator().check(rows).rows) == len(rows)
    assert not (rows["flags"] & np.uint32(REASON_MASK)).any()


@pytest.mark.parametrize("size", [1, 37, 800])
def test_every_bad_row_has_its_code_and_no_good_one_has_any(size: int) -> None:
    rows, bad = poisoned(seed=size)
    validator = Validator(ValidationConfig(not_finite="keep", not_positive="keep"))
    for start in range(0, len(rows), size):
        validator.check(rows[start : start + size])
    found = rows["flags"] & np.uint32(REASON_MASK)
    assert set(np.flatnonzero(found).tolist()) == set(bad)
    assert [kind for place, kind in bad.items() if not found[place] & kind] == []


class RowParser:
    """Frames that are rows."""

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        return Parsed(np.frombuffer(bytearray(b"".join(frame.data for frame in frames)), TICK))


def test_the_law_holds_and_each_row_is_where_its_action_puts_it() -> None:
    rows, bad = poisoned(seed=1)
    journal, clock = Journal.memory(), ManualClock(TEN)
    journal.instruments.register([one.instrument for one in make_universe(INSTRUMENTS, DAY)])
    config = ValidationConfig(repeat="drop", price_spike="dead-letter")
    errors: list[Exception] = []
    loop = ParseLoop(
        inbox=Inbox(1, clock),
        make_parser=RowParser,
        journal=journal,
        deadletters=DeadLetters("test", clock),
        latest=Latest(journal.origin),
        clock=clock,
        log=get_log(),
        fail=errors.append,
        validator=Validator(config, journal.instruments),
    )
    for start in range(0, len(rows), 500):
        loop.inbox.put(0, [Frame(rows[start : start + 500].tobytes(), TEN)])
    loop.inbox.close()
    loop.run()
    assert not errors
    counts, kinds = loop.counts, list(bad.values())
    aside = (Flag.NOT_FINITE, Flag.NOT_POSITIVE, Flag.PRICE_SPIKE, Flag.UNKNOWN_INSTRUMENT)
    assert counts.dropped == kinds.count(Flag.REPEAT)
    assert counts.dead_lettered == sum(kinds.count(kind) for kind in aside)
    assert counts.parsed == len(rows) == counts.appended + counts.dropped + counts.dead_lettered
    assert journal.committed == counts.appended
    for kind in aside:
        assert loop.deadletters.counts["row", str(kind.name).lower()] == kinds.count(kind)
