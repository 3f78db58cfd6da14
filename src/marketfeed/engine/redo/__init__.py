"""Trying dead letters again: packets through today's parser, rows through today's validation, refused rows to
their sink. What succeeded is written down, so doing it twice is the same as doing it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from marketfeed.clock import Clock
from marketfeed.config import Config
from marketfeed.deadletters import DeadLetter, LetterFolder, letters_folder
from marketfeed.deadletters.folder import LEDGER
from marketfeed.deadletters.ledger import Ledger
from marketfeed.engine.redo.outcome import Outcome, Result, outcome
from marketfeed.engine.redo.rows import Reparsing
from marketfeed.engine.redo.sinks import Redelivery
from marketfeed.errors import MarketFeedError

__all__ = ["Outcome", "Redo", "Result"]


class Redo:
    """Tries letters of one feed again. The feed must not run, except for a dry run."""

    def __init__(self, config: Config, feed: str, clock: Clock | None = None) -> None:
        clock = clock or Clock()
        self.folder = letters_folder(config.journal.folder, feed)
        self._reparsing = Reparsing(config, feed, clock)
        self._redelivery = Redelivery(config, feed, clock)

    def run(self, letters: Iterable[DeadLetter], *, dry_run: bool = False) -> Iterator[Outcome]:
        """Try ``letters`` again, oldest first, and tell about each.

        Raises ``JournalError`` while the feed runs, ``MarketFeedError`` while another replay does.
        """
        if dry_run:
            yield from self._run(letters, Ledger(self.folder / LEDGER), dry_run=True)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with _Lock(self.folder / "replay.lock"):
            ledger = Ledger(self.folder / LEDGER)
            if ledger.open is not None:
                self._reparsing.ask_journal(ledger, ledger.open)
            ledger.compact({one.identity for one in LetterFolder(self.folder)})
            yield from self._run(letters, ledger, dry_run=False)

    def _run(self, letters: Iterable[DeadLetter], ledger: Ledger, *, dry_run: bool) -> Iterator[Outcome]:
        refused: dict[str, list[DeadLetter]] = {}
        again: list[DeadLetter] = []
        seen: set[str] = set()
        for letter in letters:
            if letter.identity in ledger.finished or letter.identity in seen:
                yield outcome(letter, "done-before")
            elif letter.kind == "callback":
                text = "callbacks live in the host program; use export, or give the batches to it again there"
                yield outcome(letter, "impossible", detail=text)
            elif letter.kind == "refused":
                refused.setdefault(letter.source, []).append(letter)
            else:
                again.append(letter)
            seen.add(letter.identity)
        yield from self._reparsing.run(again, ledger, dry_run=dry_run)
        for name, group in refused.items():
            yield from self._redelivery.run(name, group, ledger, dry_run=dry_run)


class _Lock:
    """One replay at a time, whatever process it is in."""

    def __init__(self, path: Path) -> None:
        from marketfeed.journal.locks import FileLock

        path.touch()
        try:
            self._lock = FileLock(path)
        except BlockingIOError:
            raise MarketFeedError(f"another replay of {path.parent} is running; wait for it") from None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._lock.release()
