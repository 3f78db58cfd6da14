"""One sink of a configuration in a process of its own, on the journal that the feed writes.

The journal is attached read-only, so nothing here can hurt the feed: the only files of the journal that this
process writes are the sink's cursor. It does not log in and connects to nothing but what the sink does.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Self

from marketfeed.clock import Clock
from marketfeed.config import Config, secrets_of
from marketfeed.deadletters import DeadLetters, letters_folder
from marketfeed.engine.assembly import Assembly
from marketfeed.engine.delivery import DeliveryState
from marketfeed.engine.events import Events
from marketfeed.engine.gaps import GapLedger
from marketfeed.engine.gapwriter import GapWriter
from marketfeed.engine.logs import get_log
from marketfeed.engine.metrics import ApiCalls
from marketfeed.engine.pipeline import Pipeline
from marketfeed.engine.summary import Summary
from marketfeed.errors import ConfigError, JournalError, MarketFeedError, Problem
from marketfeed.gaps import sink_gaps_file
from marketfeed.journal import Journal, ticks_folder
from marketfeed.journal.attached import FileJournal
from marketfeed.journal.layout import CONTROL
from marketfeed.plugins import Plugins

__all__ = ["SinkProcess"]

_LOOK_S = 0.2
_PATIENCE_S = 1e7


class SinkProcess:
    """The sink ``sink`` of the feed ``feed`` (by default the only one that names it).

    Its cursor, its dead letters and its settings are those that it has inside the feed, so it may move between
    the two; whoever has the cursor first delivers. Raises ``ConfigError`` when the configuration has no such sink.
    """

    def __init__(
        self, config: Config, sink: str, feed: str | None = None, *, plugins: Plugins, clock: Clock | None = None
    ) -> None:
        self.name = _feed_of(config, sink, feed)
        if config.journal.kind != "disk":
            raise ConfigError([Problem("journal.kind", "is memory, which no other process can read")])
        self.sink = sink
        self.clock = clock or Clock()
        self.folder: Path = ticks_folder(config.journal.folder, self.name)
        """The feed's journal."""
        self.jobs: dict[str, int] = {}
        self.api_calls = ApiCalls()
        self.logins = 0
        self.stopping = threading.Event()
        """Set it to end a wait for the journal, or :meth:`watch`."""
        self._config = config
        self._plugins = plugins
        known = secrets_of(config)
        self._log = get_log(lambda: known, feed=self.name, process=sink)
        self._parts = Assembly(config, self.name, plugins, self.clock, self._log)
        self._pipeline: Pipeline | None = None
        self._file: tuple[int, int] | None = None
        self._writing: bool | None = None
        self._stopped: Summary | None = None

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> Self:
        """Wait for the sink to open. Raises what stands in the way, such as ``JournalError`` without a journal
        and ``MarketFeedError`` when another process has the sink's cursor; nothing is left running then."""
        pipeline = self._open()
        try:
            self._wait_for_sink(pipeline)
        except BaseException:
            self.stop()
            raise
        return self

    def drain(self) -> Summary:
        """Deliver what the journal holds now, then stop. The feed may run or not. Raises ``JournalError``
        where there is no journal."""
        pipeline = self._open()
        try:
            self._wait_for_sink(pipeline)
        finally:
            pipeline.stop_timeout_s = _PATIENCE_S
            summary = self.stop()
        return summary

    def stop(self) -> Summary:
        """Give the sink what the journal holds, within the feed's ``stop_timeout_s``. Twice is the same as once."""
        self.stopping.set()
        if self._stopped is None:
            self._stopped = self.pipeline.stop()
            self.pipeline.journal.close()
        return self._stopped

    def watch(self, timeout_s: float) -> bool:
        """Look after things once and sleep ``timeout_s``; False when there is no going on.

        Raises ``MarketFeedError`` when the sink has failed, or when the journal is not the one any more.
        """
        delivery = self.pipeline.deliveries[0]
        if delivery.state is DeliveryState.FAILED:
            raise MarketFeedError(f"sink {self.sink!r} failed: {delivery.error}")
        if _identity(self.folder) != self._file:
            raise MarketFeedError(f"the journal in {self.folder} was removed or replaced; start again for the new one")
        self._tell_writer(self.pipeline.journal.writer_alive)
        _note_instruments(self.pipeline.gaps.writer)
        return not self.clock.wait(self.stopping, timeout_s)

    def _wait_for_sink(self, pipeline: Pipeline) -> None:
        try:
            pipeline.wait_for_sinks()
        except MarketFeedError as error:
            if isinstance(error.__cause__, JournalError):
                text = (
                    f"somebody else delivers to it: {error.__cause__}; stop that process, or the feed if it runs there"
                )
                raise MarketFeedError(f"sink {self.sink!r} cannot start, {text}") from error
            raise

    def _tell_writer(self, alive: bool) -> None:
        if alive is not self._writing:
            self._writing = alive
            said = "the feed writes the journal" if alive else "the feed does not run; waiting for its next start"
            self._log.info(said, journal=str(self.folder))

    def wait_for_journal(self) -> bool:
        """Wait until the feed has made its journal; False when :attr:`stopping` was set before."""
        told = False
        while not (self.folder / CONTROL).exists():
            if not told:
                told = True
                self._log.warning("there is no journal yet; waiting for the feed", folder=str(self.folder))
            if self.clock.wait(self.stopping, _LOOK_S):
                return False
        return True

    def _open(self) -> Pipeline:
        if self._pipeline is not None:
            raise MarketFeedError(f"sink {self.sink!r} was started before; make a new one")
        journal = Journal.attach(self.folder)
        self._file = _identity(self.folder)
        vendor = self._parts.vendor.name
        events = Events(self.name, vendor, self.clock, self._log)
        events.listeners.append(self._plugins.notify)
        try:
            plan = self._parts.plan(self._config.sinks[self.sink])
            self._pipeline = Pipeline(
                self.name,
                journal,
                [plan],
                events,
                self._deadletters(journal, vendor),
                self.clock,
                self._log,
                self._parts.feed.stop_timeout_s,
                gaps=self._gaps(journal, vendor, events),
            )
        except BaseException:
            journal.close()
            raise
        return self._pipeline

    def _deadletters(self, journal: FileJournal, vendor: str) -> DeadLetters:
        """The feed's own store: several processes may write it, each segments of its own."""
        known = secrets_of(self._config)
        return DeadLetters(
            self.name,
            self.clock,
            letters_folder(self._config.journal.folder, self.name),
            self._config.dead_letters.max_bytes,
            vendor=vendor,
            journal=journal,
            hidden=lambda: known,
        )

    def _gaps(self, journal: FileJournal, vendor: str, events: Events) -> GapLedger:
        """A ledger of its own: the feed's has one writer."""
        path = sink_gaps_file(self._config.journal.folder, self.name, self.sink)
        writer = GapWriter(self.name, vendor, journal, self.clock, self._log, events.put, path)
        _note_instruments(writer)
        return GapLedger(writer)

    # --- telling --------------------------------------------------------------------------------

    @property
    def pipeline(self) -> Pipeline:
        """The running parts; ``MarketFeedError`` before :meth:`start`."""
        if self._pipeline is None:
            raise MarketFeedError(f"sink {self.sink!r} is not started")
        return self._pipeline

    @property
    def started(self) -> bool:
        """Whether the journal was found."""
        return self._pipeline is not None

    @property
    def vendor(self) -> str:
        """The name of the feed's vendor table."""
        return self._parts.vendor.name

    def status(self) -> dict[str, Any]:
        """The state of each part, ready for JSON."""
        pipeline = self.pipeline
        state = pipeline.deliveries[0].state
        ready = state is DeliveryState.DELIVERING
        shown = {**pipeline.status(), "ready": ready, "writer_alive": pipeline.journal.writer_alive}
        return {"vendor": self.vendor, "process": self.sink, **shown}


def _note_instruments(writer: GapWriter) -> None:
    """What the sink could miss: all that the journal knows."""
    known = range(len(writer.journal.instruments))
    if len(writer.book.wanted.get(0, ())) != len(known):
        writer.book.wanted[0] = tuple(known)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which file the control page is; None when there is none."""
    try:
        found = os.stat(folder / CONTROL)  # noqa: PTH116 - the numbers alone
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _feed_of(config: Config, sink: str, feed: str | None) -> str:
    named = [one.name for one in config.feeds.values() if sink in one.sinks]
    if feed is not None:
        if feed not in config.feeds:
            raise ConfigError([Problem("feeds", f"there is no feed {feed!r}; there are: {', '.join(config.feeds)}")])
        if feed not in named:
            raise ConfigError([Problem(f"feeds.{feed}.sinks", f"does not name {sink!r}")])
        return feed
    if len(named) == 1:
        return named[0]
    if named:
        raise ConfigError([Problem("feeds", f"{', '.join(named)} name the sink {sink!r}; say which one with --feed")])
    known = sorted({name for one in config.feeds.values() for name in one.sinks})
    raise ConfigError([Problem("feeds", f"no feed names the sink {sink!r}; they name: {', '.join(known) or 'none'}")])
