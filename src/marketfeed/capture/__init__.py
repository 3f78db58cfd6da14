"""Captured frames played again: through the vendor's real parser, validation and a journal into any sinks.

Nothing is connected. Frames are parsed in the same groups and order as when they were received, and keep
their time of receipt, so a replay gives the same rows under the same names every time, at any speed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from marketfeed import config as configuration
from marketfeed.batches import TickBatch
from marketfeed.capture.files import PlayedTurn, open_captures, turns
from marketfeed.capture.playback import LONGEST_PAUSE_S, MAX_SPEED, CapturedTime, Playback
from marketfeed.clock import Clock
from marketfeed.config import Config
from marketfeed.config.options import options_of
from marketfeed.contract import Parser, Sink
from marketfeed.dtypes import TICK
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.events import Events
from marketfeed.engine.logs import get_log
from marketfeed.engine.pipeline import Pipeline, SinkPlan
from marketfeed.engine.summary import Summary
from marketfeed.errors import MarketFeedError
from marketfeed.framelog import CapturedFrame, CaptureError, CaptureFile, FileHeader, read_frames, told_settings
from marketfeed.instruments import TokenMap
from marketfeed.journal import Journal
from marketfeed.plugins import Plugins

__all__ = [
    "LONGEST_PAUSE_S",
    "MAX_SPEED",
    "CaptureError",
    "CapturedFrame",
    "PlayedTurn",
    "Replay",
    "built_for",
    "open_captures",
    "read_frames",
    "turns",
]

_MEMORY_BYTES = 128_000_000
_PATIENCE_S = 1e7
"""Sinks get as long as they need for the end of a replay."""
_POLL_S = 0.2


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
        self._time = CapturedTime(self._clock, self.header.created_ns)
        self._playback: Playback | None = None
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

    def _begin(self) -> tuple[Pipeline, Playback]:
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
        self._playback = Playback(turns(self.files), pipeline, self._tokens, self._time, self._speed)
        self._playback.most_rows = self._memory_bytes // TICK.itemsize // 2
        return pipeline, self._playback

    def _end(self, pipeline: Pipeline, playback: Playback) -> Summary:
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
