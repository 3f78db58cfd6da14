"""``marketfeed deadletters``: look at what was put aside, and try it again."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
import click

from marketfeed.cli._deadletters import Wanted, moment_of, shown_document, shown_tables
from marketfeed.cli._output import on_terminal, print_json, print_table

if TYPE_CHECKING:
    from marketfeed.config import Config
    from marketfeed.deadletters import DeadLetter, LetterFolder

__all__ = ["command"]

_SCREEN = 100
"""Letters that `list` shows on a terminal unless told otherwise."""
_FOLDER = click.argument("folder", required=False, type=click.Path(file_okay=False, exists=True, path_type=Path))
_CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="The feeds' configuration; by default feed.toml where no FOLDER is given.",
)
_FILTERS = (
    click.option("--feed", metavar="NAME", help="Only of this feed."),
    click.option("--kind", type=click.Choice(["packet", "row", "refused", "callback"]), help="Only of this kind."),
    click.option("--reason", metavar="CODE", help="Only with this reason."),
    click.option("--source", metavar="NAME", help="Only of this sink, or of this 'connection N'."),
    click.option("--since", metavar="WHEN", help="Only later ones: 30m, 2h, 3d ago, or a time (India time)."),
)


def _filters(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_FILTERS):
        function = option(function)
    return function


@click.group(name="deadletters", short_help="Look at what was put aside; try it again.", invoke_without_command=True)
@click.option(
    "--kafka", "topic", metavar="TOPIC", help="Read the letters in this dead-letter topic of a Kafka sink ..."
)
@click.option("--dump", type=click.Path(dir_okay=False, path_type=Path), help="... into this file, for `import`.")
@_CONFIG
@click.pass_context
def command(context: click.Context, topic: str | None, dump: Path | None, config_file: Path | None) -> None:
    """Look at packets and rows that were put aside, and try them again.

    FOLDER is the folder of the journals, of one feed, or of its dead letters. The feed may run, except for
    replay. On a terminal the answers are tables, in a pipe one JSON document a line.
    """
    if topic is None and dump is None:
        if context.invoked_subcommand is None:
            click.echo(context.get_help())
            context.exit(2)
        return
    if topic is None or dump is None or context.invoked_subcommand is not None:
        raise click.UsageError("--kafka TOPIC and --dump FILE go together, without a command")
    _dump_topic(topic, dump, _loaded(config_file))


def _dump_topic(topic: str, file: Path, config: Config) -> None:
    """Write what the topic holds, through the sink that names it."""
    from marketfeed.errors import MarketFeedError

    used = [(name, config.sinks[name].filled(feed.name)) for feed in config.feeds.values() for name in feed.sinks]
    found = {name: options for name, options in used if options.get("dead_letter_topic") == topic}
    if not found:
        raise MarketFeedError(f"no sink of the configuration has dead_letter_topic = {topic!r}")
    if len(found) > 1:
        said = f"{' and '.join(found)} share the dead-letter topic {topic}, and its letters do not say whose they are"
        raise MarketFeedError(f"{said}; give each a topic of its own")
    ((name, options),) = found.items()
    lines = list(config.sinks[name].cls(**options).dump_letters(topic, name))  # type: ignore[attr-defined]
    file.write_bytes(b"".join(lines))
    click.echo(f"{len(lines):,} letters in {file}; take them in: marketfeed deadletters import {file}", err=True)


@command.command(name="list", short_help="The letters, oldest first.")
@_FOLDER
@_CONFIG
@_filters
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="The newest N; 0 is all.")
def list_(folder: Path | None, config_file: Path | None, limit: int | None, **filters: str | None) -> None:
    """List letters: when, of which kind, why, of which source."""
    terminal = on_terminal()
    most = limit if limit is not None else _SCREEN if terminal else 0
    found: deque[dict[str, Any]] = deque(maxlen=most or None)
    count = 0
    for store in _stores(folder, config_file, filters):
        done = _finished(store)
        for letter in Wanted.of(**filters).among(store):
            found.append(_document(letter, done))
            count += 1
            if not terminal and not most:
                print_json(found.pop())
        _tell_damage(store)
    if not terminal:
        for one in found:
            print_json(one)
        return
    print_table(
        ["id", "time", "feed", "kind", "reason", "source", "rows", "bytes", "replayed", "error"], map(_line, found)
    )
    if count > len(found):
        click.echo(f"the newest {len(found)} of {count:,}; --limit 0 shows all", err=True)


@command.command(name="show", short_help="One letter with its bytes and what they mean.")
@click.argument("id")
@_FOLDER
@_CONFIG
@click.option("--bytes", "most_bytes", type=click.IntRange(min=0), default=1024, show_default=True, help="0 is all.")
def show(id: str, folder: Path | None, config_file: Path | None, most_bytes: int) -> None:  # noqa: A002
    """Show the letter ID (or the beginning of an id): its fields, a hex dump, and what today's parser and the
    journal's instruments make of it. A packet is parsed only with a configuration.
    """
    from marketfeed.errors import MarketFeedError

    config = _loaded(config_file) if folder is None or config_file is not None else None
    failure: MarketFeedError | None = None
    for store in _stores(folder, config_file, {}, config):
        try:
            letter = store.get(id)
        except MarketFeedError as error:
            failure = failure or error
            continue
        replayed = letter.identity in _finished(store)
        if on_terminal():
            shown_tables(letter, store, config, replayed, most_bytes)
        else:
            print_json(shown_document(letter, store, config, replayed))
        return
    raise failure or MarketFeedError("there are no dead letters")


@command.command(name="stats", short_help="How many, of which kind, why.")
@_FOLDER
@_CONFIG
@_filters
def stats(folder: Path | None, config_file: Path | None, **filters: str | None) -> None:
    """Count letters by feed, kind, reason and source."""
    found: list[dict[str, Any]] = []
    for store in _stores(folder, config_file, filters):
        found += _counted(Wanted.of(**filters).among(store), _finished(store))
        _tell_damage(store)
    found.sort(key=lambda one: (one["feed"], -one["rows"]))
    if not on_terminal():
        for one in found:
            print_json(one)
        return
    heads = ["feed", "kind", "reason", "source", "letters", "rows", "bytes", "replayed"]
    lines = [
        [*(one[name] for name in heads), *(moment_of(one[name]) for name in ("first_ns", "last_ns"))] for one in found
    ]
    print_table([*heads, "first", "last"], lines)


@command.command(name="replay", short_help="Try letters again.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_CONFIG
@_filters
@click.option("--dry-run", is_flag=True, help="Only say what would happen; the feed may run.")
def replay(ids: tuple[str, ...], config_file: Path | None, dry_run: bool, **filters: str | None) -> None:
    """Try letters again: all of them, those named by ID, or those that the filters leave.

    Packets go through today's parser and validation, rows through today's validation, and what is good is
    appended to the journal. Rows that a sink refused are offered to it again. What succeeded is written down
    and not done twice. The feed must be stopped. Exit code 1 if a sink failed.
    """
    from marketfeed.deadletters import LetterFolder, letters_folder
    from marketfeed.engine.redo import Redo

    config = _loaded(config_file)
    results: Counter[str] = Counter()
    rows: list[list[object]] = []
    for name in [filters["feed"]] if filters["feed"] in config.feeds else config.feeds:
        store = LetterFolder(letters_folder(config.journal.folder, str(name)))
        letters = [letter for letter in Wanted.of(**filters).among(store) if _named(letter, ids)]
        if not letters:
            continue
        for one in Redo(config, store.feed).run(letters, dry_run=dry_run):
            results[one.result] += 1
            if on_terminal():
                values = (one.id, one.kind, one.reason, one.result, one.rows, one.left, one.target, one.detail)
                rows.append(list(values))
            else:
                print_json({**attrs.asdict(one), "dry_run": dry_run})
    if on_terminal():
        print_table(["id", "kind", "reason", "result", "rows", "left", "target", "detail"], rows)
    text = ", ".join(f"{count:,} {result}" for result, count in sorted(results.items()))
    click.echo(f"{'dry run: ' if dry_run else ''}{text or 'no letters'}", err=True)
    if results["failed"]:
        raise SystemExit(1)


@command.command(name="export", short_help="Letters as JSON lines.")
@_FOLDER
@_CONFIG
@_filters
@click.option("--raw", is_flag=True, help="With their bytes (base64): only then can they be imported.")
@click.option("--output", type=click.File("wb"), default="-", help="Where to; standard output by default.")
def export(folder: Path | None, config_file: Path | None, raw: bool, output: IO[bytes], **filters: str | None) -> None:
    """Write letters as JSON lines, oldest first."""
    import msgspec

    from marketfeed.deadletters.exchange import document

    for store in _stores(folder, config_file, filters):
        for letter in Wanted.of(**filters).among(store):
            output.write(msgspec.json.encode(document(letter, raw=raw)) + b"\n")
        _tell_damage(store)


@command.command(name="import", short_help="Take in letters that were exported.")
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@_FOLDER
@_CONFIG
@click.option("--feed", metavar="NAME", help="Put them all to this feed; by default each to the feed it names.")
def import_(file: Path, folder: Path | None, config_file: Path | None, feed: str | None) -> None:
    """Take in the letters of FILE, JSON lines as `export --raw` writes them. FOLDER is the folder of the
    journals. A letter that is there already is passed over.
    """
    from marketfeed.deadletters import MAX_BYTES, import_letters, import_lines, letters_folder

    config = _loaded(config_file) if folder is None else None
    root = folder or (config.journal.folder if config else Path())
    most = config.dead_letters.max_bytes if config else MAX_BYTES
    for name in dict.fromkeys([feed] if feed else [letter.feed for letter in import_lines(file)]):
        chosen = (letter for letter in import_lines(file) if feed or letter.feed == name)
        added, there = import_letters(chosen, letters_folder(root, name), max_bytes=most)
        click.echo(f"{name}: {added:,} letters added, {there:,} were there already", err=True)


# --- parts ----------------------------------------------------------------------------------------


def _loaded(file: Path | None) -> Config:
    from marketfeed import config as configuration
    from marketfeed.plugins import Plugins

    # Nothing here logs in, so credentials that are not set do not matter.
    return configuration.load(file or Path("feed.toml"), Plugins.discover(), placeholder="unset")


def _stores(
    folder: Path | None, config_file: Path | None, filters: dict[str, str | None], config: Config | None = None
) -> Iterator[LetterFolder]:
    """The stores meant, of the feed asked for."""
    from marketfeed.deadletters import LetterFolder, find_folders

    if folder is None:
        folder = (config or _loaded(config_file)).journal.folder
    for path in find_folders(folder):
        store = LetterFolder(path)
        if filters.get("feed") in (None, store.feed):
            yield store


def _finished(store: LetterFolder) -> set[str]:
    from marketfeed.deadletters.folder import LEDGER
    from marketfeed.deadletters.ledger import Ledger

    return Ledger(store.path / LEDGER).finished


def _named(letter: DeadLetter, ids: tuple[str, ...]) -> bool:
    return not ids or letter.id in ids


def _tell_damage(store: LetterFolder) -> None:
    if store.damaged_bytes:
        click.echo(f"{store.path}: {store.damaged_bytes:,} bytes are damaged and were passed over", err=True)


def _document(letter: DeadLetter, done: set[str]) -> dict[str, Any]:
    from marketfeed.deadletters.exchange import document

    return {**document(letter, raw=False), "replayed": letter.identity in done}


def _line(one: dict[str, Any]) -> list[object]:
    error = " ".join(str(one.get("error", "")).split())
    error = "".join(letter if letter.isprintable() else "?" for letter in error)
    moment, replayed = moment_of(one["at_ns"]), "yes" if one["replayed"] else ""
    known = [one[name] for name in ("feed", "kind", "reason", "source")]
    return [one["id"], moment, *known, one.get("rows", 1), f"{one['size']:,}", replayed, error[:80]]


def _counted(letters: Iterator[DeadLetter], done: set[str]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for letter in letters:
        key = letter.feed, letter.kind, letter.reason, letter.source
        start = dict(zip(("feed", "kind", "reason", "source"), key, strict=True))
        empty = {"letters": 0, "rows": 0, "bytes": 0, "replayed": 0, "first_ns": letter.at_ns}
        one = groups.setdefault(key, {**start, **empty})
        one["letters"] += 1
        one["rows"] += letter.rows
        one["bytes"] += len(letter.raw)
        one["replayed"] += letter.identity in done
        one["last_ns"] = letter.at_ns
    return list(groups.values())
