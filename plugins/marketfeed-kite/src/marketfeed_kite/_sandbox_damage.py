"""Damage that only Kite's frames can have: counts and lengths that do not fit."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

__all__ = ["DAMAGES"]

# A frame: number of packets (uint16), then each packet behind its length (uint16).
Damage = Callable[[bytes], bytes]
_TINY = b"\x00\x03\x01\x02\x03"


def _count(frame: bytes) -> int:
    (count,) = struct.unpack_from(">H", frame)
    return int(count)


def _counted(frame: bytes, count: int) -> bytes:
    return struct.pack(">H", count & 0xFFFF) + frame[2:]


def _first(frame: bytes) -> bytes:
    """The first packet with its length."""
    (length,) = struct.unpack_from(">H", frame, 2)
    return frame[2 : 4 + length]


def _unknown_length(length: int) -> Damage:
    """A packet of a length that means nothing, in front of the good ones."""

    def damage(frame: bytes) -> bytes:
        packet = struct.pack(">H", length) + (_first(frame)[2:6] + bytes(length))[:length]
        return struct.pack(">H", _count(frame) + 1) + packet + frame[2:]

    return damage


DAMAGES: Mapping[str, Damage] = {
    "count-zero": lambda frame: b"\x00\x00",
    "count-one-more": lambda frame: _counted(frame, _count(frame) + 1),
    "count-65535": lambda frame: _counted(frame, 65535),
    "length-cut": lambda frame: _counted(frame, _count(frame) + 1) + b"\x00",
    "last-packet-cut": lambda frame: _counted(frame, _count(frame) + 1) + _first(frame)[:6],
    "length-zero": lambda frame: struct.pack(">HH", _count(frame) + 1, 0) + frame[2:],
    "length-three": lambda frame: b"\x00\x01" + _TINY,
    "length-164": _unknown_length(164),  # the full packet of the first version
    "length-200": _unknown_length(200),
}
"""By name, from a good frame to a damaged one."""
