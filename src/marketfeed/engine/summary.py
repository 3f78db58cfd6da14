"""How a run ended, in numbers that add up."""

from __future__ import annotations

import attrs

__all__ = ["SinkSummary", "Summary"]


@attrs.frozen(kw_only=True)
class SinkSummary:
    """Rows of one sink since its cursor was made, so also of earlier runs:
    ``position = start + delivered + skipped + dead_lettered``, and ``left`` is what the journal holds beyond."""

    name: str
    start: int
    position: int
    delivered: int
    skipped: int
    dead_lettered: int
    left: int
    state: str
    error: str = ""


@attrs.frozen(kw_only=True)
class Summary:
    """How a run ended. ``parsed = appended + dropped + dead_lettered + lost``."""

    feed: str
    parsed: int
    appended: int
    dropped: int
    dead_lettered: int
    lost: int
    bad_packets: int
    sinks: tuple[SinkSummary, ...]
    error: str = ""

    def lines(self) -> list[str]:
        """For people: one line for the feed, one per sink."""
        head = f"feed {self.feed}: {self.parsed:,} parsed, {self.appended:,} appended"
        for label, count in (
            ("dropped", self.dropped),
            ("dead-lettered", self.dead_lettered),
            ("lost", self.lost),
            ("bad packets", self.bad_packets),
        ):
            head += f", {count:,} {label}" if count else ""
        lines = [head + (f" ({self.error})" if self.error else "")]
        for sink in self.sinks:
            text = f"  sink {sink.name}: {sink.delivered:,} delivered, {sink.left:,} left"
            text += f", {sink.skipped:,} skipped" if sink.skipped else ""
            text += f", {sink.dead_lettered:,} dead-lettered" if sink.dead_lettered else ""
            lines.append(text + (f" ({sink.state}: {sink.error})" if sink.error else ""))
        return lines
