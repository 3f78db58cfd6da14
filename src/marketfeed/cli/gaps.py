"""``marketfeed gaps``: when ticks could have been missed."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from marketfeed.cli._output import on_terminal, print_json, print_table, warn

if TYPE_CHECKING:
    from marketfeed.gaps import Gap
    from marketfeed.journal import Catalog

__all__ = ["command"]

_AGO = re.compile(r"(\d+)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_HEADERS = ["gap", "feed", "start", "seconds", "in session", "cause", "of", "instruments", "rows", "repaired", "why"]


@click.command(name="gaps", short_help="When ticks could have been missed.")
@click.argument("folder", required=False, type=click.Path(file_okay=False, exists=True, path_type=Path))
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="The feeds' configuration; by default feed.toml where no FOLDER is given.",
)
@click.option("--since", metavar="WHEN", help="Only those that ended later: 30m, 2h, 3d ago, or a time (India time).")
@click.option("--instrument", metavar="GLOB", help="Only gaps of these, such as NSE:RELIANCE or NFO:NIFTY*FUT.")
@click.option("--open", "only_open", is_flag=True, help="Only those that have not ended.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines, also on a terminal.")
def command(
    folder: Path | None,
    config_file: Path | None,
    since: str | None,
    instrument: str | None,
    only_open: bool,
    as_json: bool,
) -> None:
    """List the intervals in which ticks could have been missed, oldest first.

    FOLDER is the folder of the journals or of one feed. The feed may run. On a terminal the answer is a
    table, in a pipe one JSON document a line.
    """
    since_ns = _since_ns(since) if since else 0
    found = [
        (gap, names)
        for gap, names in _gaps(folder, config_file, instrument)
        if (gap.end_ns is None or gap.end_ns >= since_ns) and (gap.is_open or not only_open)
    ]
    if as_json or not on_terminal():
        for gap, names in found:
            print_json(gap.document(names))
    else:
        print_table(_HEADERS, [_line(gap, names) for gap, names in found])


def _gaps(folder: Path | None, config_file: Path | None, pattern: str | None) -> Iterator[tuple[Gap, list[str]]]:
    """Each gap of the wanted instruments, with their names."""
    from marketfeed.gaps import find_ledgers, read_book

    folder = folder if folder is not None else _configured(config_file)
    ledgers = find_ledgers(folder)
    if not ledgers:
        warn(f"there is no ledger of gaps in {folder}")
    for path in ledgers:
        book = read_book(path)
        if book.damaged:
            warn(f"{path}: {book.damaged} lines cannot be read")
        catalog = _catalog(path.parent)
        for gap in book.gaps.values():
            names = [_name(catalog, number) for number in gap.instruments]
            if pattern is not None:
                names = [name for name in names if _fits(name, pattern.upper())]
            if names or pattern is None:
                yield gap, names


def _configured(config_file: Path | None) -> Path:
    from marketfeed import config as configuration
    from marketfeed.errors import MarketFeedError
    from marketfeed.plugins import Plugins

    config = configuration.load(config_file or Path("feed.toml"), Plugins.discover(), placeholder="not used")
    if config.journal.kind != "disk":
        raise MarketFeedError("the journals of this configuration are in memory, and so are their gaps: see feed.gaps")
    return Path(config.journal.folder)


def _catalog(folder: Path) -> Catalog:
    from marketfeed.journal.catalog import FileCatalog
    from marketfeed.journal.layout import INSTRUMENTS, ticks_folder

    folder = folder.resolve()  # "." has neither name nor parent
    return FileCatalog(ticks_folder(folder.parent, folder.name) / INSTRUMENTS, writable=False)


def _name(catalog: Catalog, number: int) -> str:
    try:
        return catalog[number].key
    except IndexError:  # a ledger without its journal
        return str(number)


def _fits(name: str, pattern: str) -> bool:
    whole = name.upper()
    return fnmatch.fnmatchcase(whole if ":" in pattern else whole.partition(":")[2], pattern)


def _since_ns(text: str) -> int:
    from marketfeed.clock import NS, Clock, to_ns

    ago = _AGO.fullmatch(text.strip())
    if ago:
        return Clock().wall_ns() - int(ago[1]) * _SECONDS[ago[2]] * NS
    try:
        return to_ns(text.strip())
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a span such as 2h nor a time such as 2026-11-20T10:00") from None


def _line(gap: Gap, names: Sequence[str]) -> list[str]:
    from marketfeed.clock import ist_text

    seconds = "open" if gap.is_open else "-" if gap.seconds is None else f"{gap.seconds:,.3f}"
    place = f"sink {gap.sink}" if gap.sink else "-" if gap.connection is None else f"connection {gap.connection}"
    return [
        str(gap.number),
        gap.feed,
        ist_text(gap.start_ns) if gap.start_ns else "-",
        seconds,
        "-" if gap.in_session_s is None else f"{gap.in_session_s:,.3f}",
        " + ".join(gap.causes),
        place,
        ", ".join(names) if len(names) <= 2 else f"{len(names):,}",
        f"{'-' if gap.row_before is None else gap.row_before}..{'-' if gap.row_after is None else gap.row_after}",
        gap.repaired_by or "-",
        "".join(letter if letter.isprintable() else "?" for letter in gap.why),
    ]
