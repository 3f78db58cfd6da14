"""``marketfeed instruments``: what can be traded, under which names and numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marketfeed.cli._output import on_terminal, print_json, print_table, warn

if TYPE_CHECKING:
    from marketfeed.identity import Change, Mapping
    from marketfeed.instrument_book import Instruments
    from marketfeed.instruments import Instrument

__all__ = ["command"]

_HEADERS = ["instrument", "kind", "expiry", "strike", "lot", "tick", "token", "exchange token", "name"]
_SHOWN = ("token", "exchange_token", "symbol", "name", "series", "expiry", "strike", "lot_size", "tick_size")
_vendor = click.option(
    "--vendor", default="kite", show_default=True, help="An installed vendor, or with --config a table of [vendors]."
)
_config = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Take accounts and credentials from this configuration.",
)
_sandbox = click.option("--sandbox", is_flag=True, help="Ask a sandbox broker on this machine, for trying.")
_json = click.option("--json", "as_json", is_flag=True, help="JSON lines, also on a terminal.")


@click.group(name="instruments", short_help="Search, compare and map the brokers' instruments.")
def command() -> None:
    """What can be traded, under which names and numbers.

    A broker's master is fetched once a day (it changes at 08:30 India time) and kept on disk, the previous
    day's with it. Kite and FlatTrade give theirs without a login.
    """


@command.command()
@click.argument("vendors", nargs=-1)
@_config
@_sandbox
@_json
def sync(vendors: tuple[str, ...], config_file: Path | None, sandbox: bool, as_json: bool) -> None:
    """Fetch today's master of each of VENDORS, by default of all that are installed."""
    rows: list[dict[str, Any]] = []
    failed = None
    with _Books(config_file, sandbox) as books:
        for name in vendors or books.installed:
            try:
                table = books.open(name).sync()
            except books.error as error:
                failed = error
                warn(f"{name}: {error}")
                continue
            exchanges = sorted({one.exchange for one in table})
            rows.append({"vendor": name, "instruments": len(table), "exchanges": exchanges})
    if as_json or not on_terminal():
        for row in rows:
            print_json(row)
    else:
        lines = [[row["vendor"], f"{row['instruments']:,}", " ".join(row["exchanges"])] for row in rows]
        print_table(["vendor", "instruments", "exchanges"], lines)
    if failed is not None and (vendors or not rows):
        raise failed


@command.command()
@click.argument("text", default="")
@_vendor
@click.option("--exchange", help="NSE, NFO, BSE, ...")
@click.option("--type", "kind", type=click.Choice(["EQ", "INDEX", "FUT", "CE", "PE"], case_sensitive=False))
@click.option("--expiry", type=click.DateTime(["%Y-%m-%d"]), help="Day of expiry, such as 2026-11-24.")
@click.option("--strike", type=float)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most lines shown.")
@_config
@_sandbox
@_json
def search(
    text: str,
    vendor: str,
    exchange: str | None,
    kind: str | None,
    expiry: Any,
    strike: float | None,
    limit: int,
    config_file: Path | None,
    sandbox: bool,
    as_json: bool,
) -> None:
    """Instruments whose symbol or name holds TEXT, the best first; TEXT may be a glob or a selection.

    A selection is what a feed's `instruments` takes: @nifty50, 'NFO:NIFTY FUT 1', 'NFO:NIFTY OPT ATM+-5 @24000'.
    """
    from marketfeed.selection import is_moving

    with _Books(config_file, sandbox) as books:
        book = books.open(vendor)
        if text.startswith("@") or is_moving(text):
            found = book.select(text)
        else:
            day = expiry.date() if expiry else None
            found = book.search(text, exchange=exchange and exchange.upper(), type=kind, expiry=day, strike=strike)
    _print_instruments(found[:limit], as_json)
    if len(found) > limit:
        click.echo(f"{len(found) - limit:,} more; narrow the search or raise --limit", err=True)


