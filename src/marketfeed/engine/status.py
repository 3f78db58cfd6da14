"""What the parts of a feed have to tell: counts for people, the state for ``/health``."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import attrs

from marketfeed.engine.delivery import Delivery, DeliveryState
from marketfeed.engine.laws import laws_of
from marketfeed.engine.summary import SinkSummary, Summary
from marketfeed.engine.supervisor import State
from marketfeed.framelog import FrameLog
from marketfeed.journal import Journal
from marketfeed.journal.attached import FileJournal

if TYPE_CHECKING:
    from marketfeed.engine.pipeline import Pipeline

__all__ = ["is_ready", "sinks_of", "status_of", "summary_of"]


def summary_of(pipeline: Pipeline) -> Summary:
    """The counts of this run."""
    counts = pipeline.parse.counts if pipeline.parse else None
    laws = laws_of(pipeline)
    return Summary(
        feed=pipeline.name,
        parsed=counts.parsed if counts else 0,
        appended=counts.appended if counts else 0,
        dropped=counts.dropped if counts else 0,
        dead_lettered=counts.dead_lettered if counts else 0,
        lost=counts.lost if counts else 0,
        bad_packets=counts.bad_packets if counts else 0,
        sinks=sinks_of(pipeline),
        error=str(pipeline.error) if pipeline.error else "",
        totals=laws.totals,
        broken=laws.broken,
    )


def sinks_of(pipeline: Pipeline) -> tuple[SinkSummary, ...]:
    """The counts of each sink, those with a process of their own included."""
    here = [_sink_summary(pipeline, delivery) for delivery in list(pipeline.deliveries)]
    return (*here, *_elsewhere(pipeline.journal, pipeline.elsewhere))


def _elsewhere(journal: Journal, names: Collection[str]) -> Iterator[SinkSummary]:
    """What the cursors of other processes say."""
    if not names or not isinstance(journal, FileJournal):
        return
    for cursor in journal.cursors():
        if cursor.name in names:
            counts = cursor.state.clamped(journal.cut_since(cursor.state.epoch)).counts
            yield SinkSummary(
                name=cursor.name,
                start=counts.start,
                position=counts.position,
                delivered=counts.delivered,
                skipped=counts.skipped,
                dead_lettered=counts.dead_lettered,
                left=max(0, journal.committed - counts.position),
                state="own process" if cursor.in_use else "own process, not running",
                elsewhere=True,
            )


def _sink_summary(pipeline: Pipeline, delivery: Delivery) -> SinkSummary:
    counts = delivery.reader.counts if delivery.reader else None
    return SinkSummary(
        name=delivery.name,
        start=counts.start if counts else 0,
        position=counts.position if counts else 0,
        delivered=counts.delivered if counts else 0,
        skipped=counts.skipped if counts else 0,
        dead_lettered=counts.dead_lettered if counts else 0,
        left=pipeline.journal.committed - counts.position if counts else 0,
        state=delivery.state.value,
        error=delivery.error,
    )


def is_ready(pipeline: Pipeline) -> bool:
    """True while data flow as they should: every connection live (or quiet for a good reason), every sink
    delivering."""
    return (
        pipeline.error is None
        and bool(pipeline.wires)
        and all(wire.supervisor.state in (State.LIVE, State.QUIET) and wire.counts.connects for wire in pipeline.wires)
        and all(delivery.state is DeliveryState.DELIVERING for delivery in pipeline.deliveries)
        and not (pipeline.parse and pipeline.parse.stuck)
    )


def status_of(pipeline: Pipeline) -> dict[str, Any]:
    """The state of each part, ready for JSON."""
    parse, journal = pipeline.parse, pipeline.journal
    retries = {delivery.name: delivery.retries for delivery in list(pipeline.deliveries)}
    return {
        "feed": pipeline.name,
        "ready": is_ready(pipeline),
        "error": str(pipeline.error) if pipeline.error else None,
        "connections": [
            {
                "connection": wire.number,
                "state": wire.supervisor.state.value,
                "instruments": len(wire.wanted),
                **attrs.asdict(wire.counts),
            }
            for wire in pipeline.wires
        ],
        "parse": {**attrs.asdict(parse.counts), "stuck": parse.stuck or None} if parse else None,
        "validation": parse.validator.status() if parse else {},
        "journal": {
            "name": journal.name,
            "committed": journal.committed,
            "oldest": journal.oldest,
            "sync_failed": getattr(journal, "sync_failed", False),  # rows after that may not survive a power cut
        },
        "sinks": [{**attrs.asdict(one), "retries": retries.get(one.name, 0)} for one in sinks_of(pipeline)],
        "laws": laws_of(pipeline).document(),
        "capture": _capture_status(pipeline.capture),
        "dead_letters": sum(pipeline.deadletters.counts.values()),
        "dead_letters_overflowed": pipeline.deadletters.overflowed,
        "gaps": pipeline.gaps.status(),
        "events_dropped": pipeline.events.dropped,
        "rows_missed": pipeline.rows_missed,
    }


def _capture_status(capture: FrameLog | None) -> dict[str, Any] | None:
    if capture is None:
        return None
    return {"folder": str(capture.folder), **attrs.asdict(capture.counts), "error": capture.error or None}
