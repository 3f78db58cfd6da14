"""Ticks as JSON lines against ``json.dumps`` of the dicts that the official Kite client makes of the same frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from marketfeed_kite.parser import KiteParser

from benchmarks._kite import START_S, as_text, full_frames, instruments, official_parser
from benchmarks._ratio import Result, compare
from marketfeed.batches import Origin, TickBatch
from marketfeed.contract import Frame
from marketfeed.instruments import TokenMap
from marketfeed.sinks.columns import BLOCK_ROWS
from marketfeed.sinks.csv import CsvSink
from marketfeed.sinks.encode import TickEncoder

TARGETS = {1: 0.25, 10: 1.5, 100: 7.0, 1000: 7.0}
"""Rows in a batch -> times faster; a lone tick costs about 40 us, which nobody waits for. The 1,000 are written
in blocks, as the sinks do."""


def run() -> Iterator[Result]:
    known = instruments(500)
    tokens = TokenMap({one.token: number for number, one in enumerate(known)})
    origin = Origin(known, vendor="kite", journal="0f" * 16 + ".1")
    parse_official = official_parser()
    encoder, table = TickEncoder(), CsvSink(path="unused.csv")

    def write(batch: TickBatch) -> None:
        for start in range(0, len(batch), BLOCK_ROWS):
            encoder.lines(batch[start : start + BLOCK_ROWS])

    for count, target in TARGETS.items():
        (data,) = full_frames(count, count)
        batch = TickBatch(KiteParser(tokens)([Frame(data, START_S * 10**9 + 12_345_678)]).rows, origin)
        dicts = parse_official(data)

        def rival(dicts: list[dict[str, object]] = dicts) -> None:
            for one in dicts:
                json.dumps(one, default=as_text).encode() + b"\n"

        yield Result(f"{count} full ticks to JSON lines", compare(partial(write, batch), rival), target)
        if count == 100:
            yield Result("100 full ticks to CSV", compare(partial(table.encode, batch), rival), 4.0)
