"""Checks of a vendor's calls over HTTP: login, instruments, candles, limits, TLS, proxy."""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from datetime import date
from typing import Any

import attrs
import numpy as np
import pytest

from marketfeed.brokers import HttpReply
from marketfeed.clock import NS, to_ns
from marketfeed.config.options import options_of
from marketfeed.contract import CandleRequest, Session
from marketfeed.dtypes import CANDLE, Source
from marketfeed.enums import Interval, Kind
from marketfeed.errors import AuthError, LineLost, MarketFeedError, SessionExpired, VendorError
from marketfeed.http import HttpSession
from marketfeed.instruments import InstrumentTable
from marketfeed.testing.bench import Bench, without_calls
from marketfeed.testing.vendor_case import START, VendorCase

__all__ = ["CandleChecks", "LoginChecks", "MasterChecks"]

_DAY_NS = 86_400 * NS
_DEAD_PROXY = "http://127.0.0.1:9"
_BULK = 8


class LoginChecks(VendorCase):
    """From settings to a session."""

    def _works(self, bench: Bench, session: Session) -> None:
        """The broker takes the session, at the socket."""
        talk = bench.talk(session)
        wanted = bench.subscription(self.modes[-1], 2)
        talk.open(wanted)
        assert len(talk.modes) == 2, "the broker does not take the new token"

    def test_a_login_gives_a_session_that_works(self) -> None:
        with self.bench(access_token=None) as bench:
            settings = bench.settings(**self.login(bench.box))
            session = bench.plugin.authenticate(settings, bench.tokens, bench.http)
            assert session.vendor == self.vendor
            assert session.access_token
            self._works(bench, session)

    def test_a_session_is_kept_and_used_again(self) -> None:
        with self.bench(access_token=None) as bench:
            settings = bench.settings(**self.login(bench.box))
            first = bench.plugin.authenticate(settings, bench.tokens, bench.http)
            kept = bench.tokens.load(self.vendor, settings.account)
            assert kept == first, "save it under settings.account: a second login may end the first token"
            with without_calls(bench):
                assert bench.plugin.authenticate(settings, bench.tokens, bench.http) == first

    def test_a_ready_token_leaves_out_the_login(self) -> None:
        with self.bench() as bench, without_calls(bench):
            session = bench.plugin.authenticate(bench.settings(access_token="ready-token"), bench.tokens, bench.http)
            assert session.access_token == "ready-token"

    def test_a_token_that_the_core_forgot_is_not_used_again(self) -> None:
        with self.bench(access_token=None) as bench:
            first = bench.plugin.authenticate(bench.settings(**self.login(bench.box)), bench.tokens, bench.http)
            bench.box.expire()
            bench.tokens.forget(first.vendor, first.account)
            second = bench.plugin.authenticate(bench.settings(**self.login(bench.box)), bench.tokens, bench.http)
            assert second.access_token != first.access_token
            self._works(bench, second)

    def test_a_wrong_secret_is_an_auth_error(self) -> None:
        assert self.wrong_login, "set wrong_login to settings with which the broker refuses the login"
        with self.bench(access_token=None) as bench:
            settings = bench.settings(**{**self.login(bench.box), **self.wrong_login})
            with pytest.raises(AuthError) as raised:
                bench.plugin.authenticate(settings, bench.tokens, bench.http)
            assert str(raised.value).strip(), "the message says what to do"
            assert bench.calls, "the broker was not asked"
            assert bench.tokens.load(self.vendor, settings.account) is None, "a refused login was kept"

    def test_a_refused_login_is_not_repeated(self) -> None:
        with self.bench(access_token=None) as bench:
            settings = bench.settings(**{**self.login(bench.box), **self.wrong_login})
            with pytest.raises(AuthError):
                bench.plugin.authenticate(settings, bench.tokens, bench.http)
            repeated = [endpoint for endpoint, times in Counter(name for name, _ in bench.calls).items() if times > 1]
            assert repeated == [], (
                "brokers count failed logins and lock the account; the core decides about another one"
            )

    def test_missing_credentials_are_named_without_a_call(self) -> None:
        cls = self.plugin.info.settings
        with self.bench(access_token=None) as bench, without_calls(bench):
            without = {name: None for name, one in options_of(cls).items() if one.secret and one.optional}
            settings = attrs.evolve(bench.settings(), **without)
            with pytest.raises(AuthError) as raised:
                bench.plugin.authenticate(settings, bench.tokens, bench.http)
            named = [
                name
                for name, one in options_of(cls).items()
                if name in str(raised.value) or (one.env or name) in str(raised.value)
            ]
            assert named, f"the message names no setting: {raised.value}"

    def test_a_dead_session_is_told_as_such(self) -> None:
        plugin = self.plugin
        if not plugin.info.candle_days:
            pytest.skip("the vendor offers no candles, the only call that needs a session")
        with self.bench() as bench:
            session = bench.session()
            request = request_of(bench, next(iter(plugin.info.candle_days)))
            bench.box.expire()
            with pytest.raises(SessionExpired):
                plugin.fetch_candles(bench.settings(), session, bench.http, request)

    def test_a_broker_without_a_proper_certificate_gets_nothing(self) -> None:
        if importlib.util.find_spec("trustme") is None:
            pytest.skip("needs marketfeed[sandbox-tls]")
        for name in ("self-signed", "wrong-host", "expired"):
            with self.bench(access_token=None, tls=name) as bench:
                settings = bench.settings(access_token=None, **self._given_login())
                for call in (self._log_in, self._fetch_master):
                    with pytest.raises(MarketFeedError):
                        call(bench, settings)
                assert bench.box.counts["requests"] == 0, f"a request reached a broker whose certificate is {name}"

    def test_every_call_goes_through_the_core(self) -> None:
        with self.bench() as bench:
            session = bench.session()
            self._fetch_master(bench, bench.settings())
            for interval in list(self.plugin.info.candle_days)[:1]:
                self.plugin.fetch_candles(bench.settings(), session, bench.http, request_of(bench, interval))
            talked = bench.box.counts["requests"]
            assert len(bench.calls) >= talked, f"{talked} requests, {len(bench.calls)} of them through `http`"

    def test_the_proxy_is_used(self) -> None:
        with self.bench(access_token=None) as bench:
            given = self.login(bench.box)
            before = bench.box.counts["requests"]
            with _proxied(self.vendor) as http:
                bench.http = http
                for call in (self._log_in, self._fetch_master):
                    with pytest.raises(VendorError):  # the proxy is dead
                        call(bench, bench.settings(**given))
            assert bench.box.counts["requests"] == before, "a call went past the proxy"

    def _given_login(self) -> dict[str, Any]:
        """Settings that look complete, for a broker which nobody could log in at."""
        options = options_of(self.plugin.info.settings)
        codes = [name for name in options if name in ("request_token", "request_code")]
        return dict.fromkeys(codes, "a-code")

    def _log_in(self, bench: Bench, settings: Any) -> None:
        bench.plugin.authenticate(settings, bench.tokens, bench.http)

    def _fetch_master(self, bench: Bench, settings: Any) -> None:
        locked = bench.box.world.credentials.access_token is None
        session = Session(vendor=self.vendor, account="x", access_token="x") if locked else bench.session()
        bench.plugin.instruments(settings, session, bench.http)


