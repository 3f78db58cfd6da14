"""Faults of the data: rows are changed before they are encoded.

The log holds the rows as they were changed, because that is what went over the wire, and names the
fault beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.clock import NS
from marketfeed.dtypes import TICK, Rows
from marketfeed.sandbox.faults.base import Fault, Stage, choice, param, whole

if TYPE_CHECKING:
    from marketfeed.sandbox.peer import Peer

__all__ = ["BigFrames", "Crossed", "Set", "Spike", "TimeShift", "Unsorted", "VolumeBack", "ZeroTime"]

_FIELDS = (
    *("exchange_ns", "last_trade_ns", "last_price", "last_quantity", "average_price", "volume", "buy_quantity"),
    *("sell_quantity", "open", "high", "low", "close", "open_interest", "oi_day_high", "oi_day_low"),
)


def _real(value: Any) -> float:
    found = float(value)
    if not abs(found) < float("inf"):
        raise ValueError("must be a finite number")
    return found


def _positive(value: Any) -> int:
    found = whole(value)
    if found < 1:
        raise ValueError("must be 1 or more")
    return found


@attrs.define(eq=False, kw_only=True)
class _Edited(Fault):
    """Every n-th tick, on each connection in its own count, is changed."""

    marks: ClassVar[bool] = True
    every: int = param(1, _positive, "each n-th tick that passes")
    count: int | None = param(None, whole, "how many ticks; absent = for as long as it acts")
    _passed: int = attrs.field(init=False, default=0)
    _changed: int = attrs.field(init=False, default=0)

    def edit(self, peer: Peer, rows: Rows) -> Rows:
        picked = np.flatnonzero((np.arange(len(rows)) + self._passed) % self.every == 0)
        self._passed += len(rows)
        if self.count is not None:
            picked = picked[: max(self.count - self._changed, 0)]
        self._changed += len(picked)
        self.done = self.count is not None and self._changed >= self.count
        if not len(picked):
            return rows
        part = rows[picked]
        self._change(part)
        edited = rows.copy()
        edited[picked] = part
        return edited

    def _change(self, rows: Rows) -> None:
        raise NotImplementedError


@attrs.define(eq=False, kw_only=True)
class ZeroTime(_Edited):
    """Exchange time is the epoch, as brokers send when they have none."""

    kind: ClassVar[str] = "zero-time"

    def _change(self, rows: Rows) -> None:
        rows["exchange_ns"] = 0


@attrs.define(eq=False, kw_only=True)
class TimeShift(_Edited):
    """Exchange time is shifted: into the past, or into the future."""

    kind: ClassVar[str] = "time-shift"
    by_s: float = param(-30.0, _real, "seconds; negative = into the past")

    def _change(self, rows: Rows) -> None:
        rows["exchange_ns"] = np.maximum(rows["exchange_ns"] + round(self.by_s * NS), 0)


@attrs.define(eq=False, kw_only=True)
class Spike(_Edited):
    """The last price is multiplied; high and low go along, so only the price is out of place."""

    kind: ClassVar[str] = "spike"
    factor: float = param(1.5, _real, "of the last price")

    def _change(self, rows: Rows) -> None:
        rows["last_price"] = np.round(rows["last_price"] * self.factor, 2)
        rows["high"] = np.fmax(rows["high"], rows["last_price"])
        rows["low"] = np.fmin(rows["low"], rows["last_price"])


@attrs.define(eq=False, kw_only=True)
class Crossed(_Edited):
    """The best bid lies above the best ask; both sides stay sorted."""

    kind: ClassVar[str] = "crossed"

    def _change(self, rows: Rows) -> None:
        bid: NDArray[np.float64] = rows["bid_price"]
        gap = rows["ask_price"][:, :1] - bid[:, :1]
        rows["bid_price"] = np.where(bid > 0, np.round(bid + 2 * gap, 4), bid)


@attrs.define(eq=False, kw_only=True)
class Unsorted(_Edited):
    """The levels of the bid come in the wrong order."""

    kind: ClassVar[str] = "unsorted"

    def _change(self, rows: Rows) -> None:
        rows["bid_price"] = rows["bid_price"][:, ::-1].copy()


@attrs.define(eq=False, kw_only=True)
class VolumeBack(_Edited):
    """The cumulative volume steps back."""

    kind: ClassVar[str] = "volume-back"
    by: int = param(1000, whole, "how far")

    def _change(self, rows: Rows) -> None:
        volume = rows["volume"]
        rows["volume"] = np.where(volume > 0, np.maximum(volume - self.by, 0), volume)


@attrs.define(eq=False, kw_only=True)
class Set(_Edited):
    """A field has a fixed value, such as a last price of 0."""

    kind: ClassVar[str] = "set"
    field: str = param("last_price", choice(*_FIELDS), "a column of a tick")
    value: float = param(0.0, _real, "its value; what the vendor's wire cannot hold is cut by the wire")

    def _change(self, rows: Rows) -> None:
        rows[self.field] = self.value


@attrs.define(eq=False, kw_only=True)
class BigFrames(Fault):
    """Ticks wait until so many are there for one frame. Those that still wait at its end are sent then; they
    count as sent when they leave."""

    kind: ClassVar[str] = "big-frames"
    packets: int = param(500, _positive, "ticks in one frame")
    _waiting: dict[int, list[Rows]] = attrs.field(init=False, factory=dict)
    _before: int | None = attrs.field(init=False, default=None)

    def begin(self, stage: Stage, peers: Sequence[Peer]) -> None:
        self._before, stage.hub.packets = stage.hub.packets, self.packets

    def end(self, stage: Stage, peers: Sequence[Peer]) -> None:
        for peer in peers:
            rows = self._taken(peer)
            if len(rows):
                stage.hub.deliver(peer, rows, "tick")
        stage.hub.packets = self._before

    def edit(self, peer: Peer, rows: Rows) -> Rows:
        waiting = self._waiting.setdefault(peer.number, [])
        waiting.append(rows)
        if sum(map(len, waiting)) < self.packets:
            return rows[:0]
        taken = self._taken(peer)
        whole_frames = len(taken) // self.packets * self.packets
        self._waiting[peer.number] = [taken[whole_frames:]]
        return taken[:whole_frames]

    def _taken(self, peer: Peer) -> Rows:
        """What waits, as far as the client still wants it."""
        parts = self._waiting.pop(peer.number, [])
        if not parts:
            return np.empty(0, TICK)
        words = np.concatenate([np.ascontiguousarray(part).view(np.uint64) for part in parts])
        rows: Rows = words.view(TICK)
        wanted: Rows = rows[peer.broker_side.modes[rows["instrument"]] > 0]
        return wanted
