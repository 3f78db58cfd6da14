"""What a Kite connection sends, and what it makes of what comes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from marketfeed_kite import KiteSettings
from marketfeed_kite.parser import KiteParser
from marketfeed_kite.stream import KiteStream

from marketfeed.contract import DATA, IGNORE, Emit, Frame, Session, Step, Subscription
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument, TokenMap
from marketfeed.sandbox import Sandbox

TOKEN = "a+b/c=&d"


def make_stream(**settings: Any) -> KiteStream:
    given = {"api_key": "key", **settings}
    return KiteStream(KiteSettings(**given), Session(vendor="kite", account="A", access_token=TOKEN))


def instruments(count: int, first: int = 1) -> list[Instrument]:
    return [Instrument(exchange="NSE", symbol=f"S{n}", token=str(n << 8 | 1)) for n in range(first, first + count)]


def decoded(messages: Sequence[str]) -> list[tuple[str, Any]]:
    return [(body["a"], body["v"]) for body in map(json.loads, messages)]


def test_the_handshake_encodes_the_token_and_names_the_version() -> None:
    handshake = make_stream().handshake()
    parts = urlsplit(handshake.url)
    assert (parts.scheme, parts.netloc, parts.path) == ("wss", "ws.kite.trade", "/")
    assert parse_qs(parts.query) == {"api_key": ["key"], "access_token": [TOKEN]}
    assert handshake.headers["X-Kite-Version"] == "3"
    assert "Origin" not in handshake.headers
    assert TOKEN not in repr(handshake)


def test_opening_subscribes_five_hundred_at_a_time_each_followed_by_its_mode() -> None:
    wanted = instruments(1_100)
    sent = decoded(make_stream().opened(Subscription.of(wanted, Mode.FULL)))
    assert [action for action, _ in sent] == ["subscribe", "mode"] * 3
    assert [len(value) for action, value in sent if action == "subscribe"] == [500, 500, 100]
    assert [token for action, value in sent if action == "subscribe" for token in value] == [
        int(one.token) for one in wanted
    ]
    assert all(value == ["full", subscribed] for (_, subscribed), (_, value) in zip(sent[::2], sent[1::2], strict=True))


def test_each_mode_gets_its_own_messages() -> None:
    one, two = instruments(2)
    sent = decoded(make_stream().opened(Subscription({one: Mode.LTP, two: Mode.QUOTE})))
    assert sent == [
        ("subscribe", [int(one.token)]),
        ("mode", ["ltp", [int(one.token)]]),
        ("subscribe", [int(two.token)]),
        ("mode", ["quote", [int(two.token)]]),
    ]


def test_a_changed_mode_is_not_subscribed_again() -> None:
    known, new, gone = instruments(3)
    stream = make_stream()
    stream.opened(Subscription.of([known, gone], Mode.FULL))
    sent = decoded(stream.changed(Subscription.of([known, new], Mode.QUOTE), Subscription.of([gone], Mode.FULL)))
    assert sent == [
        ("unsubscribe", [int(gone.token)]),
        ("subscribe", [int(new.token)]),
        ("mode", ["quote", [int(new.token)]]),
        ("mode", ["quote", [int(known.token)]]),
    ]


def test_a_new_socket_knows_nothing_of_the_old_one() -> None:
    wanted = Subscription.of(instruments(2), Mode.FULL)
    stream = make_stream()
    assert stream.opened(wanted) == stream.opened(wanted)


def test_nothing_to_change_sends_nothing() -> None:
    assert make_stream().changed(Subscription(), Subscription()) == []


@pytest.mark.parametrize(
    ("data", "step"),
    [
        (b"\0\0", DATA),
        (b"\0\1\0\10" + bytes(8), DATA),
        (b"\0", IGNORE),
        (b"", IGNORE),
        ('{"type":"order","data":{"order_id":"1"}}', Emit("order_update", {"order_id": "1"})),
        ('{"type":"error","data":"too many"}', Emit("broker_error", {"message": "too many"})),
        ('{"type":"message","data":"hello"}', Emit("broker_message", {"message": "hello"})),
        ('{"type":"instruments_meta","data":{}}', IGNORE),
        ('{"type":["order"]}', IGNORE),
        ("[1,2]", IGNORE),
        ("not JSON", IGNORE),
        ("", IGNORE),
        ("[" * 100_000, IGNORE),
    ],
)
def test_messages_lead_to_steps(data: str | bytes, step: Step) -> None:
    assert make_stream().received(data) == step


def test_a_silent_line_is_dead_before_a_pong_could_prove_the_contrary() -> None:
    keepalive = make_stream().keepalive()
    assert keepalive.dead_after_s < keepalive.period_s


# --- against the sandbox ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox("kite", instruments=10, ticks_per_second=200) as running:
        yield running


def test_the_sandbox_sends_full_ticks_of_what_was_subscribed(box: Sandbox) -> None:
    import websocket

    settings = KiteSettings(**{name: value for name, value in box.settings().items() if hasattr(KiteSettings, name)})
    assert settings.access_token
    stream = KiteStream(settings, Session(vendor="kite", account="A", access_token=settings.access_token))
    wanted = [
        Instrument(exchange=one.exchange, symbol=one.symbol, token=box.broker.token(line), kind=one.kind)
        for line, one in enumerate(box.instruments)
    ]
    parser = KiteParser(TokenMap({one.token: number for number, one in enumerate(wanted)}))
    handshake = stream.handshake()
    socket = websocket.create_connection(
        handshake.url, header=dict(handshake.headers), suppress_origin=True, timeout=10
    )
    try:
        for message in stream.opened(Subscription.of(wanted, Mode.FULL)):
            socket.send(message)
        seen: set[int] = set()
        while seen != set(range(len(wanted))):
            data = socket.recv()
            if stream.received(data) is DATA:
                rows = parser([Frame(data, 1)]).rows
                seen |= {int(row["instrument"]) for row in rows if row["flags"] & 0xF == Mode.FULL}
    finally:
        socket.close()
    assert -1 not in seen
