"""The six ways to go mute on real sockets: a real feed on the sandbox, all six side by side.

The suite gives each line a minute of history that it did not live; ``make chaos`` waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import attrs
import pytest
from trials._report import Report
from waiting import until

from marketfeed import Feed
from marketfeed.contract import Event
from marketfeed.engine.watchdog import Watchdog
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

RATE = 20.0
"""Ticks a second: busy, so the limit is five seconds."""
LIMIT_S, AGAIN_S = 5.0, 5.0
SLACK_S = 1.5
"""A line is judged four times a second; the rest is for a machine that is busy with five others."""
Way = Callable[[Sandbox], None]


def half_open(box: Sandbox) -> None:
    box.fault("half-open")


def mute_with_pongs(box: Sandbox) -> None:
    box.fault("mute")


def heartbeats_only(box: Sandbox) -> None:
    box.fault("heartbeats-only")


def ticks_stop_for_all(box: Sandbox) -> None:
    box.fault("silent", share=1.0)


def accepted_in_vain(box: Sandbox) -> None:
    """The line is cut; on the next one subscriptions are accepted and do nothing."""
    box.fault("deaf")
    box.drop()


def slow_death(box: Sandbox) -> None:
    """Ever fewer instruments tick, within a few seconds; then none."""
    for share in (0.5, 0.8, 0.95):
        box.fault("silent", share=share)
        time.sleep(0.3)
    box.fault("silent", share=1.0)


WAYS: tuple[Way, ...] = (
    half_open,
    mute_with_pongs,
    heartbeats_only,
    ticks_stop_for_all,
    accepted_in_vain,
    slow_death,
)


@attrs.define
class Trial:
    """One feed on one sandbox."""

    way: Way
    box: Sandbox
    feed: Feed
    events: list[Event] = attrs.field(factory=list)
    since_ns: int = 0
    """The last tick before the silence; on a line that opened into it, its opening."""

    def lines(self, state: str) -> list[int]:
        """When the line entered that state since the silence began."""
        return [
            event.at_ns
            for event in list(self.events)
            if event.kind == "line" and event.data["now"] == state and event.at_ns > self.since_ns
        ]

    def play(self) -> None:
        self.way(self.box)
        time.sleep(2.0)
        wire = self.feed.pipeline.wires[0]
        self.since_ns = wire.counts.last_received_ns
        if self.way is accepted_in_vain:
            self.since_ns = [event.at_ns for event in list(self.events) if event.kind == "connected"][-1]
        until(lambda: self.lines("backing_off"), 25)  # the next line is a healthy one
        self.box.clear()
        count = wire.counts.frames
        until(lambda: wire.counts.frames > count and wire.supervisor.state.value == "live", 30)

    def check(self) -> float:
        """How many seconds beyond the limit it took to notice."""
        name = self.way.__name__
        noticed, left = self.lines("mute")[0], self.lines("backing_off")[0]
        noticed_s, left_s = (noticed - self.since_ns) / 1e9, (left - self.since_ns) / 1e9
        assert LIMIT_S - 0.3 <= noticed_s <= LIMIT_S + 1.0 + SLACK_S, (name, noticed_s)  # 1 s: the last heartbeat
        allowed = LIMIT_S + 1.0 if self.way is half_open else LIMIT_S + AGAIN_S
        assert left_s <= allowed + SLACK_S, (name, left_s)
        asked = self.feed.pipeline.wires[0].counts.resubscribes
        assert asked == (0 if self.way is half_open else 1), (name, asked)
        return noticed_s - LIMIT_S


def play_all(ways: tuple[Way, ...], history_s: float) -> dict[str, float]:
    """All ways at once; how late each was noticed."""
    with ExitStack() as stack:
        trials = [_start(way, stack) for way in ways]
        until(lambda: all(trial.feed.pipeline.wires[0].counts.frames > 20 for trial in trials), 20)
        time.sleep(history_s)
        errors: list[BaseException] = []
        threads = [threading.Thread(target=_kept, args=(trial, errors)) for trial in trials]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return {trial.way.__name__: trial.check() for trial in trials}


def _start(way: Way, stack: ExitStack) -> Trial:
    box = stack.enter_context(Sandbox("kite", seed=1, instruments=20, ticks_per_second=RATE, rate_limits=False))
    feed = Feed("kite", instruments=["NSE:*"], settings=box.settings(), tokens=MemoryTokenStore())
    trial = Trial(way, box, feed)
    feed.on_event(trial.events.append)
    stack.enter_context(feed)
    return trial


def _kept(trial: Trial, errors: list[BaseException]) -> None:
    try:
        trial.play()
    except BaseException as error:
        errors.append(error)


@pytest.fixture
def with_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new watchdog remembers a minute and a quarter of a busy line."""
    opened = Watchdog.opened

    def remembering(dog: Watchdog, now_s: float) -> None:
        if not dog._arrivals:
            past = now_s - 75.0
            opened(dog, past)
            dog.judge(past, float("inf"))
            while (past := past + 0.5) < now_s:
                dog.data(past)
            dog.closed(now_s)
        opened(dog, now_s)

    monkeypatch.setattr(Watchdog, "opened", remembering)


@pytest.mark.usefixtures("with_history")
def test_each_way_to_go_mute_is_caught_on_a_socket() -> None:
    play_all(WAYS, history_s=1.0)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_five_trials_of_each_way_on_sockets(report: Report) -> None:
    late = [play_all(WAYS, history_s=72.0) for _ in range(5)]
    for way in WAYS:
        name = way.__name__
        worst = max(one[name] for one in late)
        report(
            f"3 {name.replace('_', ' ')}, sockets", 5, f"all caught, at most {worst:.2f} s after the limit", aim="all"
        )
