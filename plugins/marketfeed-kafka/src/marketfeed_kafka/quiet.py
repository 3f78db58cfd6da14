"""kafka-python logs every attempt of every broken connection; a broker that is away fills a disk with it."""

from __future__ import annotations

import logging
import time

__all__ = ["RateLimit", "quieten"]

_PER_MINUTE = 5


class RateLimit(logging.Filter):
    """Lets the same message of the same logger pass a few times a minute; the next one says how many were left out."""

    def __init__(self, per_minute: int = _PER_MINUTE) -> None:
        super().__init__()
        self._per_minute = per_minute
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        key = (record.name, str(record.msg))
        since, count = self._windows.get(key, (now, 0))
        if now - since < 60:
            self._windows[key] = (since, count + 1)
            return count < self._per_minute
        if count > self._per_minute:
            record.msg = f"{record.msg} ({count - self._per_minute} more like it were left out)"
        self._windows[key] = (now, 1)
        if len(self._windows) > 1000:
            self._windows.clear()
        return True


_LIMIT = RateLimit()


def quieten(prefix: str = "kafka") -> None:
    """Put the limit on every logger of the library that exists; again is harmless. A filter of a parent logger
    does not see what its children log, so each gets it."""
    for name in [prefix, *(one for one in logging.root.manager.loggerDict if one.startswith(prefix + "."))]:
        logger = logging.getLogger(name)
        if _LIMIT not in logger.filters:
            logger.addFilter(_LIMIT)
