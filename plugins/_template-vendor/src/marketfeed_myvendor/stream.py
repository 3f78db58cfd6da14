"""The WebSocket: a JSON object a message, ticks in lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from marketfeed.contract import DATA, IGNORE, BadPacket, Emit, Frame, Handshake, KeepAlive, Parsed, Step, Subscription
from marketfeed.dtypes import Flag, empty_ticks
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap

_FLAGS = Mode.QUOTE | Flag.VOLUME | Flag.EXCHANGE_TIME


class MyvendorStream:
    """See ``marketfeed.contract.Stream``."""

    def __init__(self, settings: Any, session: Any) -> None:
        self._url = f"{settings.stream_url}/?token={session.access_token}"

    def handshake(self) -> Handshake:
        return Handshake(url=self._url)

    def opened(self, wanted: Subscription) -> Sequence[str]:
        return self.changed(wanted, Subscription())

    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str]:
        groups = {"unsubscribe": remove, "subscribe": add}
        return [json.dumps({do: [one.token for one in group]}) for do, group in groups.items() if group]

    def received(self, data: str | bytes) -> Step:
        if data[:9] in ('{"ticks":', b'{"ticks":'):
            return DATA
        if isinstance(data, str) and data.startswith('{"order":'):
            return Emit("order_update", {"text": data})
        return IGNORE

    def keepalive(self) -> KeepAlive:
        return KeepAlive(period_s=5.0, dead_after_s=15.0)


class MyvendorParser:
    """See ``marketfeed.contract.Parser``."""

    def __init__(self, instruments: TokenMap) -> None:
        self._instruments = instruments

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found: list[tuple[int, float, int, int, int]] = []
        bad = []
        for number, frame in enumerate(frames):
            try:
                ticks = json.loads(frame.data)["ticks"]
                found += [(self._number(t), float(p), int(v), int(at), frame.received_ns) for t, p, v, at in ticks]
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                bad.append(BadPacket(number, 0, type(error).__name__))
        rows = empty_ticks(len(found))
        for name, column in zip(
            ("instrument", "last_price", "volume", "exchange_ns", "received_ns"), zip(*found, strict=True), strict=False
        ):
            rows[name] = np.array(column).astype(rows.dtype[name])
        rows["flags"] = _FLAGS
        return Parsed(rows, bad)

    def _number(self, token: Any) -> int:
        return self._instruments.present.get(str(token), -1)
