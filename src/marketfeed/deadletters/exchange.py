"""Dead letters as JSON lines, out of a store and into one; the form is ``schemas/dead-letter.schema.json``."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from marketfeed.clock import Clock
from marketfeed.deadletters.folder import LetterFolder
from marketfeed.deadletters.letter import DeadLetter, fields_of, letter_of
from marketfeed.errors import MarketFeedError

__all__ = ["document", "export_line", "import_letters", "import_lines"]


def document(letter: DeadLetter, *, raw: bool = True) -> dict[str, Any]:
    """A letter ready for JSON; bytes are base64, and left out without ``raw``."""
    fields = fields_of(letter)
    if raw:
        fields["raw"] = base64.b64encode(letter.raw).decode()
        if letter.good:
            fields["good"] = base64.b64encode(letter.good).decode()
    return {**fields, "size": letter.cut or len(letter.raw)}


def export_line(letter: DeadLetter) -> bytes:
    """One line of JSON, newline included, which :func:`import_lines` reads again."""
    return msgspec.json.encode(document(letter)) + b"\n"


def import_lines(path: Path | str) -> Iterator[DeadLetter]:
    """The letters of a file of JSON lines, as ``marketfeed deadletters export --raw`` writes it.

    Raises ``MarketFeedError`` with the line's number for one that is no letter, ``OSError`` when the
    file cannot be read.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                fields = msgspec.json.decode(line, type=dict)
                if fields.get("size") and "raw" not in fields:
                    raise ValueError("its bytes are missing; export with --raw")
                raw, good = (base64.b64decode(fields.get(name, ""), validate=True) for name in ("raw", "good"))
                yield letter_of(fields, good, raw)
            except (msgspec.DecodeError, TypeError, ValueError) as error:
                raise MarketFeedError(f"{path}, line {number}: not a dead letter ({error})") from error


def import_letters(letters: Iterator[DeadLetter], folder: Path, *, max_bytes: int) -> tuple[int, int]:
    """Put letters that were exported elsewhere into the store in ``folder``, with the ids they have.

    Returns how many were added and how many were there before. Raises ``MarketFeedError`` when the
    store could not keep them all.
    """
    from marketfeed.deadletters.keeper import DeadLetters

    store = LetterFolder(folder)
    known = {one.id for one in store}
    added = there = 0
    keeper = DeadLetters(store.feed, Clock(), folder, max_bytes)
    try:
        for letter in letters:
            if letter.id and letter.id in known:
                there += 1
                continue
            keeper.take(letter)
            keeper.settle()  # one by one: a file may be larger than what may wait in memory
            added += 1
            known.add(letter.id)
    finally:
        keeper.close()
    if keeper.overflowed:
        raise MarketFeedError(f"{keeper.overflowed} of {added} letters were not kept: {keeper.trouble}")
    return added, there
