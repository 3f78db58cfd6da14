"""The newest tick of each instrument, read while it is written."""

from __future__ import annotations

import sys
import threading

import numpy as np

from marketfeed.dtypes import empty_ticks
from marketfeed.engine.latest import Latest
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal

COUNT = 4000


def test_a_tick_and_its_number_belong_together_while_others_come() -> None:
    journal = Journal.memory()
    journal.instruments.register(
        [Instrument(exchange="NSE", symbol=f"S{number}", token=str(number)) for number in range(COUNT)]
    )
    latest = Latest(journal.origin)
    batches = []
    for turn in range(4):
        rows = empty_ticks(COUNT)
        rows["instrument"], rows["volume"] = np.arange(COUNT), turn
        batches.append(rows)
    latest.update(batches[0], 0)
    ended = threading.Event()

    def write() -> None:
        turn = 0
        while not ended.is_set():
            turn += 1
            latest.update(batches[turn % 4], turn * COUNT)

    writer = threading.Thread(target=write)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    writer.start()
    try:
        for _ in range(300):
            tick = latest["NSE:S3999"]
            assert tick.volume == tick.seq // COUNT % 4
    finally:
        ended.set()
        writer.join()
        sys.setswitchinterval(before)
