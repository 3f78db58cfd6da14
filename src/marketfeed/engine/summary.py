"""How a run ended, in numbers that add up."""

from __future__ import annotations

import attrs

from marketfeed.runs import Totals

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
    elsewhere: bool = False
    """A process of its own delivers."""

    @property
    def holds(self) -> bool:
        """The law of delivery, and that no row is counted that cannot be."""
        counts = (self.start, self.delivered, self.skipped, self.dead_lettered)
        return min(counts) >= 0 and self.position == sum(counts)


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
    totals: Totals | None = None
    """Over all runs on this journal; None for one in memory."""
    broken: tuple[str, ...] = ()
    """Which laws of conservation do not hold, in words; a bug."""

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
        if self.totals is not None and self.totals.runs > 1:
            lines.append(
                f"  all {self.totals.runs:,} runs: {self.totals.parsed:,} parsed, {self.totals.appended:,} appended"
            )
        for sink in self.sinks:
            text = f"  sink {sink.name}: {sink.delivered:,} delivered, {sink.left:,} left"
            text += f", {sink.skipped:,} skipped" if sink.skipped else ""
            text += f", {sink.dead_lettered:,} dead-lettered" if sink.dead_lettered else ""
            text += f" ({sink.state})" if sink.elsewhere else ""
            lines.append(text + (f" ({sink.state}: {sink.error})" if sink.error else ""))
        lines.append(
            f"  NOT ACCOUNTED FOR: {', '.join(self.broken)}" if self.broken else "  every row is accounted for"
        )
        return lines
