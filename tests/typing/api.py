"""Calls that only have to type-check: the public interface as a user's type checker sees it."""

from __future__ import annotations

from marketfeed import Feed, TickBatch


def prices(feed: Feed) -> list[float]:
    batch: TickBatch
    for batch in feed:
        return [tick.last_price for tick in batch.where(symbol="INFY")]
    return []