class MasterChecks(VendorCase):
    """The table of instruments."""

    def _master(self, bench: Bench) -> InstrumentTable:
        return bench.plugin.instruments(bench.settings(), bench.session(), bench.http)

    def test_the_master_holds_what_the_broker_trades(self) -> None:
        with self.bench(instruments=200) as bench:
            table = self._master(bench)
            tokens = {one.token for one in table}
            missing = [one.key for one in bench.instruments if one.token not in tokens]
            assert len(missing) <= len(bench.instruments) // 10, f"not in the master: {missing[:5]}"

    def test_tokens_are_unique(self) -> None:
        with self.bench(instruments=200) as bench:
            twice = [token for token, times in Counter(one.token for one in self._master(bench)).items() if times > 1]
            assert twice == []

    def test_names_are_unique(self) -> None:
        with self.bench(instruments=200) as bench:
            twice = [key for key, times in Counter(one.key for one in self._master(bench)).items() if times > 1]
            assert twice == []

    def test_instruments_say_whose_they_are(self) -> None:
        with self.bench() as bench:
            for one in self._master(bench):
                assert one.vendor == self.vendor
                assert one.token.strip() == one.token != ""
                assert one.symbol.strip() == one.symbol != ""
                assert one.exchange == one.exchange.upper()

    def test_names_are_those_of_the_market(self) -> None:
        with self.bench(instruments=200) as bench:
            table = self._master(bench)
            wrong = []
            for one in bench.instruments:
                found = table.by_token(one.token)
                if found is not None and found.key != one.key:
                    wrong.append((found.key, one.key))
            assert wrong == [], "the same instrument has the same name at every vendor"

    def test_kinds_fit_what_they_say(self) -> None:
        with self.bench(instruments=200) as bench:
            for one in self._master(bench):
                assert one.kind in set(Kind), f"{one.key}: kind {one.kind!r}"
                derived = one.kind in (Kind.FUTURE, Kind.CALL, Kind.PUT)
                assert (one.expiry is not None) == derived, f"{one.key} is of kind {one.kind}, expiry {one.expiry}"
                assert one.expiry is None or isinstance(one.expiry, date)
                assert (one.strike is not None and one.strike > 0) == (one.kind in (Kind.CALL, Kind.PUT)), one.key

    def test_kinds_are_those_of_the_market(self) -> None:
        with self.bench(instruments=200) as bench:
            table = self._master(bench)
            pairs = [(found, one) for one in bench.instruments if (found := table.by_token(one.token)) is not None]
            assert [one.key for found, one in pairs if found.kind != one.kind] == []
            assert [one.key for found, one in pairs if found.expiry != one.expiry] == []
            assert [one.key for found, one in pairs if (found.strike or 0) != (one.strike or 0)] == []

    def test_lots_and_tick_sizes_are_numbers_to_count_with(self) -> None:
        with self.bench(instruments=200) as bench:
            for one in self._master(bench):
                assert isinstance(one.lot_size, int), f"{one.key}: lot size {one.lot_size!r}"
                assert one.lot_size >= (0 if one.kind == Kind.INDEX else 1), f"{one.key}: lot size {one.lot_size}"
                assert math.isfinite(one.tick_size), one.key
                assert 0 <= one.tick_size < 100, f"{one.key}: tick size {one.tick_size}"

    def test_the_master_without_a_session_works_or_says_so(self) -> None:
        with self.bench() as bench:
            try:
                table = bench.plugin.instruments(bench.settings(), None, bench.http)
            except SessionExpired:
                return
            assert len(table) > 0

    def test_a_master_that_is_no_master_is_refused(self) -> None:
        with self.bench() as bench:
            session = bench.session()
            broken = HttpReply(status=200, body=b"<html>maintenance</html>", content_type="text/html")
            bench.box.broker.http = lambda request: broken  # type: ignore[method-assign]
            with pytest.raises(VendorError):
                bench.plugin.instruments(bench.settings(), session, bench.http)

    def test_a_broker_that_is_down_is_a_lost_line(self) -> None:
        with self.bench() as bench:
            session = bench.session()
            down = HttpReply(status=503, body=b"down", content_type="text/plain")
            bench.box.broker.http = lambda request: down  # type: ignore[method-assign]
            with pytest.raises(LineLost):
                bench.plugin.instruments(bench.settings(), session, bench.http)


