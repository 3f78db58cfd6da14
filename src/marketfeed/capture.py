"""Captured frames played again: through the vendor's real parser, validation and a journal into any sinks.

Nothing is connected. Frames are parsed in the same groups and order as when they were received, and keep
their time of receipt, so a replay gives the same rows under the same names every time, at any speed.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

from marketfeed import config as configuration
from marketfeed.batches import TickBatch
from marketfeed.clock import NS, Clock
from marketfeed.config import Config
from marketfeed.config.options import options_of
from marketfeed.contract import Frame, Parser, Sink
from marketfeed.dtypes import TICK
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.delivery import DeliveryState
from marketfeed.engine.events import Events
from marketfeed.engine.inbox import Delivered, Inbox
from marketfeed.engine.logs import get_log
from marketfeed.engine.pipeline import Pipeline, SinkPlan
from marketfeed.engine.summary import Summary
from marketfeed.errors import MarketFeedError
from marketfeed.framelog import (
    SUFFIX,
    CapturedFrame,
    CaptureError,
    CaptureFile,
    FileHeader,
    read_frames,
    told_settings,
)
from marketfeed.instruments import Instrument, TokenMap
from marketfeed.journal import Journal, Reader
from marketfeed.plugins import Plugins

__all__ = [
    "MAX_SPEED",
    "CaptureError",
    "CapturedFrame",
    "PlayedTurn",
    "Replay",
    "open_captures",
    "read_frames",
    "turns",
]

MAX_SPEED = math.inf
"""As fast as the sinks take it."""
LONGEST_PAUSE_S = 600.0
"""A pause between frames takes this long at most, at the recorded speed: nobody waits for a night."""
_MEMORY_BYTES = 128_000_000
_PATIENCE_S = 1e7
"""Sinks get as long as they need for the end of a replay."""
_POLL_S = 0.2


class PlayedTurn(NamedTuple):
    """Frames of one socket that the feed parsed together."""

    turn: int
    connection: int
    socket: tuple[str, int]
    """Run and number of the socket; another one than before means a new parser."""
    frames: Sequence[Frame]
    instruments: Mapping[int, Instrument]
    """Instruments that become known before these frames, by their number in the journal of then."""


def open_captures(places: str | Path | Iterable[str | Path]) -> list[CaptureFile]:
    """The capture files among paths and folders, each once, oldest run first.

    Raises ``CaptureError`` for a file that cannot be used, a folder without one, or files of several feeds.
    """
    if isinstance(places, str | Path):
        places = [places]
    files = {file.header.id: file for place in places for file in _files_at(Path(place))}
    if not files:
        raise CaptureError("there is no capture file to read")
    kinds = {(file.header.vendor, file.header.feed) for file in files.values()}
    if len(kinds) > 1:
        named = ", ".join(f"{feed} ({vendor})" for vendor, feed in sorted(kinds))
        raise CaptureError(f"these captures are of several feeds: {named}; replay one at a time")
    return sorted(files.values(), key=_order)


def _files_at(place: Path) -> Iterator[CaptureFile]:
    if not place.is_dir():
        yield CaptureFile(place)
        return
    found = sorted(place.rglob(f"*{SUFFIX}"))
    if not found:
        raise CaptureError(f"{place} holds no {SUFFIX} file")
    yield from map(CaptureFile, found)


def _order(file: CaptureFile) -> tuple[int, str, int, int]:
    header = file.header
    return header.run_start_ns, header.run, header.connection, header.part


def turns(files: Sequence[CaptureFile]) -> Iterator[PlayedTurn]:
    """What was parsed, in the order in which it was: connections merged, runs one after the other."""
    for _, run in groupby(sorted(files, key=_order), lambda file: file.header.run):
        lines = groupby(list(run), lambda file: file.header.connection)
        parts = [chain.from_iterable(map(_turns_of, list(line))) for _, line in lines]
        yield from heapq.merge(*parts, key=lambda one: one.turn)


def _turns_of(file: CaptureFile) -> Iterator[PlayedTurn]:
    header = file.header
    fresh: dict[int, Instrument] = {}
    for piece in file.pieces():
        if isinstance(piece, dict):
            fresh |= piece
            continue
        for (turn, socket), group in groupby(piece, lambda one: (one.turn, one.socket)):
            frames = [Frame(one.data, one.received_ns, one.text) for one in group]
            yield PlayedTurn(turn, header.connection, (header.run, socket), frames, fresh)
            fresh = {}


class Replay:
    """Plays capture files once, into sinks or into a loop.

    ::

        Replay("data/capture/main", sinks=[my_sink]).run()
        for batch in Replay("0-20261120-091500-000.mfc", speed=10):
            print(batch.symbols[0], batch["last_price"][-1])

    ``speed`` is a factor of the recorded pace, or ``MAX_SPEED``. ``settings`` replaces vendor settings that
    the capture remembers, such as mStock's ``dialect``. ``sinks`` as for a feed. ``config`` is a raw
    configuration: tables of the sinks that are named, and ``[validation]`` instead of what was captured.
    Published ticks carry a journal name that is made of files and settings alone, so a sink that stores its position
    takes each row once, also when the same replay runs again.

    Raises ``CaptureError`` and ``ConfigError``.
    """

    def __init__(
        self,
        files: str | Path | Iterable[str | Path],
        *,
        sinks: Iterable[str | Sink] = (),
        speed: float = MAX_SPEED,
        settings: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        plugins: Plugins | None = None,
        clock: Clock | None = None,
        memory_bytes: int = _MEMORY_BYTES,
    ) -> None:
        if not speed > 0:
            raise ValueError(f"speed is {speed}; give a factor above 0, or MAX_SPEED")
        self.files = open_captures(files)
        self.header: FileHeader = self.files[0].header
        self.feed = self.header.feed
        self.error: Exception | None = None
        """Why the replay could not go on; None while it can."""
        self._speed = speed
        self._clock = clock or Clock()
        self._memory_bytes = memory_bytes
        given = list(sinks)
        names = [sink for sink in given if isinstance(sink, str)]
        plugins = plugins or Plugins.discover()
        built = built_for(self.header, plugins, settings=settings, sinks=names, tables=config, environ=environ)
        vendor = built.vendor_of(self.feed)
        self._validation = built.validation
        self._identity = _identity(self.files, told_settings(vendor.settings), told_settings(built.validation))
        self._plans = [
            SinkPlan(
                name=one.name, sink=one.make(self.feed), batch_rows=one.batch_rows, flush_every_s=one.flush_every_s
            )
            for one in built.sinks_of(self.feed)
        ]
        objects = [sink for sink in given if isinstance(sink, Sink)]
        self._plans += [
            SinkPlan(name=f"{type(sink).__name__}-{place}", sink=sink) for place, sink in enumerate(objects, 1)
        ]
        self._tokens = TokenMap()
        self._make_parser: Callable[[], Parser] = lambda: vendor.plugin.parser(vendor.settings, self._tokens)
        self._time = _CapturedTime(self._clock, self.header.created_ns)
        self._playback: _Playback | None = None
        self._pipeline: Pipeline | None = None

    @property
    def journal_name(self) -> str:
        """What published ticks are numbered under; made of the captures' own ids and the settings."""
        return f"{self._identity}.1"

    def run(self) -> Summary:
        """Play everything into the sinks; returns when they have it, or after :meth:`stop`.

        What stopped it, if anything, is in ``error``.
        """
        pipeline, playback = self._begin()
        try:
            pipeline.wait_for_sinks()
            pipeline.start_parsing(playback, self._make_parser)
            while not playback.ended.wait(_POLL_S) and not pipeline.finished.is_set():
                pass
        finally:
            summary = self._end(pipeline, playback)
        return summary

    def __iter__(self) -> Iterator[TickBatch]:
        """Every batch, as fast as the loop and ``speed`` allow; raises what stopped the replay early."""
        pipeline, playback = self._begin()
        try:
            pipeline.wait_for_sinks()
            reader = pipeline.journal.reader("iterator", start="oldest", keep=False)
            playback.observers.append(reader)
            pipeline.start_parsing(playback, self._make_parser)
            while True:
                ending = playback.ended.is_set() or pipeline.finished.is_set()
                batch = reader.take(4096, 0.0 if ending else _POLL_S)
                if len(batch):
                    yield batch
                elif ending:
                    break
        finally:
            playback.observers.clear()
            self._end(pipeline, playback)
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End early; returns at once. Any thread."""
        if self._playback is not None:
            self._playback.close()

    def _begin(self) -> tuple[Pipeline, _Playback]:
        if self._pipeline is not None:
            raise MarketFeedError("this replay was played before; make a new one")
        header = self.header
        label = header.label or header.vendor
        journal = Journal.memory(feed=self.feed, vendor=label, max_bytes=self._memory_bytes, identity=self._identity)
        log = get_log(feed=self.feed)
        pipeline = self._pipeline = Pipeline(
            self.feed,
            journal,
            self._plans,
            Events(self.feed, label, self._time, log),
            DeadLetters(self.feed, self._time),
            self._time,
            log,
            validation=self._validation,
        )
        self._playback = _Playback(turns(self.files), pipeline, self._tokens, self._time, self._speed)
        self._playback.most_rows = self._memory_bytes // TICK.itemsize // 2
        return pipeline, self._playback

    def _end(self, pipeline: Pipeline, playback: _Playback) -> Summary:
        if playback.ended.is_set():
            pipeline.stop_timeout_s = _PATIENCE_S
        summary = pipeline.stop()
        pipeline.journal.close()
        self.error = pipeline.error
        return summary


def built_for(
    header: FileHeader,
    plugins: Plugins,
    *,
    settings: Mapping[str, Any] | None = None,
    sinks: Sequence[str] = (),
    tables: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """A configuration for playing a capture: the vendor as captured, without credentials, and some sinks.

    ``tables`` is a raw configuration whose ``[sinks]`` are used, and ``[validation]`` if it has one; else rows
    are judged as they were. Raises ``ConfigError``.
    """
    tables = tables or {}
    told = _known(header.settings, plugins.vendor(header.vendor).info.settings)
    values = {
        "feeds": {header.feed: {"vendor": header.vendor, "instruments": ["NSE:*"], "sinks": list(sinks)}},
        "vendors": {header.vendor: {**told, **(settings or {})}},
        "sinks": {name: _here(table) for name, table in tables.get("sinks", {}).items() if name in sinks},
        "validation": tables.get("validation") or _known(header.validation, configuration.ValidationConfig),
        "journal": {"kind": "memory"},
    }
    return configuration.build(values, plugins, environ, placeholder="replay")


def _known(told: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """What was told of settings that still exist."""
    known = options_of(cls)
    return {name: value for name, value in told.items() if name in known}


def _here(table: Any) -> Any:
    """A sink's table without ``process``: a replay delivers by itself."""
    return {key: value for key, value in table.items() if key != "process"} if isinstance(table, Mapping) else table


