"""JSON messages to rows: one row a market data message, carrying the merged state of its scrip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np

from marketfeed.contract import BadPacket, Frame, Parsed
from marketfeed.dtypes import TICK
from marketfeed.enums import Mode
from marketfeed.instruments import TokenMap
from marketfeed_flattrade.merge import ScripState
from marketfeed_flattrade.messages import UNREADABLE, read, read_leniently

__all__ = ["Family", "FlattradeParser"]

Family = Literal["touchline", "depth"]

_KINDS: Final[Mapping[str, tuple[Family, bool]]] = {
    "tk": ("touchline", True),
    "tf": ("touchline", False),
    "dk": ("depth", True),
    "df": ("depth", False),
}
"""Message type -> family, and whether it is a snapshot (manual)."""
_MODES: Final[Mapping[Family, Mode]] = {"touchline": Mode.QUOTE, "depth": Mode.FULL}


class FlattradeParser:
    """A parser of one socket; its state begins empty, because nothing survives a reconnect.

    There is one state per family, exchange and token: tokens are unique only inside an exchange. A snapshot
    replaces the state, a delta overlays it. A delta without an earlier snapshot gives a row of what is known.
    ``tokens`` maps ``NSE|22`` to instrument numbers.
    """

    def __init__(self, tokens: TokenMap) -> None:
        self._tokens = tokens
        self._known = tokens.present
        self._states: dict[Family, dict[str, ScripState]] = {"touchline": {}, "depth": {}}

    def state(self, family: Family, key: str) -> ScripState | None:
        """The merged state of ``EXCHANGE|TOKEN`` in a family, or None before its first message."""
        return self._states[family].get(key)

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        """A row per ``tk``, ``tf``, ``dk``, ``df``; nothing for control messages; the rest is bad."""
        if self._known is not self._tokens.present:
            self._number_again()
        rows = bytearray()
        bad: list[BadPacket] = []
        for number, (data, received_ns, _) in enumerate(frames):
            reason = self._message(data, received_ns, rows)
            if reason:
                bad.append(BadPacket(number, 0, reason))
        return Parsed(np.frombuffer(rows, TICK), bad)

    def _message(self, data: bytes, received_ns: int, rows: bytearray) -> str:
        """Take one message; the reason if it is malformed, else empty."""
        message = None
        missing: list[str] = []
        try:
            if data.isascii():
                message = read(data)
        except UNREADABLE:
            pass
        if message is None:  # not plain, so look closely
            try:
                message, missing = read_leniently(data)
            except ValueError as problem:
                return str(problem)
        kind = message.pop("t", None)
        if kind is None:
            return "no message type"
        entry = _KINDS.get(kind)
        if entry is None:
            return ""
        exchange, token = message.pop("e", None), message.pop("tk", None)
        if not (exchange and token):
            return "market data without exchange or token"
        family, snapshot = entry
        key = f"{exchange}|{token}"
        state = self._states[family].get(key)
        if state is None:
            state = self._states[family][key] = ScripState(_MODES[family], self._known.get(key, -1))
        state.apply(message, snapshot)
        if missing:
            state.forget(missing)
        rows += state.row(received_ns)
        return ""

    def _number_again(self) -> None:
        """Instruments were added, or the master has a new entry for a token."""
        self._known = self._tokens.present
        for family in self._states.values():
            for key, state in family.items():
                state.instrument = self._known.get(key, -1)


def is_market_data(kind: Any) -> bool:
    """True for the message types that a parser makes rows of."""
    return isinstance(kind, str) and kind in _KINDS
