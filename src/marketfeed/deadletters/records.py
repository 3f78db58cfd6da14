"""Letters as bytes: ``magic | lengths | crc32 | fields as JSON | digests | raw``.

Each record proves itself, so a torn or damaged piece of a file costs the letters in it and no other.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from marketfeed.deadletters.letter import DeadLetter, fields_of, letter_of

__all__ = ["Damage", "pack", "scan"]

_MAGIC: Final = b"\x89MFL"
_HEAD: Final = struct.Struct("<4sIIII")
"""Magic, lengths of fields, digests and raw, CRC-32 of everything after the magic."""
_LENGTHS: Final = struct.Struct("<III")


class Damage:
    """Bytes that no record accounts for."""

    __slots__ = ("length", "offset")

    def __init__(self, offset: int, length: int) -> None:
        self.offset = offset
        self.length = length


def pack(letter: DeadLetter) -> bytes:
    """The record of a letter."""
    fields = msgspec.json.encode(fields_of(letter))
    lengths = len(fields), len(letter.good), len(letter.raw)
    crc = zlib.crc32(_LENGTHS.pack(*lengths))
    for part in (fields, letter.good, letter.raw):
        crc = zlib.crc32(part, crc)
    return b"".join((_HEAD.pack(_MAGIC, *lengths, crc), fields, letter.good, letter.raw))


def scan(data: bytes) -> Iterator[DeadLetter | Damage]:
    """Every letter in ``data``, and what lies between them and is none (a torn tail, too)."""
    at = lost = 0
    while True:
        found = data.find(_MAGIC, at)
        if found < 0:
            break
        letter, end = _record(data, found)
        if letter is None:
            at = found + 1
            continue
        if found > lost:
            yield Damage(lost, found - lost)
        yield letter
        at = lost = end
    if lost < len(data):
        yield Damage(lost, len(data) - lost)


def _record(data: bytes, start: int) -> tuple[DeadLetter | None, int]:
    head = start + _HEAD.size
    if head > len(data):
        return None, start
    _, *lengths, crc = _HEAD.unpack_from(data, start)
    ends = [head]
    for length in lengths:
        ends.append(ends[-1] + length)
    if ends[-1] > len(data):
        return None, start
    body = memoryview(data)[head : ends[-1]]
    if zlib.crc32(body, zlib.crc32(_LENGTHS.pack(*lengths))) != crc:
        return None, start
    fields, good, raw = (data[ends[part] : ends[part + 1]] for part in range(3))
    try:
        return letter_of(msgspec.json.decode(fields, type=dict), good, raw), ends[-1]
    except (msgspec.DecodeError, TypeError, ValueError):
        return None, start