@command.command()
@click.argument("key")
@click.option("--vendor", "vendors", multiple=True, help="Which vendors; by default all that are installed.")
@_config
@_sandbox
@_json
def show(key: str, vendors: tuple[str, ...], config_file: Path | None, sandbox: bool, as_json: bool) -> None:
    """One instrument, EXCHANGE:SYMBOL, as each vendor lists it.

    The first vendor that has the name says which one is meant; the others are asked for the same number of
    the exchange, so a share that one of them calls otherwise is found.
    """
    from marketfeed.errors import ConfigError, Problem
    from marketfeed.identity import partner

    with _Books(config_file, sandbox) as books:
        tables = dict(books.tables(vendors or books.installed))
    first = next((table[key] for table in tables.values() if key in table), None)
    if first is None:
        if any(letter in key for letter in "*?["):
            raise ConfigError([Problem("KEY", f"{key!r} may mean many; see `marketfeed instruments search`")])
        hints = [f"{table.select([key])[1][0]} (vendor {name})" for name, table in tables.items()]
        raise ConfigError([Problem("KEY", text) for text in hints or ["no vendor's instruments are there"]])
    rows = []
    for name, table in tables.items():
        one, doubt = (table[key], None) if table.get(key) is first else partner(first, table)
        if doubt is not None:
            warn(doubt)
        if one is not None:
            rows.append({"vendor": name, **_document(one)})
    if as_json or not on_terminal():
        for row in rows:
            print_json(row)
    else:
        print_table(["", *(row["vendor"] for row in rows)], [[name, *(row[name] for row in rows)] for name in _SHOWN])


@command.command(name="map")
@click.argument("first")
@click.argument("second")
@click.option(
    "--list",
    "what",
    type=click.Choice(["doubts", "pairs", "only-first", "only-second"]),
    default="doubts",
    show_default=True,
    help="What to list.",
)
@click.option(
    "--instruments", "selection", multiple=True, help="Only these of FIRST, such as @nifty50 or 'NFO:NIFTY*'."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help='Write the pairs as a list with both tokens, for `instruments = ["@FILE.json"]`.',
)
@_config
@_sandbox
@_json
def map_vendors(
    first: str,
    second: str,
    what: str,
    selection: tuple[str, ...],
    output: Path | None,
    config_file: Path | None,
    sandbox: bool,
    as_json: bool,
) -> None:
    """Which instrument of vendor FIRST is which of vendor SECOND, by the exchange's own numbers.

    Lists what gives reason to doubt: other names, lot or tick sizes, and what looks alike but is not mapped.
    """
    from marketfeed.identity import map_tables
    from marketfeed.instruments import InstrumentTable

    with _Books(config_file, sandbox) as books:
        a, b = books.open(first), books.open(second)
        mapping = map_tables(InstrumentTable(a.select(selection)) if selection else a.table, b.table)
    _print_mapping(mapping, what, as_json)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(mapping.counts().items())) or "none"
    click.echo(
        f"{len(mapping):,} pairs, {len(mapping.only_a):,} only at {first}, {len(mapping.only_b):,} only at {second}; "
        f"doubts: {counts}",
        err=True,
    )
    if output is not None:
        output.write_text(json.dumps(_as_list(mapping), indent=1) + "\n", encoding="utf-8")


@command.command()
@_vendor
@_config
@_json
def diff(vendor: str, config_file: Path | None, as_json: bool) -> None:
    """What today's master has that the one before it had not, and the reverse.

    Compares with the newest older master on this disk; there is one after the second day of use.
    """
    from marketfeed.errors import MarketFeedError
    from marketfeed.identity import diff_tables

    with _Books(config_file, sandbox=False) as books:
        book = books.open(vendor)
        today = book.table
        before = book.previous()
    if before is None:
        raise MarketFeedError(f"there is no older master of {vendor} on this machine to compare with")
    day, old = before
    changes = diff_tables(old, today)
    if as_json or not on_terminal():
        for change in changes:
            print_json({"change": change.kind, **_change(change)})
    else:
        print_table(["change", "instrument", "what"], [_change_line(change) for change in changes])
    click.echo(f"{len(changes):,} changes since {day}", err=True)


