"""What plugins give and get: subscriptions, settings that keep secrets, sinks with sensible defaults."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.batches import Origin, TickBatch
from marketfeed.contract import (
    Handshake,
    Session,
    Sink,
    Subscription,
    VendorSettings,
    base_url,
    is_loopback,
    secret,
    setting,
)
from marketfeed.dtypes import empty_ticks
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument

UNIVERSE = [Instrument(exchange="NSE", symbol=f"S{number}", token=str(number)) for number in range(8)]
subscriptions = st.dictionaries(st.sampled_from(UNIVERSE), st.sampled_from(Mode)).map(Subscription)


@given(subscriptions, subscriptions)
def test_plus_adds_or_changes_and_leaves_both_as_they_were(one: Subscription, other: Subscription) -> None:
    before = dict(one), dict(other)
    assert dict(one + other) == {**one, **other}
    assert (dict(one), dict(other)) == before


@given(subscriptions, subscriptions)
def test_minus_takes_away_and_undoes_plus_of_what_was_not_there(one: Subscription, other: Subscription) -> None:
    assert dict(one - other) == {key: mode for key, mode in one.items() if key not in other}
    new = other - one
    assert dict((one + new) - new) == dict(one)


@given(subscriptions)
def test_by_mode_loses_nobody_and_keeps_the_order(wanted: Subscription) -> None:
    groups = wanted.by_mode()
    assert {one: mode for mode, group in groups.items() for one in group} == dict(wanted)
    assert all(group == [one for one in wanted if wanted[one] is mode] for mode, group in groups.items())


def test_a_subscription_of_one_mode() -> None:
    wanted = Subscription.of(UNIVERSE[:2], Mode.LTP)
    assert dict(wanted) == dict.fromkeys(UNIVERSE[:2], Mode.LTP)
    assert len(wanted) == 2
    assert not Subscription()


@attrs.frozen(kw_only=True)
class AcmeSettings(VendorSettings):
    rest_url: str = base_url("https://api.acme.example")
    api_key: str = setting(env="ACME_API_KEY", default="public")
    api_secret: str | None = secret(env="ACME_API_SECRET", default=None)


def test_secrets_do_not_show_themselves() -> None:
    settings = AcmeSettings(api_secret="hush-hush", access_token="hush-token")
    session = Session(vendor="acme", account="me", access_token="hush-token", extra={"feed": "hush-feed"})
    handshake = Handshake(url="wss://acme.example/?token=hush-url", headers={"Authorization": "hush-head"})
    assert "hush" not in f"{settings!r} {session!r} {handshake!r}"
    assert "public" in repr(settings)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8700", "ws://localhost:1", "http://[::1]:5", "https://acme.example"])
def test_urls_are_encrypted_or_stay_on_this_machine(url: str) -> None:
    assert AcmeSettings(rest_url=url).rest_url == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://acme.example", "use https"),
        ("ws://10.0.0.1", "use wss"),
        ("http://localhost.evil.example", "use https"),
        ("acme.example", "is not a URL"),
        ("ftp://acme.example", "is not a URL"),
        ("https://", "is not a URL"),
    ],
)
def test_other_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AcmeSettings(rest_url=url)


def test_loopback_is_this_machine_only() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.8.8.8", "::1"]))
    assert not any(map(is_loopback, [None, "", "0.0.0.0", "128.0.0.1", "example.com"]))


def test_a_sink_needs_only_write() -> None:
    class Counting(Sink):
        rows = 0

        def write(self, batch: object) -> None:
            self.rows += 1

    sink = Counting()
    sink.open()
    assert sink.position("ab.1") is None
    sink.write(TickBatch(empty_ticks(1), Origin(())))
    sink.flush()
    sink.close()
    assert sink.rows == 1
    assert Sink.accepts == {"ticks"}
    with pytest.raises(NotImplementedError):
        Sink().write(TickBatch(empty_ticks(1), Origin(())))
