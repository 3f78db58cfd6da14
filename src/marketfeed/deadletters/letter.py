"""One dead letter: what was put aside, why, and what it takes to try again. Pure values."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.dtypes import REASON_MASK, TICK, Rows

__all__ = ["KINDS", "DeadLetter", "Digests", "digests", "slug"]

KINDS: Final = ("packet", "row", "refused", "callback")
"""What can be put aside: pieces of frames, rows that validation rejects, rows that a sink refused, rows of
a batch whose callback raised."""

Digests = NDArray[np.uint64]
"""One number a row, shape ``(n,)``; see :func:`digests`."""
_NOT_A_LETTER = re.compile(r"[^A-Za-z0-9]+")


@attrs.frozen(kw_only=True)
class DeadLetter:
    """One thing that was put aside."""

    kind: str
    """One of :data:`KINDS`"""
    reason: str
    """A code, such as ``packet_cut_short`` or the class of the error; counted and shown as a metric"""
    at_ns: int
    """When it was put aside (UTC)"""
    feed: str
    source: str
    """``connection 0``, or the name of the sink or callback"""
    id: str = ""
    """``<10 hex digits of the run>-<number>``: the same for ever, also after export and import"""
    vendor: str = ""
    """The feed's table in the configuration"""
    error: str = ""
    """What was said, for people; without secrets, at most 1,000 characters"""
    journal: str = ""
    """Published name of the journal at that moment, ``<id>.<epoch>``"""
    first_row: int | None = None
    """Row number in that journal where the rows have one (refused rows and callbacks)"""
    rows: int = 1
    """Packets or rows that the letter stands for"""
    received_ns: int = 0
    """When the frame was received (UTC); 0 for rows, which know it themselves"""
    offsets: tuple[int, ...] = ()
    """Byte offsets of the bad packets in the frame"""
    instruments: int | None = None
    """How many lines ``instruments.jsonl`` had"""
    symbol: str = ""
    """``EXCHANGE:SYMBOL``, where all rows are of one known instrument"""
    token: str = ""
    """The vendor's token of that instrument"""
    good: bytes = attrs.field(default=b"", repr=False)
    """Digests of the rows that the frame's good packets gave: they are not taken twice"""
    raw: bytes = attrs.field(default=b"", repr=False)
    """The whole frame, or rows of ``TICK``"""
    cut: int = 0
    """Length of ``raw`` before it was cut to what the store holds; 0 if it is whole"""

    @property
    def identity(self) -> str:
        """What replay remembers. Rows refused again after a restart are the same rows."""
        if self.kind in ("refused", "callback") and self.first_row is not None:
            return f"{self.source}/{self.journal}/{self.first_row}/{self.rows}"
        return self.id

    def delivery_name(self, attempt: int) -> str:
        """The journal name under which the rows go to a sink that stores its position: epochs count from 1,
        so ``.0`` is never a real one, and the same attempt, made again after a kill, is seen as such."""
        text = f"{self.feed}/{self.identity}/{attempt}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest() + ".0"

    @property
    def is_rows(self) -> bool:
        """Whether ``raw`` is rows of ``TICK``; else it is a frame."""
        return self.kind != "packet"

    def ticks(self) -> Rows:
        """The rows in ``raw``, writeable and the caller's own; none for a frame."""
        if not self.is_rows:
            return np.zeros(0, TICK)
        whole = len(self.raw) - len(self.raw) % TICK.itemsize
        return np.frombuffer(bytearray(self.raw[:whole]), TICK)

    def good_digests(self) -> Digests:
        """Digests of the frame's good rows."""
        return np.frombuffer(self.good, np.uint64)


def slug(text: str, longest: int = 40) -> str:
    """A reason as a code: letters, digits and ``_``. Class names stay as they are."""
    return _NOT_A_LETTER.sub("_", text).strip("_")[:longest] or "unknown"


def digests(rows: Rows) -> Digests:
    """A number a row by which it is known again; rows that say the same have the same.

    What marketfeed itself sets does not count: receipt, validation's flags, the journal's checks.
    """
    if not rows.flags.c_contiguous:
        rows = rows.copy()
    mask, weights = _digest_words()
    words = rows.view("u8").reshape(len(rows), len(mask)) & mask
    words ^= words >> np.uint64(29)  # or the low zeros of round prices would make digests alike
    result: Digests = words.dot(weights)
    return result ^ (result >> np.uint64(32))


@cache
def _digest_words() -> tuple[Digests, Digests]:
    """What of each 8-byte word counts, and its odd weight: fixed for ever, digests are stored."""
    row = np.full(1, 0xFF, np.uint8).repeat(TICK.itemsize).view(TICK)
    row["received_ns"] = row["check"] = row["spare"] = 0
    row["flags"] = ~REASON_MASK & 0xFFFFFFFF
    mask = row.view("u8")
    seeds = [hashlib.blake2b(bytes([place]), digest_size=8).digest() for place in range(len(mask))]
    return mask, np.array([int.from_bytes(one, "little") | 1 for one in seeds], np.uint64)


def fields_of(letter: DeadLetter) -> dict[str, Any]:
    """The fields that are not at their defaults, without ``raw`` and ``good``."""
    return {
        name: value
        for name, default in _defaults().items()
        if (value := getattr(letter, name)) != default or default is attrs.NOTHING
    }


def letter_of(fields: dict[str, Any], good: bytes, raw: bytes) -> DeadLetter:
    """The letter of :func:`fields_of`; unknown fields of a later version are passed over.

    Raises ``TypeError`` or ``ValueError`` for anything else.
    """
    known = {name: fields[name] for name in _defaults() if name in fields}
    letter = DeadLetter(**{**known, "offsets": tuple(fields.get("offsets", ())), "good": good, "raw": raw})
    texts = (letter.kind, letter.reason, letter.feed, letter.source, letter.id, letter.journal, letter.error)
    numbers = (letter.at_ns, letter.rows, letter.received_ns, letter.cut, *letter.offsets)
    if letter.kind not in KINDS or not all(isinstance(one, str) for one in texts):
        raise ValueError("not a dead letter")
    if not all(isinstance(one, int) for one in (*numbers, letter.first_row or 0, letter.instruments or 0)):
        raise ValueError("not a dead letter")
    return letter


@cache
def _defaults() -> dict[str, Any]:
    return {field.name: field.default for field in attrs.fields(DeadLetter) if field.name not in ("good", "raw")}
