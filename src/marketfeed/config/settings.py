"""What a configuration is once it is understood: frozen classes, one per kind of table.

The classes are the documentation of the tables: field, type, default and the text under it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from marketfeed.calendars import MarketCalendar
from marketfeed.config.options import Mismatch, options_of, parse_bytes
from marketfeed.contract import Sink, VendorSettings
from marketfeed.enums import Mode
from marketfeed.errors import Problem
from marketfeed.plugins import VendorPlugin

__all__ = [
    "CALENDARS",
    "CaptureConfig",
    "Config",
    "DeadLettersConfig",
    "FeedConfig",
    "JournalConfig",
    "LoggingConfig",
    "MetricsConfig",
    "SinkConfig",
    "ValidationConfig",
    "VendorConfig",
]

CALENDARS = ("NSE", "always")
"""Names of market calendars; ``always`` is a market that never closes."""

_SinkClass = type[Sink]  # by another name, because SinkConfig has a field called type


Action = Literal["keep", "drop", "dead-letter"]
"""What happens to a row that validation doubts: keep it (the doubt stands in its flags), drop it (counted), or
put it into the dead letters."""


def _parse_port(value: int | str | None) -> int | None:
    """A port; ``false`` or ``off`` is None: listen nowhere. 0 lets the system choose."""
    if value is None or value is False or value in ("false", "off", ""):
        return None
    try:
        port = -1 if value is True else int(value)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise Mismatch("a port from 0 to 65535, or false")
    return port


def _at_least(least: float) -> Any:
    def check(_: object, __: object, value: float | None) -> None:
        if value is not None and value < least:
            raise Mismatch(f"at least {least}")

    return check


def _positive(_: object, __: object, value: float) -> None:
    if value <= 0:
        raise Mismatch("more than 0")


def _known_calendar(_: object, __: object, value: str) -> None:
    try:
        MarketCalendar.named(value)
    except KeyError:
        names = " or ".join(f'"{name}"' for name in CALENDARS)
        raise Mismatch(f"{names}, or a .json file with hours and holidays") from None
    except (OSError, ValueError) as error:
        raise Mismatch(f"a calendar that can be read ({error})") from None


@attrs.frozen(kw_only=True)
class FeedConfig:
    """``[feeds.NAME]``: which instruments of which vendor go to which sinks."""

    name: str
    vendor: str
    """Name of a table under [vendors], or of a vendor that needs none"""
    instruments: tuple[str, ...] = ()
    """EXCHANGE:SYMBOL, globs such as NFO:NIFTY*FUT, lists (@nifty50, @my.csv), NFO:NIFTY FUT 1, NFO:NIFTY OPT ATM+-5"""
    sinks: tuple[str, ...] = ()
    """Names of tables under [sinks], or of sinks that need no option"""
    mode: Mode = Mode.FULL
    """How much of each instrument: ltp, quote or full"""
    calendar: str = attrs.field(default="NSE", validator=_known_calendar)
    """Market hours, outside of which silence is normal and a lost line is left alone: NSE, always, or a .json file"""
    stop_timeout_s: float = attrs.field(default=10.0, validator=_at_least(0))
    """Seconds that sinks get to finish when the feed stops"""


@attrs.frozen(kw_only=True)
class VendorConfig:
    """``[vendors.NAME]``: one account at one broker."""

    name: str
    type: str
    """Name of the vendor plugin; by default the table's name"""
    plugin: VendorPlugin = attrs.field(repr=False)
    settings: VendorSettings


