"""Bad packets among good ones, each wrong in one of eleven ways."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from benchmarks._kite import START_S

__all__ = ["poisoned"]

Packet = list[int]
"""A full packet as 46 words; the layout stands in ``marketfeed_kite.packets``."""


def _spike(words: Packet) -> None:
    words[1] = words[1] * 3 // 2


def _set(word: int, value: int) -> Callable[[Packet], None]:
    def poison(words: Packet) -> None:
        words[word] = value

    return poison


def _crossed(words: Packet) -> None:
    words[17] = words[32] + 500


def _unsorted(words: Packet) -> None:
    words[20], words[23] = words[23], words[20]


def _repeat(words: Packet) -> None:
    """Stands for a packet that comes a second time."""


POISON: tuple[Callable[[Packet], None], ...] = (
    _spike,
    _crossed,
    _unsorted,
    _repeat,
    _set(0, 0x7FFFFF01),  # a token that nobody subscribed
    _set(1, 0),  # no price, and a volume
    _set(4, 5),  # the volume
    _set(8, 1),  # the day's high
    _set(15, 0),  # the exchange time
    _set(15, START_S - 3600),
    _set(15, 2**31 - 1),
)


def poisoned(packets: list[bytes], share: float = 0.01, seed: int = 3) -> list[bytes]:
    """The packets, that share of them spoilt."""
    draw = random.Random(seed)
    bad = set(draw.sample(range(len(packets)), round(share * len(packets))))
    newest: dict[bytes, bytes] = {}
    made = []
    for at, packet in enumerate(packets):
        if at in bad:
            poison = draw.choice(POISON)
            words = list(struct.unpack(">46I", newest.get(packet[:4], packet) if poison is _repeat else packet))
            poison(words)
            made.append(struct.pack(">46I", *words))
        else:
            made.append(packet)
        newest[packet[:4]] = made[-1]
    return made
