"""A sink of one's own in one file: alerts when a price leaves a band.

Here it is handed to a feed as an object. As a plugin it needs an entry point in its ``pyproject.toml``::

    [project.entry-points.marketfeed]
    band = "own_sink"

and then ``[sinks.alerts]`` with ``type = "band"`` and ``path = "alerts.txt"`` in a feed.toml.
Needs KITE_API_KEY and KITE_ACCESS_TOKEN.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import attrs

from marketfeed import CandleBatch, Feed, Sink, SinkError, TickBatch, hookimpl
from marketfeed.clock import ist_text


@attrs.define
class BandSink(Sink):
    """Writes a line for every tick outside of ``low`` to ``high``."""

    path: Path
    """The file, appended to"""
    low: float = 0.0
    """Lowest price that is normal, rupees"""
    high: float = 2000.0
    """Highest price that is normal, rupees"""
    _file: io.TextIOWrapper = attrs.field(init=False)

    def open(self) -> None:
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"{self.path}: {error.strerror}", retryable=False) from error

    def write(self, batch: TickBatch | CandleBatch) -> None:
        if isinstance(batch, TickBatch):
            prices = batch["last_price"]
            for tick in batch[(prices < self.low) | (prices > self.high)]:  # a column at a time, objects only for hits
                self._file.write(f"{ist_text(tick.received_ns)} {tick.describe.key} {tick.last_price}\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


@hookimpl
def marketfeed_sinks() -> Mapping[str, type[Sink]]:
    return {"band": BandSink}


if __name__ == "__main__":
    with Feed("kite", instruments=["NSE:INFY", "NSE:TCS"], sinks=[BandSink(Path("alerts.txt"), high=1600)]) as feed:
        feed.wait()
