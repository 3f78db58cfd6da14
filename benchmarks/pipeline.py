"""In memory, without a socket: frame -> rows -> journal -> JSON (or columns), against official dicts, per-tick
checks and ``json.dumps``. Waiting frames are drained together, as the parse thread does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from marketfeed_kite.parser import KiteParser

from benchmarks._kite import as_text, check_and_enrich, full_frames, instruments, official_parser
from benchmarks._ratio import Result, compare
from marketfeed.contract import Frame
from marketfeed.engine.validation import Validator
from marketfeed.instruments import TokenMap
from marketfeed.journal import Journal
from marketfeed.sinks.columns import BLOCK_ROWS
from marketfeed.sinks.encode import TickEncoder

WAITING = 100
"""Frames that wait when the parse thread looks, at one tick a frame; fuller frames arrive more rarely: ten."""


def run() -> Iterator[Result]:
    known = instruments(500)
    journal = Journal.memory(max_bytes=16 * 2**20)  # soon full: what is measured is the steady state, not fresh memory
    numbers = journal.instruments.register(known)
    tokens = TokenMap({one.token: number for one, number in zip(known, numbers, strict=True)})
    parser, encoder = KiteParser(tokens), TickEncoder()
    reader = journal.reader("bench")
    names = {int(one.token): one.symbol for one in known}
    check = Validator().check
    parse_official = official_parser()

    for per_frame, target in ((1, 6.0), (10, 8.0), (100, 12.0)):
        frames = full_frames(2000, per_frame)
        drained = max(10, WAITING // per_frame)

        def ours(frames: list[bytes] = frames, drained: int = drained) -> None:
            for at in range(0, len(frames), drained):
                now = time.time_ns()
                journal.append(check(parser([Frame(data, now) for data in frames[at : at + drained]]).rows).rows)
                while len(batch := reader.take(BLOCK_ROWS)):  # as the file sinks write
                    encoder.lines(batch)
                reader.commit()

        def columnar(frames: list[bytes] = frames, drained: int = drained) -> None:
            for at in range(0, len(frames), drained):
                now = time.time_ns()
                journal.append(check(parser([Frame(data, now) for data in frames[at : at + drained]]).rows).rows)
                while len(batch := reader.take(BLOCK_ROWS)):
                    bytes(batch.rows.view("u1").data)
                reader.commit()

        def naive(frames: list[bytes] = frames) -> None:
            previous: dict[int, object] = {}
            for data in frames:
                for tick in parse_official(data):
                    good = check_and_enrich(tick, names, previous)
                    if good is not None:
                        json.dumps(good, default=as_text).encode() + b"\n"

        yield Result(f"frame -> journal -> JSON, {per_frame} a frame", compare(ours, naive, 5), target)
        if per_frame == 100:
            yield Result("frame -> journal -> columns, 100 a frame", compare(columnar, naive, 5), 50.0)
