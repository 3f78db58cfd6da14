"""``marketfeed plugins``: what is installed, and what does not work and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from marketfeed.cli._output import on_terminal, print_json, print_table

if TYPE_CHECKING:
    from marketfeed.plugins import Plugins

__all__ = ["command"]


@click.command(short_help="List vendors, sinks and services, and plugins that do not work.")
@click.option("--json/--text", "as_json", default=None, help="JSON lines or a table; by default JSON lines in a pipe.")
def command(as_json: bool | None) -> None:
    """List what the installed plugins offer, with the distribution that each comes from."""
    from marketfeed.plugins import Plugins

    plugins = Plugins.discover()
    if as_json or (as_json is None and not on_terminal()):
        for line in _lines(plugins):
            print_json(line)
        return
    rows = [(one["kind"], one["name"], one["distribution"], one["version"]) for one in _good(plugins)]
    print_table(("kind", "name", "distribution", "version"), rows)
    if plugins.broken:
        click.echo()
        click.echo(click.style("not usable", bold=True))
        for broken in plugins.broken:
            click.echo(f"{click.style(broken.name, fg='red')} ({broken.distribution} {broken.version}): {broken.error}")


def _lines(plugins: Plugins) -> Iterator[dict[str, Any]]:
    yield from _good(plugins)
    for one in plugins.broken:
        yield {
            "kind": "broken",
            "name": one.name,
            "distribution": one.distribution,
            "version": one.version,
            "error": one.error,
        }


def _good(plugins: Plugins) -> Iterator[dict[str, Any]]:
    for kind, names in (("vendor", plugins.vendors), ("sink", plugins.sinks), ("service", plugins.services)):
        for name in sorted(names):
            owner = plugins.owner(kind, name)
            yield {"kind": kind, "name": name, "distribution": owner.distribution, "version": owner.version}
