"""Ticks and candles as CSV in files.

msgspec writes the numbers here, too (a float takes it 34 ns, ``repr`` 190 ns): each row is encoded as a JSON
array whose texts are ready-made ``Raw`` pieces, and the brackets between the rows become line ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import ClassVar

import attrs
import msgspec
import numpy as np
from msgspec import Raw

from marketfeed.batches import CandleBatch
from marketfeed.dtypes import DEPTH_LEVELS, Rows, Source
from marketfeed.enums import Interval
from marketfeed.sinks.columns import FIELDS, Batch, Column, Names, Present, mode_word, pick, reason_words
from marketfeed.sinks.files import FileSink

__all__ = ["CANDLE_COLUMNS", "TICK_COLUMNS", "CsvSink"]

_NAMES = ("journal", "seq", "feed", "vendor", "exchange", "symbol", "token")
_TIMES = ("exchange_ns", "received_ns", "last_trade_ns")
_BOOK = tuple(f"{side}_{what}" for side in ("bid", "ask") for what in ("price", "quantity", "orders"))
_BAR = ("open", "high", "low", "close")

TICK_COLUMNS = (
    *_NAMES,
    *("mode", *_TIMES, *FIELDS),
    *(f"{name}_{level}" for name in _BOOK for level in range(DEPTH_LEVELS)),
    "reasons",
)
"""Columns of a tick file, in order. ``bid_price_0`` is the best bid; ``reasons`` are separated by spaces."""
CANDLE_COLUMNS = (*_NAMES, "interval", "start_ns", *_BAR, "volume", "open_interest", "source", "flags")
"""Columns of a candle file, in order."""

_JSON = msgspec.json.Encoder()
_EMPTY = Raw(b"")


@attrs.define(slots=False)
class CsvSink(FileSink):
    """One row a line, quoted by RFC 4180, lines ended by CRLF, absent values empty, a header in every file."""

    _names: Names[Raw] = attrs.field(init=False, repr=False, eq=False)

    _INTERVALS: ClassVar[dict[int, Raw]] = {one.seconds: Raw(one.value.encode()) for one in Interval}
    _SOURCES: ClassVar[dict[int, Raw]] = {one.value: Raw(one.name.lower().encode()) for one in Source}

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._names = Names(lambda *names: _text(*names))

    def header(self, batch: Batch) -> bytes:
        columns = CANDLE_COLUMNS if isinstance(batch, CandleBatch) else TICK_COLUMNS
        return (",".join(columns) + "\r\n").encode()

    def encode(self, batch: Batch) -> bytes:
        if not len(batch):
            return b""
        rows = np.ascontiguousarray(batch.rows)
        fields = self._candle(rows) if isinstance(batch, CandleBatch) else _tick(rows)
        journal, feed = repeat(_text(batch.journal)), repeat(_text(batch.origin.feed))
        lines = zip(journal, batch.seq.tolist(), feed, self._names.of(batch), *fields, strict=False)
        return _JSON.encode_lines(list(lines))[1:-2].replace(b"]\n[", b"\r\n") + b"\r\n"

    def _candle(self, rows: Rows) -> Iterator[Column]:
        yield [self._INTERVALS.get(one) or _text(f"{one}s") for one in rows["interval"].tolist()]
        yield rows["start_ns"].tolist()
        yield from (pick(rows[name], np.isfinite(rows[name]), _EMPTY) for name in _BAR)
        yield rows["volume"].tolist()
        yield pick(rows["open_interest"], rows["open_interest"] >= 0, _EMPTY)
        yield [self._SOURCES.get(one, _EMPTY) for one in rows["source"].tolist()]
        yield rows["flags"].tolist()


def _tick(rows: Rows) -> Iterator[Column]:
    present = Present(rows)
    yield present.per_flags(lambda flags: _text(mode_word(flags)))
    for name in _TIMES:
        yield pick(rows[name], present.time(name), _EMPTY)
    for name in FIELDS:
        yield pick(rows[name], present.field(name), _EMPTY)
    for name in _BOOK:
        for level in range(DEPTH_LEVELS):
            yield pick(rows[name][:, level], present.field(name, level), _EMPTY)
    yield present.per_flags(lambda flags: _text(" ".join(reason_words(flags))))


def _text(*fields: str) -> Raw:
    """Fields as RFC 4180 wants them, joined by commas. A line end inside becomes a space, so that a line of
    the file is always one row."""
    return Raw(",".join(_quoted(" ".join(field.splitlines())) for field in fields).encode())


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if '"' in field or "," in field else field
