"""FlatTrade messages to merged rows against what a user of the official client does.

The rival is the official client's own callback (``json.loads`` and dispatch), the merge of the official
example (one dict per exchange and token) and the conversion to numbers of the merged fields: a whole tick a message,
as our rows are. The way to JSON lines, on one thread, is from the bytes of the messages: for us with validation and
the journal, for the rival with ``json.dumps`` of its dict, once without any check and once with the per-tick
checks and the name that the other pipeline benchmarks give their rivals.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from marketfeed_flattrade.parser import FlattradeParser

from benchmarks._flattrade import SCRIPS, User, client, messages, scrips
from benchmarks._ratio import Result, compare
from marketfeed.contract import Frame
from marketfeed.engine.validation import Validator
from marketfeed.instruments import TokenMap
from marketfeed.journal import Journal
from marketfeed.sinks.columns import BLOCK_ROWS
from marketfeed.sinks.encode import TickEncoder


def run() -> Iterator[Result]:
    module = client()
    if module is None:
        return
    sent = messages(4000)
    rival = User(module)
    tokens = TokenMap({f"NSE|{n}": n for n in range(SCRIPS)})
    parser = FlattradeParser(tokens)
    frames = [Frame(one, time.time_ns()) for one in sent]
    for count, name, target in ((1, "one by one", 1.2), (100, "100 messages drained together", 1.7)):
        batches = [frames[start : start + count] for start in range(0, len(frames), count)]

        ratio = compare(
            lambda batches=batches: [parser(one) for one in batches],  # type: ignore[misc]
            lambda: [rival.callback(None, one, 1, True) for one in sent],
        )
        yield Result(f"{name}, against official callback + merge + numbers", ratio, target)

    def unchecked() -> None:
        for one in sent:
            rival.callback(None, one, 1, True)
            json.dumps(rival.tick).encode() + b"\n"

    def checked() -> None:
        rival.forget()
        for one in sent:
            rival.callback(None, one, 1, True)
            if rival.checked():
                json.dumps(rival.tick).encode() + b"\n"

    ratio = compare(_pipeline(batches, tokens), unchecked)
    yield Result("to JSON lines on one thread, the rival without checks", ratio, 1.5)
    ratio = compare(_pipeline(batches, tokens), checked)
    yield Result("to JSON lines on one thread, the rival with checks and names", ratio, 1.6)


def _pipeline(batches: list[list[Frame]], tokens: TokenMap) -> Callable[[], None]:
    """Frames -> rows -> validation -> journal -> JSON lines; each round is a new session with an empty past."""
    journal = Journal.memory(max_bytes=2 * 2**20)  # soon full: what is measured is the steady state, not fresh memory
    journal.instruments.register(scrips())
    reader, encoder = journal.reader("bench"), TickEncoder()

    def work() -> None:
        parser, check = FlattradeParser(tokens), Validator(instruments=journal.instruments).check
        for frames in batches:
            journal.append(check(parser(frames).rows).rows)
            while len(batch := reader.take(BLOCK_ROWS)):
                encoder.lines(batch)
            reader.commit()

    return work
