"""``marketfeed topics``: the topics that the sinks of a configuration write to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from marketfeed.cli._output import on_terminal, print_json, print_table

if TYPE_CHECKING:
    from marketfeed.config import Config

__all__ = ["command"]

_CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    default="feed.toml",
    show_default=True,
    help="The feeds' configuration.",
)


@click.group(name="topics", short_help="Show or make the topics that sinks write to.")
def command() -> None:
    """Show or make the topics of sinks that have any (Kafka): partitions, copies, retention.

    A topic whose name depends on the instrument ({exchange}, {symbol}) is not known before its first tick.
    """


@command.command(short_help="Say what apply would do; change nothing.")
@_CONFIG
def plan(config_file: Path) -> None:
    """Say what `apply` would do. Nothing is changed."""
    _show([(name, one) for name, sink in _sinks(config_file) for one in sink.plan_topics()])


@command.command(short_help="Make what is missing.")
@_CONFIG
def apply(config_file: Path) -> None:
    """Make what `plan` shows: missing topics, more partitions, retention. Nothing is ever taken away."""
    _show([(name, one) for name, sink in _sinks(config_file) for one in sink.apply_topics()])


def _sinks(file: Path) -> Iterator[tuple[str, Any]]:
    """The sinks that have topics, one for each feed."""
    from marketfeed import config as configuration
    from marketfeed.plugins import Plugins

    # Nothing here logs in to a broker of shares, so credentials that are not set do not matter.
    config: Config = configuration.load(file, Plugins.discover(), placeholder="unset")
    for feed in config.feeds.values():
        for name in feed.sinks:
            sink = config.sinks[name].cls(**config.sinks[name].filled(feed.name))
            if hasattr(sink, "plan_topics"):
                yield name, sink


def _show(found: list[tuple[str, Any]]) -> None:
    """One line for each topic; two feeds of one sink name it once."""
    rows = list({str(one): {"sink": name, **attrs.asdict(one)} for name, one in found}.values())
    if not on_terminal():
        for row in rows:
            print_json(row)
        return
    heads = ["sink", "topic", "action", "partitions", "present", "replication", "config"]
    print_table(heads, [[row[head] for head in heads] for row in rows])
