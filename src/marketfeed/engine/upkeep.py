"""What a feed looks after beside the data: the new instrument master every morning, instruments that fell silent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.calendars import MarketCalendar
from marketfeed.clock import Clock
from marketfeed.contract import Subscription
from marketfeed.engine.account import Account
from marketfeed.engine.latest import Latest
from marketfeed.engine.lines import Lines
from marketfeed.engine.logs import Log
from marketfeed.enums import Kind
from marketfeed.errors import MarketFeedError, SessionExpired
from marketfeed.identity import partner
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.masters import master_day

__all__ = ["SilenceWatch", "Upkeep"]

_ROUND_S = 60.0
_LONGEST_PAUSE, _SHORT_PAUSE = 30, 5
"""Rounds between two tries to get the day's master, at most; the short one where the broker just cannot be reached."""
_USUAL_ROUNDS = 10
"""An instrument that ticked in each of so many minutes is expected in the next one."""
_MOST_TOLD = 20
"""Silent instruments named one by one; more of them are told in one event."""


@attrs.define
class SilenceWatch:
    """Finds instruments that used to tick every minute and stopped, and those that are back."""

    _seen: NDArray[np.int64] = attrs.field(factory=lambda: np.zeros(0, np.int64))
    _streak: NDArray[np.int64] = attrs.field(factory=lambda: np.zeros(0, np.int64))
    _silent: set[int] = attrs.field(factory=set)

    def round(self, newest: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        """Numbers of the instruments that fell silent since the last round, and that came back.

        ``newest`` is each instrument's newest row number, shape ``(n,)``; it may have grown.
        """
        size = len(newest)
        seen = np.zeros(size, np.int64)
        streak = np.zeros(size, np.int64)
        seen[: len(self._seen)] = self._seen
        streak[: len(self._streak)] = self._streak
        moved = newest != seen
        silent = np.flatnonzero(~moved & (streak >= _USUAL_ROUNDS)).tolist()
        back = [number for number in sorted(self._silent) if moved[number]]
        self._silent = (self._silent | set(silent)) - set(back)
        self._seen = newest.copy()
        self._streak = np.where(moved, streak + 1, 0)
        return silent, back

    def pause(self, newest: NDArray[np.int64]) -> None:
        """The market is closed: nobody is expected."""
        self._seen = newest.copy()
        self._streak = np.zeros(len(newest), np.int64)
        self._silent = set()


@attrs.define
class Upkeep:
    """One thread, one round a minute."""

    account: Account
    lines: Lines
    latest: Latest
    calendar: MarketCalendar
    clock: Clock
    log: Log
    emit: Callable[[str, int | None, Mapping[str, Any]], None]
    stopping: threading.Event
    again: Callable[[InstrumentTable], Subscription] = lambda _: Subscription()
    """What the feed's moving selections, such as the nearest future, mean in a new master."""
    reloads: int = 0
    """Instrument masters loaded since the start."""
    _silence: SilenceWatch = attrs.field(factory=SilenceWatch)
    _day: Any = None
    _tried: Any = None
    """The day whose master was asked for last."""
    _tries: int = 0
    """How often the present day's master was asked for in vain."""
    _pause: int = 0
    """Rounds to let pass before it is asked for again."""
    _renewed: bool = False
    """One of these tries led to a new session."""

    def run(self) -> None:
        """The thread's loop."""
        self._day = master_day(self.clock.wall_ns())
        while not self.clock.wait(self.stopping, _ROUND_S):
            self.round()

    def round(self) -> None:
        """Look once."""
        now_ns = self.clock.wall_ns()
        day = master_day(now_ns)
        if self._day is None:
            self._day = day
        if day != self._tried:
            self._tried, self._tries, self._pause, self._renewed = day, 0, 0, False
        if day != self._day and self._reload():
            self._day = day
        if self.calendar.is_open(now_ns):
            self._tell(*self._silence.round(self.latest.newest))
        else:
            self._silence.pause(self.latest.newest)

    def _reload(self) -> bool:
        """Take the day's master; False to try again, after ever longer pauses."""
        if self._pause:
            self._pause -= 1
            return False
        refresh, self._tries = self._tries > 0, self._tries + 1
        logins = self.account.logins
        try:
            table = self.account.instruments(refresh=refresh, renew=not self._renewed)
            kept = self._follow(table)
            self._select_again(table)
        except (MarketFeedError, OSError) as error:
            self._rest(_LONGEST_PAUSE if isinstance(error, SessionExpired) else _SHORT_PAUSE)
            self.log.warning("the day's instruments cannot be loaded; trying again", error=str(error))
            return False
        finally:
            self._renewed |= self.account.logins != logins  # a new session that does no better is no reason for another
        return self._believe(table, kept)

    def _rest(self, longest: int) -> None:
        """Let 0, 1, 3, 7, ... rounds pass before the next try."""
        self._pause = min(2 ** (self._tries - 1), longest) - 1

    def _follow(self, table: InstrumentTable) -> list[Instrument]:
        """Take what the instruments are today; those that should be there and are not stay, and are given back.

        What goes goes first: its token may be another one's from today on.
        """
        gone, moved, kept = [], [], []
        today = master_day(self.clock.wall_ns())
        for old in self.lines.wanted:
            new = table.get(old.key) or partner(old, table)[0]
            expired = old.expiry is not None and old.expiry < today
            if new is None and (expired or table.by_token(old.token) is not None):
                gone.append(old)
            elif new is None:
                kept.append(old)
            elif new != old:
                moved.append((old, new))
        self.lines.unsubscribe(gone)
        for one in gone:
            self.emit("instrument_gone", None, {"instrument": one.key, "token": one.token})
        self.lines.replace(moved)
        for old, new in moved:
            if new.key != old.key:
                self.emit("instrument_renamed", None, {"instrument": old.key, "now": new.key})
            else:
                self.emit("instrument_changed", None, {"instrument": old.key, "was": old.token, "now": new.token})
        return kept

    def _believe(self, table: InstrumentTable, kept: Sequence[Instrument]) -> bool:
        """Whether the master is all there is today. What it should have and has not stays subscribed: a file that
        is missing for an hour must not end a feed, and a share that is really gone costs nothing."""
        listed = {(one.exchange, one.kind == Kind.INDEX) for one in table} if kept else set()
        absent = {one.exchange for one in kept if (one.exchange, one.kind == Kind.INDEX) not in listed}
        missing = [*table.missing, *sorted(absent)] if kept else []  # a file that nobody wants does not matter
        if missing:
            self._rest(_LONGEST_PAUSE)
            self.log.error("the day's instruments are not complete; trying again", missing=missing, kept=len(kept))
            self.emit("master_incomplete", None, {"missing": missing, "kept": len(kept)})
            return False
        for one in kept:
            self.log.warning("the day's instruments lack one that stays subscribed", instrument=one.key)
            self.emit("instrument_unlisted", None, {"instrument": one.key, "token": one.token})
        self.reloads += 1
        self.log.info("the day's instruments are loaded", instruments=len(table))
        return True

    def _select_again(self, table: InstrumentTable) -> None:
        """Subscribe what the moving selections mean today; what they meant before goes when it is no longer listed."""
        fresh = self.again(table) - self.lines.wanted
        try:
            for mode, instruments in fresh.by_mode().items():
                self.lines.subscribe(instruments, mode)
        except MarketFeedError as error:
            self.log.error("the nearest contracts of the day cannot be subscribed", error=str(error))
            return
        for one in fresh:
            self.emit("instrument_added", None, {"instrument": one.key, "token": one.token})

    def _tell(self, silent: list[int], back: list[int]) -> None:
        names = self.latest.names
        if len(silent) > _MOST_TOLD:
            self.emit("instruments_silent", None, {"count": len(silent)})
        else:
            for number in silent:
                self.emit("instrument_silent", None, {"instrument": names[number].key})
        if len(back) > _MOST_TOLD:
            self.emit("instruments_back", None, {"count": len(back)})
        else:
            for number in back:
                self.emit("instrument_back", None, {"instrument": names[number].key})
