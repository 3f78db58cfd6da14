"""Damage that only mStock's messages can have, in either dialect."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

__all__ = ["DAMAGES", "damaged"]

Damage = Callable[[bytes], bytes]
_SIZES_B = (51, 123, 379)


def _count(frame: bytes) -> int:
    return int.from_bytes(frame[:2], "big")


def _counted(frame: bytes, count: int) -> bytes:
    return struct.pack(">H", count & 0xFFFF) + frame[2:]


def _packet(data: bytes) -> bytes:
    """A Type B packet without its header."""
    return data if len(data) in _SIZES_B else data[4:]


def _unknown_length(frame: bytes, length: int = 164) -> bytes:
    return _counted(frame, _count(frame) + 1) + struct.pack(">H", length) + bytes(length)


_A: Mapping[str, Damage] = {
    "count-one-more": lambda frame: _counted(frame, _count(frame) + 1),
    "count-zero": lambda frame: b"\0\0",
    "packet-cut": lambda frame: frame[:-3],
    "unknown-length": _unknown_length,
    "length-zero": lambda frame: _counted(frame, _count(frame) + 1) + b"\0\0",
    "four-bytes": lambda frame: frame[:4],
}
_B: Mapping[str, Damage] = {
    "count-one-more": lambda data: struct.pack("<HH", 2, len(_packet(data))) + _packet(data),
    "count-zero": lambda data: struct.pack("<HH", 0, len(_packet(data))) + _packet(data),
    "packet-cut": lambda data: _packet(data)[:-3],
    "unknown-length": lambda data: _packet(data) + b"\0",
    "length-zero": lambda data: struct.pack("<HH", 1, 0) + _packet(data),
    "four-bytes": lambda data: data[:4],
    "token-no-number": lambda data: _packet(data)[:2] + b"ABC-".ljust(25, b"\0") + _packet(data)[27:],
    "time-absurd": lambda data: _packet(data)[:35] + b"\xff" * 8 + _packet(data)[43:],
}
DAMAGES = tuple(_B)


def damaged(data: bytes, how: str) -> bytes:
    """A good message of either dialect, damaged. What Type A cannot have becomes a packet of unknown length."""
    is_b = len(_packet(data)) in _SIZES_B and _packet(data)[0] in (1, 2, 3) and _packet(data)[1] in (1, 2, 3, 4, 5, 13)
    return _B[how](data) if is_b else _A.get(how, _unknown_length)(data)
