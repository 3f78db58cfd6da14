"""``marketfeed journal``: look after journals on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marketfeed.cli._output import on_terminal, print_table

if TYPE_CHECKING:
    from marketfeed.journal.admin import JournalInfo, Verification

__all__ = ["command"]

_FOLDER = click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))


@click.group(name="journal", short_help="List, describe, verify journals; forget a cursor.")
def command() -> None:
    """Look after journals on disk. They may be in use.

    On a terminal the answers are tables, in a pipe one JSON document a line.
    """


@command.command(name="list", short_help="The journals at or below a folder.")
@_FOLDER
def list_(folder: Path) -> None:
    """List the journals at or below FOLDER."""
    from marketfeed.journal import admin

    found = [admin.info(one) for one in admin.find(folder)]
    if not on_terminal():
        _json_lines(found)
        return
    print_table(
        ["folder", "feed", "kind", "rows", "size", "newest row", "writer", "cursors"],
        [_line(one) for one in found],
    )


@command.command(name="info", short_help="One journal and its cursors.")
@_FOLDER
def info(folder: Path) -> None:
    """Describe the journal in FOLDER and the cursors on it."""
    from marketfeed.journal import admin

    one = admin.info(admin.only(folder))
    if not on_terminal():
        _json_lines([one])
        return
    print_table(["journal", one.folder], _facts(one))
    click.echo()
    print_table(
        ["cursor", "position", "lag", "delivered", "skipped", "dead letters", "last commit", "in use"],
        [
            [cursor.name]
            + [f"{count:,}" for count in (cursor.position, cursor.lag, cursor.delivered)]
            + [f"{count:,}" for count in (cursor.skipped, cursor.dead_lettered)]
            + [_time(cursor.updated_ns), "yes" if cursor.in_use else "no"]
            for cursor in one.cursors
        ],
    )


@command.command(name="verify", short_help="Test the check of every row.")
@_FOLDER
def verify(folder: Path) -> None:
    """Test the check of every row of the journal in FOLDER; exit code 1 if one is damaged."""
    from marketfeed.journal import admin

    target = admin.only(folder)
    if not on_terminal():
        result = admin.verify(target)
        _json_lines([result])
    else:
        result = _verified_with_progress(target)
        click.echo(f"{result.rows:,} rows from row {result.first_row:,} on: {'all whole' if result.good else 'DAMAGE'}")
        for one in result.damage:
            click.echo(f"  rows {one.first_row:,} to {one.first_row + one.rows - 1:,}: {one.what}")
    if not result.good:
        raise SystemExit(1)


@command.command(name="forget", short_help="Remove a cursor that nobody uses any more.")
@_FOLDER
@click.argument("cursor")
def forget(folder: Path, cursor: str) -> None:
    """Remove CURSOR from the journal in FOLDER, so that it holds back no rows.

    A reader that comes back under this name begins anew.
    """
    from marketfeed.journal import admin

    target = admin.only(folder)
    admin.forget(target, cursor)
    click.echo(f"{target} has no cursor {cursor!r} any more", err=True)


def _verified_with_progress(folder: Path) -> Verification:
    from rich.progress import Progress

    from marketfeed.journal import admin

    with Progress(transient=True) as bar:
        task = bar.add_task("verifying")
        return admin.verify(folder, lambda done, total: bar.update(task, completed=done, total=total))


def _line(one: JournalInfo) -> list[str]:
    size, newest = _size(one.disk_bytes), _time(one.last_received_ns)
    return [one.folder, one.feed, one.kind, f"{one.rows:,}", size, newest, _writer(one), str(len(one.cursors))]


def _facts(one: JournalInfo) -> list[list[str]]:
    cuts = ", ".join(f"epoch {cut.epoch} from row {cut.first_row:,}" for cut in one.epochs)
    return [
        ["name", one.name],
        ["feed", f"{one.feed} ({one.vendor or 'no vendor'}), {one.kind}"],
        ["rows", f"{one.rows:,}: {one.oldest:,} up to {one.committed - 1:,}" if one.rows else "none"],
        ["on the disk", f"{_size(one.disk_bytes)} in {one.segments} segments, forced up to row {one.synced:,}"],
        ["received", f"{_time(one.first_received_ns)} to {_time(one.last_received_ns)} India time"],
        ["instruments", f"{one.instruments:,}"],
        ["writer", _writer(one)],
        ["power cuts", cuts or "none that lost rows"],
    ]


def _writer(one: JournalInfo) -> str:
    if not one.writer_pid:
        return "closed"
    return f"process {one.writer_pid}" if one.writer_alive else f"died (process {one.writer_pid})"


def _time(ns: int) -> str:
    from marketfeed.clock import ist_text

    return ist_text(ns) if ns else "-"


def _size(count: int) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:,.0f} {unit}"
        count = round(count / 1000)
    return f"{count:,} GB"


def _json_lines(documents: list[Any]) -> None:
    import msgspec

    for one in documents:
        click.echo(msgspec.json.encode(one))
