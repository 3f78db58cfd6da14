"""The folder of dead letters of one feed: segment files and the ledger of what was tried again.

::

    <journal folder>/<feed>/deadletters/
        letters-00000001.bin    records (see marketfeed.deadletters.records), made anew by every run
        replayed.jsonl          what `marketfeed deadletters replay` did
        replay.lock             held while it does it
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from marketfeed.deadletters.letter import DeadLetter
from marketfeed.deadletters.records import Damage, scan
from marketfeed.errors import MarketFeedError
from marketfeed.journal.layout import safe_name

__all__ = ["LEDGER", "LetterFolder", "find_folders", "letters_folder", "segment_path"]

NAME: Final = "deadletters"
LEDGER: Final = "replayed.jsonl"
_SEGMENT = re.compile(r"letters-(\d{8,})\.bin")


def letters_folder(folder: Path | str, feed: str) -> Path:
    """Where the dead letters of ``feed`` lie inside the folder of the journals."""
    return Path(folder) / safe_name(feed, "feed") / NAME


def segment_path(folder: Path, number: int) -> Path:
    """The segment file of that number."""
    return folder / f"letters-{number:08}.bin"


def find_folders(folder: Path | str) -> list[Path]:
    """The folders of dead letters at or below ``folder``, sorted."""
    folder = Path(folder)
    if folder.name == NAME:
        return [folder]
    return sorted(one for one in folder.rglob(NAME) if one.is_dir())


class LetterFolder:
    """Reads the letters of one folder, also while a feed writes them."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.damaged_bytes = 0
        """Bytes that the latest reading could not make sense of, such as a torn tail."""

    @property
    def feed(self) -> str:
        """Name of the feed, from the folder's place."""
        return self.path.resolve().parent.name

    def segments(self) -> dict[int, Path]:
        """Number -> file, oldest first."""
        found = {}
        if self.path.is_dir():
            for one in self.path.iterdir():
                match = _SEGMENT.fullmatch(one.name)
                if match:
                    found[int(match[1])] = one
        return dict(sorted(found.items()))

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(_size(path) for path in self.segments().values())

    def __iter__(self) -> Iterator[DeadLetter]:
        """Every letter that is whole, in the order in which they were put aside."""
        self.damaged_bytes = 0
        for path in self.segments().values():
            yield from self.read(path)

    def read(self, path: Path) -> Iterator[DeadLetter]:
        """The letters of one segment; none if it is gone."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return  # the feed made room
        for one in scan(data):
            if isinstance(one, Damage):
                self.damaged_bytes += one.length
            else:
                yield one

    def get(self, name: str) -> DeadLetter:
        """The letter with that id, or the only one whose id begins so. ``MarketFeedError`` otherwise."""
        hits = [one for one in self if one.id.startswith(name)]
        exact = [one for one in hits if one.id == name]
        if len(exact or hits) != 1:
            what = f"{len(hits)} letters begin with" if hits else "there is no letter"
            raise MarketFeedError(f"{what} {name!r} in {self.path}; `marketfeed deadletters list` shows the ids")
        return (exact or hits)[0]

    def make_segment(self) -> tuple[int, Path]:
        """A new, empty segment file behind the others: descriptor and path. Raises ``OSError``."""
        self.path.mkdir(parents=True, exist_ok=True)
        number = max(self.segments(), default=0)
        while True:
            number += 1
            path = segment_path(self.path, number)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
                return os.open(path, flags | getattr(os, "O_BINARY", 0), 0o644), path
            except FileExistsError:
                continue  # another process was faster


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
