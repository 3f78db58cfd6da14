"""FlatTrade messages to merged rows against what a user of the official client does.

The rival is the official client's own callback (``json.loads`` and dispatch), the merge of the official
example (one dict per exchange and token) and the conversion to numbers of the merged fields: a whole tick a message,
as our rows are. End to end is from the bytes of the messages to JSON lines of whole ticks: for us with validation
and the journal, for the rival with ``json.dumps`` of its dict, once without any check and once with the per-tick
checks and the name that the other pipeline benchmarks give their rivals.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from marketfeed_flattrade.parser import FlattradeParser

from benchmarks._official import official
from benchmarks._ratio import Result, compare
from marketfeed.contract import Frame
from marketfeed.engine.validation import Validator
from marketfeed.instruments import Instrument, TokenMap
from marketfeed.journal import Journal
from marketfeed.sinks.columns import BLOCK_ROWS
from marketfeed.sinks.encode import TickEncoder

TEXT_FIELDS = {"t", "e", "tk", "ts", "ltt"}
SCRIPS = 200


def run() -> Iterator[Result]:
    module = official("NorenRestApiPy==0.0.22", "NorenRestApiPy.NorenApi")
    if module is None:
        return
    messages = _messages(4000)
    rival = _User(module)
    tokens = TokenMap({f"NSE|{n}": n for n in range(SCRIPS)})
    parser = FlattradeParser(tokens)
    frames = [Frame(one, time.time_ns()) for one in messages]
    for count, name, target in ((1, "one by one", 1.2), (100, "100 messages drained together", 1.7)):
        batches = [frames[start : start + count] for start in range(0, len(frames), count)]

        ratio = compare(
            lambda batches=batches: [parser(one) for one in batches],  # type: ignore[misc]
            lambda: [rival.callback(None, one, 1, True) for one in messages],
        )
        yield Result(f"{name}, against official callback + merge + numbers", ratio, target)

    def unchecked() -> None:
        for one in messages:
            rival.callback(None, one, 1, True)
            json.dumps(rival.tick).encode() + b"\n"

    def checked() -> None:
        rival.forget()
        for one in messages:
            rival.callback(None, one, 1, True)
            if rival.checked():
                json.dumps(rival.tick).encode() + b"\n"

    ratio = compare(_pipeline(batches, tokens), unchecked)
    yield Result("end to end to JSON lines, the rival without checks", ratio, 1.5)
    ratio = compare(_pipeline(batches, tokens), checked)
    yield Result("end to end to JSON lines, the rival with checks and names", ratio, 2.0)


def _pipeline(batches: list[list[Frame]], tokens: TokenMap) -> Callable[[], None]:
    """Frames -> rows -> validation -> journal -> JSON lines; each round is a new session with an empty past."""
    journal = Journal.memory(max_bytes=16 * 2**20)
    journal.instruments.register(
        [Instrument(exchange="NSE", symbol=f"S{n}", token=f"NSE|{n}", vendor="flattrade") for n in range(SCRIPS)]
    )
    reader, encoder = journal.reader("bench"), TickEncoder()

    def work() -> None:
        parser, check = FlattradeParser(tokens), Validator(instruments=journal.instruments).check
        for frames in batches:
            journal.append(check(parser(frames).rows).rows)
            while len(batch := reader.take(BLOCK_ROWS)):
                encoder.lines(batch)
            reader.commit()

    return work


class _User:
    """The official client with the callback of its example."""

    def __init__(self, module: Any) -> None:
        client = module.NorenApi(host="http://127.0.0.1/", websocket="ws://127.0.0.1/")
        client._NorenApi__subscribe_callback = self._tick
        self.callback = client._NorenApi__on_data_callback
        self._states: dict[str, dict[str, Any]] = {}
        self.tick: dict[str, Any] = {}
        """The newest."""
        self._names = {f"NSE|{number}": f"S{number}" for number in range(SCRIPS)}
        self._fed: dict[str, float] = {}

    def forget(self) -> None:
        """A new session begins, as for us."""
        self._states.clear()
        self._fed.clear()

    def checked(self) -> bool:
        """What a careful user does with the newest tick before passing it on; False to drop it."""
        tick = self.tick
        key = f"{tick['e']}|{tick['tk']}"
        price = tick.get("lp")
        if price is None or price <= 0 or key not in self._names:
            return False
        if "h" in tick and not tick["l"] <= price <= tick["h"]:
            tick["suspect"] = True
        bid, ask = tick.get("bp1"), tick.get("sp1")
        if bid and ask and bid > ask:
            tick["crossed"] = True
        fed = tick.get("ft")
        if fed is not None and fed < self._fed.get(key, 0.0):
            tick["late"] = True
        self._fed[key] = fed or 0.0
        tick["symbol"] = self._names[key]
        return True

    def _tick(self, message: dict[str, Any]) -> None:
        state = self._states.setdefault(f"{message['e']}|{message['tk']}", {})
        state.update(message)
        self.tick = {name: value if name in TEXT_FIELDS else float(value) for name, value in state.items()}


def _messages(count: int) -> list[bytes]:
    """Touchline and depth deltas, 70 and 28 of a hundred, and a few snapshots, for half the scrips each; what they
    say of a scrip is never in contradiction."""
    pick = random.Random(11)
    scrips = [_Scrip(number, pick) for number in range(SCRIPS)]
    snapshots = [one.message("tk" if number % 2 else "dk") for number, one in enumerate(scrips)]
    kinds = pick.choices(["tf", "df", "dk"], [70, 28, 2], k=count - SCRIPS)
    return snapshots + [scrips[pick.randrange(SCRIPS // 2) * 2 + (kind == "tf")].message(kind) for kind in kinds]


class _Scrip:
    """A book whose prices stay, while the last price moves within it and quantities change."""

    def __init__(self, number: int, pick: random.Random) -> None:
        self._pick, self._number = pick, number
        self._price, self._volume = 1000.0 + number, 10**6

    def message(self, kind: str) -> bytes:
        self._volume += self._pick.randrange(1, 500)
        moving = {"lp": f"{self._price + self._pick.randrange(-1, 2) / 20:.2f}", "pc": "0.54", "v": str(self._volume)}
        levels = range(1, 6) if kind in ("df", "dk") else [1]
        sizes = {f"{side}q{level}": str(self._pick.randrange(1, 9999)) for level in levels for side in "bs"}
        if kind == "tf":
            fields = moving | dict(self._pick.sample(list(sizes.items()), 1)) | {"ft": "1763956801"}
        elif kind == "df":
            fields = moving | dict(self._pick.sample(list(sizes.items()), 8)) | {"ft": "1763956801"}
        else:
            fields = moving | sizes | self._standing(kind, levels)
        return json.dumps({"t": kind, "e": "NSE", "tk": str(self._number), **fields}, separators=(",", ":")).encode()

    def _standing(self, kind: str, levels: Iterable[int]) -> dict[str, str]:
        """What only a snapshot tells."""
        price = self._price
        fields = {
            "ts": f"S{self._number}-EQ",
            "pp": "2",
            "ls": "1",
            "ti": "0.05",
            "ap": f"{price:.2f}",
            "ft": "1763956801",
        }
        fields |= {"o": f"{price:.2f}", "h": f"{price + 9:.2f}", "l": f"{price - 9:.2f}", "c": f"{price - 1:.2f}"}
        for level in levels:
            fields |= {f"bp{level}": f"{price - 0.05 * level:.2f}", f"sp{level}": f"{price + 0.05 * level:.2f}"}
            fields |= {f"bo{level}": str(level), f"so{level}": str(level)} if kind == "dk" else {}
        if kind == "dk":
            fields |= {
                "ltt": "09:30:01",
                "ltq": "10",
                "tbq": "400000",
                "tsq": "500000",
                "oi": "7",
                "uc": "1677",
                "lc": "9",
            }
        return fields
