"""The login dance and subscriptions over the socket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from marketfeed_flattrade.settings import FlattradeSettings
from marketfeed_flattrade.stream import FlattradeStream

from marketfeed.contract import DATA, IGNORE, CloseCodes, Emit, LoginOnSocket, Send, Session, Subscription
from marketfeed.enums import Mode
from marketfeed.errors import SessionExpired, TakenOver
from marketfeed.instruments import Instrument

SESSION = Session(vendor="flattrade", account="FT000000", access_token="tok")


def instrument(token: str) -> Instrument:
    return Instrument(exchange=token.split("|")[0], symbol=f"S{token[4:]}", token=token)


ACC, NIFTY, FUTURE = instrument("NSE|22"), instrument("NSE|26000"), instrument("NFO|35001")
NOTHING = Subscription()


def stream(**options: Any) -> FlattradeStream:
    return FlattradeStream(FlattradeSettings(user_id="FT000000", **options), SESSION)


def sent(messages: Sequence[str | bytes]) -> list[Any]:
    return [json.loads(one) for one in messages]


def acknowledged(wanted: Subscription) -> FlattradeStream:
    one = stream()
    one.opened(wanted)
    one.received('{"t":"ak","uid":"FT000000","s":"OK"}')
    return one


def test_the_socket_opens_with_the_connect_message_alone() -> None:
    messages = stream().opened(Subscription({ACC: Mode.FULL}))
    assert sent(messages) == [{"t": "a", "uid": "FT000000", "actid": "FT000000", "source": "API", "accesstoken": "tok"}]


def test_the_older_generation_says_it_in_its_own_words() -> None:
    (hello,) = sent(stream(connect_generation="c").opened(NOTHING))
    assert hello == {"t": "c", "uid": "FT000000", "actid": "FT000000", "source": "API", "susertoken": "tok"}


@pytest.mark.parametrize(
    "answer", ['{"t":"ak","uid":"FT000000","s":"OK"}', '{"t":"ck","s":"Ok"}', '{ "s":"ok", "t":"ak" }']
)
@pytest.mark.parametrize("kind", [str, bytes])
def test_subscriptions_follow_the_acknowledgement(answer: str, kind: type) -> None:
    one = stream()
    one.opened(Subscription({ACC: Mode.FULL, NIFTY: Mode.LTP, FUTURE: Mode.QUOTE}))
    step = one.received(answer if kind is str else answer.encode())
    assert isinstance(step, Send)
    assert sent(step.messages) == [{"t": "t", "k": "NSE|26000#NFO|35001"}, {"t": "d", "k": "NSE|22"}]


def test_a_second_acknowledgement_changes_nothing() -> None:
    assert acknowledged(Subscription({ACC: Mode.FULL})).received('{"t":"ak","s":"OK"}') is IGNORE


@pytest.mark.parametrize("answer", ['{"t":"ck","s":"NOT_OK"}', '{"t":"ak","s":"Not_Ok","uid":"F"}', '{"t":"ak"}'])
def test_a_refusal_expires_the_session(answer: str) -> None:
    one = stream()
    one.opened(NOTHING)
    with pytest.raises(SessionExpired) as refusal:
        one.received(answer)
    assert "tok" not in str(refusal.value).replace("token", "")


def test_long_lists_are_cut_into_several_messages() -> None:
    one = stream(scrips_per_message=2)
    one.opened(Subscription.of([instrument(f"NSE|{n}") for n in range(5)], Mode.QUOTE))
    step = one.received('{"t":"ak","s":"OK"}')
    assert isinstance(step, Send)
    assert [message["k"] for message in sent(step.messages)] == ["NSE|0#NSE|1", "NSE|2#NSE|3", "NSE|4"]


def test_a_reconnect_waits_for_its_own_acknowledgement_and_subscribes_everything_again() -> None:
    one = acknowledged(Subscription({ACC: Mode.FULL}))
    one.opened(Subscription({ACC: Mode.FULL}))
    assert one.changed(Subscription({NIFTY: Mode.LTP}), NOTHING) == []
    step = one.received('{"t":"ak","s":"OK"}')
    assert isinstance(step, Send)
    assert sent(step.messages) == [{"t": "t", "k": "NSE|26000"}, {"t": "d", "k": "NSE|22"}]


def test_changes_unsubscribe_in_the_family_that_was_subscribed() -> None:
    one = acknowledged(Subscription({ACC: Mode.FULL, NIFTY: Mode.LTP, FUTURE: Mode.LTP}))
    messages = one.changed(Subscription({NIFTY: Mode.FULL}), Subscription({ACC: Mode.LTP, FUTURE: Mode.FULL}))
    assert sent(messages) == [
        {"t": "u", "k": "NFO|35001#NSE|26000"},
        {"t": "ud", "k": "NSE|22"},
        {"t": "d", "k": "NSE|26000"},
    ]


def test_a_change_within_a_family_sends_nothing() -> None:
    one = acknowledged(Subscription({NIFTY: Mode.LTP}))
    assert one.changed(Subscription({NIFTY: Mode.QUOTE}), NOTHING) == []


@pytest.mark.parametrize(
    "text",
    ['{"t":"tf","e":"NSE","tk":"22"}', '{ "e" : "NSE" , "t" : "dk" }', "not json", "[]", '{"t":5}', "", "\ud800"],
)
def test_market_data_and_what_nobody_understands_go_to_the_parser(text: str) -> None:
    assert stream().received(text) is DATA
    assert stream().received(text.encode("utf-8", "surrogatepass")) is DATA


@pytest.mark.parametrize("text", ['{"t":"hk","hk":"1"}', '{"t":"uk","k":"NSE|22"}', '{"t":"pm"}', '{"t":"new"}'])
def test_control_messages_are_ignored(text: str) -> None:
    assert stream().received(text) is IGNORE


def test_order_updates_become_events() -> None:
    assert stream().received('{"t":"om","norenordno":"1"}') == Emit("order_update", {"t": "om", "norenordno": "1"})


def test_a_login_counts_when_it_is_acknowledged_on_this_socket() -> None:
    one = stream(login_within_s=7.0)
    assert isinstance(one, LoginOnSocket)
    assert one.login_within_s == 7.0
    one.opened(Subscription())
    assert not one.logged_in()
    one.received('{"t":"ak","s":"OK"}')
    assert one.logged_in()
    one.opened(Subscription())
    assert not one.logged_in()


def test_code_1000_means_that_another_session_has_the_connection() -> None:
    one = stream(takeover_wait_s=45.0)
    assert isinstance(one, CloseCodes)
    error = one.closed(1000, "")
    assert isinstance(error, TakenOver)
    assert error.wait_s == 45.0
    assert one.closed(1001, "going away") is None


def test_the_heartbeat_is_a_text_message() -> None:
    beat = stream().keepalive()
    assert (beat.text, beat.period_s) == ('{"t":"h"}', 30.0)
    assert beat.dead_after_s > 2 * beat.period_s


def test_recorded_messages_take_the_steps_they_should(shared: Path) -> None:
    steps = {"snapshot": DATA, "delta": DATA, "bad": DATA, "control": IGNORE}
    for line in (shared / "fixtures/flattrade/made_control_and_bad.jsonl").read_text().splitlines():
        entry = json.loads(line)
        one = acknowledged(NOTHING)
        step, kind = one.received(entry["text"]), entry["expect"]["kind"]
        if kind == "order":
            assert isinstance(step, Emit)
        elif kind != "auth":
            assert step is steps[kind]
