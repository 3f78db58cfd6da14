"""``/metrics``, ``/health`` and ``/ready`` of a feed that runs, and the page that lists every metric."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from marketfeed import Feed
from marketfeed.errors import MarketFeedError
from marketfeed.monitoring import Monitor, registry_of
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "metrics.md"


@pytest.fixture(scope="module")
def feed() -> Iterator[Feed]:
    """A feed with one sink that has delivered something."""
    with Sandbox("kite", instruments=20, ticks_per_second=500, rate_limits=False) as box:
        feed = Feed(
            "kite",
            instruments=["NSE:INFY", "NSE:TCS"],
            settings=box.settings(),
            sinks=["memory"],
            tokens=MemoryTokenStore(),
        )
        with feed:
            for batch in feed:
                if batch.first_row > 20:
                    break
            yield feed


@pytest.fixture
def monitor(feed: Feed) -> Iterator[Monitor]:
    monitor = Monitor([feed], port=0)
    yield monitor
    monitor.close()


def get(monitor: Monitor, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_show_what_the_engine_counted(feed: Feed, monitor: Monitor) -> None:
    status, text = get(monitor, "/metrics")
    assert status == 200
    received = re.search(r'ingestion_ticks_received_total\{feed="main",vendor="kite"\} (\S+)', text)
    assert received is not None
    assert 20 < float(received[1]) <= feed.pipeline.journal_rows()
    assert 'ingestion_websocket_connected{connection="0",feed="main"} 1.0' in text
    assert 'external_api_calls_total{endpoint="/instruments",status="200",vendor="kite"} 1.0' in text
    assert 'batch_job_status{feed="main",job="instruments"} 1.0' in text
    assert 'marketfeed_journal_to_sink_seconds_bucket{feed="main",le="+Inf",sink="memory"}' in text


def test_health_is_the_state_of_each_part(monitor: Monitor) -> None:
    status, text = get(monitor, "/health")
    health: dict[str, Any] = json.loads(text)
    assert status == 200
    assert health["ready"] is True
    assert health["feeds"][0]["connections"][0]["state"] == "live"
    assert health["feeds"][0]["sinks"][0]["name"] == "memory"


def test_ready_is_200_while_data_flow_and_503_when_they_do_not(feed: Feed, monitor: Monitor) -> None:
    assert get(monitor, "/ready") == (200, '{"ready": true}')
    wire = feed.pipeline.wires[0]
    state = wire.supervisor.state
    wire.supervisor.state = type(state).BACKING_OFF
    try:
        assert get(monitor, "/ready") == (503, '{"ready": false}')
    finally:
        wire.supervisor.state = state


def test_another_path_says_which_there_are(monitor: Monitor) -> None:
    status, text = get(monitor, "/")
    assert status == 404
    assert "/metrics" in text


def test_a_port_in_use_is_a_clear_error(feed: Feed, monitor: Monitor) -> None:
    with pytest.raises(MarketFeedError, match=r"metrics\.port .* cannot be opened"):
        Monitor([feed], port=monitor.port)


def test_the_page_lists_every_metric_with_its_type_and_labels(feed: Feed) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([\w, ]+) \|", PAGE.read_text(), re.MULTILINE)
    page = {name: (kind, frozenset(labels.split(", "))) for name, kind, labels in rows}
    registry = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels if label != "le"),
        )
        for family in registry_of([feed]).collect()
    }
    assert set(page) == set(registry)
    for name, (kind, labels) in registry.items():
        assert page[name][0] == kind
        assert not labels or page[name][1] == labels, name


def test_two_feeds_of_one_vendor_give_each_series_once(feed: Feed) -> None:
    lines = generate_latest(registry_of([feed, feed_like(feed)])).decode().splitlines()
    series = [line.rpartition(" ")[0] for line in lines if line.startswith(("external_api_calls", "http_request_dur"))]
    assert len(series) == len(set(series))
    calls = next(line for line in lines if line.startswith("external_api_calls_total{"))
    assert calls.endswith(" 2.0")


def feed_like(feed: Feed) -> Feed:
    """Another feed of the same vendor, whose calls were the same."""
    twin = Feed("kite", instruments=["NSE:INFY"], settings={"api_key": "k"}, tokens=MemoryTokenStore(), name="twin")
    for (vendor, endpoint, status), count in feed.api_calls.calls.items():
        for _ in range(count):
            twin.api_calls.count(vendor, endpoint, int(status), 0.01)
    twin.http.close()
    return twin


def test_a_bug_in_a_number_is_a_500_and_not_a_traceback(
    feed: Feed, monitor: Monitor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(feed, "status", bug)
    assert get(monitor, "/health")[0] == 500
    assert "Traceback" not in capsys.readouterr().err
