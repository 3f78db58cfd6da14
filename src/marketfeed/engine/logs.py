"""Structured logs without secrets.

The library logs to the standard logger ``marketfeed`` and sets nothing up: the host program decides.
The command line calls :func:`configure`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Protocol

import structlog

from marketfeed.clock import ist_text
from marketfeed.redaction import clean

__all__ = ["Log", "configure", "get_log", "redact"]

_SECRET_KEY = re.compile(r"token|secret|password|totp|otp|jwt|authorization|api_?key|checksum", re.IGNORECASE)


class Log(Protocol):
    """The part of a structlog logger that the engine uses."""

    def debug(self, event: str, **values: Any) -> Any: ...
    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...


def redact(_: Any, __: str, values: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: blanks values with a secret's name and secrets quoted inside text."""
    for key, value in values.items():
        if isinstance(value, str):
            values[key] = "***" if key != "event" and _SECRET_KEY.search(key) else clean(value)
    return values


def get_log(**bound: Any) -> Log:
    """A logger with values bound to it; quiet below warning unless the host sets logging up."""
    log: Log = structlog.wrap_logger(
        logging.getLogger("marketfeed"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            redact,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind(**bound)
    return log


def _stamp(_: Any, __: str, values: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    import time

    values["time"] = ist_text(time.time_ns())
    return values


def configure(level: str = "info", form: str = "auto") -> None:
    """Send the logs of this process to standard error: ``text`` for people, ``json`` for machines,
    ``auto`` by whether it is a terminal. Times are India time."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    console = structlog.dev.ConsoleRenderer(timestamp_key="time", exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = console if text else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level],
            processors=[  # also for records of the standard library, such as a plugin's traceback
                _stamp,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger("marketfeed")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
