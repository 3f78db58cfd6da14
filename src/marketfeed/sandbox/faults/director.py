"""Starts and ends faults, at their time or when told to, and lets them see what passes.

It asks nobody for the time but the two functions it is given, so a schedule of hours is played in a
test in no time. Everything runs on the server's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from marketfeed.brokers import HttpReply, HttpRequest, Reaction
from marketfeed.dtypes import Rows
from marketfeed.sandbox.faults.base import Fault, Gate, Stage
from marketfeed.sandbox.faults.kinds import shown
from marketfeed.sandbox.faults.script import Planned

if TYPE_CHECKING:
    from marketfeed.sandbox.peer import Outgoing, Peer

__all__ = ["Director", "Injected"]


@attrs.frozen(kw_only=True)
class Injected:
    """A fault that was started."""

    number: int
    """Counted from 1 in the order of their start."""
    kind: str
    start_ns: int
    """UTC nanoseconds of the sandbox's clock."""
    end_ns: int | None
    """The same as the start for a fault of a moment; None while it acts."""
    connection: int | None
    """The one connection that it acts upon; None = none, or several."""
    connections: tuple[int, ...]
    """All that it acted upon so far."""
    parameters: Mapping[str, Any]


@attrs.define(eq=False)
class _Acting:
    fault: Fault
    place: int
    """In the list of records."""
    ends_at: float | None
    only: set[int] | None
    """Numbers of its connections; None = every one."""

    def meets(self, number: int) -> bool:
        return not self.fault.done and (self.only is None or number in self.only)


