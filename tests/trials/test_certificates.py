"""A certificate that proves nothing is refused, for REST and for the stream, at the start and later."""

from __future__ import annotations

from pathlib import Path

import pytest
from trials._report import Report
from waiting import until

from marketfeed import Feed
from marketfeed.contract import Event
from marketfeed.errors import MarketFeedError
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

pytest.importorskip("trustme")
BAD = ("self-signed", "wrong-host", "expired")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sandbox writes its authority; this process trusts it, as an administrator would make it do."""
    path = tmp_path / "ca.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    return path


def feed_on(box: Sandbox) -> Feed:
    settings = box.settings()
    assert settings["rest_url"].startswith("https:")
    assert settings["stream_url"].startswith("wss:")
    return Feed("kite", instruments=["NSE:INFY"], settings=settings, tokens=MemoryTokenStore())


def refused(feed: Feed, events: list[Event], why: str) -> bool:
    """Whether the line was refused for that reason, and the feed lives on."""
    assert feed.error is None
    return any(why in str(event.data.get("why", "")) for event in list(events) if event.kind == "line")


def check_rest(name: str, authority: Path) -> None:
    """The instruments are not even asked for."""
    with Sandbox("kite", seed=1, instruments=20, tls=name, ca_file=authority, log=True) as box:
        feed = feed_on(box)
        with pytest.raises(MarketFeedError, match="certificate"):
            feed.start()
        assert box.counts["requests"] == 0
        assert box.counts["connections"] == 0


def check_stream(name: str, authority: Path) -> None:
    """The certificate turns bad after the start: the line is not taken, and taken again when it is good."""
    events: list[Event] = []
    with Sandbox("kite", seed=1, instruments=20, ticks_per_second=100, tls="good", ca_file=authority) as box:
        feed = feed_on(box)
        feed.on_event(events.append)
        with feed:
            until(lambda: "NSE:INFY" in feed.latest)
            connects = box.counts["connections"]
            box.fault("certificate", how=name)
            box.drop()
            until(lambda: refused(feed, events, "TLS with 127.0.0.1 failed"))
            assert box.counts["connections"] == connects
            box.clear("certificate")
            until(lambda: box.counts["connections"] > connects)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_certificate_of_the_rest_side_is_refused(name: str, authority: Path) -> None:
    check_rest(name, authority)


@pytest.mark.parametrize("name", BAD[:2])
def test_a_bad_certificate_of_the_stream_is_refused(name: str, authority: Path) -> None:
    check_stream(name, authority)


@pytest.mark.chaos
def test_bad_certificates_again_and_again(authority: Path, report: Report) -> None:
    for _ in range(5):
        for name in BAD:
            check_rest(name, authority)
            check_stream(name, authority)
    report("7 bad certificates, REST and stream", 30, "all refused, no request sent", aim="all")
