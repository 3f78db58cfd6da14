"""``marketfeed sink``: one sink in a process of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marketfeed.cli._output import warn

if TYPE_CHECKING:
    from marketfeed.config import Config
    from marketfeed.sinkprocess import SinkProcess

__all__ = ["command"]

_LOOK_S = 0.2


@click.command(name="sink", short_help="Run one sink in a process of its own.")
@click.argument("name")
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="feed.toml",
    show_default=True,
    help="The configuration that the feed runs with.",
)
@click.option("--feed", metavar="FEED", help="Whose ticks; needed where several feeds name the sink.")
@click.option("--drain", is_flag=True, help="Deliver what the journal holds now, then exit.")
@click.option("--duration", type=float, metavar="SECONDS", help="Stop after this long.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), metavar="PORT", help="Listen for Prometheus; 0: any.")
def command(
    name: str, file: Path, feed: str | None, drain: bool, duration: float | None, metrics_port: int | None
) -> None:
    """Deliver the journal of a feed to the sink NAME of its configuration, until Ctrl-C.

    The feed may run, stop and start again meanwhile, and need not be there yet. With `process = "own"` in
    [sinks.NAME] the feed leaves the sink to this command. No credentials of the broker are needed.
    """
    from marketfeed import config as configuration
    from marketfeed.engine import logs
    from marketfeed.plugins import Plugins
    from marketfeed.sinkprocess import SinkProcess

    plugins = Plugins.discover()
    config = configuration.load(file, plugins, placeholder="not used")
    logs.configure(config.log.level, config.log.format, configuration.secrets_of(config))
    process = SinkProcess(config, name, feed, plugins=plugins)
    if config.sinks[name].process != "own":
        warn(f'[sinks.{name}] has no process = "own", so `marketfeed run` delivers to it, too; one of them is refused')
    if drain:
        _drain(process)
    else:
        _run(process, config, duration, metrics_port)


def _drain(process: SinkProcess) -> None:
    from marketfeed.errors import MarketFeedError

    summary = process.drain()
    _say(summary)
    left = summary.sinks[0]
    if left.left:
        raise MarketFeedError(f"not everything could be delivered; left over: {left.name} ({left.left:,} rows)")


def _run(process: SinkProcess, config: Config, duration: float | None, metrics_port: int | None) -> None:
    with _stop_on_signals(process.stopping) as signals, ExitStack() as stack:
        if duration is not None:
            timer = threading.Timer(duration, process.stopping.set)
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        if metrics_port is not None:
            from marketfeed.monitoring import Monitor

            monitor = Monitor([process], config.metrics.host, metrics_port)
            stack.callback(monitor.close)
            click.echo(f"metrics on http://{config.metrics.host}:{monitor.port}/metrics", err=True)
        if not process.wait_for_journal():
            return
        signals.interrupt = True  # a sink may take its time to open
        process.start()
        signals.interrupt = False
        stack.callback(lambda: _say(process.stop()))
        while process.watch(_LOOK_S):
            pass


class _Signals:
    """What the next signal does besides asking for a stop."""

    interrupt = False


@contextmanager
def _stop_on_signals(stopping: threading.Event) -> Iterator[_Signals]:
    """SIGINT and SIGTERM stop in order; a second one interrupts."""
    signals = _Signals()

    def ask(*_: Any) -> None:
        stopping.set()
        if signals.interrupt:
            raise KeyboardInterrupt
        signals.interrupt = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(summary: Any) -> None:
    for line in summary.lines()[1:]:  # the first one is of parsing, which is the feed's
        click.echo(line.strip(), err=True)
