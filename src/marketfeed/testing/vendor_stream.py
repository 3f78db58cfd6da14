"""Checks of a vendor's stream: handshakes, subscriptions, and which messages are data."""

from __future__ import annotations

import contextlib
import math
import random
from urllib.parse import urlsplit

import attrs

from marketfeed.brokers import HttpReply
from marketfeed.contract import DATA, Emit, Handshake, KeepAlive, Plain, Send, Subscription
from marketfeed.errors import AuthError, LineLost, SessionExpired
from marketfeed.testing.bench import Bench, Talk, without_calls
from marketfeed.testing.vendor_case import VendorCase

__all__ = ["StreamChecks"]


class StreamChecks(VendorCase):
    """One connection's protocol, without a socket: each message goes straight to the plugin's own sandbox."""

    def _wanted(self, talk: Talk, wanted: Subscription) -> None:
        """The broker has exactly this subscription."""
        lines = {one: line for line, one in enumerate(talk.bench.instruments)}
        expected = {lines[one]: self.on_wire(mode) for one, mode in wanted.items()}
        assert talk.closed is None, f"the broker closed the socket with {talk.closed}"
        assert talk.modes == expected, f"the broker has another subscription after {talk.sent[-3:]!r:.400}"

    def _mixed(self, bench: Bench) -> Subscription:
        modes = self.modes
        return Subscription({one: modes[place % len(modes)] for place, one in enumerate(bench.instruments[:9])})

    # --- handshake --------------------------------------------------------------------------------

    def test_the_handshake_goes_to_the_stream_url(self) -> None:
        with self.bench() as bench:
            handshake = bench.talk().stream.handshake()
            assert isinstance(handshake, Handshake)
            given, url = urlsplit(bench.settings().stream_url), urlsplit(handshake.url)
            assert (url.scheme, url.hostname, url.port) == (given.scheme, given.hostname, given.port)

    def test_the_broker_takes_the_handshake(self) -> None:
        with self.bench() as bench:
            talk = bench.talk()
            answer = talk.upgrade(talk.stream.handshake())
            assert not isinstance(answer, HttpReply), f"refused: {answer.status} {answer.body!r}"

    def test_a_handshake_after_a_reconnect_is_taken_too(self) -> None:
        with self.bench() as bench:
            wanted = bench.subscription(self.modes[-1], 3)
            talk = bench.opened(wanted)
            for _ in range(3):  # a one-time URL of the first handshake would be refused here
                talk.open(wanted)
                self._wanted(talk, wanted)

    def test_making_a_stream_calls_nobody(self) -> None:
        with self.bench() as bench:
            session = bench.session()
            with without_calls(bench):
                bench.plugin.connect(bench.settings(), session, bench.http)

    def test_a_dead_token_is_noticed_at_the_socket(self) -> None:
        with self.bench() as bench:
            session = bench.session()
            bench.box.expire()
            talk = bench.talk(session)
            try:
                answer = talk.upgrade(talk.stream.handshake())
                if not isinstance(answer, HttpReply):
                    talk.open(bench.subscription(self.modes[-1], 3))
            except (SessionExpired, AuthError):
                return
            assert isinstance(answer, HttpReply) or talk.closed is not None, "a refusal on the socket went unnoticed"
            assert talk.connection is None or talk.modes == {}

    def test_a_wrong_token_is_noticed_at_the_socket(self) -> None:
        with self.bench() as bench:
            talk = bench.talk(attrs.evolve(bench.session(), access_token="no-such-token"))
            try:
                answer = talk.upgrade(talk.stream.handshake())
                if not isinstance(answer, HttpReply):
                    talk.open(bench.subscription(self.modes[-1], 3))
            except (SessionExpired, AuthError):
                return
            assert isinstance(answer, HttpReply) or talk.closed is not None, "a refusal on the socket went unnoticed"

    # --- subscriptions ----------------------------------------------------------------------------

    def test_opening_subscribes_each_instrument_in_its_mode(self) -> None:
        with self.bench() as bench:
            for mode in self.modes:
                wanted = bench.subscription(mode, 5)
                self._wanted(bench.opened(wanted), wanted)
            self._wanted(bench.opened(self._mixed(bench)), self._mixed(bench))

    def test_opening_without_instruments_subscribes_nothing(self) -> None:
        with self.bench() as bench:
            talk = bench.opened(Subscription())
            self._wanted(talk, Subscription())
            talk.change(add=bench.subscription(self.modes[-1], 2))
            self._wanted(talk, bench.subscription(self.modes[-1], 2))

    def test_a_new_socket_gets_the_whole_subscription_again(self) -> None:
        with self.bench() as bench:
            talk = bench.opened(self._mixed(bench))
            first = list(talk.sent)
            talk.open(self._mixed(bench))
            self._wanted(talk, self._mixed(bench))
            assert len(talk.sent) == len(first), "the second socket was told something else than the first one"

    def test_a_new_socket_is_told_nothing_of_an_old_subscription(self) -> None:
        with self.bench() as bench:
            everything = bench.subscription(self.modes[0], 6)
            talk = bench.opened(everything)
            rest = everything - bench.instruments[2:4]
            talk.open(rest)
            self._wanted(talk, rest)

    def test_a_large_subscription_arrives_whole(self) -> None:
        with self.bench(instruments=1200) as bench:
            most = bench.plugin.info.instruments_per_connection
            wanted = Subscription.of(bench.traded()[:most], self.modes[-1])
            self._wanted(bench.opened(wanted), wanted)

    def test_added_instruments_join_the_others(self) -> None:
        with self.bench() as bench:
            for mode in self.modes:
                wanted = self._mixed(bench)
                talk = bench.opened(wanted)
                more = Subscription.of(bench.instruments[10:14], mode)
                talk.change(add=more)
                self._wanted(talk, wanted + more)

    def test_removed_instruments_leave_the_others_alone(self) -> None:
        with self.bench() as bench:
            wanted = self._mixed(bench)
            talk = bench.opened(wanted)
            gone = Subscription({one: wanted[one] for one in bench.instruments[2:6]})
            talk.change(remove=gone)
            self._wanted(talk, wanted - gone)

    def test_a_mode_changes_in_either_direction(self) -> None:
        with self.bench() as bench:
            for before in self.modes:
                for after in self.modes:
                    wanted = bench.subscription(before, 5)
                    talk = bench.opened(wanted)
                    moved = Subscription.of(bench.instruments[1:3], after)
                    talk.change(add=moved)
                    self._wanted(talk, wanted + moved)

    def test_adding_and_removing_in_one_change(self) -> None:
        with self.bench() as bench:
            wanted = self._mixed(bench)
            talk = bench.opened(wanted)
            more = Subscription.of(bench.instruments[12:15], self.modes[0])
            gone = Subscription({one: wanted[one] for one in bench.instruments[:3]})
            talk.change(more, gone)
            self._wanted(talk, wanted - gone + more)

    def test_what_was_removed_can_be_added_again(self) -> None:
        with self.bench() as bench:
            wanted = bench.subscription(self.modes[-1], 4)
            talk = bench.opened(wanted)
            for _ in range(2):
                talk.change(remove=wanted)
                self._wanted(talk, Subscription())
                talk.change(add=wanted)
                self._wanted(talk, wanted)

    def test_a_change_before_the_broker_answered_is_not_lost(self) -> None:
        with self.bench() as bench:
            wanted = bench.subscription(self.modes[-1], 4)
            talk = bench.opened(wanted)
            answer = talk.upgrade(talk.stream.handshake())
            assert not isinstance(answer, HttpReply)
            talk.connection, talk.sent = answer, []
            first = list(talk.stream.opened(wanted))
            more = Subscription.of(bench.instruments[8:10], self.modes[-1])
            second = list(talk.stream.changed(more, Subscription({bench.instruments[0]: self.modes[-1]})))
            talk.say([*first, *second])  # only now does the broker hear, and answer
            self._wanted(talk, wanted - [bench.instruments[0]] + more)

    def test_what_the_broker_has_lost_is_asked_for_once_more(self) -> None:
        with self.bench() as bench:
            wanted = self._mixed(bench)
            talk = bench.opened(wanted)
            assert talk.connection is not None
            talk.connection.modes[:] = 0
            talk.change(add=wanted)  # as the core does with a line that brings nothing
            self._wanted(talk, wanted)

    def test_a_change_of_nothing_says_nothing(self) -> None:
        with self.bench() as bench:
            talk = bench.opened(bench.subscription(self.modes[-1], 4))
            assert list(talk.stream.changed(Subscription(), Subscription())) == []

    def test_removing_what_is_not_there_is_harmless(self) -> None:
        with self.bench() as bench:
            wanted = bench.subscription(self.modes[-1], 4)
            talk = bench.opened(wanted)
            talk.change(remove=Subscription.of(bench.instruments[20:22], self.modes[-1]))
            self._wanted(talk, wanted)

    def test_two_connections_share_nothing(self) -> None:
        with self.bench() as bench:
            one, other = (Subscription.of(bench.instruments[part], self.modes[-1]) for part in (slice(4), slice(4, 9)))
            first, second = bench.opened(one), bench.opened(other)
            first.change(add=Subscription.of(bench.instruments[20:21], self.modes[-1]))
            self._wanted(second, other)
            second.open(other)
            self._wanted(second, other)

    # --- messages of the broker -------------------------------------------------------------------

    def test_market_data_goes_to_the_parser(self) -> None:
        with self.bench() as bench:
            for mode in self.modes:
                talk = bench.opened(bench.subscription(mode))
                assert talk.frames(bench.rows()), "the sandbox sends nothing"  # says so for each message

    def test_a_heartbeat_is_no_data(self) -> None:
        with self.bench() as bench:
            talk = bench.opened(bench.subscription(self.modes[-1], 3))
            assert talk.connection is not None
            beat = talk.connection.heartbeat()
            if beat is not None:
                assert talk.stream.received(beat) is not DATA

    def test_an_order_update_is_an_event(self) -> None:
        with self.bench() as bench:
            talk = bench.opened(bench.subscription(self.modes[-1], 3))
            step = talk.stream.received(bench.box.broker.order_message({}))
            assert isinstance(step, Emit), f"an order update is {step!r}"
            assert step.kind == "order_update"
            assert step.data, "the event holds the order"

    def test_nonsense_ends_no_thread(self) -> None:
        chance = random.Random(1)
        with self.bench() as bench:
            talk = bench.opened(bench.subscription(self.modes[-1], 3))
            texts = [
                "",
                "{",
                "null",
                "[]",
                "0",
                '"x"',
                "[" * 2000,
                '{"t":1}',
                '{"type":null}',
                "<html>502</html>",
                "\ufffd",
            ]
            noise: list[str | bytes] = [*texts, *(chance.randbytes(chance.randrange(300)) for _ in range(300))]
            for message in noise:
                with contextlib.suppress(SessionExpired, AuthError, LineLost):
                    step = talk.stream.received(message)
                    assert isinstance(step, Send | Emit | Plain), f"{step!r} is no step"

    def test_no_event_shows_the_token(self) -> None:
        with self.bench() as bench:
            session = bench.session()
            talk = bench.talk(session)
            talk.open(bench.subscription(self.modes[-1], 3))
            assert session.access_token not in repr(talk.events), "events go to plugins and logs"
            assert session.access_token not in repr(talk.stream)

    def test_the_keepalive_is_a_plan(self) -> None:
        with self.bench() as bench:
            plan = bench.talk().stream.keepalive()
            if plan is not None:
                assert isinstance(plan, KeepAlive)
                assert 0 < plan.period_s < math.inf
                assert 1 <= plan.dead_after_s <= 300, "a dead line would stay for minutes, or a slow one never"
                if plan.text is not None:
                    talk = bench.opened(bench.subscription(self.modes[-1], 3))
                    talk.say([plan.text])
                    self._wanted(talk, bench.subscription(self.modes[-1], 3))