def _identity(files: Sequence[CaptureFile], *settings: Mapping[str, Any]) -> str:
    """A name for the rows that these files make with these settings; with others they may be other rows."""
    made_of = [sorted(file.header.id for file in files), *(sorted(one.items()) for one in settings)]
    return hashlib.blake2b(repr(made_of).encode(), digest_size=16).hexdigest()


class _CapturedTime(Clock):
    """Wall time is that of the frames, so that everything that looks at it does so reproducibly."""

    def __init__(self, clock: Clock, now_ns: int) -> None:
        self._clock = clock
        self.now_ns = now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wait(self, event: threading.Event, timeout_s: float | None) -> bool:
        return self._clock.wait(event, timeout_s)


class _Playback(Inbox):
    """An inbox that is filled from files: one turn at a time, at the recorded pace, never ahead of the sinks."""

    def __init__(
        self, turns: Iterator[PlayedTurn], pipeline: Pipeline, tokens: TokenMap, time: _CapturedTime, speed: float
    ) -> None:
        super().__init__(0, time)
        self.observers: list[Reader] = []
        self.most_rows = 0
        """The journal lives in memory: wait while a consumer is this far behind."""
        self.ended = threading.Event()
        """Everything was played and appended."""
        self._turns = turns
        self._pipeline = pipeline
        self._tokens = tokens
        self._time = time
        self._speed = speed
        self._stopping = threading.Event()
        self._sockets: dict[int, tuple[str, int]] = {}
        self._run = ""
        self._begun_s: float | None = None
        self._due_s = 0.0
        self._due_ns = 0

    def take(self) -> list[Delivered] | None:
        played = self._next() if self._goes_on() else None
        if played is None or not self._paced(played.frames[0].received_ns):
            if not (self._stopping.is_set() or self._pipeline.finished.is_set()):
                self.ended.set()
            return None
        if played.instruments:
            self._learn(played.instruments)
        self._time.now_ns = played.frames[-1].received_ns
        run = played.socket[0]
        if run != self._run:
            self._run = run
            self._pipeline.forget_rows()
        renewed = self._sockets.get(played.connection) != played.socket
        self._sockets[played.connection] = played.socket
        frames = Delivered(played.connection, played.frames)
        return [Delivered(played.connection, None), frames] if renewed else [frames]

    def close(self) -> None:
        self._stopping.set()

    def _next(self) -> PlayedTurn | None:
        try:
            return next(self._turns, None)
        except OSError as error:
            self._pipeline.fail(CaptureError(f"a capture file cannot be read on: {error}"))
            return None

    def _learn(self, instruments: Mapping[int, Instrument]) -> None:
        ordered = [instruments[number] for number in sorted(instruments)]
        numbers = self._pipeline.journal.instruments.register(ordered)
        self._tokens.add({one.token: number for one, number in zip(ordered, numbers, strict=True)})

    def _goes_on(self) -> bool:
        """Wait for the slowest consumer; False when the replay is to end."""
        while self._lag() > self.most_rows and not self._stopping.wait(0.001):
            pass
        return not (self._stopping.is_set() or self._pipeline.finished.is_set())

    def _lag(self) -> int:
        over = (DeliveryState.FAILED, DeliveryState.DONE)
        readers = [one.reader for one in self._pipeline.deliveries if one.state not in over]
        places = [reader.next_row for reader in (*readers, *self.observers) if reader is not None]
        committed = self._pipeline.journal.committed
        return committed - min(places, default=committed)

    def _paced(self, received_ns: int) -> bool:
        """Wait until a frame is due; False when the replay is to end."""
        if self._speed == MAX_SPEED:
            return True
        now_s = self._time.monotonic()
        if self._begun_s is None:
            self._begun_s, self._due_ns = now_s, received_ns
        step_s = (received_ns - self._due_ns) / NS
        self._due_s += min(max(step_s, 0.0), LONGEST_PAUSE_S) / self._speed
        self._due_ns = max(self._due_ns, received_ns)
        wait_s = self._begun_s + self._due_s - now_s
        return wait_s <= 0 or not self._time.wait(self._stopping, wait_s)
