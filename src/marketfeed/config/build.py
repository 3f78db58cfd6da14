"""From raw tables to :class:`~marketfeed.config.settings.Config`: every problem is collected, none ends the reading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from marketfeed.config.file import Document
from marketfeed.config.options import near, options_of
from marketfeed.config.settings import (
    CaptureConfig,
    Config,
    DeadLettersConfig,
    FeedConfig,
    JournalConfig,
    LoggingConfig,
    MetricsConfig,
    SinkConfig,
    ValidationConfig,
    VendorConfig,
)
from marketfeed.config.tables import TableReader
from marketfeed.errors import PluginError, PluginLoadError, Problem
from marketfeed.plugins import EXTRAS, Plugins
from marketfeed.selection import form_problem

__all__ = ["build_config"]

_SECTIONS = ("feeds", "vendors", "sinks", "journal", "capture", "dead_letters", "validation", "metrics", "log")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_OPEN_LATER = frozenset({"CDS", "BCD", "MCX", "NCO"})
"""Exchanges whose day does not end with that of NSE's shares."""
_COMMON = frozenset({"batch_rows", "batch_timeout_s", "flush_every_s", "start", "on_startup_error"}) | {
    *("process", "when_behind", "lag_limit_rows", "lag_limit_s"),
}
_KINDS = ("ticks",)  # what a live feed delivers
Section = TypeVar("Section")
Named = TypeVar("Named")


def build_config(
    document: Document,
    plugins: Plugins,
    environ: Mapping[str, str],
    source: Path | None = None,
    placeholder: str | None = None,
) -> tuple[Config | None, list[Problem]]:
    """The configuration, or None and the problems that stand in its way, in file order."""
    builder = _Builder(document, plugins, TableReader(document, environ, placeholder))
    config = builder.build(source)
    problems = builder.reader.problems
    return (None if problems else config), sorted(problems, key=lambda one: one.line or 0)