def _proxied(vendor: str) -> HttpSession:
    """An HTTP session that sends everything to a proxy that is not there. The core's own leaves out loopback
    addresses, such as the sandbox's."""
    http = HttpSession(vendor, sleep=lambda _: None)
    session: Any = http.session
    session._proxies_for = lambda url: {"http": _DEAD_PROXY, "https": _DEAD_PROXY}
    return http


def share_of(bench: Bench) -> int:
    """Line of the first share: some brokers keep no history of indices."""
    return next(line for line, one in enumerate(bench.box.instruments) if one.kind == Kind.EQUITY)


def request_of(
    bench: Bench, interval: Interval, days: float = 1.0, line: int | None = None, **more: Any
) -> CandleRequest:
    """The last days before the sandbox's today; by default of a share."""
    line = share_of(bench) if line is None else line
    end = to_ns(START[:10])
    return CandleRequest(
        instrument=bench.listed(line), interval=interval, start_ns=end - int(days * _DAY_NS), end_ns=end, **more
    )


class CandleChecks(VendorCase):
    """One window of the past at a time."""

    def _intervals(self) -> dict[Interval, int]:
        days = dict(self.plugin.info.candle_days)
        if not days:
            pytest.skip("the vendor offers no candles")
        return days

    def _fetch(self, bench: Bench, request: CandleRequest) -> np.ndarray[Any, Any]:
        batch = bench.plugin.fetch_candles(bench.settings(), bench.session(), bench.http, request)
        return batch.rows

    def test_candles_of_every_interval_are_those_of_the_market(self) -> None:
        with self.bench() as bench:
            for interval, days in self._intervals().items():
                request = request_of(bench, interval, min(days, 4))
                found = self._fetch(bench, request)
                seconds = interval.seconds
                real = bench.box.world.market.candles(share_of(bench), seconds, request.start_ns, request.end_ns)
                assert len(real)
                assert found["start_ns"].tolist() == real["start_ns"].tolist(), f"other bars of {interval}"
                for name in ("open", "high", "low", "close", "volume"):
                    assert np.allclose(found[name], real[name], rtol=0, atol=0.005), f"{name} of {interval}"
                assert (found["interval"] == seconds).all()

    def test_the_window_has_a_start_and_no_end(self) -> None:
        interval = min(self._intervals(), key=lambda one: one.seconds)
        with self.bench() as bench:
            starts = self._fetch(bench, request_of(bench, interval))["start_ns"]
            first, last = int(starts[10]), int(starts[20])
            for begin, end, count in (
                (first, last, 10),
                (first + 1, last + 1, 10),
                (first, first, 0),
                (first, first + 1, 1),
            ):
                if begin < end:
                    part = CandleRequest(
                        instrument=bench.listed(share_of(bench)), interval=interval, start_ns=begin, end_ns=end
                    )
                    found = self._fetch(bench, part)["start_ns"]
                    assert len(found) == count, (
                        f"{len(found)} bars in [{begin - first}, {end - first}) ns after the first"
                    )
                    assert ((found >= begin) & (found < end)).all()

    def test_candles_are_in_order_and_unique(self) -> None:
        with self.bench() as bench:
            for interval in self._intervals():
                found = self._fetch(bench, request_of(bench, interval, 1))
                assert (np.diff(found["start_ns"]) > 0).all()

    def test_candles_are_rows_of_the_vendor(self) -> None:
        interval = next(iter(self._intervals()))
        with self.bench() as bench:
            found = self._fetch(bench, request_of(bench, interval))
            assert found.dtype == CANDLE
            assert (found["source"] == Source.VENDOR).all()
            assert (found["instrument"] == 0).all()
            assert (found["open_interest"] == -1).all(), "nobody asked for open interest"

    def test_the_longest_window_is_taken(self) -> None:
        with self.bench() as bench:
            for interval, days in self._intervals().items():
                found = self._fetch(bench, request_of(bench, interval, days))
                real = request_of(bench, interval, days)
                assert len(found) == len(
                    bench.box.world.market.candles(share_of(bench), interval.seconds, real.start_ns, real.end_ns)
                ), f"{days} days of {interval} do not come whole"

    def test_a_window_without_trading_is_empty(self) -> None:
        interval = min(self._intervals(), key=lambda one: one.seconds)
        sunday = to_ns("2026-11-15")
        with self.bench() as bench:
            request = CandleRequest(
                instrument=bench.listed(share_of(bench)),
                interval=interval,
                start_ns=sunday,
                end_ns=sunday + _DAY_NS,
            )
            assert len(self._fetch(bench, request)) == 0

    def test_a_bulk_of_requests_keeps_the_brokers_pace(self) -> None:
        interval = next(iter(self._intervals()))
        with self.bench(rate_limits=True) as bench:
            session, settings = bench.session(), bench.settings()
            with HttpSession(self.vendor, bench.plugin.info.rate_limits) as http:
                for line in range(min(_BULK, len(bench.instruments))):
                    bench.plugin.fetch_candles(
                        settings, session, http, request_of(bench, interval, line=share_of(bench) + line % 3)
                    )
            assert bench.box.counts["requests_over_limit"] == 0, "rate_limits does not keep the broker's limits"

    def test_candles_that_are_none_are_refused(self) -> None:
        interval = next(iter(self._intervals()))
        with self.bench() as bench:
            session, request = bench.session(), request_of(bench, interval)
            for body in (b"<html>maintenance</html>", b"{", b'{"status":"success","data":{"candles":[["soon",1]]}}'):
                broken = HttpReply(status=200, body=body)
                bench.box.broker.http = lambda request, broken=broken: broken  # type: ignore
                with pytest.raises(VendorError):
                    bench.plugin.fetch_candles(bench.settings(), session, bench.http, request)
