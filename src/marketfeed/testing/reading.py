"""Compares what a consumer sees with what was written, and says the difference in the terms of a feed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.sinks.encode import CandleEncoder, TickEncoder

__all__ = ["compare", "documents_of", "without_repeats"]

Batch = TickBatch | CandleBatch
Document = dict[str, Any]
_KEYS: Final = ("symbol", "last_price", "close", "start_ns")
"""What is compared at least, where the row has it."""
_MOST: Final = 5


def documents_of(batches: Iterable[Batch]) -> list[Document]:
    """The documents that a JSON sink publishes for these rows."""
    ticks, candles = TickEncoder(), CandleEncoder()
    return [
        document
        for batch in batches
        for document in (candles.documents(batch) if isinstance(batch, CandleBatch) else ticks.documents(batch))
    ]


def without_repeats(documents: Iterable[Document]) -> Iterator[Document]:
    """As a consumer drops them: ``seq`` not above the last one seen of that journal and instrument."""
    last: dict[tuple[Any, ...], int] = {}
    for document in documents:
        line = _line(document)
        if document["seq"] > last.get(line, -1):
            last[line] = document["seq"]
            yield document


def compare(
    found: Sequence[Document], batches: Iterable[Batch], *, whole: bool, envelope: AbstractSet[str], repeats: bool
) -> None:
    """Raises ``AssertionError`` unless ``found`` are the rows of ``batches``, in order for each instrument."""
    wanted = documents_of(batches)
    for document in found:
        missing = [name for name in ("journal", "seq", "symbol") if name not in document]
        assert not missing, f"read() gave a row without {', '.join(missing)}: {document}"
    if repeats:
        found = list(without_repeats(found))
    _same_rows(found, wanted)
    _same_order(found)
    known = {_row(document): document for document in found}
    for document in wanted:
        _same_values(known[_row(document)], document, whole, envelope)


def _same_rows(found: Sequence[Document], wanted: Sequence[Document]) -> None:
    have, want = Counter(map(_row, found)), Counter(map(_row, wanted))
    lost, doubled, foreign = want - have, have - want, [row for row in have if row not in want]
    assert not lost, f"{lost.total()} of {want.total()} rows are lost: {_some(lost)}"
    assert not foreign, f"{len(foreign)} rows were never written here: {_some(foreign)}"
    assert not doubled, f"{doubled.total()} rows came more than once: {_some(doubled)}"


def _same_order(found: Iterable[Document]) -> None:
    last: dict[tuple[Any, ...], int] = {}
    for document in found:
        line = _line(document)
        before = last.get(line, -1)
        assert document["seq"] > before, f"{line[1]}: seq {document['seq']} comes after {before}"
        last[line] = document["seq"]


def _same_values(document: Document, wanted: Document, whole: bool, envelope: AbstractSet[str]) -> None:
    names = {*wanted, *(name for name in document if name not in envelope)} if whole else set(_KEYS) & set(wanted)
    for name in sorted(names):
        have, want = document.get(name), wanted.get(name)
        if isinstance(have, float) and math.isnan(have):
            have = None
        assert have == want, f"row {wanted['seq']}: {name} is {have!r}, not {want!r}"


def _row(document: Document) -> tuple[Any, int]:
    return document["journal"], document["seq"]


def _line(document: Document) -> tuple[Any, ...]:
    return document["journal"], document["symbol"], document.get("token")


def _some(rows: Iterable[tuple[Any, int]]) -> str:
    numbers = [f"seq {seq}" for _, seq in rows]
    return ", ".join(numbers[:_MOST]) + (", ..." if len(numbers) > _MOST else "")
