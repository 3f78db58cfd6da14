"""What a sandbox is made of before any socket is open: options, clock, market, account."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from marketfeed.brokers import Credentials
from marketfeed.clock import IST, NS, OffsetClock, to_ns
from marketfeed.framelog import SUFFIX
from marketfeed.sandbox.faults.chaos import random_plan
from marketfeed.sandbox.faults.script import Planned, parse, parse_file
from marketfeed.sandbox.history import trading_day
from marketfeed.sandbox.market import Market
from marketfeed.sandbox.recording import Recording, load_recording
from marketfeed.sandbox.replay import ReplayMarket
from marketfeed.sandbox.tls import TLS
from marketfeed.sandbox.universe import Listing, from_file, listing_for, make_universe
from marketfeed.totp import totp

if TYPE_CHECKING:
    from marketfeed.sandbox.captured import Capture, CapturedMarket

__all__ = ["MAX_SPEED", "Options", "World"]

MAX_SPEED = float("inf")


def _listed(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen(kw_only=True)
class Options:
    """How a sandbox behaves. All of it can be given on the command line too."""

    seed: int = 1
    instruments: int | Path | None = None
    """How many of the catalogue (beyond it synthetic shares), or a file of names; None = the catalogue."""
    ticks_per_second: float = 100.0
    """In total, over all subscribed instruments; 0 = snapshots only."""
    step_s: float = 0.02
    """Ticks are gathered for this long and sent in one frame per connection."""
    packets_per_frame: int | None = None
    """Most packets in one frame; None = all of a step."""
    heartbeat_s: float = 1.0
    start: str | None = None
    """India time at which the sandbox's clock starts; None = 10:00 on the latest weekday."""
    credentials: Credentials = attrs.field(factory=Credentials)
    rate_limits: bool = True
    connection_limit: int | None = None
    """Most WebSockets at a time; 0 = no limit, None = the vendor's."""
    replay: Path | None = None
    """A recording to send instead of invented ticks: a CSV file, a capture or a folder of captures."""
    speed: float = 1.0
    """Of the replay: 2 = twice as fast as recorded, ``MAX_SPEED`` = as fast as clients read."""
    replay_order: str = "file"
    """``file``, or ``time``: merged over the symbols."""
    replay_start: str = "subscribed"
    """``subscribed``: when a client has subscribed; ``now``; ``command``: on ``POST /sandbox/replay``."""
    fault: Sequence[str] = attrs.field(default=(), converter=_listed)
    """Faults with their times, such as ``("drop@5s", "mute@10s for 7s")``; one may be given as a string."""
    faults: Path | None = None
    """A file of faults, one a line."""
    chaos: int | None = None
    """The seed of a schedule drawn by lot, besides the other faults; None = no such schedule."""
    tls: str | None = None
    """``good``, ``self-signed``, ``wrong-host`` or ``expired``: serve TLS with such a certificate; None = no TLS."""
    ca_file: Path | None = None
    """Where to write the authority whose certificates the sandbox shows, as PEM, for clients that are to trust it."""
    vendor_options: Mapping[str, str] = attrs.field(factory=dict)
    """Options that only the vendor's broker understands, such as ``{"dialect": "a"}``."""

    def __attrs_post_init__(self) -> None:
        if self.replay_order not in ("file", "time"):
            raise ValueError(f"replay_order is {self.replay_order!r}; choose file or time")
        if self.replay_start not in ("subscribed", "now", "command"):
            raise ValueError(f"replay_start is {self.replay_start!r}; choose subscribed, now or command")
        if self.speed <= 0 or self.step_s <= 0 or self.heartbeat_s <= 0:
            raise ValueError("speed, step_s and heartbeat_s must be above 0")
        if self.ticks_per_second < 0:
            raise ValueError("ticks_per_second must not be negative")
        if self.tls is not None and self.tls not in TLS:
            raise ValueError(f"tls is {self.tls!r}; choose {', '.join(TLS)}")
        if self.ca_file is not None and self.tls is None:
            raise ValueError("ca_file means nothing without tls")
        self.planned()

    def planned(self) -> list[Planned]:
        """All faults of the options. Raises ``ValueError`` for one that is not understood."""
        plan = [parse(line) for line in self.fault]
        plan += parse_file(self.faults) if self.faults is not None else []
        return plan + (random_plan(self.chaos) if self.chaos is not None else [])


class World:
    """Implements :class:`marketfeed.brokers.SandboxWorld`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        recording = _recording(options)
        capture = _capture(options)
        self.clock = OffsetClock.starting_at(_start_ns(options, capture or recording))
        start_ns = self.clock.wall_ns()
        day = datetime.fromtimestamp(start_ns / NS, IST).date()
        listings = _listings(options, recording, day) if capture is None else capture.listings()
        self.simulated = Market(listings, seed=options.seed, start_ns=start_ns)
        self.replay = ReplayMarket(self.simulated, recording) if recording is not None else None
        self.captured = capture.market(self.simulated) if capture is not None else None

    @property
    def market(self) -> Market | ReplayMarket | CapturedMarket:
        if self.captured is not None:
            return self.captured
        return self.simulated if self.replay is None else self.replay

    @property
    def credentials(self) -> Credentials:
        return self.options.credentials

    @property
    def connection_limit(self) -> int | None:
        return self.options.connection_limit

    @property
    def vendor_options(self) -> Mapping[str, str]:
        return self.options.vendor_options

    def now_ns(self) -> int:
        return self.clock.wall_ns()

    def new_token(self) -> str:
        return secrets.token_hex(16)

    def totp_is_right(self, code: str) -> bool:
        """See :meth:`marketfeed.brokers.SandboxWorld.totp_is_right`."""
        moments = [self.now_ns() // NS, time.time_ns() // NS]  # a phone shows the host's time
        right = {totp(self.credentials.totp_secret, now + shift) for now in moments for shift in (-30, 0, 30)}
        return code in right


def is_capture(path: Path) -> bool:
    """Whether a recording to replay is a capture file, or a folder of them."""
    return path.is_dir() or path.suffix == SUFFIX


def _capture(options: Options) -> Capture | None:
    if options.replay is None or not is_capture(options.replay):
        return None
    from marketfeed.sandbox.captured import Capture

    return Capture(options.replay)


def _recording(options: Options) -> Recording | None:
    if options.replay is None or is_capture(options.replay):
        return None
    recording = load_recording(options.replay)
    return recording.in_time_order() if options.replay_order == "time" else recording


def _start_ns(options: Options, recording: Recording | Capture | None) -> int:
    if options.start is not None:
        return to_ns(options.start)
    if recording is not None and recording.last_ns:
        # Sent faster than recorded, rows would come from the future of a clock that began with them.
        return recording.first_ns if options.speed == 1 else recording.last_ns
    today = (datetime.now(UTC) + timedelta(hours=5, minutes=30)).date()
    return to_ns(f"{trading_day(today)} 10:00:00")


def _listings(options: Options, recording: Recording | None, day: date) -> list[Listing]:
    wanted = options.instruments
    listings = from_file(wanted, day) if isinstance(wanted, Path) else make_universe(wanted, day)
    if recording is None:
        return listings
    known = {one.instrument.key for one in listings}
    catalogue = {one.instrument.key: one for one in make_universe(None, day)}
    missing = [name for name in recording.symbols if name not in known]
    return listings + [catalogue.get(name) or listing_for(name, 100.0) for name in missing]
