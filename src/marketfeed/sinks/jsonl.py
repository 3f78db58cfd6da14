"""Ticks and candles as JSON lines in files."""

from __future__ import annotations

import attrs

from marketfeed.batches import CandleBatch
from marketfeed.sinks.encode import CandleEncoder, Layout, TickEncoder
from marketfeed.sinks.files import Batch, FileSink

__all__ = ["JsonlSink"]


@attrs.define(slots=False)
class JsonlSink(FileSink):
    """One JSON document a line; each row exactly once, also over restarts."""

    layout: Layout = attrs.field(default="full", validator=attrs.validators.in_(("full", "compact")))
    """``full``: every field the message held; ``compact``: token, ltp, volume, timestamp"""

    _ticks: TickEncoder = attrs.field(init=False, repr=False, eq=False)
    _candles: CandleEncoder = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._ticks, self._candles = TickEncoder(self.layout), CandleEncoder()

    def encode(self, batch: Batch) -> bytes:
        if isinstance(batch, CandleBatch):
            return self._candles.lines(batch)
        return self._ticks.lines(batch)