# --- helpers ------------------------------------------------------------------------------------


class _Books:
    """Opens the instruments of vendors; all of them are closed at the end."""

    def __init__(self, config_file: Path | None, sandbox: bool) -> None:
        from marketfeed import config as configuration
        from marketfeed.errors import MarketFeedError
        from marketfeed.plugins import Plugins

        self.error = MarketFeedError
        self.plugins = Plugins.discover()
        self._config = configuration.load(config_file, self.plugins) if config_file else None
        self._sandbox = sandbox
        self._stack = ExitStack()

    @property
    def installed(self) -> list[str]:
        """Vendors to ask when none is named."""
        return list(self._config.vendors) if self._config else list(self.plugins.vendors)

    def open(self, vendor: str) -> Instruments:
        from marketfeed.instrument_book import Instruments

        if not self._sandbox:
            return self._stack.enter_context(Instruments(vendor, config=self._config, plugins=self.plugins))
        from marketfeed.clock import OffsetClock
        from marketfeed.sandbox import spawn_sandbox
        from marketfeed.tokens import MemoryTokenStore

        box = self._stack.enter_context(spawn_sandbox(vendor))
        clock = OffsetClock(box.clock_offset_ns)
        book = Instruments(
            vendor, settings=box.settings(), clock=clock, tokens=MemoryTokenStore(), plugins=self.plugins
        )
        return self._stack.enter_context(book)

    def tables(self, vendors: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """The tables of those that answer; a warning for the others."""
        for name in vendors:
            try:
                yield name, self.open(name).table
            except self.error as error:
                warn(f"{name} left out: {error}")

    def __enter__(self) -> _Books:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _document(one: Instrument) -> dict[str, Any]:
    return {"instrument": one.key, "kind": str(one.kind), **{name: getattr(one, name) for name in _SHOWN}}


def _print_instruments(found: Iterable[Instrument], as_json: bool) -> None:
    if as_json or not on_terminal():
        for one in found:
            print_json(_document(one))
    else:
        print_table(_HEADERS, [_line(one) for one in found])


def _line(one: Instrument) -> list[object]:
    strike = f"{one.strike:g}" if one.strike else "-"
    numbers = [one.lot_size, f"{one.tick_size:g}" if one.tick_size else "-", one.token, one.exchange_token]
    return [one.key, str(one.kind), one.expiry or "-", strike, *numbers, one.name]


def _print_mapping(mapping: Mapping, what: str, as_json: bool) -> None:
    if what in ("only-first", "only-second"):
        _print_instruments(mapping.only_a if what == "only-first" else mapping.only_b, as_json)
    elif as_json or not on_terminal():
        rows = mapping.pairs if what == "pairs" else [(one.a, one.b) for one in mapping.doubts]
        extra = (
            [{}] * len(rows) if what == "pairs" else [{"doubt": one.kind, "text": str(one)} for one in mapping.doubts]
        )
        for (a, b), more in zip(rows, extra, strict=True):
            print_json({"first": _document(a), "second": _document(b), **more})
    elif what == "pairs":
        print_table(["first", "token", "second", "token"], [[a.key, a.token, b.key, b.token] for a, b in mapping])
    else:
        print_table(["doubt", "what"], [[one.kind, one] for one in mapping.doubts])


def _as_list(mapping: Mapping) -> list[dict[str, Any]]:
    return [
        {"symbol": a.symbol, "exchange": a.exchange, "tokens": {a.vendor: a.token, b.vendor: b.token}}
        for a, b in mapping
    ]


def _change(change: Change) -> dict[str, Any]:
    one = change.new or change.old
    document = {} if one is None else _document(one)
    return {**document, "fields": {name: {"was": was, "now": now} for name, (was, now) in change.fields.items()}}


def _change_line(change: Change) -> list[object]:
    one = change.old or change.new
    texts = [f"{name} {was} -> {now}" for name, (was, now) in change.fields.items()]
    return [change.kind, one.key if one else "", ", ".join(texts)]
