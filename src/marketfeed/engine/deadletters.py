"""The store of dead letters, as the engine uses it; it lives in :mod:`marketfeed.deadletters`."""

from __future__ import annotations

from marketfeed.deadletters import DeadLetter, DeadLetters

__all__ = ["DeadLetter", "DeadLetters"]
