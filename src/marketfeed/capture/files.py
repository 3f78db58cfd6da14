"""Capture files in the order in which their frames were parsed."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

from marketfeed.contract import Frame
from marketfeed.framelog import SUFFIX, CaptureError, CaptureFile
from marketfeed.instruments import Instrument

__all__ = ["PlayedTurn", "open_captures", "turns"]


class PlayedTurn(NamedTuple):
    """Frames of one socket that the feed parsed together."""

    turn: int
    connection: int
    socket: tuple[str, int]
    """Run and number of the socket; another one than before means a new parser."""
    frames: Sequence[Frame]
    instruments: Mapping[int, Instrument]
    """Instruments that become known before these frames, by their number in the journal of then."""


def open_captures(places: str | Path | Iterable[str | Path]) -> list[CaptureFile]:
    """The capture files among paths and folders, each once, oldest run first.

    Raises ``CaptureError`` for a file that cannot be used, a folder without one, or files of several feeds.
    """
    if isinstance(places, str | Path):
        places = [places]
    files = {file.header.id: file for place in places for file in _files_at(Path(place))}
    if not files:
        raise CaptureError("there is no capture file to read")
    kinds = {(file.header.vendor, file.header.feed) for file in files.values()}
    if len(kinds) > 1:
        named = ", ".join(f"{feed} ({vendor})" for vendor, feed in sorted(kinds))
        raise CaptureError(f"these captures are of several feeds: {named}; replay one at a time")
    return sorted(files.values(), key=_order)


def _files_at(place: Path) -> Iterator[CaptureFile]:
    if not place.is_dir():
        yield CaptureFile(place)
        return
    found = sorted(place.rglob(f"*{SUFFIX}"))
    if not found:
        raise CaptureError(f"{place} holds no {SUFFIX} file")
    yield from map(CaptureFile, found)


def _order(file: CaptureFile) -> tuple[int, str, int, int]:
    header = file.header
    return header.run_start_ns, header.run, header.connection, header.part


def turns(files: Sequence[CaptureFile]) -> Iterator[PlayedTurn]:
    """What was parsed, in the order in which it was: connections merged, runs one after the other."""
    for _, run in groupby(sorted(files, key=_order), lambda file: file.header.run):
        lines = groupby(list(run), lambda file: file.header.connection)
        parts = [chain.from_iterable(map(_turns_of, list(line))) for _, line in lines]
        yield from heapq.merge(*parts, key=lambda one: one.turn)


def _turns_of(file: CaptureFile) -> Iterator[PlayedTurn]:
    header = file.header
    fresh: dict[int, Instrument] = {}
    for piece in file.pieces():
        if isinstance(piece, dict):
            fresh |= piece
            continue
        for (turn, socket), group in groupby(piece, lambda one: (one.turn, one.socket)):
            frames = [Frame(one.data, one.received_ns, one.text) for one in group]
            yield PlayedTurn(turn, header.connection, (header.run, socket), frames, fresh)
            fresh = {}
