"""What the FlatTrade benchmarks share: messages of our own making, and the program that a user of the official
client writes. Run as a module it is a broker: ``python -m benchmarks._flattrade TOTAL`` prints its port and sends
TOTAL messages to each who logs in."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from typing import Any

from benchmarks._blaster import serve
from benchmarks._official import official
from marketfeed.instruments import Instrument

__all__ = ["SCRIPS", "User", "client", "messages", "scrips"]

TEXT_FIELDS = {"t", "e", "tk", "ts", "ltt"}
SCRIPS = 200


def client() -> Any:
    """The module of the official client, or None."""
    return official("NorenRestApiPy==0.0.22", "NorenRestApiPy.NorenApi")


def scrips() -> list[Instrument]:
    return [Instrument(exchange="NSE", symbol=f"S{n}", token=f"NSE|{n}", vendor="flattrade") for n in range(SCRIPS)]


class User:
    """The official client with the callback of its example."""

    def __init__(self, module: Any, url: str = "ws://127.0.0.1/") -> None:
        self.client = module.NorenApi(host="http://127.0.0.1/", websocket=url)
        self.client._NorenApi__subscribe_callback = self.take
        self.callback = self.client._NorenApi__on_data_callback
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

    def take(self, message: dict[str, Any]) -> None:
        state = self._states.setdefault(f"{message['e']}|{message['tk']}", {})
        state.update(message)
        self.tick = {name: value if name in TEXT_FIELDS else float(value) for name, value in state.items()}


def messages(count: int) -> list[bytes]:
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


if __name__ == "__main__":
    serve(messages(int(sys.argv[1])), 1, int(sys.argv[1]), text=True, login=b'{"t":"ck","s":"OK"}')
