"""Finding instruments among a hundred thousand within milliseconds: an index that is built on first use."""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from marketfeed.instruments import Instrument

__all__ = ["Places", "SearchIndex", "TextIndex"]

Places = NDArray[np.int64]
"""Positions in a table, shape ``(n,)``, rising."""
_WILD: Final = re.compile(r"[*?]|\[[^\]]*\]?")
_LAST: Final = "\U0010ffff"
_NO_HIT: Final = 9
_FEW: Final = 2000
"""Hits that are quicker taken one by one."""


class TextIndex:
    """Texts in upper case, searched for a beginning or a piece without looking at each of them.

    One string of all texts finds pieces at the speed of ``str.find``; a sorted list finds beginnings.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [text.upper().replace("\n", " ") for text in texts]
        encoded = [text.encode() for text in self._texts]
        self._whole = b"\n".join(encoded)
        ends = accumulate((len(text) + 1 for text in encoded), initial=0)
        self._starts = np.fromiter(ends, np.int64, len(self._texts) + 1)[:-1]
        order = sorted(range(len(self._texts)), key=self._texts.__getitem__)
        self._order = np.array(order, np.int64)
        self._sorted = [self._texts[place] for place in order]

    def beginning(self, start: str) -> Places:
        """Places of the texts that begin so."""
        first = bisect_left(self._sorted, start)
        return np.sort(self._order[first : bisect_left(self._sorted, start + _LAST, first)])

    def containing(self, piece: str) -> Places:
        """Places of the texts with that piece, which must not be empty."""
        raw = piece.encode()
        if self._whole.count(raw) < _FEW:
            hits = np.fromiter((hit.start() for hit in re.finditer(re.escape(raw), self._whole)), np.int64)
        else:  # most texts have it: letter by letter over all of them at once
            letters = np.frombuffer(self._whole, np.uint8)
            hits = np.flatnonzero(letters[: len(letters) - len(raw) + 1] == raw[0])
            for offset in range(1, len(raw)):
                hits = hits[letters[hits + offset] == raw[offset]]
        places = self._starts.searchsorted(hits, "right") - 1
        return places[np.diff(places, prepend=-1) > 0]

    def equal(self, text: str) -> Places:
        """Places of the texts that are exactly so."""
        first = bisect_left(self._sorted, text)
        return np.sort(self._order[first : bisect_left(self._sorted, text + "\0", first)])

    def glob(self, pattern: str) -> Places:
        """Places of the texts that match a pattern with ``*``, ``?`` and ``[...]``."""
        pattern = pattern.upper()
        wild = _WILD.search(pattern)
        if wild is None:
            return self.equal(pattern)
        literals = [piece for piece in _WILD.split(pattern) if piece]
        start = pattern[: wild.start()]
        if not literals:
            places = np.arange(len(self._texts))
        else:
            places = self.beginning(start) if start else self.containing(max(literals, key=len))
        if pattern in ("*", f"{start}*"):
            return places
        matches = re.compile(fnmatch.translate(pattern)).match
        return np.array([place for place in places.tolist() if matches(self._texts[place])], np.int64)


class SearchIndex:
    """The columns of a table that searches narrow by."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self.symbols = TextIndex([one.symbol for one in instruments])
        self.keys = TextIndex([one.key for one in instruments])
        self.words = TextIndex([f"{one.symbol}\t{one.name}" for one in instruments])
        self.names = TextIndex([one.name for one in instruments])
        self._exchanges, self._exchange = _coded([one.exchange for one in instruments])
        self._kinds, self._kind = _coded([str(one.kind) for one in instruments])
        self._expiry = np.array([one.expiry.toordinal() if one.expiry else 0 for one in instruments], np.int32)
        self._strike = np.array([one.strike for one in instruments], np.float64)

    def narrow(
        self,
        places: Places,
        exchange: str | None = None,
        kind: str | None = None,
        expiry: int | None = None,
        strike: float | None = None,
    ) -> Places:
        """Those of ``places`` that have the given values; ``expiry`` is an ordinal day."""
        if exchange is not None:
            places = places[self._exchange[places] == self._exchanges.get(exchange, -1)]
        if kind is not None:
            places = places[self._kind[places] == self._kinds.get(str(kind), -1)]
        if expiry is not None:
            places = places[self._expiry[places] == expiry]
        if strike is not None:
            places = places[np.abs(self._strike[places] - strike) < 1e-6]
        return places

    def ranked(self, text: str) -> Places:
        """Places for a word of a person: exact symbols and names first, then beginnings, then pieces of either."""
        text = text.strip().upper()
        rank = np.full(len(self._kind), _NO_HIT, np.int8)
        rank[self.words.containing(text)] = 2
        rank[self.symbols.beginning(text)] = 1
        for exact in (self.symbols.equal(text), self.names.equal(text)):
            rank[exact] = 0
        places = np.flatnonzero(rank < _NO_HIT)
        ordered: Places = places[np.argsort(rank[places], kind="stable")]
        return ordered


def _coded(values: Sequence[str]) -> tuple[dict[str, int], NDArray[np.int8]]:
    codes: dict[str, int] = {}
    numbers = [codes.setdefault(value, len(codes)) for value in values]
    return codes, np.array(numbers, np.int16).astype(np.int8)
