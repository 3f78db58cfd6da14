"""Sinks for embedding and tests: rows kept in memory, batches handed to a function."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import attrs

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.contract import Sink
from marketfeed.errors import SinkError

__all__ = ["CallableSink", "MemorySink"]

Batch = TickBatch | CandleBatch


@attrs.define(slots=False)
class MemorySink(Sink):
    """Keeps copies of the newest batches. It has no position: after a restart it starts empty."""

    accepts: ClassVar[frozenset[str]] = frozenset({"ticks", "candles"})

    max_rows: int = attrs.field(default=100_000, validator=attrs.validators.gt(0))
    """Most rows kept; beyond it the oldest are dropped and counted"""

    dropped: int = attrs.field(init=False, default=0, eq=False)
    _kept: deque[Batch] = attrs.field(init=False, factory=deque, repr=False, eq=False)
    _count: int = attrs.field(init=False, default=0, repr=False, eq=False)

    def __len__(self) -> int:
        return self._count

    def write(self, batch: Batch) -> None:
        if not len(batch):
            return
        # A copy: the batch is a view of the journal and would hold a whole segment.
        self._kept.append(type(batch)(batch.rows.copy(), batch.origin, batch.seq))
        self._count += len(batch)
        while self._count > self.max_rows:
            self._drop(self._count - self.max_rows)

    def _drop(self, count: int) -> None:
        oldest = self._kept.popleft()
        if count < len(oldest):
            self._kept.appendleft(oldest[count:])
        gone = min(count, len(oldest))
        self._count -= gone
        self.dropped += gone

    @property
    def batches(self) -> list[Batch]:
        """What is kept, oldest first."""
        return list(self._kept)

    def rows(self) -> list[Any]:
        """Every kept :class:`~marketfeed.batches.Tick` or ``Candle``, oldest first."""
        return [item for batch in self.batches for item in batch]


def function_at(value: Any) -> Callable[[Batch], object]:
    """``package.module:function`` as the function itself; ``ValueError`` says what is wrong with it."""
    if callable(value):
        return value  # type: ignore[no-any-return]
    module, _, name = str(value).partition(":")
    if not module or not name:
        raise ValueError(f"{value!r} names no function; write it as package.module:function")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{value!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"{value!r} is not a function")
    return found  # type: ignore[no-any-return]


@attrs.define(slots=False)
class CallableSink(Sink):
    """Calls a function with every batch, on the sink's thread.

    The batch is a view of the journal: a function that keeps rows copies them. What it raises ends this
    sink, except a ``SinkError``, which says itself what to do.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"ticks", "candles"})

    callable: Callable[[Batch], object] = attrs.field(converter=function_at)
    """Its place, ``package.module:function``, or the function itself"""

    def write(self, batch: Batch) -> None:
        try:
            self.callable(batch)
        except SinkError:
            raise
        except Exception as error:
            raise SinkError(f"{self.callable!r} raised {type(error).__name__}: {error}", retryable=False) from error
