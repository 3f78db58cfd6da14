"""The feed: instruments of one account, one journal, any number of consumers."""

from __future__ import annotations

import asyncio
import itertools
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from marketfeed import config as configuration
from marketfeed.batches import Tick, TickBatch
from marketfeed.clock import Clock
from marketfeed.config import Config
from marketfeed.contract import Event, Sink, Subscription
from marketfeed.engine.assembly import Assembly
from marketfeed.engine.choosing import choose
from marketfeed.engine.consuming import CallbackSink, Observer
from marketfeed.engine.lines import LineLimits, Lines
from marketfeed.engine.logs import get_log
from marketfeed.engine.metrics import ApiCalls
from marketfeed.engine.pipeline import Pipeline, SinkPlan
from marketfeed.engine.summary import Summary
from marketfeed.enums import Mode
from marketfeed.errors import ConfigError, MarketFeedError, Problem
from marketfeed.gaps import Gap
from marketfeed.instruments import Instrument, InstrumentTable, TokenMap
from marketfeed.plugins import Plugins
from marketfeed.selection import is_moving
from marketfeed.tokens import FileTokenStore, LenientTokenStore, TokenKeeper

__all__ = ["Feed"]

_PATIENCE_S = 1e7
"""A drain waits for its sinks as long as they need (an infinite timeout is more than a lock takes)."""


