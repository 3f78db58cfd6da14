"""Apache Kafka for marketfeed: the hook. What it returns lives in ``sink.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from marketfeed.hookspecs import hookimpl

if TYPE_CHECKING:
    from marketfeed.contract import Sink

__all__ = ["marketfeed_sinks"]


@hookimpl
def marketfeed_sinks() -> Mapping[str, type[Sink]]:
    """``kafka``."""
    from marketfeed_kafka.sink import KafkaSink

    return {"kafka": KafkaSink}
