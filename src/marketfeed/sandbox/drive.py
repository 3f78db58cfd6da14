"""What makes a sandbox move: the loop that advances the market, or replays a recording, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from marketfeed.brokers import Lines
from marketfeed.dtypes import TICK, Rows
from marketfeed.sandbox.hub import Hub
from marketfeed.sandbox.replay import ReplayMarket
from marketfeed.sandbox.world import World

if TYPE_CHECKING:
    from marketfeed.sandbox.captured import CapturedMarket

__all__ = ["Driver"]

SETTLE_S = 0.3
"""A replay begins when nobody changed a subscription for this long, so that its first rows come in the
mode that a client asks for in a second message."""
REPLAY_ROWS = 500
"""Most rows of a replay in one step, so that a fast replay leaves room for everything else."""


class Driver:
    """Runs on the server's event loop."""

    def __init__(self, world: World, hub: Hub) -> None:
        self.world = world
        self.ticks_per_second = world.options.ticks_per_second
        self.replay_begun = world.options.replay_start == "now"
        self._hub = hub
        self._place = 0  # of the next line, in the list of subscribed ones
        self._due = 0.0  # ticks owed
        self._time = 0.0  # loop time up to which that was reckoned
        self._recorded_s = 0.0

    async def run(self) -> None:
        """Until cancelled: wait for a client, then step."""
        options = self.world.options
        loop = asyncio.get_running_loop()
        while True:
            if not self._hub.peers:
                await self._hub.somebody.wait()
                self._time = loop.time()
            await asyncio.sleep(options.step_s)
            now = loop.time()
            elapsed, self._time = now - self._time, now
            if self.world.captured is not None:
                await self._relay(self.world.captured, now, elapsed)
            elif self.world.replay is not None:
                await self._replay(self.world.replay, now, elapsed)
            else:
                self._walk(elapsed)
            self._hub.heartbeats(now, options.heartbeat_s)

    # --- invented ticks -----------------------------------------------------------------------

    def _walk(self, elapsed: float) -> None:
        """Advance as many lines as are due, in turn, so that each gets its share."""
        lines = self._hub.subscribed
        if not len(lines):
            self._due = 0.0
            return
        # After a hold-up of the machine at most a second's worth is made up for.
        self._due = min(self._due + elapsed * self.ticks_per_second, max(self.ticks_per_second, 1.0))
        count = int(self._due)
        self._due -= count
        now_ns = self.world.now_ns()
        rows = [self.world.simulated.advance(part, now_ns) for part in self._turns(lines, count)]
        if rows:
            self._hub.broadcast(rows[0] if len(rows) == 1 else _joined(rows), "tick")

    def _turns(self, lines: Lines, count: int) -> Iterator[Lines]:
        """The next ``count`` lines of the rotation, in parts that do not name a line twice."""
        while count > 0:
            self._place %= len(lines)
            part = lines[self._place : self._place + count]
            self._place += len(part)
            count -= len(part)
            yield part

    # --- recorded ticks -----------------------------------------------------------------------

    async def _replay(self, replay: ReplayMarket, now: float, elapsed: float) -> None:
        """Send what is due. Without a subscriber the recording stands still, unless it began by itself."""
        if not self._may_replay(replay, now):
            return
        self._recorded_s += elapsed * self.world.options.speed
        until = replay.due(self._recorded_s)
        while replay.sent < until and self._listened(replay):
            rows = replay.take(min(replay.sent + REPLAY_ROWS, until))
            self._hub.broadcast(rows, "replay")
            await asyncio.sleep(0)
            await self._hub.room()

    async def _relay(self, captured: CapturedMarket, now: float, elapsed: float) -> None:
        """Send the frames that are due, as :meth:`_replay` does rows."""
        if not self._may_replay(captured, now):
            return
        self._recorded_s += elapsed * self.world.options.speed
        while self._listened(captured) and (relayed := captured.take(self._recorded_s)) is not None:
            self._hub.relay(relayed.data, relayed.rows)
            await asyncio.sleep(0)
            await self._hub.room()

    def _may_replay(self, replay: ReplayMarket | CapturedMarket, now: float) -> bool:
        if not self.replay_begun and self.world.options.replay_start == "subscribed":
            self.replay_begun = self._listened(replay) and now - self._hub.settled_since >= SETTLE_S
        return self.replay_begun and self._listened(replay)

    def _listened(self, replay: ReplayMarket | CapturedMarket) -> bool:
        if self.world.options.replay_start == "now":
            return True
        return bool(np.isin(replay.lines, self._hub.subscribed).any())


def _joined(parts: Sequence[Rows]) -> Rows:
    """One array of all parts; as plain words, because numpy joins wide records field by field."""
    words = np.concatenate([part.view(np.uint64) for part in parts])
    return words.view(TICK)
