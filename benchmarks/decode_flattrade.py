"""FlatTrade messages to merged rows against what a user of the official client does.

The rival is the official client's own callback (``json.loads`` and dispatch), the merge of the official
example (one dict per exchange and token) and the conversion to numbers of the merged fields: a whole tick a message,
as our rows are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from marketfeed_flattrade.parser import FlattradeParser

from benchmarks._official import official
from benchmarks._ratio import Result, compare
from marketfeed.contract import Frame
from marketfeed.instruments import TokenMap

TEXT_FIELDS = {"t", "e", "tk", "ts", "ltt"}
SCRIPS = 200


def run() -> Iterator[Result]:
    module = official("NorenRestApiPy==0.0.22", "NorenRestApiPy.NorenApi")
    if module is None:
        return
    for count, name, target in ((1, "one by one", 1.0), (100, "100 messages drained together", 1.2)):
        messages = _messages(1000)
        tokens = TokenMap({f"NSE|{n}": n for n in range(SCRIPS)})
        rival = _User(module)
        parser = FlattradeParser(tokens)
        frames = [Frame(one, 1) for one in messages]
        batches = [frames[start : start + count] for start in range(0, len(frames), count)]

        ratio = compare(
            lambda batches=batches, parser=parser: [parser(one) for one in batches],
            lambda messages=messages, rival=rival: [rival.callback(None, one, 1, True) for one in messages],
        )
        yield Result(f"{name}, against official callback + merge + numbers", ratio, target)


class _User:
    """The official client with the callback of its example."""

    def __init__(self, module: Any) -> None:
        client = module.NorenApi(host="http://127.0.0.1/", websocket="ws://127.0.0.1/")
        client._NorenApi__subscribe_callback = self._tick
        self.callback = client._NorenApi__on_data_callback
        self._states: dict[str, dict[str, Any]] = {}

    def _tick(self, message: dict[str, Any]) -> dict[str, Any]:
        state = self._states.setdefault(f"{message['e']}|{message['tk']}", {})
        state.update(message)
        return {name: value if name in TEXT_FIELDS else float(value) for name, value in state.items()}


def _messages(count: int) -> list[bytes]:
    """Touchline and depth deltas, 70 and 28 of a hundred, and a few snapshots, for half the scrips each."""
    pick = random.Random(11)
    snapshots = [_message("tk" if n % 2 else "dk", n, pick) for n in range(SCRIPS)]
    kinds = pick.choices(["tf", "df", "dk"], [70, 28, 2], k=count - SCRIPS)
    return snapshots + [_message(kind, pick.randrange(SCRIPS // 2) * 2 + (kind == "tf"), pick) for kind in kinds]


def _message(kind: str, scrip: int, pick: random.Random) -> bytes:
    price = 1000 + scrip + pick.randrange(100) / 20
    fields = {"lp": f"{price:.2f}", "pc": "0.54", "v": f"{pick.randrange(10**7)}", "ft": "1763956801"}
    levels = range(1, 6) if kind in ("df", "dk") else [1]
    for level in levels:
        for side, step in (("b", -0.05), ("s", 0.05)):
            fields |= {f"{side}p{level}": f"{price + step * level:.2f}", f"{side}q{level}": f"{pick.randrange(9999)}"}
            if kind == "dk":
                fields |= {f"{side}o{level}": f"{level}"}
    if kind in ("tk", "dk"):
        fields |= {"ts": f"S{scrip}-EQ", "pp": "2", "ls": "1", "ti": "0.05", "ap": f"{price:.2f}"}
        fields |= dict.fromkeys(("o", "h", "l", "c"), f"{price:.2f}")
    if kind == "dk":
        fields |= {"ltt": "09:30:01", "ltq": "10", "tbq": "400000", "tsq": "500000", "oi": "7", "uc": "1677", "lc": "9"}
    elif kind == "tf":
        fields = dict(pick.sample(list(fields.items()), 5))
    elif kind == "df":
        fields = dict(pick.sample(list(fields.items()), 12))
    return json.dumps({"t": kind, "e": "NSE", "tk": str(scrip), **fields}, separators=(",", ":")).encode()
