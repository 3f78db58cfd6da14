"""marketfeed: broker market data as one trusted stream."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marketfeed.batches import Candle, CandleBatch, Tick, TickBatch
    from marketfeed.contract import Sink
    from marketfeed.enums import Exchange, Interval, Mode
    from marketfeed.errors import MarketFeedError, SinkError
    from marketfeed.feed import Feed
    from marketfeed.history import Historical
    from marketfeed.hookspecs import hookimpl
    from marketfeed.instrument_book import Instruments
    from marketfeed.instruments import Instrument, InstrumentTable
    from marketfeed.journal import Journal
    from marketfeed.quotes import Quotes

_HOME = {
    "Candle": "batches",
    "CandleBatch": "batches",
    "Exchange": "enums",
    "Feed": "feed",
    "Historical": "history",
    "Instrument": "instruments",
    "InstrumentTable": "instruments",
    "Instruments": "instrument_book",
    "Interval": "enums",
    "Journal": "journal",
    "MarketFeedError": "errors",
    "Mode": "enums",
    "Quotes": "quotes",
    "Sink": "contract",
    "SinkError": "errors",
    "Tick": "batches",
    "TickBatch": "batches",
    "hookimpl": "hookspecs",
}

__all__ = [
    "Candle",
    "CandleBatch",
    "Exchange",
    "Feed",
    "Historical",
    "Instrument",
    "InstrumentTable",
    "Instruments",
    "Interval",
    "Journal",
    "MarketFeedError",
    "Mode",
    "Quotes",
    "Sink",
    "SinkError",
    "Tick",
    "TickBatch",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    # On first use: importing the package costs next to nothing and starts nothing.
    if name == "__version__":
        from importlib.metadata import version

        return version("marketfeed")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
