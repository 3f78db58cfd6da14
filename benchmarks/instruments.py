"""Masters of 100,000 instruments: reading, keeping, searching."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

from marketfeed_flattrade.instruments import read_master
from marketfeed_kite.instruments import read_instruments

from benchmarks._ratio import Result
from marketfeed.instruments import InstrumentTable
from marketfeed.symbols import contract_symbol

ROWS = 100_000
ROUNDS = 5
QUERIES = 2_000
_KITE = (
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,"
    "strike,tick_size,lot_size,instrument_type,segment,exchange"
)
_NOREN = "Exchange,Token,Lotsize,Symbol,Tradingsymbol,Instrument,Expiry,Strike,Optiontype"
_MONTHS = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"


def contracts() -> Iterator[tuple[int, str, date, int, str]]:
    """Number, underlying, expiry, strike and side, in the proportions of a real day: an index has the most."""
    names = ["NIFTY", "BANKNIFTY", "SENSEX", *(f"SHARE{number:03d}" for number in range(197))]
    number = 40_000
    while number < 40_000 + ROWS:
        for place, name in enumerate(names):
            for week in range(12 if place < 3 else 3):
                expiry = date(2026, 11, 24) + timedelta(days=7 * week if place < 3 else 35 * week)
                for strike in range(100 if place < 3 else 40):
                    for side in ("CE", "PE"):
                        yield number, name, expiry, 100 * strike + 1_000, side
                        number += 1


def kite_dump() -> str:
    """A dump as Kite makes it."""
    rows = [_KITE]
    for number, name, expiry, strike, side in contracts():
        symbol = contract_symbol(name, expiry, strike, side, weekly=name in ("NIFTY", "SENSEX"))
        rows.append(f"{number * 256 + 2},{number},{symbol},{name},0.0,{expiry},{strike}.0,0.05,75,{side},NFO-OPT,NFO")
    return "\n".join(rows[: ROWS + 1])


def noren_dump() -> str:
    """A scrip master as FlatTrade makes it."""
    rows = [_NOREN]
    for number, name, day, strike, side in contracts():
        month = _MONTHS[day.month * 3 - 3 : day.month * 3]
        symbol = f"{name}{day.day:02d}{month}{day.year % 100}{side[0]}{strike}"
        rows.append(f"NFO,{number},75,{name},{symbol},OPTIDX,{day.day:02d}-{month}-{day.year},{strike},{side}")
    return "\n".join(rows[: ROWS + 1])


def timed(function: Callable[[], object]) -> float:
    """CPU seconds, the median of some rounds."""
    spent = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        function()
        spent.append(time.thread_time() - start)
    return statistics.median(spent)


def searches(table: InstrumentTable, rng: random.Random) -> Callable[[], object]:
    """One question of the kinds that people ask."""
    name = rng.choice(["NIFTY", "SENSEX", "BANKNIFTY", f"SHARE{rng.randrange(197):03d}"])
    return rng.choice(
        [
            lambda: table.find(name, kind="CE", expiry=date(2026, 11, 24)),
            lambda: table.find(name),
            lambda: table.find(name[: rng.randint(1, len(name))].lower()),
            lambda: table.find(str(rng.randrange(1_000, 9_000, 100))),
            lambda: table.search(f"NFO:{name}*CE"),
            lambda: table.search(f"*{rng.randrange(1_000, 9_000, 100)}PE"),
            lambda: table.contracts(name, "NFO"),
            lambda: table.find("nothing of this name"),
        ]
    )


def run() -> Iterator[Result]:
    """Yields the results."""
    from marketfeed import masters

    kite, noren = kite_dump(), noren_dump()
    yield Result("Kite's dump read, s per 100,000 rows", timed(lambda: read_instruments(kite)), 1.0, at_most=True)
    table_of_noren = lambda: InstrumentTable(read_master(noren))  # noqa: E731
    yield Result("FlatTrade's masters read, s per 100,000 rows", timed(table_of_noren), 1.0, at_most=True)
    table = read_instruments(kite)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kite-2026-11-20.msgpack")
        masters._write(path, "kite-", table)
        yield Result("the kept master read, s per 100,000 rows", timed(lambda: masters._read(path)), 1.0, at_most=True)
    rng = random.Random(1)
    first = timed(lambda: InstrumentTable(table).find("NIFTY"))
    yield Result("the first search, which builds the index, s", first, 1.0, at_most=True)
    spent, waited = [], []
    for _ in range(QUERIES):
        ask = searches(table, rng)
        wall, start = time.perf_counter(), time.thread_time()
        ask()
        spent.append((time.thread_time() - start) * 1e3)
        waited.append((time.perf_counter() - wall) * 1e3)
    p99, wall_p99 = (statistics.quantiles(times, n=100)[98] for times in (spent, waited))
    note = f"CPU; median {statistics.median(spent):.2f}, by the clock {wall_p99:.2f}"
    yield Result("search in 100,000 instruments, ms, p99", p99, 20.0, at_most=True, note=note)
