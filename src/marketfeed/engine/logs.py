"""Structured logs without secrets.

The library logs to the standard logger ``marketfeed`` and sets nothing up: the host program decides.
The command line calls :func:`configure`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Protocol

import structlog

from marketfeed.clock import ist_text
from marketfeed.redaction import clean

__all__ = ["Log", "configure", "get_log", "redactor"]

_SECRET_KEY = re.compile(r"token|secret|password|totp|otp|jwt|authorization|api_?key|checksum", re.IGNORECASE)


class Log(Protocol):
    """The part of a structlog logger that the engine uses."""

    def debug(self, event: str, **values: Any) -> Any: ...
    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...


Hidden = Callable[[], Iterable[str]]
"""Gives the secrets of this moment: those of the configuration, and the session's."""


def _no_secrets() -> Iterable[str]:
    return ()


def redactor(hidden: Hidden = _no_secrets) -> Callable[[Any, str, MutableMapping[str, Any]], Any]:
    """A structlog processor: blanks values with a secret's name, and secrets quoted inside text."""

    def redact(_: Any, __: str, values: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        secrets = hidden()
        for key, value in values.items():
            if isinstance(value, str):
                values[key] = "***" if key != "event" and _SECRET_KEY.search(key) else clean(value, secrets)
        return values

    return redact


def get_log(hidden: Hidden = _no_secrets, **bound: Any) -> Log:
    """A logger with values bound to it; quiet below warning unless the host sets logging up."""
    log: Log = structlog.wrap_logger(
        logging.getLogger("marketfeed"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            redactor(hidden),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind(**bound)
    return log


def _stamp(_: Any, __: str, values: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    import time

    values["time"] = ist_text(time.time_ns())
    return values


def configure(level: str = "info", form: str = "auto", secrets: Iterable[str] = ()) -> None:
    """Send the logs of this process to standard error: ``text`` for people, ``json`` for machines,
    ``auto`` by whether it is a terminal. Times are India time. ``secrets`` are blanked out of every record, also
    out of those of plugins and their libraries."""
    known = tuple(secrets)
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
                redactor(lambda: known),
                renderer,
            ],
        )
    )
    root = logging.getLogger("marketfeed")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