@attrs.frozen(kw_only=True)
class SinkConfig:
    """``[sinks.NAME]``: where batches go. Besides these keys a table takes the sink's own options."""

    name: str
    type: str
    """Name of the sink; by default the table's name"""
    cls: _SinkClass
    options: Mapping[str, Any] = attrs.field(repr=False)
    """The sink's own options, converted; ``{feed}`` and ``{kind}`` not yet filled in."""
    batch_rows: int = attrs.field(default=4096, validator=_at_least(1))
    """Most rows handed over in one write"""
    batch_timeout_s: float = attrs.field(default=0.0, validator=_at_least(0))
    """Seconds to wait for more rows before a smaller batch is written; 0 writes what is there at once"""
    flush_every_s: float = attrs.field(default=1.0, validator=_positive)
    """Seconds between flushes; the cursor moves after each"""
    start: Literal["run", "oldest", "newest"] = "run"
    """Where a sink without a cursor begins: the first row of this run, the oldest kept, or the next one"""
    on_startup_error: Literal["fail", "retry", "disable"] = "fail"
    """What to do when it cannot be opened: end the feed, try again for ever, or go on without it"""
    process: Literal["feed", "own"] = "feed"
    """Who delivers: the feed, or a process of its own, `marketfeed sink NAME`"""
    when_behind: Literal["wait", "skip", "latest"] = "wait"
    """Beyond the lag limit: deliver everything late, pass over what waits, or only the newest row per instrument"""
    lag_limit_rows: int | None = attrs.field(default=None, validator=_at_least(1))
    """Rows that may wait before when_behind holds"""
    lag_limit_s: float | None = attrs.field(default=5.0, validator=_at_least(0))
    """Seconds that a row may wait before when_behind holds"""

    def make(self, feed: str, kind: str = "ticks") -> Sink:
        """A new instance for one feed and kind (``ticks``, ``candles``)."""
        return self.cls(**self.filled(feed, kind))

    def filled(self, feed: str, kind: str = "ticks") -> dict[str, Any]:
        """The options with ``{feed}`` and ``{kind}`` put in; other braces stay as they are."""
        secret = {name for name, option in options_of(self.cls).items() if option.secret}
        return {
            name: value if name in secret else _fill(value, feed, kind) for name, value in self.options.items()
        }  # a password that holds "{feed}" is left alone


@attrs.frozen(kw_only=True)
class JournalConfig:
    """``[journal]``: the store between the feed and its sinks."""

    kind: Literal["disk", "memory"] = "disk"
    """disk survives restarts; memory holds the newest rows only"""
    folder: Path = Path("data/journal")
    """Each feed gets a folder in it; relative to the working directory"""
    keep_bytes: int = attrs.field(default=4_000_000_000, converter=parse_bytes)
    """How much to keep of what every sink has passed"""
    max_bytes: int | None = attrs.field(default=None, converter=attrs.converters.optional(parse_bytes))
    """How much a lagging sink may hold back; by default half of the free disk"""
    when_full: Literal["skip", "stop"] = "skip"
    """Beyond max_bytes: skip rows of the lagging sink (counted), or stop the feed"""
    segment_rows: int = attrs.field(default=65_536, validator=_at_least(1024))
    """Rows in one file"""
    sync: Literal["100ms", "os", "batch"] = "100ms"
    """What a power cut may cost: 100 ms, whatever the system holds back, or nothing"""
    memory_bytes: int = attrs.field(default=128_000_000, converter=parse_bytes)
    """Size of a journal in memory; a reader that is overtaken is told how much it missed"""


@attrs.frozen(kw_only=True)
class CaptureConfig:
    """``[capture]``: the raw frames of each connection, kept as they came."""

    folder: Path | None = None
    """Each feed gets a folder in it; without it nothing is captured"""
    rotate: int = attrs.field(default=256_000_000, converter=parse_bytes, validator=_at_least(64_000))
    """Size at which the next file begins; it begins with each day in any case"""
    keep_bytes: int = attrs.field(default=20_000_000_000, converter=parse_bytes, validator=_at_least(1_000_000))
    """How much to keep of each feed; beyond it the oldest files are removed"""


@attrs.frozen(kw_only=True)
class DeadLettersConfig:
    """``[dead_letters]``: the store of what could not be delivered, one a feed, beside its journal."""

    max_bytes: int = attrs.field(default=256_000_000, converter=parse_bytes, validator=_at_least(1_000_000))
    """How much to keep of each feed; beyond it the oldest eighth is removed, which is logged and counted"""


