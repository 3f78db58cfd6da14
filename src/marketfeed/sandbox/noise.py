"""Random numbers without a stream: each is a hash of (seed, identity, counter).

So the n-th tick of an instrument is the same whatever else is subscribed, at any pace and for any
vendor, and the history of any day can be made without the days before it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Hashes", "Reals", "identity", "mix", "normal", "uniform"]

Hashes = NDArray[np.uint64]
Reals = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S1, _S2, _S3 = np.uint64(30), np.uint64(27), np.uint64(31)


def identity(name: str) -> int:
    """A 64-bit number for a name, the same on every machine and run."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def mix(*parts: ArrayLike) -> Hashes:
    """64 well-mixed bits of the parts, element by element; the parts are broadcast to one shape.

    At least one part must be an array: numpy warns of wrap-around for scalars only.
    """
    state: Hashes = np.zeros(1, np.uint64)
    for part in parts:
        state = _finish((state ^ np.asarray(part).astype(np.uint64)) + _GOLDEN)
    return state


def _finish(bits: Hashes) -> Hashes:
    """The finalizer of splitmix64 (public domain, Sebastiano Vigna)."""
    bits = (bits ^ (bits >> _S1)) * _M1
    bits = (bits ^ (bits >> _S2)) * _M2
    return bits ^ (bits >> _S3)


def uniform(bits: Hashes) -> Reals:
    """Floats in [0, 1)."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(bits: Hashes) -> Reals:
    """About normal with mean 0 and deviation 1: the sum of the four 16-bit parts. Never beyond 3.5."""
    parts = np.ascontiguousarray(bits).view(np.uint16).reshape(*bits.shape, 4)
    total: Reals = (parts.sum(axis=-1, dtype=np.int64) / 65536.0 - 2.0) * 3.0**0.5
    return total
