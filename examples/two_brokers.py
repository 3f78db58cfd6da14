"""Kite and FlatTrade on one list of instruments, mapped automatically. Runs on sandboxes; needs no account."""

import time

from marketfeed import Feed, Instruments
from marketfeed.sandbox import Sandbox

WANTED = ["@nifty50", "NSE:NIFTY 50", "NFO:NIFTY FUT 1"]
prices = {}


def note(batch):
    """Called with the batches of both feeds."""
    for tick in batch:
        prices[batch.origin.vendor, tick.describe.key] = tick.last_price


with Sandbox("kite", seed=1) as kite_box, Sandbox("flattrade", seed=1) as flattrade_box:
    kite_settings, flattrade_settings = kite_box.settings(), flattrade_box.settings()

    with (
        Instruments("kite", settings=kite_settings) as kite,
        Instruments("flattrade", settings=flattrade_settings) as flattrade,
    ):
        wanted = kite.select(WANTED)
        mapping = kite.map(flattrade)
        pairs = {mine.key: theirs.key for mine, theirs in mapping if mine in wanted}
    print(len(pairs), "of", len(wanted), "instruments at both brokers;", len(mapping.doubts), "doubts")

    first = Feed("kite", name="kite", instruments=list(pairs), settings=kite_settings)
    second = Feed("flattrade", name="flattrade", instruments=list(pairs.values()), settings=flattrade_settings)
    for feed in (first, second):
        feed.on_batch(note)
    with first, second:
        time.sleep(2)

for mine, theirs in list(pairs.items())[:3]:
    print(mine, prices.get(("kite", mine)), prices.get(("flattrade", theirs)))
