"""The parts of one feed, made as its configuration says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from marketfeed.calendars import MarketCalendar
from marketfeed.clock import Clock
from marketfeed.config import Config, FeedConfig, SinkConfig, VendorConfig, secrets_of
from marketfeed.contract import Event
from marketfeed.deadletters import DeadLetters, letters_folder
from marketfeed.engine.account import Account
from marketfeed.engine.behind import Lag, WhenBehind
from marketfeed.engine.events import Events
from marketfeed.engine.gaps import GapLedger
from marketfeed.engine.gapwriter import GapWriter
from marketfeed.engine.logs import Log
from marketfeed.engine.metrics import ApiCalls
from marketfeed.engine.pipeline import Pipeline, SinkPlan
from marketfeed.framelog import FrameLog
from marketfeed.gaps import gaps_file
from marketfeed.http import HttpSession
from marketfeed.instruments import TokenMap
from marketfeed.journal import Journal, ticks_folder
from marketfeed.plugins import Plugins
from marketfeed.runs import RunBook, runs_folder
from marketfeed.tokens import TokenKeeper

__all__ = ["Assembly"]


@attrs.frozen
class Assembly:
    """Knows the configuration of the feed ``name``. Making it starts nothing."""

    config: Config
    name: str
    plugins: Plugins
    clock: Clock
    log: Log

    @property
    def feed(self) -> FeedConfig:
        """``[feeds.NAME]``"""
        return self.config.feeds[self.name]

    @property
    def vendor(self) -> VendorConfig:
        """The vendor's table that the feed names."""
        return self.config.vendors[self.feed.vendor]

    def http(self, calls: ApiCalls) -> HttpSession:
        """The HTTP session of the account."""
        info = self.plugins.vendor(self.vendor.type).info
        proxy = self.vendor.settings.proxy
        return HttpSession(info.name, info.rate_limits, proxy=proxy, clock=self.clock, on_call=calls.count)

    def account(self, http: HttpSession, tokens: TokenKeeper, calls: ApiCalls) -> Account:
        """The account at the broker."""
        plugin = self.plugins.vendor(self.vendor.type)
        return Account(plugin, self.vendor.settings, tokens, http, self.clock, self.log, calls=calls.total)

    def plans(self) -> list[SinkPlan]:
        """The sinks that the configuration names, but for those with a process of their own."""
        return [self.plan(one) for one in self.config.sinks_of(self.name) if one.process == "feed"]

    def plan(self, one: SinkConfig) -> SinkPlan:
        """How to feed one sink."""
        return SinkPlan(
            name=one.name,
            sink=one.make(self.name, "ticks"),
            batch_rows=one.batch_rows,
            batch_timeout_s=one.batch_timeout_s,
            flush_every_s=one.flush_every_s,
            start=one.start,
            on_startup_error=one.on_startup_error,
            lag=Lag(WhenBehind(one.when_behind), one.lag_limit_rows, one.lag_limit_s),
        )

    def calendar(self) -> MarketCalendar:
        """Market hours; a stream elsewhere (a sandbox, a replay) keeps hours of its own."""
        settings = self.vendor.settings
        usual = attrs.fields_dict(type(settings))["stream_url"].default
        found = MarketCalendar.named(self.feed.calendar if settings.stream_url == usual else "always")
        if found.ends_soon(self.clock.wall_ns()):
            self.log.warning("the calendar knows no holidays after this day", day=str(found.known_until))
        return found

    def pipeline(self, plans: list[SinkPlan], listeners: list[Callable[[Event], None]], account: Account) -> Pipeline:
        """Open the journal and start the sinks."""
        plan = self.config.journal
        folder = ticks_folder(plan.folder, self.name) if plan.kind == "disk" else None
        journal = self._journal(folder)
        known = secrets_of(self.config)
        events = Events(self.name, self.vendor.name, self.clock, self.log)
        events.listeners = listeners
        try:
            deadletters = DeadLetters(
                self.name,
                self.clock,
                letters_folder(plan.folder, self.name) if folder else None,
                self.config.dead_letters.max_bytes,
                vendor=self.vendor.name,
                journal=journal,
                hidden=lambda: known | account.secrets(),
            )
            path = gaps_file(plan.folder, self.name) if folder else None
            writer = GapWriter(self.name, self.vendor.name, journal, self.clock, self.log, events.put, path)
            return Pipeline(
                self.name,
                journal,
                plans,
                events,
                deadletters,
                self.clock,
                self.log,
                self.feed.stop_timeout_s,
                validation=self.config.validation,
                gaps=GapLedger(writer),
                book=RunBook(runs_folder(plan.folder, self.name), journal.id) if folder else None,
                elsewhere={one.name: one.start for one in self.config.sinks_of(self.name) if one.process == "own"},
            )
        except BaseException:
            journal.close()
            raise

    def _journal(self, folder: Path | None) -> Journal:
        plan = self.config.journal
        if folder is None:
            return Journal.memory(feed=self.name, vendor=self.vendor.name, max_bytes=plan.memory_bytes)
        return Journal.create(
            folder,
            feed=self.name,
            vendor=self.vendor.name,
            rows_per_segment=plan.segment_rows,
            sync=plan.sync,
            keep_bytes=plan.keep_bytes,
            max_bytes=plan.max_bytes,
            when_full=plan.when_full,
        )

    def capture(self, pipeline: Pipeline, tokens: TokenMap) -> FrameLog | None:
        """Where raw frames are kept, if the configuration says so."""
        plan = self.config.capture
        if plan.folder is None:
            return None
        return FrameLog(
            plan.folder,
            feed=self.name,
            vendor=self.vendor.type,
            label=self.vendor.name,
            mode=self.feed.mode.word,
            settings=self.vendor.settings,
            validation=self.config.validation,
            tokens=tokens,
            instruments=pipeline.journal.instruments,
            clock=self.clock,
            log=self.log,
            rotate_bytes=plan.rotate,
            keep_bytes=plan.keep_bytes,
            emit=lambda kind, data: pipeline.events.put(kind, None, data),
            hidden=pipeline.deadletters.hidden,
        )
