"""How feeds stand, from their folders alone: no process has to run, and none notices.

``marketfeed status`` shows it.
"""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import msgspec

from marketfeed.clock import NS, Clock
from marketfeed.deadletters import LetterFolder
from marketfeed.dtypes import TICK
from marketfeed.errors import JournalError
from marketfeed.gaps import find_ledgers, read_book
from marketfeed.journal import Journal, admin
from marketfeed.journal.attached import FileJournal
from marketfeed.runs import Run, Totals, clock_shift_ns, has_books, read_totals

__all__ = ["FeedStanding", "SinkStanding", "ask_health", "feeds_in", "look"]

_WINDOW_S = 60
_LETTERS = "deadletters"


@attrs.frozen(kw_only=True)
class SinkStanding:
    """One cursor. Counts are rows since it was made."""

    name: str
    position: int
    delivered: int
    skipped: int
    dead_lettered: int
    lag: int
    """Rows in the journal that it has not finished."""
    lag_s: float
    """How much older than the newest row the next one it gets was received."""
    in_use: bool
    """Some process delivers to it at this moment."""
    updated_ns: int
    """When it moved last (UTC)."""
    law: bool
    """``position = start + delivered + skipped + dead_lettered`` and ``position + lag = rows``."""
    state: str = ""
    """What the feed's process says of it; empty when nobody answers."""
    error: str = ""


@attrs.frozen(kw_only=True)
class FeedStanding:
    """One feed."""

    feed: str
    vendor: str
    journal: str
    """Published name of the journal."""
    folder: str
    writer: str
    """``running``, ``stopped``, or ``died``."""
    pid: int
    rows: int
    """Rows ever committed: the next row number."""
    kept: int
    """Rows that can still be read."""
    rate: float
    """Rows a second over the last minute, or since the start of the run; 0 while nobody writes."""
    newest_ns: int
    """Receipt of the newest row (UTC); 0 = there is none."""
    totals: Totals | None
    """Over all runs; None where no books are kept."""
    law: bool | None
    """``parsed = appended + dropped + dead_lettered + lost`` and ``appended + others - cut = rows``; None where
    no books are kept."""
    dead_letters: int
    """Letters that are kept."""
    gaps: int
    gaps_open: int
    sinks: tuple[SinkStanding, ...]
    health: Mapping[str, Any] | None = None
    """The answer of ``/health`` for this feed, if its process was asked and answered."""

    @property
    def holds(self) -> bool:
        """No law is broken."""
        return self.law is not False and all(sink.law for sink in self.sinks)

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = attrs.asdict(self, filter=lambda field, _: field.name not in ("totals", "health"))
        return {**plain, "totals": msgspec.to_builtins(self.totals), "health": self.health}


def feeds_in(folder: Path | str) -> list[Path]:
    """Folders of the tick journals at or below ``folder``, sorted. ``JournalError`` if there is none."""
    found = [one for one in admin.find(folder) if Journal.attach(one).dtype == TICK]
    if not found:
        raise JournalError(f"there is no journal of ticks in {folder}")
    return found


def look(folder: Path, health: Mapping[str, Any] | None = None, clock: Clock | None = None) -> FeedStanding:
    """How the feed stands whose ticks are in ``folder``; ``health`` is what its process said."""
    clock = clock or Clock()
    with contextlib.closing(Journal.attach(folder)) as journal:
        alive, home = journal.writer_alive, folder.parent
        info = admin.info(folder)
        totals, run, shift_ns = _books(home, journal, info.committed, alive)
        books = [read_book(path) for path in find_ledgers(home) if path.parent == home]
        states = {one["name"]: one for one in (health or {}).get("sinks", ())}
        now_ns = clock.wall_ns() + shift_ns
        return FeedStanding(
            feed=info.feed,
            vendor=info.vendor,
            journal=info.name,
            folder=str(home),
            writer="running" if alive else "died" if info.writer_pid else "stopped",
            pid=info.writer_pid,
            rows=info.committed,
            kept=info.rows,
            rate=_rate(journal, now_ns, run) if alive else 0.0,
            newest_ns=info.last_received_ns,
            totals=totals,
            law=None if totals is None else totals.holds and totals.rows == info.committed,
            dead_letters=sum(1 for _ in LetterFolder(home / _LETTERS)),
            gaps=sum(len(book.gaps) for book in books),
            gaps_open=sum(gap.is_open for book in books for gap in book.gaps.values()),
            sinks=tuple(_sinks(journal, info, states)),
            health=health,
        )


def _books(home: Path, journal: FileJournal, committed: int, alive: bool) -> tuple[Totals | None, Run | None, int]:
    """Sums, the present run, and how far its clock is ahead of ours (nanoseconds)."""
    if not has_books(home):
        return None, None, 0
    totals, run = read_totals(home, journal.id, committed, alive=alive)
    return totals, run, clock_shift_ns(home, run) if run else 0


def _rate(journal: Journal, now_ns: int, run: Run | None) -> float:
    since_s = (now_ns - run.started_ns) / NS if run else _WINDOW_S
    window_s = max(1.0, min(_WINDOW_S, since_s))
    first = journal.row_at(now_ns - round(window_s * NS))
    return (journal.committed - max(first, run.first_row if run else 0)) / window_s


def _sinks(
    journal: FileJournal, info: admin.JournalInfo, states: Mapping[str, Mapping[str, Any]]
) -> Iterator[SinkStanding]:
    for one in info.cursors:
        said = states.get(one.name, {})
        counts = (one.delivered, one.skipped, one.dead_lettered)
        yield SinkStanding(
            name=one.name,
            position=one.position,
            delivered=one.delivered,
            skipped=one.skipped,
            dead_lettered=one.dead_lettered,
            lag=one.lag,
            lag_s=journal.seconds_behind(one.position),
            in_use=one.in_use,
            updated_ns=one.updated_ns,
            law=min(counts) >= 0 and sum(counts) <= one.position and one.position + one.lag == info.committed,
            state=str(said.get("state", "")),
            error=str(said.get("error", "")),
        )


def ask_health(host: str, port: int, timeout_s: float = 1.0) -> dict[str, Mapping[str, Any]]:
    """What the process behind a metrics port says, by feed; empty when nobody answers."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    host = f"[{host}]" if ":" in host else host
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never ask a proxy for this host
        with opener.open(f"http://{host}:{port}/health", timeout=timeout_s) as answer:
            document = json.loads(answer.read(4_000_000))
        return {one["feed"]: one for one in document["feeds"] if isinstance(one.get("parse"), dict)}
    return {}
