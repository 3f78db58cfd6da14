"""``marketfeed check``: every problem of a configuration, before anything is connected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from marketfeed.cli._output import print_json, print_table, warn
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from marketfeed.config import Config

__all__ = ["command"]


@click.command(short_help="Check a configuration file, without connecting.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="feed.toml")
@click.option("--json", "as_json", is_flag=True, help="One JSON document: ok, problems, warnings, config (no secrets).")
@click.option("--connect", is_flag=True, help="Also connect to each sink's server: address, login, permission.")
def command(file: Path, as_json: bool, connect: bool) -> None:
    """Read FILE (default feed.toml) and say everything that is wrong with it.

    Nothing is connected unless asked, and no credential is shown. The exit code is 0 when FILE can be used, else 2;
    1 when a sink cannot be reached.
    """
    from marketfeed import config as configuration
    from marketfeed.plugins import Plugins

    plugins = Plugins.discover()
    try:
        config = configuration.load(file, plugins)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "problems": [attrs.asdict(one) for one in error.problems]})
        raise SystemExit(2) from None
    reached = list(_probed(config)) if connect else []
    failed = any(error for *_, error in reached)
    if as_json:
        print_json(_document(config) | ({"ok": not failed, "sinks": _sinks_document(reached)} if connect else {}))
        raise SystemExit(1 if failed else 0)
    for broken in plugins.broken:
        warn(f"plugin {broken}")
    for warning in config.warnings:
        warn(warning)
    click.echo(f"{click.style('ok', fg='green')}: {file}\n")
    _print_summary(config)
    if reached:
        click.echo()
        print_table(
            ("sink", "feed", "connects", "what"),
            [(name, feed, "no" if error else "yes", error or found) for name, feed, found, error in reached],
        )
    if failed:
        raise SystemExit(1)


def _probed(config: Config) -> Iterator[tuple[str, str, str, str]]:
    """Sink, feed, what it found, or else why it cannot be used; sinks that cannot tell are left out."""
    from marketfeed.config import secrets_of
    from marketfeed.errors import SinkError
    from marketfeed.redaction import clean

    for feed in config.feeds.values():
        for name in feed.sinks:
            sink = config.sinks[name].cls(**config.sinks[name].filled(feed.name))
            probe = getattr(sink, "probe", None)
            if probe is None:
                continue
            try:
                yield name, feed.name, str(probe()), ""
            except SinkError as error:
                yield name, feed.name, "", clean(str(error), secrets_of(config))


def _sinks_document(reached: list[tuple[str, str, str, str]]) -> list[dict[str, Any]]:
    return [
        {"sink": name, "feed": feed, "ok": not error, "found": found, "error": error}
        for name, feed, found, error in reached
    ]


def _document(config: Config) -> dict[str, Any]:
    from marketfeed.config import redacted

    warnings = [attrs.asdict(one) for one in config.warnings]
    return {"ok": True, "problems": [], "warnings": warnings, "config": redacted(config)}


def _print_summary(config: Config) -> None:
    feeds = config.feeds.values()
    rows = [(one.name, one.vendor, one.mode.word, len(one.instruments), _sinks(config, one.name)) for one in feeds]
    print_table(("feed", "vendor", "mode", "instruments", "sinks"), rows)
    click.echo()
    vendors = config.vendors.values()
    print_table(
        ("vendor", "type", "plugin"),
        [(one.name, one.type, f"{one.plugin.info.title}, {one.plugin.provider.owner}") for one in vendors],
    )
    if config.sinks:
        click.echo()
        print_table(("sink", "type", "class"), [(one.name, one.type, _home(one.cls)) for one in config.sinks.values()])
    click.echo()
    journal, port = config.journal, config.metrics.port
    where = f"{journal.folder} (keeps {journal.keep_bytes / 1e9:g} GB)" if journal.kind == "disk" else "in memory"
    click.echo(f"journal  {where}")
    click.echo(f"metrics  {f'http://{config.metrics.host}:{port}/metrics' if port is not None else 'off'}")


def _sinks(config: Config, feed: str) -> str:
    """Those in processes of their own are told apart: the feed alone does not deliver to them."""
    named = [f"{one.name} (own process)" if one.process == "own" else one.name for one in config.sinks_of(feed)]
    return ", ".join(named) or "-"


def _home(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
