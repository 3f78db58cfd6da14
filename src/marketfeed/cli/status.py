"""``marketfeed status``: how feeds and their sinks stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marketfeed.cli._output import on_terminal, print_json, print_table

if TYPE_CHECKING:
    from marketfeed.overview import FeedStanding, SinkStanding

__all__ = ["command"]


@click.command(name="status", short_help="How feeds and their sinks stand, and whether every row is accounted for.")
@click.argument("folder", required=False, type=click.Path(file_okay=False, exists=True, path_type=Path))
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="The feeds' configuration; by default feed.toml where no FOLDER is given.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines, also on a terminal.")
def command(folder: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Show each feed and its sinks, from the journals alone; nothing has to run.

    FOLDER is the folder of the journals or of one feed. With a configuration a running feed is asked for its
    /health, too. On a terminal the answer is tables, in a pipe one JSON document a feed. Exit code 1 when a
    row is not accounted for.
    """
    from marketfeed.overview import feeds_in, look

    health: Mapping[str, Mapping[str, Any]] = {}
    if folder is None or config_file is not None:
        configured, health = _configured(config_file or Path("feed.toml"))
        folder = folder or configured
    found = [look(one, health.get(one.parent.name)) for one in feeds_in(folder)]
    if as_json or not on_terminal():
        for one in found:
            print_json(one.document())
    else:
        _show(found)
    if not all(one.holds for one in found):
        raise SystemExit(1)


def _configured(file: Path) -> tuple[Path, Mapping[str, Mapping[str, Any]]]:
    """The folder of the journals, and what a running feed says."""
    from marketfeed import config as configuration
    from marketfeed.errors import MarketFeedError
    from marketfeed.overview import ask_health
    from marketfeed.plugins import Plugins

    config = configuration.load(file, Plugins.discover(), placeholder="not used")
    if config.journal.kind != "disk":
        raise MarketFeedError("the journals of this configuration are in memory: see /health of the feed")
    if not config.journal.folder.is_dir():
        raise MarketFeedError(f"there is no journal yet: {config.journal.folder} is made when a feed starts")
    asked = ask_health(config.metrics.host, config.metrics.port) if config.metrics.port else {}
    return config.journal.folder, asked


def _show(found: Iterable[FeedStanding]) -> None:
    found = list(found)
    print_table(
        ["feed", "writer", "rows", "rows/s", "newest row", "ready", "dead letters", "open gaps", "law"],
        [_feed(one) for one in found],
    )
    for one in found:
        click.echo()
        if one.sinks:
            print_table(
                [f"sink of {one.feed}", "position", "delivered", "skipped", "refused", "lag", "lag s", "runs", "law"],
                [_sink(sink) for sink in one.sinks],
            )
        for line in _notes(one):
            click.echo(line)


def _feed(one: FeedStanding) -> list[str]:
    from marketfeed.clock import ist_text

    newest = ist_text(one.newest_ns) if one.newest_ns else "-"
    ready = "-" if one.health is None else "yes" if one.health.get("ready") else "NO"
    writer = one.writer if one.writer == "stopped" else f"{one.writer} ({one.pid})"
    counts = [f"{one.dead_letters:,}", f"{one.gaps_open:,} of {one.gaps:,}"]
    return [one.feed, writer, f"{one.rows:,}", f"{one.rate:,.1f}", newest, ready, *counts, _mark(one.law)]


def _sink(one: SinkStanding) -> list[str]:
    counts = [f"{count:,}" for count in (one.position, one.delivered, one.skipped, one.dead_lettered, one.lag)]
    return [one.name, *counts, f"{one.lag_s:,.1f}", one.state or ("yes" if one.in_use else "no"), _mark(one.law)]


def _notes(one: FeedStanding) -> Iterable[str]:
    totals = one.totals
    if totals is None:
        yield "no run has kept books here"
    else:
        said = f"{totals.parsed:,} parsed = {totals.appended:,} appended + {totals.dropped:,} dropped"
        said += f" + {totals.dead_lettered:,} dead-lettered + {totals.lost:,} lost"
        yield f"{_mark(one.law)} {totals.runs:,} runs ({totals.crashes:,} crashed): {said}"
        extra = (
            (totals.unseen, "seen by the journal alone"),
            (totals.others, "appended by others"),
            (totals.cut, "cut"),
        )
        if any(count for count, _ in extra):
            yield "  of the journal's rows: " + ", ".join(f"{count:,} {word}" for count, word in extra if count)
    for sink in one.sinks:
        if sink.error:
            yield f"sink {sink.name}: {sink.error}"
    stuck = ((one.health or {}).get("parse") or {}).get("stuck")
    if stuck:
        yield f"the journal cannot be written: {stuck}"


def _mark(law: bool | None) -> str:
    return "-" if law is None else "✓" if law else "✗"
