"""``marketfeed run``: the feeds of a configuration file, until a signal, a limit or an error."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import click

__all__ = ["command"]

_SWITCH_S = 0.0005
"""Threads take turns this often: at the default 5 ms a busy sink would delay the feed's thread by it."""


@click.command(short_help="Run the feeds of a configuration file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default="feed.toml")
@click.option("--sandbox", is_flag=True, help="Run against a sandbox broker on this machine; needs no credentials.")
@click.option("--duration", type=float, metavar="SECONDS", help="Stop after this long.")
@click.option("--max-ticks", type=int, metavar="N", help="Stop once this many ticks are in the journal.")
@click.option("--drain", is_flag=True, help="Do not connect: deliver what the journals still hold, then exit.")
@click.option("--ticks-per-second", type=float, default=200.0, show_default=True, help="Pace of the sandbox.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the sandbox.")
def command(
    file: Path,
    sandbox: bool,
    duration: float | None,
    max_ticks: int | None,
    drain: bool,
    ticks_per_second: float,
    seed: int,
) -> None:
    """Run the feeds of FILE (default feed.toml) until Ctrl-C.

    Ticks go to the journal and from there to every sink. A second Ctrl-C does not wait for sinks.

    Of several feeds, one that cannot start or go on does not end the others; the exit code tells of it in the end.
    """
    from marketfeed import config as configuration
    from marketfeed.engine import logs
    from marketfeed.plugins import Plugins

    plugins = Plugins.discover()
    with ExitStack() as stack:
        config = configuration.load(file, plugins, placeholder="sandbox" if sandbox else None)
        logs.configure(config.log.level, config.log.format, configuration.secrets_of(config))
        for warning in config.warnings:
            click.echo(f"warning: {warning}", err=True)
        clock = None
        if sandbox and not drain:
            config, clock = _with_sandboxes(config, stack, seed=seed, ticks_per_second=ticks_per_second)
        sys.setswitchinterval(_SWITCH_S)
        error = _run(config, plugins, clock, duration, max_ticks, drain)
    if error is not None:
        raise error


def _with_sandboxes(config: Any, stack: ExitStack, **options: Any) -> tuple[Any, Any]:
    """Start a sandbox per vendor table in use, and point the configuration at it."""
    from marketfeed.clock import OffsetClock
    from marketfeed.sandbox import spawn_sandbox

    vendors = dict(config.vendors)
    clock = None
    for name in {feed.vendor for feed in config.feeds.values()}:
        box = stack.enter_context(spawn_sandbox(vendors[name].type, **options))
        known = {field.name for field in attrs.fields(type(vendors[name].settings))}
        overrides = {key: value for key, value in box.settings().items() if key in known}
        vendors[name] = attrs.evolve(vendors[name], settings=attrs.evolve(vendors[name].settings, **overrides))
        clock = OffsetClock(box.clock_offset_ns)
        click.echo(f"sandbox broker {vendors[name].type!r} at {box.url}", err=True)
    return attrs.evolve(config, vendors=vendors), clock


def _run(
    config: Any, plugins: Any, clock: Any, duration: float | None, max_ticks: int | None, drain: bool
) -> Exception | None:
    from marketfeed.feed import Feed
    from marketfeed.tokens import FileTokenStore, LenientTokenStore, MemoryTokenStore

    _tell_elsewhere(config)
    # Sandbox tokens are worth nothing later. All feeds have one store: what cannot be written they share all the same.
    tokens = MemoryTokenStore() if clock is not None else LenientTokenStore(FileTokenStore())
    feeds = [Feed.from_config(config, name, plugins=plugins, clock=clock, tokens=tokens) for name in config.feeds]
    if drain:
        return _drain(feeds)
    with _stop_on_signals() as (stopping, started), ExitStack() as stack:
        if config.metrics.port is not None:
            from marketfeed.monitoring import Monitor

            monitor = Monitor(feeds, config.metrics.host, config.metrics.port)
            stack.callback(monitor.close)
            click.echo(f"metrics on http://{config.metrics.host}:{monitor.port}/metrics", err=True)
        refused: list[Exception] = []
        try:
            running = _start(feeds, refused)
            started.set()
            gc.freeze()  # what is here now stays: collections need not look at it again
            _wait(running, stopping, duration, max_ticks)
            if stopping.is_set():
                click.echo("stopping; sinks get what is there (a second Ctrl-C does not wait for them)", err=True)
        finally:
            started.set()
            _stop(feeds)
        return next(iter([*refused, *_failures(running)]), None) or _failed_sinks(running)


def _start(feeds: list[Any], refused: list[Exception]) -> list[Any]:
    """Those that could be started, errors of the others in ``refused``. Raises the last one if none could."""
    from marketfeed.errors import MarketFeedError

    running = []
    for feed in feeds:
        try:
            running.append(feed.start())
        except MarketFeedError as error:
            if len(refused) == len(feeds) - 1:
                raise
            refused.append(error)
            click.echo(f"feed {feed.name} cannot start, the others go on: {error}", err=True)
    return running


def _failures(feeds: list[Any]) -> Iterator[Exception]:
    """Why feeds ended, or ran without some of their connections."""
    for feed in feeds:
        if feed.error is not None:
            yield feed.error
        yield from (wire.error for wire in feed.pipeline.wires if wire.error is not None)


def _tell_elsewhere(config: Any) -> None:
    for feed in config.feeds:
        for sink in config.sinks_of(feed):
            if sink.process == "own":
                how = f"marketfeed sink {sink.name} --feed {feed} --config {config.source}"
                click.echo(f"sink {sink.name} of feed {feed} is not run here, it needs: {how}", err=True)


def _stop(feeds: list[Any]) -> None:
    """Stop all that were started, also when the stop of one raises."""
    with ExitStack() as stack:
        for feed in reversed(feeds):
            if feed.started:
                stack.callback(_stop_one, feed)


def _stop_one(feed: Any) -> None:
    _say(feed.stop())


def _failed_sinks(feeds: list[Any]) -> Exception | None:
    """A sink that failed on the way: its rows wait in the journal, and a script has to see it."""
    from marketfeed.errors import MarketFeedError

    failed = [
        f"{sink.name} ({sink.error})"
        for feed in feeds
        for sink in feed.pipeline.summary().sinks
        if sink.state == "failed"
    ]
    return MarketFeedError(f"sinks failed: {', '.join(failed)}; their rows stay in the journal") if failed else None


def _drain(feeds: list[Any]) -> Exception | None:
    """Deliver what is left; an error when some of it stays, for a script has to see that."""
    from marketfeed.errors import MarketFeedError

    left, refused = [], list[Exception]()
    for feed in feeds:
        try:
            summary = feed.drain()
        except MarketFeedError as error:
            click.echo(f"feed {feed.name} cannot be drained: {error}", err=True)
            refused.append(error)
            continue
        _say(summary)
        left += [f"{sink.name} ({sink.left:,} rows)" for sink in summary.sinks if sink.left and not sink.elsewhere]
    if left:
        return MarketFeedError(f"not everything could be delivered; left over: {', '.join(left)}")
    return refused[0] if refused else None


def _wait(feeds: list[Any], stopping: threading.Event, duration: float | None, max_ticks: int | None) -> None:
    """Until a signal, the time, the ticks, or no feed can go on. One that cannot leaves the others alone."""
    end = None if duration is None else time.monotonic() + duration
    running = list(feeds)
    while not stopping.wait(0.05):
        if end is not None and time.monotonic() >= end:
            return
        for feed in [one for one in running if one.error]:
            running.remove(feed)
            if not running:
                return
            click.echo(f"feed {feed.name} has ended, the others go on: {feed.error}", err=True)
            _end(feed)
        if max_ticks is not None:
            ticks = sum(feed.pipeline.journal_rows() for feed in feeds)
            if ticks >= max_ticks:
                return


def _end(feed: Any) -> None:
    """Stop one while others run: its sinks take what is there."""
    try:
        feed.stop()
    except Exception as error:  # such as a journal that cannot be closed; told, and no reason to end the others
        click.echo(f"feed {feed.name} did not stop cleanly: {error}", err=True)


@contextmanager
def _stop_on_signals() -> Iterator[tuple[threading.Event, threading.Event]]:
    """SIGINT and SIGTERM set the first event; the next SIGINT interrupts as usual.

    Until the second one is set, by the caller, the first signal interrupts, too: a start may wait long,
    for a broker or for a sink.
    """
    stopping, started = threading.Event(), threading.Event()

    def ask(*_: Any) -> None:
        again = stopping.is_set()
        stopping.set()
        # Not what it was before: a shell lets jobs in its background ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not (started.is_set() or again):
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping, started
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(summary: Any) -> None:
    for line in summary.lines():
        click.echo(line, err=True)
