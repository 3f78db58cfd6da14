"""The connections of one feed: which instrument is on which, and changing that while they run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import attrs

from marketfeed.calendars import ALWAYS, MarketCalendar
from marketfeed.clock import Clock
from marketfeed.contract import Session, Stream, Subscription
from marketfeed.engine.account import Account
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.logs import Log
from marketfeed.engine.wire import LineListener, Nobody, Wire
from marketfeed.enums import Mode
from marketfeed.errors import MarketFeedError
from marketfeed.instruments import Instrument, TokenMap

__all__ = ["LineLimits", "Lines", "spread"]


@attrs.frozen
class LineLimits:
    """What the account carries."""

    connections: int
    per_connection: int


def spread(wanted: Subscription, limits: LineLimits) -> list[Subscription]:
    """Divide instruments over as few connections as hold them.

    Raises ``MarketFeedError`` when the account cannot hold them all.
    """
    if len(wanted) > limits.per_connection * limits.connections:
        raise _too_many(len(wanted), limits)
    items = list(wanted.items())
    size = limits.per_connection
    return [Subscription(dict(items[at : at + size])) for at in range(0, len(items), size)]


def _too_many(count: int, limits: LineLimits) -> MarketFeedError:
    return MarketFeedError(
        f"{count:,} instruments are more than this account carries "
        f"({limits.connections} connections of {limits.per_connection:,}); name fewer or add an account"
    )


@attrs.define
class Lines:
    """Makes the wires, spreads the subscription, changes it at run time. Any thread may call it."""

    account: Account
    inbox: Inbox
    tokens: TokenMap
    register: Callable[[Iterable[Instrument]], list[int]]
    """Gives instruments their numbers in the journal."""
    limits: LineLimits
    clock: Clock
    log: Log
    emit: Callable[[str, int, Mapping[str, Any]], None]
    run: Callable[[Wire], None]
    """Starts the thread of a wire."""
    calendar: MarketCalendar = ALWAYS
    listener: LineListener = attrs.field(factory=Nobody)
    wires: list[Wire] = attrs.field(factory=list)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    @property
    def wanted(self) -> Subscription:
        """All instruments of all connections."""
        return Subscription({one: mode for wire in self.wires for one, mode in wire.wanted.items()})

    def start(self, wanted: Subscription) -> None:
        """Make the first connections."""
        with self._lock:
            self._name(wanted)
            for part in spread(wanted, self.limits):
                self._open(part)

    def subscribe(self, instruments: Iterable[Instrument], mode: Mode) -> None:
        """Add instruments, or change the mode of those that are there; the others do not notice.

        Raises ``MarketFeedError`` when the account cannot hold them; nothing is changed then.
        """
        with self._lock:
            asked = Subscription.of(instruments, mode)
            fresh = asked - self.wanted
            room = self.limits.per_connection * self.limits.connections - len(self.wanted)
            if len(fresh) > room:
                raise _too_many(len(self.wanted) + len(fresh), self.limits)
            self._name(fresh)
            for wire in self.wires:
                known = Subscription({one: asked[one] for one in wire.wanted if one in asked})
                free = self.limits.per_connection - len(wire.wanted)
                added = Subscription(dict(list(fresh.items())[:free]))
                fresh = fresh - added
                if known or added:
                    wire.change(known + added)
                    self.listener.subscribed(wire.number, wire.wanted)
            for part in spread(fresh, self.limits):
                self._open(part)

    def unsubscribe(self, instruments: Iterable[Instrument]) -> None:
        """Take instruments away; a connection that has none left stays open for others."""
        gone = set(instruments)
        with self._lock:
            for wire in self.wires:
                mine = [one for one in wire.wanted if one in gone]
                if mine:
                    wire.change(Subscription(), mine)
                    self.listener.subscribed(wire.number, wire.wanted)

    def replace(self, old: Instrument, new: Instrument) -> None:
        """The master lists an instrument anew: take the new entry, on the same connection."""
        with self._lock:
            for wire in self.wires:
                if old in wire.wanted:
                    self._name([new])
                    if new.token == old.token:  # the broker need not know
                        wire.rename(old, new)
                    else:
                        wire.change(Subscription.of([new], wire.wanted[old]), [old])
                    self.listener.subscribed(wire.number, wire.wanted)

    def stop(self) -> None:
        """Ask all wires to end; returns at once."""
        for wire in list(self.wires):
            wire.stop()

    def _name(self, instruments: Iterable[Instrument]) -> None:
        """Numbers first, subscription later: a tick never comes before its name."""
        known = list(instruments)
        self.tokens.add({one.token: number for one, number in zip(known, self.register(known), strict=True)})

    def _open(self, part: Subscription) -> None:
        session = self.account.session()
        wire = Wire(
            number=len(self.wires),
            stream=self.account.stream(session),
            wanted=part,
            inbox=self.inbox,
            clock=self.clock,
            log=self.log,
            emit=self.emit,
            renew=partial(_renew, self.account, [session]),
            proxy=self.account.settings.proxy,
            calendar=self.calendar,
            listener=self.listener,
        )
        self.wires.append(wire)
        self.listener.subscribed(wire.number, part)
        self.run(wire)


def _renew(account: Account, used: list[Session]) -> Stream:
    """What a wire calls when its session died: each wire remembers the session that it used."""
    used[0] = account.renew(used[0])
    return account.stream(used[0])