class Director:
    """``monotonic`` is in seconds and ``now_ns`` the sandbox's clock; ``plan`` is played from :meth:`begin` on."""

    def __init__(
        self, stage: Stage, plan: Iterable[Planned], monotonic: Callable[[], float], now_ns: Callable[[], int]
    ) -> None:
        self.stage = stage
        self.injected: list[Injected] = []
        self.planned: list[Planned] = list(plan)
        """What is still to come."""
        self._monotonic = monotonic
        self._now_ns = now_ns
        self._acting: list[_Acting] = []
        self._began: float | None = None
        self._live: float | None = None

    # --- time ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Times of the plan count from now, those after ``live+`` from :meth:`subscribed`."""
        self._began = self._monotonic()

    def subscribed(self) -> None:
        """Somebody is subscribed to something; only the first time counts."""
        if self._live is None:
            self._live = self._monotonic()

    def tick(self) -> None:
        """Start what is due and end what is over."""
        now = self._monotonic()
        for acting in list(self._acting):
            if acting.ends_at is not None and now >= acting.ends_at:
                self._finish(acting)
        self._sweep()
        due = [one for one in self.planned if (at := self._due(one)) is not None and at <= now]
        for one in sorted(due, key=self._order):
            self.planned.remove(one)
            try:
                self.start(attrs.evolve(one.fault))
            except ValueError as error:  # such as a connection that is not there any more
                self.stage.hub.log.event("fault_failed", at_ns=self._now_ns(), text=one.text, error=str(error))

    def next_due(self) -> float | None:
        """Seconds until :meth:`tick` has something to do; None = not before something else happens."""
        moments = [acting.ends_at for acting in self._acting if acting.ends_at is not None]
        moments += [at for one in self.planned if (at := self._due(one)) is not None]
        return max(min(moments) - self._monotonic(), 0.0) if moments else None

    def _due(self, one: Planned) -> float | None:
        origin = self._live if one.live else self._began
        return None if origin is None else origin + one.at_s

    def _order(self, one: Planned) -> float:
        return self._due(one) or 0.0

    # --- starting and ending ------------------------------------------------------------------

    def start(self, fault: Fault) -> Injected:
        """Let a fault act from now on. Raises ``ValueError`` when it cannot act here."""
        peers, only = self._meant(fault)
        start_ns = self._now_ns()
        fault.begin(self.stage, peers)
        over = fault.momentary or fault.done or (only is not None and not only)
        numbers = tuple(peer.number for peer in peers)
        record = Injected(
            number=len(self.injected) + 1,
            kind=fault.kind,
            start_ns=start_ns,
            end_ns=start_ns if over else None,
            connection=numbers[0] if only is not None and len(numbers) == 1 else None,
            connections=numbers,
            parameters=shown(fault),
        )
        self.injected.append(record)
        self.stage.hub.log.event("fault", at_ns=start_ns, fault=fault.kind, connections=numbers, **record.parameters)
        if not over:
            ends_at = None if fault.seconds is None else self._monotonic() + fault.seconds
            self._acting.append(_Acting(fault, len(self.injected) - 1, ends_at, only))
        return record

    def clear(self, kind: str | None = None) -> int:
        """End the faults that act now, all or those of a kind; returns how many."""
        meant = [acting for acting in self._acting if kind in (None, acting.fault.kind)]
        for acting in meant:
            self._finish(acting)
        return len(meant)

    def _meant(self, fault: Fault) -> tuple[list[Peer], set[int] | None]:
        """The open connections that a fault means, and their numbers if it means no others."""
        who = fault.who if fault.connection is None else fault.connection
        peers = self.stage.hub.peers
        if isinstance(who, int):
            if who not in peers:
                there = ", ".join(map(str, peers)) or "none"
                raise ValueError(f"fault {fault.kind!r}: connection {who} is not open; open: {there}")
            return [peers[who]], {who}
        if who is None:
            return [], None
        return list(peers.values()), set(peers) if who == "open" else None

    def _finish(self, acting: _Acting) -> None:
        if acting not in self._acting:
            return
        self._acting.remove(acting)
        record = attrs.evolve(self.injected[acting.place], end_ns=self._now_ns())
        self.injected[acting.place] = record
        meant = acting.only
        peers = [peer for peer in self.stage.hub.peers.values() if meant is None or peer.number in meant]
        acting.fault.end(self.stage, peers)
        self.stage.hub.log.event("fault_over", at_ns=record.end_ns, fault=record.kind, number=record.number)

    def _sweep(self) -> None:
        """End the faults that say they are done."""
        for acting in [acting for acting in self._acting if acting.fault.done]:
            self._finish(acting)

    # --- connections --------------------------------------------------------------------------

    def joined(self, peer: Peer) -> None:
        for acting in self._acting:
            if acting.only is None and acting.fault.who is not None:
                record = self.injected[acting.place]
                self.injected[acting.place] = attrs.evolve(record, connections=(*record.connections, peer.number))

    def left(self, peer: Peer) -> None:
        """A fault whose connections are all gone is over."""
        for acting in list(self._acting):
            if acting.only is not None:
                acting.only.discard(peer.number)
                if not acting.only:
                    self._finish(acting)

    # --- what passes --------------------------------------------------------------------------

    def edit(self, peer: Peer, rows: Rows) -> tuple[Rows, tuple[str, ...]]:
        """Rows before they are encoded, and the faults that changed them."""
        marks = []
        for acting in self._of(peer.number):
            edited = acting.fault.edit(peer, rows)
            if edited is not rows and acting.fault.marks:
                marks.append(acting.fault.kind)
            rows = edited
        self._sweep()
        return rows, tuple(marks)

    def alter(self, message: Outgoing) -> Iterable[Outgoing]:
        """Messages before they are queued; a :data:`~marketfeed.sandbox.hub.Filter`."""
        messages: Iterable[Outgoing] = (message,)
        for acting in self._of(message.connection):
            messages = [out for one in messages for out in acting.fault.alter(one)]
        self._sweep()
        return messages

    def swallows(self, message: Outgoing) -> bool:
        return any(acting.fault.swallows(message) for acting in self._of(message.connection))

    def pause_s(self, message: Outgoing) -> float:
        return max([acting.fault.pause_s(len(message.data)) for acting in self._of(message.connection)], default=0.0)

    def ignores(self, peer: Peer) -> bool:
        return any(acting.fault.ignores(peer) for acting in self._of(peer.number))

    def pongs(self, peer: Peer) -> bool:
        return all(acting.fault.pongs(peer) for acting in self._of(peer.number))

    def command_delay_s(self, peer: Peer) -> float:
        return sum(acting.fault.command_delay_s(peer) for acting in self._of(peer.number))

    def reacted(self, peer: Peer, reaction: Reaction) -> None:
        for acting in self._of(peer.number):
            acting.fault.reacted(peer, reaction)
        self._sweep()

    def upgrade(self, asked: HttpRequest) -> HttpReply | None:
        """The refusal of a WebSocket, if a fault wants one."""
        reply = None
        for acting in self._acting:
            reply = reply or (None if acting.fault.done else acting.fault.upgrade(asked))
        self._sweep()
        return reply

    def request(self, asked: HttpRequest) -> Gate:
        """What becomes of an HTTP request: delays add up, the first reply and the shortest body win."""
        found = Gate()
        for acting in self._acting:
            gate = None if acting.fault.done else acting.fault.request(asked)
            if gate is not None:
                delay, keep = found.delay_s + gate.delay_s, min(found.keep, gate.keep)
                found = Gate(delay, found.reply or gate.reply, keep)
        self._sweep()
        return found

    def _of(self, number: int) -> Sequence[_Acting]:
        return [acting for acting in self._acting if acting.meets(number)] if self._acting else ()
