"""The sink ``mysink`` for marketfeed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from marketfeed import hookimpl

if TYPE_CHECKING:
    from marketfeed import Sink


@hookimpl
def marketfeed_sinks() -> Mapping[str, type[Sink]]:
    """Called once, at discovery; the module of the sink, with its client library, is imported no sooner."""
    from marketfeed_mysink.sink import MysinkSink

    return {"mysink": MysinkSink}