@attrs.frozen(kw_only=True)
class ValidationConfig:
    """``[validation]``: what to do with rows that look wrong: keep (flag only), drop (count) or dead-letter."""

    not_finite: Action = "dead-letter"
    """A price is infinite, or the last price is missing from a row that shows trades"""
    not_positive: Action = "dead-letter"
    """The last price is negative, or 0 in a row that shows trades (commodity futures may be)"""
    ohlc_inconsistent: Action = "keep"
    """The last price or the open lies outside the day's low and high"""
    outside_circuit: Action = "keep"
    """The last price lies outside the circuit limits"""
    crossed_depth: Action = "keep"
    """The best bid is above the best ask"""
    unsorted_depth: Action = "keep"
    """A level of the book is better than the one before it"""
    time_zero: Action = "keep"
    """The exchange time is zero where the message has one"""
    time_ahead: Action = "keep"
    """The exchange time is more than ahead_s later than the time of receipt"""
    time_back: Action = "keep"
    """The exchange time is before the newest one of the instrument"""
    volume_back: Action = "keep"
    """The volume is below the highest one of the instrument on that day"""
    repeat: Action = "keep"
    """The row says exactly what the instrument's row before it said"""
    price_spike: Action = "keep"
    """The last price is far from the instrument's recent range"""
    unknown_instrument: Literal["drop", "dead-letter"] = "dead-letter"
    """A tick of an instrument that nobody subscribed; the journal has no name for it"""
    ahead_s: float = attrs.field(default=5.0, validator=_at_least(0))
    """Seconds that the exchange's clock may be ahead of this host's"""
    spike_percent: float = attrs.field(default=10.0, validator=_positive)
    """How far from the median of the last eight seconds a price may lie, at least"""


@attrs.frozen(kw_only=True)
class MetricsConfig:
    """``[metrics]``: the page that Prometheus reads, with the health answers beside it."""

    port: int | None = attrs.field(default=3001, converter=_parse_port)
    """TCP port; false switches the page off, 0 takes any free one"""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in"""


@attrs.frozen(kw_only=True)
class LoggingConfig:
    """``[log]``: what is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important level shown"""
    format: Literal["auto", "text", "json"] = "auto"
    """auto is text on a terminal and json in a pipe"""


@attrs.frozen(kw_only=True)
class Config:
    """A whole configuration, checked. Secrets do not show in its ``repr``."""

    feeds: Mapping[str, FeedConfig]
    vendors: Mapping[str, VendorConfig]
    sinks: Mapping[str, SinkConfig]
    journal: JournalConfig = attrs.field(factory=JournalConfig)
    capture: CaptureConfig = attrs.field(factory=CaptureConfig)
    dead_letters: DeadLettersConfig = attrs.field(factory=DeadLettersConfig)
    validation: ValidationConfig = attrs.field(factory=ValidationConfig)
    metrics: MetricsConfig = attrs.field(factory=MetricsConfig)
    log: LoggingConfig = attrs.field(factory=LoggingConfig)
    warnings: tuple[Problem, ...] = ()
    """What is allowed but probably not meant, such as a sink that no feed names."""
    source: Path | None = None

    def vendor_of(self, feed: str) -> VendorConfig:
        """The account that a feed uses."""
        return self.vendors[self.feeds[feed].vendor]

    def sinks_of(self, feed: str) -> tuple[SinkConfig, ...]:
        """The sinks that a feed names, in its order."""
        return tuple(self.sinks[name] for name in self.feeds[feed].sinks)


def _fill(value: Any, feed: str, kind: str) -> Any:
    if isinstance(value, str):
        return value.replace("{feed}", feed).replace("{kind}", kind)
    if isinstance(value, Path):
        return Path(_fill(str(value), feed, kind))
    if isinstance(value, tuple | list):
        return type(value)(_fill(item, feed, kind) for item in value)
    return value