class Feed:
    """Live ticks of a broker, as batches, a newest-tick table, and whatever sinks take.

    ::

        with Feed("kite", instruments=["NSE:RELIANCE", "NSE:INFY"], mode="full") as feed:
            for batch in feed:
                print(batch["last_price"])

    ``sinks`` are names of installed sinks (with their default options) or :class:`Sink` objects.
    ``journal`` is a folder for a journal on disk that survives this process; without it the journal
    lives in memory (128 MB, the oldest rows go first). ``capture`` is a folder for the raw frames,
    ``validation`` what the table ``[validation]`` would hold, such as ``{"repeat": "drop"}``.
    Nothing is global: a process may hold many feeds, also with the same vendor and different settings.

    Raises :class:`~marketfeed.errors.ConfigError` with every problem at once.
    """

    def __init__(
        self,
        vendor: str,
        *,
        instruments: Iterable[str],
        mode: str = "full",
        settings: Mapping[str, Any] | None = None,
        validation: Mapping[str, Any] | None = None,
        sinks: Iterable[str | Sink] = (),
        journal: str | Path | None = None,
        capture: str | Path | None = None,
        name: str = "main",
        on_error: str = "continue",
        stop_timeout_s: float = 10.0,
        plugins: Plugins | None = None,
        tokens: TokenKeeper | None = None,
        clock: Clock | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        plugins = plugins or Plugins.discover()
        given = list(sinks)
        built = configuration.build(
            {
                "feeds": {
                    name: {
                        "vendor": vendor,
                        "instruments": list(instruments),
                        "mode": mode,
                        "sinks": [sink for sink in given if isinstance(sink, str)],
                        "stop_timeout_s": stop_timeout_s,
                    }
                },
                "vendors": {vendor: dict(settings or {})},
                "validation": dict(validation or {}),
                "journal": {"kind": "memory"} if journal is None else {"kind": "disk", "folder": str(journal)},
                "capture": {} if capture is None else {"folder": str(capture)},
            },
            plugins,
            environ,
        )
        self._setup(built, name, plugins, tokens, clock, on_error)
        for sink in given:
            if isinstance(sink, Sink):
                self.add_sink(sink)

    @classmethod
    def from_config(
        cls,
        config: Config,
        name: str,
        *,
        plugins: Plugins,
        tokens: TokenKeeper | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """The feed ``[feeds.NAME]`` of a configuration file."""
        feed = cls.__new__(cls)
        feed._setup(config, name, plugins, tokens, clock, "continue")
        return feed

    def _setup(
        self,
        config: Config,
        name: str,
        plugins: Plugins,
        tokens: TokenKeeper | None,
        clock: Clock | None,
        on_error: str,
    ) -> None:
        if on_error not in ("continue", "stop"):
            raise ValueError(f"on_error is {on_error!r}; choose 'continue' or 'stop'")
        self.name = name
        self.clock = clock or Clock()
        self._on_error = on_error
        known = configuration.secrets_of(config)
        self._log = get_log(lambda: known | self.account.secrets(), feed=name)
        self._parts = Assembly(config, name, plugins, self.clock, self._log)
        self._listeners: list[Callable[[Event], None]] = [plugins.notify]
        self._numbers = itertools.count(1)
        self._pipeline: Pipeline | None = None
        self._stopped: Summary | None = None
        self._stop_asked = False
        self._stop_lock = threading.Lock()
        self.jobs: dict[str, int] = {"instruments": 0}
        """Once-a-day work: 1 succeeded, 0 not run, -1 failed."""
        self.api_calls = ApiCalls()
        self.http = self._parts.http(self.api_calls)
        self.account = self._parts.account(self.http, LenientTokenStore(tokens or FileTokenStore()), self.api_calls)
        self._plans = self._parts.plans()

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> Self:
        """Log in, load the instruments, open journal and sinks, start the connections.

        Returns before the first tick. Raises what stands in the way (``AuthError``, ``ConfigError``
        for an unknown instrument, ``JournalError``, ...); nothing is left running then.
        """
        if self._pipeline is not None:
            raise MarketFeedError(f"feed {self.name!r} was started before; make a new one")
        try:
            instruments = self._find(self._parts.feed.instruments)
            pipeline = self._open()
            numbers = pipeline.journal.instruments.register(instruments)
            tokens = TokenMap({one.token: number for one, number in zip(instruments, numbers, strict=True)})
            pipeline.wait_for_sinks()
            info = self.account.plugin.info
            pipeline.connect(
                self.account,
                Subscription.of(instruments, self._parts.feed.mode),
                tokens,
                LineLimits(info.connections_per_account, info.instruments_per_connection),
                calendar=self._parts.calendar(),
                capture=self._parts.capture(pipeline, tokens),
                again=self._find_again,
            )
        except BaseException:
            if self._pipeline is not None:
                self.stop()
            self.http.session.close()  # its connections; a start that got no further may be tried again
            raise
        return self

    def drain(self) -> Summary:
        """Deliver what the journal still holds to the sinks, without connecting, then stop."""
        pipeline = self._open()
        try:
            pipeline.wait_for_sinks()
        finally:
            pipeline.stop_timeout_s = _PATIENCE_S
            summary = self.stop()
        return summary

    def stop(self) -> Summary:
        """Stop within ``stop_timeout_s``: connections first, then the sinks take what is there.

        May be called again, from any thread, and gives the same summary. A thread of the feed's own, such
        as a callback's, cannot wait for itself: there it starts the stop and returns the counts so far.
        """
        if self._pipeline is None:
            raise MarketFeedError(f"feed {self.name!r} was not started")
        if self._pipeline.owns(threading.current_thread()):
            if not self._stop_asked:
                self._stop_asked = True
                threading.Thread(target=self.stop, name=f"marketfeed-{self.name}-stop", daemon=True).start()
            return self._stopped or self._pipeline.summary()
        with self._stop_lock:
            if self._stopped is None:
                self._stopped = self._stop(self._pipeline)
        return self._stopped

    def _stop(self, pipeline: Pipeline) -> Summary:
        self.account.closed.set()
        summary = pipeline.stop()
        stuck = pipeline.stuck_threads
        if stuck:
            self._log.error("threads did not end", threads=stuck)
        try:
            if "parse" not in stuck:  # never take the files away from under the writer
                pipeline.journal.close()
        finally:
            self.http.close()
        return summary

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the feed ended by itself (an error) or was stopped; False after ``timeout_s``."""
        return self.pipeline.finished.wait(timeout_s)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _find(self, names: Iterable[str]) -> list[Instrument]:
        """Instruments of the day's master; every name that is not in it is reported."""
        self.jobs["instruments"] = -1
        table = self.account.instruments()
        self.jobs["instruments"] = 1
        found = choose(self.account, names, table)
        if found.problems:
            path, whose = f"feeds.{self.name}.instruments", f"vendor {self._parts.vendor.type}"
            if table.missing:
                whose += f", which did not give all its instruments just now: {', '.join(table.missing)}"
            raise ConfigError([Problem(path, f"{text} ({whose})") for text in found.problems])
        for note in found.notes:
            self._log.warning("an instrument has another name", what=note)
        return list(found.instruments)

    def _find_again(self, table: InstrumentTable) -> Subscription:
        """What the moving selections of the configuration, such as the nearest future, mean in a new master."""
        moving = [text for text in self._parts.feed.instruments if is_moving(text)]
        found = choose(self.account, moving, table)
        for problem in found.problems:
            self._log.warning("a selection cannot be resolved today", what=problem)
        return Subscription.of(found.instruments, self._parts.feed.mode)

    def _open(self) -> Pipeline:
        self._pipeline = self._parts.pipeline(self._plans, self._listeners, self.account)
        return self._pipeline

    # --- consuming ------------------------------------------------------------------------------

    @property
    def pipeline(self) -> Pipeline:
        """The running parts; ``MarketFeedError`` before :meth:`start`."""
        if self._pipeline is None:
            raise MarketFeedError(f"feed {self.name!r} is not started; use `with Feed(...) as feed:` or feed.start()")
        return self._pipeline

    @property
    def started(self) -> bool:
        """Whether :meth:`start` got as far as opening the journal."""
        return self._pipeline is not None

    @property
    def vendor(self) -> str:
        """The name of the vendor's table in the configuration."""
        return self._parts.vendor.name

    @property
    def logins(self) -> int:
        """Sessions obtained so far."""
        return self.account.logins

    @property
    def latest(self) -> Mapping[str, Tick]:
        """The newest tick of each instrument that has ticked: ``feed.latest["NSE:INFY"]``."""
        return self.pipeline.latest

    @property
    def gaps(self) -> Sequence[Gap]:
        """Every interval in which ticks could have been missed, oldest first; with a journal on disk also
        those of earlier runs."""
        return self.pipeline.gaps.all

    @property
    def error(self) -> Exception | None:
        """Why the feed cannot go on; None while it can."""
        return self.pipeline.error

    def status(self) -> dict[str, Any]:
        """The state of each part, ready for JSON."""
        return {"vendor": self._parts.vendor.name, "logins": self.account.logins, **self.pipeline.status()}

    def on_batch(self, callback: Callable[[TickBatch], None], *, name: str | None = None) -> None:
        """Call ``callback(batch)`` for every batch from now on, on a thread of its own.

        One that raises does not stop the feed: the traceback is logged, the batch goes to the dead
        letters (``on_error="stop"`` stops the feed instead). With a ``name`` it has a cursor: on a
        journal on disk it goes on where the last run stopped, and holds rows back until it has them.
        """
        self._add(
            SinkPlan(
                name=name or f"callback-{next(self._numbers)}",
                sink=CallbackSink(callback, self._callback_raised),
                letters="callback",
                keep=name is not None,
            )
        )

    def add_sink(self, sink: Sink, *, name: str | None = None) -> None:
        """Deliver to one more sink: before :meth:`start` from the run's first row, later from the next one.

        Raises ``MarketFeedError`` for a name that another sink of the feed has.
        """
        self._add(SinkPlan(name=name or f"{type(sink).__name__}-{next(self._numbers)}", sink=sink))

    def _add(self, plan: SinkPlan) -> None:
        if self._pipeline is not None:
            # The row of this moment: "newest" would be that of the moment at which its thread gets there.
            self._pipeline.add_sink(attrs.evolve(plan, start=self._pipeline.journal.committed))
        elif any(plan.name == one.name for one in self._plans):
            raise MarketFeedError(f"feed {self.name!r} has a sink {plan.name!r} already; give this one another name")
        else:
            self._plans.append(plan)

    def subscribe(self, instruments: Iterable[str], mode: str | None = None) -> None:
        """Add instruments while the feed runs (any selection; ``mode`` as in the configuration by default).

        The others do not notice. Raises ``ConfigError`` for unknown names, ``MarketFeedError`` when
        the account cannot hold them; nothing is changed then.
        """
        found = self._find(instruments)
        self._lines().subscribe(found, Mode.of(mode) if mode else self._parts.feed.mode)

    def unsubscribe(self, instruments: Iterable[str]) -> None:
        """Take instruments away while the feed runs; names that are not subscribed do not matter.

        ``NFO:NIFTY FUT 1`` and ``ATM`` mean what they mean now. Raises ``ConfigError`` where that is nothing.
        """
        lines = self._lines()
        found, _ = self._among(lines.wanted, instruments)
        lines.unsubscribe(found)

    def set_mode(self, instruments: Iterable[str], mode: str) -> None:
        """Change how much of subscribed instruments is sent: ``ltp``, ``quote`` or ``full``."""
        lines = self._lines()
        found, problems = self._among(lines.wanted, instruments)
        if problems:
            raise ConfigError([Problem("instruments", f"{text} (not subscribed)") for text in problems])
        lines.subscribe(found, Mode.of(mode))

    def _among(self, wanted: Iterable[Instrument], texts: Iterable[str]) -> tuple[list[Instrument], list[str]]:
        """Subscribed instruments that a selection means, and what it names in vain. What the nearest future is the
        master says, not the subscription."""
        given = list(texts)
        known = InstrumentTable(wanted)
        found = choose(self.account, [text for text in given if not is_moving(text)], known)
        texts = [text for text in given if is_moving(text)]
        moving = self._find(texts) if texts else []  # plain names need no master
        problems = [*found.problems, *(f"{one.key} is not among them" for one in moving if one.key not in known)]
        return [*found.instruments, *(known[one.key] for one in moving if one.key in known)], problems

    def _lines(self) -> Lines:
        lines = self.pipeline.lines
        if lines is None:
            raise MarketFeedError(f"feed {self.name!r} has no connections")
        return lines

    def on_event(self, listener: Callable[[Event], None]) -> None:
        """Call ``listener(event)`` for every event of this feed, on the feed's event thread."""
        self._listeners.append(listener)

    def _callback_raised(self, error: Exception) -> None:
        self._log.error("a callback raised", traceback="".join(traceback.format_exception(error)))
        if self._on_error == "stop" and self._pipeline is not None:
            self._pipeline.fail(error)

    def batches(self, max_rows: int = 4096) -> Generator[TickBatch, None, None]:
        """Every batch since the feed started, then live ones as they come.

        Ends when the feed was stopped and all was given; raises the feed's error if it failed. A
        batch counts as taken when the next one is asked for. A loop so slow that the journal dropped
        rows before it came to them goes on behind them: they are counted (``rows_missed`` of
        :meth:`status`), logged and told as event ``overrun``.
        """
        return self._observer(max_rows).batches()

    def __iter__(self) -> Iterator[TickBatch]:
        return self.batches()

    def __aiter__(self) -> AsyncIterator[TickBatch]:
        return self._observer(4096).stream()

    def _observer(self, max_rows: int) -> Observer:
        return Observer(self.pipeline, f"iterator-{next(self._numbers)}", max_rows)
