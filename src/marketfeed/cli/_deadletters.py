"""Parts of ``marketfeed deadletters``: choosing letters, and showing one."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs
import click

from marketfeed.cli._output import print_table

if TYPE_CHECKING:
    from marketfeed.config import Config
    from marketfeed.contract import Parsed
    from marketfeed.deadletters import DeadLetter, LetterFolder

__all__ = ["Wanted", "moment_of", "shown_document", "shown_tables"]

_AGO = re.compile(r"(\d+)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LINE = 16


@attrs.frozen(kw_only=True)
class Wanted:
    """Which letters."""

    kind: str | None = None
    reason: str | None = None
    source: str | None = None
    since_ns: int = 0

    @classmethod
    def of(cls, *, since: str | None = None, feed: str | None = None, **fields: str | None) -> Self:
        """From the options of a command; stores are chosen by feed before."""
        return cls(since_ns=since_ns(since) if since else 0, **fields)

    def among(self, letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """Those of ``letters``, in order."""
        for one in letters:
            if (
                self.kind in (None, one.kind)
                and self.reason in (None, one.reason)
                and self.source in (None, one.source)
                and one.at_ns >= self.since_ns
            ):
                yield one


def since_ns(text: str) -> int:
    """A moment (UTC nanoseconds): so long ago, or a date or time, in India unless it names its zone."""
    from marketfeed.clock import IST, NS, Clock

    ago = _AGO.fullmatch(text.strip())
    if ago:
        return Clock().wall_ns() - int(ago[1]) * _SECONDS[ago[2]] * NS
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a span such as 2h nor a time such as 2026-11-20T10:00") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=IST)).timestamp()) * NS


def moment_of(ns: int) -> str:
    """India time for people."""
    from marketfeed.clock import ist_text

    return ist_text(ns) if ns else "-"


# --- one letter -------------------------------------------------------------------------------------


def shown_document(letter: DeadLetter, store: LetterFolder, config: Config | None, replayed: bool) -> dict[str, Any]:
    """A letter with its bytes and what they mean."""
    from marketfeed.deadletters.exchange import document

    found = _decoded(letter, store, config)
    return {
        **document(letter, raw=False),
        "replayed": replayed,
        "raw": base64.b64encode(letter.raw).decode(),
        "ticks": _ticks(letter, store, found),
        "still_bad": [] if found is None else [{"offset": one.offset, "reason": one.reason} for one in found.bad],
    }


def shown_tables(
    letter: DeadLetter, store: LetterFolder, config: Config | None, replayed: bool, most_bytes: int
) -> None:
    """The same for people, with a hex dump of at most ``most_bytes`` (0: all)."""
    for name, value in _facts(letter, replayed):
        click.echo(f"{click.style(name.ljust(12), bold=True)} {value}")
    click.echo()
    size = len(letter.raw)
    shown = letter.raw[: most_bytes or size]
    for line in _hex_lines(shown, set(letter.offsets)):
        click.echo(line)
    if len(shown) < size:
        click.echo(f"... {size - len(shown):,} more bytes; --bytes 0 shows all")
    found = _decoded(letter, store, config)
    if letter.kind == "packet" and found is None:
        click.echo("\nwith --config feed.toml it would be parsed here")
        return
    ticks = _ticks(letter, store, found)
    click.echo(f"\n{len(ticks)} rows" + (" by today's parser" if found else ""))
    heads = ["symbol", "received", "last_price", "volume", "doubts"]
    print_table(heads, [[_printable(str(one.get(name, ""))) for name in heads] for one in ticks])
    for bad in found.bad if found else ():
        click.echo(f"still bad at byte {bad.offset}: {bad.reason}")


def _facts(letter: DeadLetter, replayed: bool) -> Iterator[tuple[str, object]]:
    yield "id", letter.id
    yield "time", f"{moment_of(letter.at_ns)} India time"
    yield "what", f"{letter.kind}, {letter.reason}, {letter.rows} {'packets' if letter.kind == 'packet' else 'rows'}"
    yield "from", f"{letter.source} of feed {letter.feed} ({letter.vendor or 'no vendor'})"
    yield "error", _printable(letter.error) or "-"
    if letter.journal:
        yield "journal", letter.journal + ("" if letter.first_row is None else f" from row {letter.first_row:,}")
    if letter.symbol:
        yield "instrument", f"{_printable(letter.symbol)} (token {_printable(letter.token)})"
    if letter.offsets:
        yield "bad at byte", ", ".join(map(str, letter.offsets))
    yield "bytes", f"{len(letter.raw):,}" + (f", cut from {letter.cut:,}" if letter.cut else "")
    yield "replayed", "yes" if replayed else "no"


def _hex_lines(data: bytes, marked: set[int]) -> Iterator[str]:
    """Sixteen bytes a line; a ``>`` where a bad packet begins."""
    for start in range(0, len(data), _LINE):
        piece = data[start : start + _LINE]
        cells = [f"{'>' if start + place in marked else ' '}{byte:02x}" for place, byte in enumerate(piece)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        yield f"{start:08x} {''.join(cells).ljust(3 * _LINE)}  {text}"


def _decoded(letter: DeadLetter, store: LetterFolder, config: Config | None) -> Parsed | None:
    """What today's parser makes of a packet's frame; None for rows and without a configuration."""
    from marketfeed.contract import Frame, Parsed

    if letter.kind != "packet" or config is None or letter.feed not in config.feeds:
        return None
    from marketfeed.dtypes import empty_ticks
    from marketfeed.instruments import TokenMap

    vendor = config.vendor_of(letter.feed)
    tokens = {one.token: number for number, one in enumerate(_instruments(store))}
    try:
        return vendor.plugin.parser(vendor.settings, TokenMap(tokens))([Frame(letter.raw, letter.received_ns)])
    except Exception as error:
        click.echo(f"the parser raised {error!r}", err=True)
        return Parsed(empty_ticks(0))


def _ticks(letter: DeadLetter, store: LetterFolder, found: Parsed | None) -> list[dict[str, Any]]:
    """Rows as the JSON sinks publish them, with time of receipt and doubts in words."""
    from marketfeed.batches import Origin, TickBatch
    from marketfeed.dtypes import REASON_MASK, Flag
    from marketfeed.sinks.encode import TickEncoder

    rows = letter.ticks() if found is None else found.rows
    known = _instruments(store)
    rows["instrument"][rows["instrument"] >= len(known)] = -1
    batch = TickBatch(rows, Origin(known, letter.feed, letter.vendor, letter.journal), letter.first_row or 0)
    ticks = [json.loads(line) for line in TickEncoder().lines(batch).splitlines()]
    for one, row in zip(ticks, rows, strict=True):
        doubts = int(row["flags"]) & REASON_MASK
        one["received"] = moment_of(int(row["received_ns"]))
        one["doubts"] = ", ".join(str(flag.name).lower() for flag in Flag if flag & doubts)
    return ticks


def _instruments(store: LetterFolder) -> Any:
    from marketfeed.journal.catalog import Catalog, FileCatalog
    from marketfeed.journal.layout import INSTRUMENTS

    path: Path = store.path.parent / "ticks" / INSTRUMENTS
    return FileCatalog(path, writable=False) if path.exists() else Catalog()


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
