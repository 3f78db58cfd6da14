"""The sinks that come with the core. They are registered through the same hook as everybody else's.

Importing this module loads none of them: discovery asks the hook, and only then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from marketfeed.hookspecs import hookimpl

if TYPE_CHECKING:
    from marketfeed.contract import Sink

__all__ = ["marketfeed_sinks"]


@hookimpl
def marketfeed_sinks() -> Mapping[str, type[Sink]]:
    """``stdout``, ``jsonl``, ``csv``, ``memory`` and ``callable``."""
    from marketfeed.sinks.csv import CsvSink
    from marketfeed.sinks.embedding import CallableSink, MemorySink
    from marketfeed.sinks.jsonl import JsonlSink
    from marketfeed.sinks.stdout import StdoutSink

    return {
        "stdout": StdoutSink,
        "jsonl": JsonlSink,
        "csv": CsvSink,
        "memory": MemorySink,
        "callable": CallableSink,
    }