class _Builder:
    def __init__(self, document: Document, plugins: Plugins, reader: TableReader) -> None:
        self.document = document
        self.plugins = plugins
        self.reader = reader

    def build(self, source: Path | None) -> Config | None:
        for name in self.document.values:
            if name not in _SECTIONS:
                self.problem((name,), f"is not a section{near(name, _SECTIONS)}")
        raw_feeds, raw_vendors, raw_sinks = map(self._tables, ("feeds", "vendors", "sinks"))
        feeds = {name: self._feed(name, raw, ("feeds", name)) for name, raw in raw_feeds.items()}
        vendors = {name: self._vendor(name, raw, ("vendors", name)) for name, raw in raw_vendors.items()}
        sinks = {name: self._sink(name, raw, ("sinks", name)) for name, raw in raw_sinks.items()}
        if not self.document.values.get("feeds"):
            self.problem(("feeds",), "no feed is defined; add a table [feeds.main]")
        for feed in feeds.values():
            self._link_vendor(feed, vendors)
            self._link_sinks(feed, sinks)
        journal, capture, dead_letters, validation, metrics, log = (
            self._section("journal", JournalConfig),
            self._section("capture", CaptureConfig),
            self._section("dead_letters", DeadLettersConfig),
            self._section("validation", ValidationConfig),
            self._section("metrics", MetricsConfig),
            self._section("log", LoggingConfig),
        )
        good = feeds, _whole(vendors), _whole(sinks)
        self._check_collisions(*good)
        if journal is not None and journal.kind == "memory":
            self._check_processes(good[2])
        if metrics is not None:
            self._check_ports(good[2], metrics)
        if journal is None or capture is None or dead_letters is None or metrics is None or log is None:
            return None
        if validation is None or self.reader.problems:
            return None
        return Config(
            feeds=good[0],
            vendors=good[1],
            sinks=good[2],
            journal=journal,
            capture=capture,
            dead_letters=dead_letters,
            validation=validation,
            metrics=metrics,
            log=log,
            warnings=tuple(self._warnings(good[0], raw_vendors, raw_sinks)),
            source=source,
        )

    def problem(self, path: tuple[str, ...], message: str) -> None:
        self.reader.problem(path, message)

    # --- one table each ---

    def _tables(self, section: str) -> dict[str, Mapping[str, Any]]:
        """The tables of a section; what is not a table, or badly named, is a problem."""
        raw = self.document.values.get(section, {})
        if not isinstance(raw, Mapping):
            self.problem((section,), f"must be tables such as [{section}.main]")
            return {}
        tables = {}
        for name, table in raw.items():
            if not isinstance(table, Mapping):
                self.problem((section, name), f"must be a table [{section}.{name}]")
            elif not _NAME.fullmatch(name):
                self.problem((section, name), "has a name that cannot be used; use letters, digits, - and _")
            else:
                tables[name] = table
        return tables

    def _section(self, name: str, cls: type[Section]) -> Section | None:
        raw = self.document.values.get(name, {})
        if not isinstance(raw, Mapping):
            self.problem((name,), f"must be a table [{name}]")
            return None
        return self.reader.read(cls, raw, (name,))

    def _feed(self, name: str, raw: Mapping[str, Any], path: tuple[str, ...]) -> FeedConfig:
        """The feed as far as it can be read, so that the rest of it is checked, too."""
        values, _ = self.reader.options(FeedConfig, raw, path, skip={"name": name})
        feed = FeedConfig(**{"name": name, "vendor": "", **values})
        if not feed.instruments and ("instruments" in values or "instruments" not in raw):
            self.problem((*path, "instruments"), 'is empty; name at least one, such as "NSE:RELIANCE"')
        for instrument in feed.instruments:
            if wrong := form_problem(instrument):
                self.problem((*path, "instruments"), f"{instrument!r} {wrong}")
        for sink in sorted({one for one in feed.sinks if feed.sinks.count(one) > 1}):
            self.problem((*path, "sinks"), f"{sink!r} is named twice")
        return feed

    def _vendor(self, name: str, raw: Mapping[str, Any], path: tuple[str, ...]) -> VendorConfig | None:
        place = (*path, "type") if "type" in raw else path
        kind, raw = self._type_of(name, raw, path)
        if kind is None:
            return None
        try:
            plugin = self.plugins.vendor(kind)
        except PluginError as error:
            self.problem(place, str(error))
            return None
        # Another account must not quietly take the first one's credentials from the environment.
        settings = self.reader.read(
            plugin.info.settings, raw, path, from_environ=name == kind, placeholders=True, also=("type",)
        )
        if settings is None:
            return None
        return VendorConfig(name=name, type=kind, plugin=plugin, settings=settings)

    def _sink(self, name: str, raw: Mapping[str, Any], path: tuple[str, ...]) -> SinkConfig | None:
        place = (*path, "type") if "type" in raw else path
        kind, raw = self._type_of(name, raw, path)
        if kind is None:
            return None
        try:
            cls = self.plugins.sink(kind)
            known = options_of(cls)
        except PluginError as error:
            self.problem(place, str(error))
            return None
        except NameError as error:
            self.problem(path, f"the options of the sink {kind!r} cannot be read: {error}")
            return None
        common = {key: value for key, value in raw.items() if key in _COMMON}
        own = {key: value for key, value in raw.items() if key not in _COMMON or key in known}
        options, good = self.reader.options(cls, own, path, from_environ=name == kind, also=("type", *sorted(_COMMON)))
        given = {"name": name, "type": kind, "cls": cls, "options": options}
        sink = self.reader.read(SinkConfig, common, path, given=given)
        return sink if good else None

    def _type_of(
        self, name: str, raw: Mapping[str, Any], path: tuple[str, ...]
    ) -> tuple[str | None, Mapping[str, Any]]:
        kind = self.reader.resolve(raw.get("type", name), (*path, "type"))
        rest = {key: value for key, value in raw.items() if key != "type"}
        if isinstance(kind, str):
            return str(kind), rest
        self.problem((*path, "type"), "must be text in quotes")
        return None, rest

    # --- between tables ---

    def _link_vendor(self, feed: FeedConfig, vendors: dict[str, VendorConfig | None]) -> None:
        """Find the feed's account; a vendor whose settings all come from the environment needs no table."""
        name, path = feed.vendor, ("feeds", feed.name, "vendor")
        if not name or name in vendors:
            return
        try:
            self.plugins.vendor(name)
        except PluginLoadError as error:
            self.problem(path, str(error))
        except PluginError as error:
            hint = near(name, vendors)
            self.problem(path, f"there is no table [vendors.{name}]{hint}" if hint else str(error))
        else:
            vendors[name] = self._vendor(name, {}, ("vendors", name))

    def _link_sinks(self, feed: FeedConfig, sinks: dict[str, SinkConfig | None]) -> None:
        """Find the feed's sinks; a sink without required options needs no table."""
        path = ("feeds", feed.name, "sinks")
        for name in feed.sinks:
            if name in sinks:
                continue
            if name not in self.plugins.sinks:
                self.problem(path, self._unknown_sink(name, sinks))
                continue
            needed = [one.name for one in options_of(self.plugins.sinks[name]).values() if one.required]
            if needed:
                self.problem(path, f"the sink {name!r} needs a table [sinks.{name}] with {', '.join(needed)}")
            else:
                sinks[name] = self._sink(name, {}, ("sinks", name))

    def _unknown_sink(self, name: str, sinks: Mapping[str, Any]) -> str:
        message = f"there is no table [sinks.{name}]"
        hint = near(name, [*sinks, *self.plugins.sinks])
        if name in EXTRAS:
            return f"{message}, and no plugin gives a sink {name!r}; install it: pip install 'marketfeed[{name}]'"
        return message + (hint or f"; add it, with type = one of {', '.join(sorted(self.plugins.sinks)) or 'none'}")

    def _check_collisions(self, feeds: Mapping[str, FeedConfig], _: object, sinks: Mapping[str, SinkConfig]) -> None:
        """Two writers of one place would destroy each other's work."""
        taken: dict[tuple[Any, ...], tuple[SinkConfig, FeedConfig]] = {}
        for feed in feeds.values():
            for sink in (sinks[name] for name in dict.fromkeys(feed.sinks) if name in sinks):
                fields = getattr(sink.cls, "exclusive", ())
                for kind in _KINDS if fields else ():
                    values = sink.filled(feed.name, kind)
                    place = (sink.type, *(_comparable(values.get(field)) for field in fields))
                    other = taken.setdefault(place, (sink, feed))
                    if other != (sink, feed):
                        self._collision(other, (sink, feed), fields)

    def _collision(
        self, first: tuple[SinkConfig, FeedConfig], second: tuple[SinkConfig, FeedConfig], fields: tuple[str, ...]
    ) -> None:
        sink, feed = second
        key = ("sinks", sink.name, fields[0])
        if first[0] is sink:
            problem = f"feeds {first[1].name!r} and {feed.name!r} would write to the same place; put {{feed}} into it"
        else:
            problem = f"is the same place as that of [sinks.{first[0].name}]; give each its own"
        self.problem(key, problem)

    def _check_ports(self, sinks: Mapping[str, SinkConfig], metrics: MetricsConfig) -> None:
        """Ports that this process would listen on, each once. A sink lists such a field in ``exclusive``."""
        taken = {metrics.port: "metrics.port"} if metrics.port else {}
        for sink in sinks.values():
            for field in getattr(sink.cls, "exclusive", ()):
                port = sink.options.get(field)
                if not (field == "port" or field.endswith("_port")) or not port:
                    continue
                if port in taken:
                    self.problem(("sinks", sink.name, field), f"port {port} is taken by {taken[port]}; use another")
                taken.setdefault(port, f"sinks.{sink.name}.{field}")

    def _check_processes(self, sinks: Mapping[str, SinkConfig]) -> None:
        """Another process sees a journal on disk only."""
        for sink in sinks.values():
            if sink.process == "own":
                self.problem(("sinks", sink.name, "process"), 'is "own", which needs [journal] kind = "disk"')

    def _warnings(
        self, feeds: Mapping[str, FeedConfig], vendors: Mapping[str, Any], sinks: Mapping[str, Any]
    ) -> Iterator[Problem]:
        used_sinks = {name for feed in feeds.values() for name in feed.sinks}
        used_vendors = {feed.vendor for feed in feeds.values()}
        for section, names, used in (("vendors", vendors, used_vendors), ("sinks", sinks, used_sinks)):
            for name in names:
                if name not in used:
                    line = self.document.line((section, name))
                    yield Problem(f"{section}.{name}", "no feed uses it", line)
        for feed in feeds.values():
            later = sorted({text.partition(":")[0] for text in feed.instruments} & _OPEN_LATER)
            if feed.calendar == "NSE" and later:
                text = f"{', '.join(later)} trades when NSE is closed: a line lost then is not connected again that day"
                path = ("feeds", feed.name)
                yield Problem(".".join((*path, "calendar")), f'{text}; use "always"', self.document.line(path))


def _whole(named: Mapping[str, Named | None]) -> dict[str, Named]:
    return {name: one for name, one in named.items() if one is not None}


def _comparable(value: Any) -> Any:
    """Paths that mean the same place compare equal."""
    if isinstance(value, Path):
        return str(value.absolute().resolve())
    return attrs.astuple(value) if attrs.has(type(value)) else str(value)
