"""The WebSocket protocol of both dialects, message by message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from marketfeed_mstock.settings import MstockSettings
from marketfeed_mstock.stream import TypeAStream, TypeBStream

from marketfeed.contract import DATA, IGNORE, Emit, Session, Subscription
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument

SESSION = Session(vendor="mstock", account="C1", access_token="jwt.to+ken&=")


def instrument(token: str, exchange: str = "NSE") -> Instrument:
    return Instrument(exchange=exchange, symbol=f"S{token}", token=token)


RELIANCE, INFY, SENSEX = instrument("1:2885"), instrument("1:1594"), instrument("3:51", "BSE")


def stream(**options: Any) -> TypeBStream:
    return TypeBStream(MstockSettings(api_key="ab+c/d=@ #%", **options), SESSION)


def asked(messages: list[str]) -> list[tuple[int, int, int, list[str]]]:
    """Action, mode, exchange type and tokens of subscribe messages."""
    found = []
    for one in map(json.loads, messages):
        (entry,) = one["params"]["tokenList"]
        found.append((one["action"], one["params"]["mode"], entry["exchangeType"], entry["tokens"]))
    return found


def test_the_url_encodes_only_what_would_change_its_meaning() -> None:
    url = stream().handshake().url
    assert url == "wss://ws.mstock.trade?ACCESS_TOKEN=jwt.to%2Bken%26=&API_KEY=ab%2Bc/d=@%20%23%25"


def test_the_url_can_be_left_raw_like_the_official_client() -> None:
    url = stream(percent_encode=False).handshake().url
    assert url == "wss://ws.mstock.trade?ACCESS_TOKEN=jwt.to+ken&=&API_KEY=ab+c/d=@ #%"


def test_a_handshake_does_not_show_its_secrets() -> None:
    assert "jwt" not in repr(stream().handshake())


def test_login_is_the_first_message_and_subscriptions_follow_by_mode_and_exchange() -> None:
    wanted = Subscription({RELIANCE: Mode.FULL, SENSEX: Mode.FULL, INFY: Mode.LTP})
    login, *rest = stream().opened(wanted)
    assert login == "LOGIN:jwt.to+ken&="
    assert asked(rest) == [(1, 3, 1, ["2885"]), (1, 3, 3, ["51"]), (1, 1, 1, ["1594"])]


def test_long_lists_are_cut_into_several_messages() -> None:
    wanted = Subscription.of([instrument(f"1:{n}") for n in range(5)], Mode.QUOTE)
    _, *rest = stream(tokens_per_message=2).opened(wanted)
    assert [tokens for *_, tokens in asked(rest)] == [["0", "1"], ["2", "3"], ["4"]]


def test_a_reconnect_sends_everything_again_and_forgets_the_earlier_socket() -> None:
    one = stream()
    one.opened(Subscription({RELIANCE: Mode.FULL}))
    _, *rest = one.opened(Subscription({INFY: Mode.QUOTE}))
    assert asked(rest) == [(1, 2, 1, ["1594"])]
    assert one.changed(Subscription(), Subscription({RELIANCE: Mode.FULL})) == []


def test_unsubscribing_names_the_mode_that_was_subscribed() -> None:
    one = stream()
    one.opened(Subscription({RELIANCE: Mode.FULL}))
    assert asked(list(one.changed(Subscription(), Subscription({RELIANCE: Mode.LTP})))) == [(0, 3, 1, ["2885"])]


def test_a_change_of_mode_takes_the_old_one_off_first() -> None:
    one = stream()
    one.opened(Subscription({RELIANCE: Mode.FULL}))
    changed = asked(list(one.changed(Subscription({RELIANCE: Mode.LTP, INFY: Mode.LTP}), Subscription())))
    assert changed == [(0, 3, 1, ["2885"]), (1, 1, 1, ["2885", "1594"])]


@pytest.mark.parametrize("size", [51, 123, 379])
def test_packets_with_or_without_a_header_are_data(size: int) -> None:
    mode = {51: 1, 123: 2, 379: 3}[size]
    packet = bytes([mode, 1]) + b"{" * (size - 2)
    assert stream().received(packet) is DATA
    # A count of 123 is the byte of an opening brace: the length decides.
    assert stream().received(bytes([123, 0, size % 256, size // 256]) + packet * 123) is DATA


@pytest.mark.parametrize("data", [b"", b"\0", b"\1\0\0\0"])
def test_tiny_binary_messages_are_heartbeats(data: bytes) -> None:
    assert stream().received(data) is IGNORE


def test_other_binary_messages_go_to_the_parser_to_be_counted() -> None:
    assert stream().received(b"\xff" * 51) is DATA
    assert stream().received(b"\1" * 50) is DATA


@pytest.mark.parametrize("kind", [bytes, str])
def test_text_messages_become_events(kind: type) -> None:
    def received(text: str) -> object:
        return stream().received(text.encode() if kind is bytes else text)

    order = received('{"order_status": "trade", "orderData": {"orderid": "1"}}')
    assert order == Emit("order_update", {"type": "trade", "data": {"orderid": "1"}})
    assert received('{"type":"error","data":"reason"}') == Emit("broker_error", {"message": "reason"})
    assert received("Welcome") == Emit("broker_message", {"text": "Welcome"})


def test_a_text_that_echoes_the_token_does_not_show_it() -> None:
    step = stream().received(b"LOGIN:jwt.to+ken&= accepted")
    assert step == Emit("broker_message", {"text": "LOGIN:*** accepted"})


@pytest.mark.parametrize("text", ["{", "{}", "[" * 100_000, "null", '{"type":["order"]}', '"\\ud800"', "~"])
def test_odd_text_never_raises(text: str) -> None:
    assert isinstance(stream().received(text), Emit)


def test_recorded_text_messages_are_understood(shared: Path) -> None:
    for one in json.loads((shared / "fixtures/mstock/text_messages.json").read_text()):
        if one["direction"] == "server":
            step = stream().received(one["text"].encode())
            assert isinstance(step, Emit)
            assert step.kind == ("broker_error" if one["name"] == "error" else "order_update")


class TestTypeA:
    @staticmethod
    def stream(**options: Any) -> TypeAStream:
        return TypeAStream(MstockSettings(api_key="k", dialect="a", **options), SESSION)

    def test_it_subscribes_bare_tokens_and_then_sets_the_mode(self) -> None:
        login, *rest = self.stream().opened(Subscription({RELIANCE: Mode.FULL, SENSEX: Mode.FULL, INFY: Mode.LTP}))
        assert login == "LOGIN:jwt.to+ken&="
        assert list(map(json.loads, rest)) == [
            {"a": "subscribe", "v": [2885, 51]},
            {"a": "mode", "v": ["full", [2885, 51]]},
            {"a": "subscribe", "v": [1594]},
            {"a": "mode", "v": ["ltp", [1594]]},
        ]

    def test_changes_unsubscribe_and_set_the_mode_anew(self) -> None:
        one = self.stream()
        one.opened(Subscription({RELIANCE: Mode.FULL, INFY: Mode.FULL}))
        messages = one.changed(Subscription({INFY: Mode.LTP}), Subscription({RELIANCE: Mode.FULL}))
        assert list(map(json.loads, messages)) == [
            {"a": "unsubscribe", "v": [2885]},
            {"a": "subscribe", "v": [1594]},
            {"a": "mode", "v": ["ltp", [1594]]},
        ]

    def test_binary_messages_are_data_but_for_heartbeats(self) -> None:
        assert self.stream().received(b"\0") is IGNORE
        assert self.stream().received(b"\0\1") is DATA

    def test_text_messages_become_events(self) -> None:
        text = '{"type":"order","data":{"order_id":"1"}}'
        event = Emit("order_update", {"type": "order", "data": {"order_id": "1"}})
        assert self.stream().received(text) == event
        assert self.stream().received(text.encode()) == event
