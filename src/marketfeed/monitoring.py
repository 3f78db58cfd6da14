"""``/metrics``, ``/health`` and ``/ready`` for the feeds of a process, on a registry of their own.

Nothing is counted here: a scrape reads the plain numbers that the engine's threads own.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from marketfeed.engine.metrics import ApiCalls, Histogram
from marketfeed.engine.pipeline import Pipeline
from marketfeed.engine.supervisor import State
from marketfeed.errors import MarketFeedError
from marketfeed.gaps import Cause

__all__ = ["FeedCollector", "Monitor", "Monitored", "registry_of"]

_log = logging.getLogger("marketfeed.monitoring")
_FEED = ("feed",)
_LINE = ("feed", "connection")
_SINK = ("feed", "sink")


class Monitored(Protocol):
    """What has numbers to show: a feed, or the process of one sink of it."""

    name: str
    jobs: dict[str, int]
    api_calls: ApiCalls

    @property
    def vendor(self) -> str: ...
    @property
    def started(self) -> bool: ...
    @property
    def pipeline(self) -> Pipeline: ...
    @property
    def logins(self) -> int: ...
    def status(self) -> dict[str, Any]: ...


class FeedCollector(Collector):
    """Gives the numbers of some feeds to a Prometheus registry."""

    def __init__(self, feeds: Sequence[Monitored]) -> None:
        self._feeds = feeds

    def collect(self) -> Iterator[Metric]:
        """All metrics; each is listed on the reference page "Metrics"."""
        yield from self._counters_of_parsing()
        yield from self._connections()
        yield from self._journal()
        yield from self._gaps()
        yield from self._captures()
        yield from self._sinks()
        yield from self._numbers_of_sinks()
        yield from self._api()
        yield from self._latencies()

    def _running(self) -> Iterator[tuple[Monitored, Pipeline]]:
        for feed in self._feeds:
            if feed.started:
                yield feed, feed.pipeline

    def _counters_of_parsing(self) -> Iterator[Metric]:
        received = CounterMetricFamily("ingestion_ticks_received", "Ticks parsed", labels=("feed", "vendor"))
        appended = CounterMetricFamily("marketfeed_ticks_appended", "Ticks appended to the journal", labels=_FEED)
        dropped = CounterMetricFamily("marketfeed_ticks_dropped", "Ticks dropped by validation", labels=_FEED)
        lost = CounterMetricFamily("marketfeed_ticks_lost", "Ticks that could not be written in time", labels=_FEED)
        bad = CounterMetricFamily("marketfeed_bad_packets", "Packets that no parser could read", labels=_FEED)
        letters = CounterMetricFamily("marketfeed_dead_letters", "Dead letters", labels=("feed", "kind", "reason"))
        overflow = CounterMetricFamily(
            "marketfeed_dead_letters_overflowed", "Dead letters counted but not kept", labels=_FEED
        )
        doubts = CounterMetricFamily(
            "marketfeed_validation", "Ticks that validation doubts", labels=("feed", "reason", "action")
        )
        for feed, pipeline in self._running():
            for (kind, reason), count in list(pipeline.deadletters.counts.items()):
                letters.add_metric((feed.name, kind, reason), count)
            overflow.add_metric((feed.name,), pipeline.deadletters.overflowed)
            if pipeline.parse is not None:
                for word, doubt in pipeline.parse.validator.status().items():
                    doubts.add_metric((feed.name, word, doubt["action"]), doubt["rows"])
                counts = pipeline.parse.counts
                received.add_metric((feed.name, feed.vendor), counts.parsed)
                for family, value in (
                    (appended, counts.appended),
                    (dropped, counts.dropped),
                    (lost, counts.lost),
                    (bad, counts.bad_packets),
                ):
                    family.add_metric((feed.name,), value)
        yield from (doubts, received, appended, dropped, lost, bad, letters, overflow)

    def _connections(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("ingestion_websocket_connected", "1 while the connection is live", labels=_LINE)
        packets = CounterMetricFamily("websocket_packets", "Messages received", labels=_LINE)
        size = CounterMetricFamily("websocket_data_bytes", "Bytes received", labels=_LINE)
        connects = CounterMetricFamily("websocket_connects", "Successful connects", labels=_LINE)
        asked = CounterMetricFamily("websocket_resubscribes", "Subscriptions repeated on a mute line", labels=_LINE)
        states = CounterMetricFamily(
            "marketfeed_line_transitions", "How often a connection entered a state", labels=(*_LINE, "state")
        )
        logins = CounterMetricFamily("marketfeed_logins", "Sessions obtained", labels=_FEED)
        for feed, pipeline in self._running():
            logins.add_metric((feed.name,), feed.logins)
            for wire in pipeline.wires:
                labels = (feed.name, str(wire.number))
                up.add_metric(labels, wire.supervisor.state is State.LIVE)
                packets.add_metric(labels, wire.counts.messages)
                size.add_metric(labels, wire.counts.bytes)
                connects.add_metric(labels, wire.counts.connects)
                asked.add_metric(labels, wire.counts.resubscribes)
                for state, count in list(wire.counts.transitions.items()):
                    states.add_metric((*labels, state), count)
        yield from (up, packets, size, connects, asked, states, logins)

    def _journal(self) -> Iterator[Metric]:
        committed = CounterMetricFamily("marketfeed_journal_rows", "Rows ever committed", labels=_FEED)
        oldest = GaugeMetricFamily("marketfeed_journal_oldest_row", "First row still kept", labels=_FEED)
        stuck = GaugeMetricFamily("marketfeed_journal_stuck", "1 while the journal cannot be written", labels=_FEED)
        job = GaugeMetricFamily("batch_job_status", "1 succeeded, 0 not run, -1 failed", labels=("feed", "job"))
        for feed, pipeline in self._running():
            committed.add_metric((feed.name,), pipeline.journal.committed)
            oldest.add_metric((feed.name,), pipeline.journal.oldest)
            if pipeline.parse is not None:
                stuck.add_metric((feed.name,), bool(pipeline.parse.stuck))
            for name, value in feed.jobs.items():
                job.add_metric((feed.name, name), value)
        yield from (committed, oldest, stuck, job)

    def _gaps(self) -> Iterator[Metric]:
        cause = ("feed", "cause")
        count = CounterMetricFamily("marketfeed_gaps", "Intervals in which ticks could have been missed", labels=cause)
        seconds = CounterMetricFamily("marketfeed_gap_seconds", "Length of the gaps that have ended", labels=cause)
        opened = GaugeMetricFamily("marketfeed_gap_open", "1 while a connection gives no data", labels=_LINE)
        for feed, pipeline in self._running():
            writer = pipeline.gaps.writer
            for word in Cause:
                count.add_metric((feed.name, word.value), writer.opened[word.value])
                seconds.add_metric((feed.name, word.value), writer.seconds.get(word.value, 0.0))
            for wire in pipeline.wires:
                opened.add_metric((feed.name, str(wire.number)), pipeline.gaps.is_open(wire.number))
        yield from (count, seconds, opened)

    def _captures(self) -> Iterator[Metric]:
        frames = CounterMetricFamily("marketfeed_capture_frames", "Frames written to capture files", labels=_FEED)
        size = CounterMetricFamily("marketfeed_capture_bytes", "Bytes written to capture files", labels=_FEED)
        dropped = CounterMetricFamily(
            "marketfeed_capture_dropped", "Frames missing in the capture", labels=("feed", "reason")
        )
        removed = CounterMetricFamily("marketfeed_capture_files_removed", "Old capture files removed", labels=_FEED)
        for feed, pipeline in self._running():
            if pipeline.capture is None:
                continue
            counts = pipeline.capture.counts
            frames.add_metric((feed.name,), counts.written)
            size.add_metric((feed.name,), counts.stored_bytes)
            removed.add_metric((feed.name,), counts.files_removed)
            for reason in ("queue", "disk", "bug"):
                dropped.add_metric((feed.name, reason), counts.dropped[reason])
        yield from (frames, size, dropped, removed)

    def _sinks(self) -> Iterator[Metric]:
        lag = GaugeMetricFamily("marketfeed_sink_lag_rows", "Rows in the journal and not delivered", labels=_SINK)
        delivered = CounterMetricFamily("marketfeed_sink_delivered", "Rows delivered", labels=_SINK)
        skipped = CounterMetricFamily("marketfeed_sink_skipped", "Rows skipped for lagging", labels=_SINK)
        letters = CounterMetricFamily("marketfeed_sink_dead_lettered", "Rows the sink refused", labels=_SINK)
        retried = CounterMetricFamily("marketfeed_sink_retries", "Repeated attempts", labels=_SINK)
        for feed, pipeline in self._running():
            sinks = pipeline.summary().sinks
            # After the summary: a sink may be added at any moment.
            retries = {delivery.name: delivery.retries for delivery in list(pipeline.deliveries)}
            for sink in sinks:
                labels = (feed.name, sink.name)
                lag.add_metric(labels, sink.left)
                delivered.add_metric(labels, sink.delivered)
                skipped.add_metric(labels, sink.skipped)
                letters.add_metric(labels, sink.dead_lettered)
                retried.add_metric(labels, retries.get(sink.name, 0))
        yield from (lag, delivered, skipped, letters, retried)

    def _numbers_of_sinks(self) -> Iterator[Metric]:
        """What sinks say about themselves (``Sink.metrics``)."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for feed, pipeline in self._running():
            for delivery in list(pipeline.deliveries):
                try:
                    numbers = dict(delivery.sink.metrics())
                except Exception:  # a plugin may fail; the scrape must not
                    _log.exception("the metrics of sink %s could not be read", delivery.name)
                    continue
                for name, value in numbers.items():
                    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                    text = f"Published by a sink, {type(delivery.sink).__name__}"
                    family = families.setdefault(name, kind(name.removesuffix("_total"), text, labels=_SINK))
                    family.add_metric((feed.name, delivery.name), float(value))
        yield from families.values()

    def _api(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "external_api_calls", "HTTP calls to brokers", labels=("vendor", "endpoint", "status")
        )
        seconds = HistogramMetricFamily(
            "http_request_duration_seconds", "Duration of HTTP calls to brokers", labels=("vendor", "endpoint")
        )
        # Added up over the feeds: two of one vendor would give a series twice, and a scraper refuses that.
        counts: Counter[tuple[str, str, str]] = Counter()
        durations: dict[tuple[str, str], Histogram] = {}
        for feed in self._feeds:
            counts.update(dict(feed.api_calls.calls))
            for where, histogram in list(feed.api_calls.seconds.items()):
                durations[where] = histogram.plus(durations.get(where, Histogram()))
        for labels, count in counts.items():
            calls.add_metric(labels, count)
        for where, histogram in durations.items():
            _add(seconds, where, histogram)
        yield from (calls, seconds)

    def _latencies(self) -> Iterator[Metric]:
        exchange = HistogramMetricFamily(
            "marketfeed_exchange_to_receive_seconds", "Exchange time to receipt, oldest row of a batch", labels=_FEED
        )
        journal = HistogramMetricFamily(
            "marketfeed_receive_to_journal_seconds", "Receipt to journal, oldest row of a batch", labels=_FEED
        )
        sink = HistogramMetricFamily(
            "marketfeed_journal_to_sink_seconds", "Receipt to a sink's write, oldest row of a batch", labels=_SINK
        )
        for feed, pipeline in self._running():
            if pipeline.parse is not None:
                _add(exchange, (feed.name,), pipeline.parse.exchange_to_receive)
                _add(journal, (feed.name,), pipeline.parse.receive_to_journal)
            for delivery in pipeline.deliveries:
                _add(sink, (feed.name, delivery.name), delivery.journal_to_sink)
        yield from (exchange, journal, sink)


