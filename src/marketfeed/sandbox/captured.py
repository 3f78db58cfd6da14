"""A capture as a market: the frames of a real broker, sent again to whoever subscribes what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np

from marketfeed.brokers import Lines, SandboxBroker
from marketfeed.capture import LONGEST_PAUSE_S, PlayedTurn, built_for, open_captures, turns
from marketfeed.clock import NS
from marketfeed.contract import Frame, Parser
from marketfeed.dtypes import Rows, empty_ticks
from marketfeed.framelog import CaptureFile
from marketfeed.instruments import Instrument, TokenMap
from marketfeed.plugins import Plugins
from marketfeed.sandbox.market import Market
from marketfeed.sandbox.universe import Listing

__all__ = ["Capture", "CapturedMarket", "Relayed"]

_LOOK_AHEAD = 300
"""Turns that are read for a first price of each instrument."""


class Relayed(NamedTuple):
    """A captured message and what it says."""

    data: str | bytes
    rows: Rows
    """Rows of known instruments; ``instrument`` is the line."""


class Capture:
    """The files, their instruments, and a parser for them. Raises ``CaptureError``."""

    def __init__(self, place: Path) -> None:
        self.files: Sequence[CaptureFile] = open_captures(place)
        self.header = self.files[0].header
        known: dict[str, Instrument] = {}
        for file in self.files:
            known |= {one.token: one for one in file.instruments().values()}
        self.instruments: Sequence[Instrument] = list(known.values())
        """One per token of the vendor; where a token changed its meaning, the latest."""
        vendor = built_for(self.header, Plugins.discover()).vendor_of(self.header.feed)
        numbers = TokenMap({one.token: line for line, one in enumerate(self.instruments)})
        self._make_parser: Callable[[], Parser] = lambda: vendor.plugin.parser(vendor.settings, numbers)

    def market(self, simulated: Market) -> CapturedMarket:
        """The capture as a market, on a simulated one that lists :meth:`listings`."""
        return CapturedMarket(simulated, self)

    def turns(self) -> Iterator[PlayedTurn]:
        return turns(self.files)

    def parser(self) -> Parser:
        """A parser for one socket whose rows name lines of :attr:`instruments`."""
        return self._make_parser()

    @property
    def first_ns(self) -> int:
        """Time of receipt of the first frame; 0 without any."""
        return next((turn.frames[0].received_ns for turn in self.turns()), 0)

    @property
    def last_ns(self) -> int:
        """Time of receipt of the last frame of the newest file."""
        return max((frame.received_ns for frame in self.files[-1]), default=0)

    def listings(self) -> list[Listing]:
        """The instruments as the simulated market lists them, at the first price that each one shows."""
        prices: dict[int, float] = {}
        parsers: dict[int, Parser] = {}
        for turn in islice(self.turns(), _LOOK_AHEAD):
            parser = parsers.setdefault(turn.connection, self.parser())
            rows = parser(turn.frames).rows
            for line, price in zip(rows["instrument"].tolist(), rows["last_price"].tolist(), strict=True):
                if price > 0:
                    prices.setdefault(line, price)
        return [
            Listing(instrument=_unnamed(one), price=prices.get(line, 100.0))
            for line, one in enumerate(self.instruments)
        ]


class CapturedMarket:
    """Implements :class:`marketfeed.brokers.SandboxMarket`; :meth:`take` hands the frames out, in order, once."""

    def __init__(self, market: Market, capture: Capture) -> None:
        self._market = market
        self._capture = capture
        self.lines: Lines = np.arange(len(market), dtype=np.int64)
        """The lines that the capture has: all."""
        self._frames = self._relayed()
        self._next = next(self._frames, None)
        self._due_s = 0.0
        self._due_ns = self._next[0] if self._next else 0
        self.sent = 0
        """Frames handed out so far."""
        self._shown = np.zeros(len(market), bool)
        self._last = empty_ticks(len(market))

    def suit(self, vendor: str, broker: SandboxBroker) -> None:
        """Make sure that this broker can send these frames. Raises ``ValueError``."""
        if vendor != self._capture.header.vendor:
            raise ValueError(f"this is a capture of {self._capture.header.vendor}, which {vendor} cannot send")
        for line, one in enumerate(self._capture.instruments):
            if broker.token(line) != one.token:
                raise ValueError(
                    f"the sandbox would list {one.key} under the token {broker.token(line)}, but the frames"
                    f" say {one.token}; replay the capture with `marketfeed replay` instead"
                )

    @property
    def instruments(self) -> Sequence[Instrument]:
        return self._market.instruments

    def take(self, elapsed_s: float) -> Relayed | None:
        """The next frame, if it is due after so many seconds of captured time."""
        if self._next is None:
            return None
        received_ns, relayed = self._next
        step_s = (received_ns - self._due_ns) / NS
        due_s = self._due_s + min(max(step_s, 0.0), LONGEST_PAUSE_S)
        if due_s > elapsed_s:
            return None
        self._due_s, self._due_ns = due_s, max(self._due_ns, received_ns)
        self._next = next(self._frames, None)
        self.sent += 1
        self._last[relayed.rows["instrument"]] = relayed.rows
        self._shown[relayed.rows["instrument"]] = True
        return relayed

    def _relayed(self) -> Iterator[tuple[int, Relayed]]:
        parsers: dict[int, tuple[tuple[str, int], Parser]] = {}
        for turn in self._capture.turns():
            socket, parser = parsers.get(turn.connection, (None, None))
            if parser is None or socket != turn.socket:
                parser = self._capture.parser()
                parsers[turn.connection] = (turn.socket, parser)
            for frame in turn.frames:
                yield frame.received_ns, Relayed(_message(frame), _known(parser([frame]).rows))

    def shown(self, lines: Lines) -> Lines:
        """Those of the lines that have something to show: no row of a capture is invented."""
        return lines[self._shown[lines]]

    def snapshot(self, lines: Lines) -> Rows:
        """The rows last handed out; the simulated state for lines that had none yet."""
        rows = self._market.snapshot(lines)
        mine = self._shown[lines]
        rows[mine] = self._last[lines[mine]]
        return rows

    def candles(self, line: int, interval_s: int, start_ns: int, end_ns: int) -> Rows:
        """The simulated market's: a capture has no past."""
        return self._market.candles(line, interval_s, start_ns, end_ns)


def _message(frame: Frame) -> str | bytes:
    return frame.data.decode("utf-8", "replace") if frame.text else frame.data


def _known(rows: Rows) -> Rows:
    return rows if not len(rows) or rows["instrument"].min() >= 0 else rows[rows["instrument"] >= 0]


def _unnamed(one: Instrument) -> Instrument:
    """As :class:`~marketfeed.brokers.SandboxMarket` wants it: the exchange's number, no vendor's."""
    number = one.exchange_token or one.token
    # An index has no tick size; the simulated market needs one.
    return attrs.evolve(one, vendor="", token=number, exchange_token=number, tick_size=one.tick_size or 0.05)
