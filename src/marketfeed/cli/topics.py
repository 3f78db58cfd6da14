"""``marketfeed topics``: the topics that the sinks of a configuration write to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
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

    {exchange} in a name stands for the exchanges of the feed's instruments. A topic whose name has {symbol} is not
    known before its first tick.
    """


@command.command(short_help="Say what apply would do; change nothing.")
@_CONFIG
def plan(config_file: Path) -> None:
    """Say what `apply` would do. Nothing is changed."""
    _show([(name, one) for name, _, plans in _planned(config_file) for one in plans])


@command.command(short_help="Make what is missing.")
@_CONFIG
def apply(config_file: Path) -> None:
    """Make what `plan` shows: missing topics, more partitions, retention. Nothing is ever taken away."""
    _show([(name, one) for name, sink, plans in _planned(config_file) for one in sink.apply_topics(plans)])


def _planned(file: Path) -> Iterator[tuple[str, Any, list[Any]]]:
    """Sinks that have topics, with their plans: for each feed, ticks and candles. Each topic is planned once."""
    from marketfeed import config as configuration
    from marketfeed.plugins import Plugins

    # Nothing here logs in to a broker of shares, so credentials that are not set do not matter.
    config: Config = configuration.load(file, Plugins.discover(), placeholder="unset")
    seen: set[str] = set()
    for feed in config.feeds.values():
        exchanges = _exchanges(feed.instruments)
        for name, kind in product(feed.sinks, ("ticks", "candles")):
            sink: Any = config.sinks[name].cls(**config.sinks[name].filled(feed.name, kind))
            if hasattr(sink, "plan_topics") and kind in sink.accepts:
                plans = [one for one in sink.plan_topics(kind, exchanges) if f"{name} {one.topic}" not in seen]
                seen |= {f"{name} {one.topic}" for one in plans}
                yield name, sink, plans


def _exchanges(instruments: Iterable[str]) -> list[str]:
    """The exchanges that a feed's instruments name, without asking a broker; a glob names none."""
    from marketfeed.universes import read_universe

    found: set[str] = set()
    for text in instruments:
        if text.startswith("@"):
            try:
                found |= {one.exchange for one in read_universe(text[1:])}
            except (OSError, ValueError) as error:
                raise click.ClickException(f"instruments: {text}: {error}") from error
        else:
            found.add(text.partition(":")[0])
    return sorted(one for one in found if one.isalnum())


def _show(found: list[tuple[str, Any]]) -> None:
    rows = [{"sink": name, **attrs.asdict(one)} for name, one in found]
    if not on_terminal():
        for row in rows:
            print_json(row)
        return
    heads = ["sink", "topic", "action", "partitions", "present", "replication", "config"]
    print_table(heads, [[row[head] for head in heads] for row in rows])