def _add(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    bounds = [str(bound) for bound in histogram.bounds] + ["+Inf"]
    counts = [float(count) for count in accumulate(list(histogram.buckets))]
    family.add_metric(labels, list(zip(bounds, counts, strict=True)), histogram.total)


def registry_of(feeds: Sequence[Monitored]) -> CollectorRegistry:
    """A registry that holds these feeds and nothing else."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FeedCollector(feeds))
    return registry


class Monitor:
    """One HTTP listener for the feeds of a process, on a thread of its own.

    ``/metrics`` is Prometheus text, ``/health`` the state of each part as JSON, ``/ready`` 200 while
    every feed's data flow as they should and 503 otherwise.
    """

    def __init__(self, feeds: Sequence[Monitored], host: str = "127.0.0.1", port: int = 3001) -> None:
        self._feeds = feeds
        self._registry = registry_of(feeds)
        try:
            self._server = _Server((host, port), _handler(self))
        except OSError as error:
            raise MarketFeedError(
                f"metrics.port {port} on {host} cannot be opened ({error.strerror}); choose another port or false"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="marketfeed-monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a path."""
        match path.partition("?")[0]:
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
            case "/health":
                return self._json(200, self._health())
            case "/ready":
                health = self._health()
                return self._json(200 if health["ready"] else 503, {"ready": health["ready"]})
        return self._json(404, {"error": "paths are /metrics, /health and /ready"})

    def _health(self) -> dict[str, Any]:
        feeds = [feed.status() for feed in self._feeds if feed.started]
        waiting = [feed.name for feed in self._feeds if not feed.started]
        return {"ready": not waiting and all(one["ready"] for one in feeds), "feeds": feeds, "not_started": waiting}

    @staticmethod
    def _json(status: int, body: Any) -> tuple[int, str, bytes]:
        return status, "application/json", json.dumps(body, default=str).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(monitor: Monitor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for a request: a client that says nothing does not keep its thread

        def do_GET(self) -> None:
            try:
                status, kind, body = monitor.answer(self.path)
            except Exception:
                _log.exception("%s could not be answered", self.path)
                status, kind, body = 500, "text/plain", b"internal error; the log tells more\n"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Scrapes are not worth a log line."""

    return Handler
