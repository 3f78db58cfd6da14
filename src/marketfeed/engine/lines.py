"""The connections of one feed: which instrument is on which, and changing that while they run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
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
from marketfeed.errors import LineLost, MarketFeedError, SessionExpired
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
            live = [wire for wire in self.wires if wire.error is None]
            fresh = asked - [one for wire in live for one in wire.wanted]
            self._check_room(fresh)
            self._name(fresh)
            for wire in live:
                moved = [one for one, mode in wire.wanted.items() if asked.get(one, mode) != mode]
                known = Subscription({one: asked[one] for one in moved})
                free = self.limits.per_connection - len(wire.wanted)
                added = Subscription(dict(list(fresh.items())[:free]))
                fresh = fresh - added
                if known or added:
                    wire.change(known + added)
                    self.listener.subscribed(wire.number, wire.wanted)
            for part in spread(fresh, self.limits):
                self._open(part)
            self._forget_on_dead_wires(asked)

    def _forget_on_dead_wires(self, asked: Subscription) -> None:
        """They have another connection now."""
        for wire in self.wires:
            if wire.error is not None and any(one in asked for one in wire.wanted):
                wire.wanted = wire.wanted - asked
                self.listener.subscribed(wire.number, wire.wanted)

    def unsubscribe(self, instruments: Iterable[Instrument]) -> None:
        """Take instruments away; a connection that has none left stays open for others."""
        gone = set(instruments)
        with self._lock:
            for wire in self.wires:
                mine = [one for one in wire.wanted if one in gone]
                if mine:
                    wire.change(Subscription(), mine)
                    self.listener.subscribed(wire.number, wire.wanted)

    def replace(self, pairs: Iterable[tuple[Instrument, Instrument]]) -> None:
        """The master lists instruments anew, (old, new): take the new entries, on the same connections.

        In one change for each connection, for one's new token may be another one's old one.
        """
        news = dict(pairs)
        with self._lock:
            for wire in self.wires:
                mine = {old: news[old] for old in wire.wanted if old in news}
                if not mine:
                    continue
                self._name(mine.values())
                moved = {old: new for old, new in mine.items() if old.token != new.token}
                modes = {new: wire.wanted[old] for old, new in moved.items()}
                for old, new in mine.items():
                    if old not in moved:  # the broker need not know
                        wire.rename(old, new)
                if moved:
                    wire.change(Subscription(modes), moved)
                self.listener.subscribed(wire.number, wire.wanted)

    def _check_room(self, fresh: Subscription) -> None:
        """A connection that was given up takes nothing more."""
        size, free = self.limits.per_connection, self.limits.connections - len(self.wires)
        room = free * size + sum(size - len(wire.wanted) for wire in self.wires if wire.error is None)
        if len(fresh) > room:
            raise _too_many(len(self.wanted + fresh), self.limits)

    def stop(self) -> None:
        """Ask all wires to end; returns at once."""
        for wire in list(self.wires):
            wire.stop()

    def _name(self, instruments: Iterable[Instrument]) -> None:
        """Numbers first, subscription later: a tick never comes before its name."""
        known = list(instruments)
        self.tokens.add({one.token: number for one, number in zip(known, self.register(known), strict=True)})

    def _open(self, part: Subscription) -> None:
        login = _Login(self.account, self.clock, self.account.session())
        wire = Wire(
            number=len(self.wires),
            stream=login.stream(),
            wanted=part,
            inbox=self.inbox,
            clock=self.clock,
            log=self.log,
            emit=self.emit,
            renew=login.renew,
            newer=login.newer,
            meaning=login.meaning,
            proxy=self.account.settings.proxy,
            calendar=self.calendar,
            listener=self.listener,
        )
        self.wires.append(wire)
        self.listener.subscribed(wire.number, part)
        self.run(wire)


@attrs.define
class _Login:
    """The session that a wire uses: each remembers its own, so that all share one login when it dies."""

    account: Account
    clock: Clock
    used: Session

    def stream(self) -> Stream:
        return self.account.stream(self.used)

    def renew(self) -> Stream:
        """A stream of a session that is not the one used so far."""
        self.used = self.account.renew(self.used)
        return self.stream()

    def newer(self) -> Stream | None:
        """A stream of the account's session, when it is another one than before."""
        session = self.account.session()
        if session is self.used:
            return None
        self.used = session
        return self.stream()

    def meaning(self, lost: Exception) -> Exception:
        """Some brokers refuse a dead token with a status that means much else; past its end it means this."""
        if not isinstance(lost, LineLost) or lost.http_status is None:
            return lost
        if lost.http_status not in self.account.plugin.info.dead_token_statuses:
            return lost
        end_ns = self.used.expires_ns
        ended = end_ns is not None and self.clock.wall_ns() >= end_ns
        return SessionExpired(f"{lost}; the token has ended") if ended else lost
