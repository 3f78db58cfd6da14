"""The kit for vendors finds what it promises to find: each bug planted into the Kite plugin is caught by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import marketfeed_kite as kite
import numpy as np
import pytest
import requests
from marketfeed_kite.parser import KiteParser
from marketfeed_kite.settings import KiteSettings
from marketfeed_kite.stream import KiteStream

from marketfeed.batches import CandleBatch
from marketfeed.contract import DATA, IGNORE, Frame, Handshake, Parsed, RateLimit, Session, Step, Subscription, Vendor
from marketfeed.dtypes import Flag
from marketfeed.errors import AuthError, ConfigError
from marketfeed.hookspecs import hookimpl
from marketfeed.instruments import Instrument, InstrumentTable, TokenMap
from marketfeed.plugins import Plugins
from marketfeed.testing import VendorContract
from marketfeed.testing.case import _checks

DOCUMENTATION = "".join(f"`{field.name}` " for field in attrs.fields(KiteSettings))
HOUR_NS = 3600 * 10**9


class Sound:
    """Kite as it is; a bug replaces one of these methods."""

    def describe(self) -> Vendor:
        return kite.marketfeed_vendor()

    def log_in(self, settings: Any, tokens: Any, http: Any) -> Session:
        return kite.marketfeed_authenticate(settings, tokens, http)

    def master(self, settings: Any, session: Any, http: Any) -> InstrumentTable:
        return kite.marketfeed_instruments(settings, session, http)

    def stream(self, settings: Any, session: Any) -> Any:
        return kite.marketfeed_connect(settings, session)

    def parser(self, tokens: TokenMap) -> Callable[[Sequence[Frame]], Parsed]:
        return kite.marketfeed_parser(tokens)

    def candles(self, settings: Any, session: Any, http: Any, request: Any) -> CandleBatch:
        return kite.marketfeed_fetch_candles(settings, session, http, request)

    @hookimpl
    def marketfeed_vendor(self) -> Vendor:
        return self.describe()

    @hookimpl
    def marketfeed_authenticate(self, settings: Any, tokens: Any, http: Any) -> Session:
        return self.log_in(settings, tokens, http)

    @hookimpl
    def marketfeed_instruments(self, settings: Any, session: Any, http: Any) -> InstrumentTable:
        return self.master(settings, session, http)

    @hookimpl
    def marketfeed_connect(self, settings: Any, session: Any) -> Any:
        return self.stream(settings, session)

    @hookimpl
    def marketfeed_parser(self, instruments: TokenMap) -> Any:
        return self.parser(instruments)

    @hookimpl
    def marketfeed_fetch_candles(self, settings: Any, session: Any, http: Any, request: Any) -> CandleBatch:
        return self.candles(settings, session, http, request)

    @hookimpl
    def marketfeed_sandbox(self, world: Any) -> Any:
        return kite.marketfeed_sandbox(world)


BUGS: list[tuple[str, type[Sound]]] = []


def caught_by(check: str) -> Callable[[type[Sound]], type[Sound]]:
    """Plant a bug; the check that must find it."""

    def plant(cls: type[Sound]) -> type[Sound]:
        BUGS.append((check, cls))
        return cls

    return plant


def in_stream(check: str) -> Callable[[type[KiteStream]], type[KiteStream]]:
    """The same for a bug of the stream."""

    def plant(cls: type[KiteStream]) -> type[KiteStream]:
        body = {"stream": lambda self, settings, session: cls(settings, session)}
        BUGS.append((check, type(cls.__name__, (Sound,), body)))
        return cls

    return plant


def in_parser(check: str) -> Callable[[type[KiteParser]], type[KiteParser]]:
    """The same for a bug of the parser."""

    def plant(cls: type[KiteParser]) -> type[KiteParser]:
        BUGS.append((check, type(cls.__name__, (Sound,), {"parser": lambda self, tokens: cls(tokens)})))
        return cls

    return plant


# --- stream -------------------------------------------------------------------------------------------


@in_stream("test_a_handshake_after_a_reconnect_is_taken_too")
class ItsUrlIsGoodOnce(KiteStream):
    _used = False

    def handshake(self) -> Handshake:
        found = super().handshake()
        used, self._used = self._used, True
        return Handshake(url=found.url.replace("access_token=", "access_token=used-")) if used else found


@in_stream("test_a_new_socket_gets_the_whole_subscription_again")
class RemembersTheOldSocket(KiteStream):
    def opened(self, wanted: Subscription) -> Sequence[str]:
        return self.changed(wanted - self._subscribed, Subscription())


@in_stream("test_what_the_broker_has_lost_is_asked_for_once_more")
class AsksOnlyOnce(KiteStream):
    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str]:
        known = [one for one, mode in add.items() if self._subscribed.get(one) == mode]
        return super().changed(add - known, remove)


@in_stream("test_removed_instruments_leave_the_others_alone")
class NeverUnsubscribes(KiteStream):
    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str]:
        return super().changed(add, Subscription())


@in_stream("test_opening_subscribes_each_instrument_in_its_mode")
class LeavesTheModeToTheBroker(KiteStream):
    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str]:
        return [one for one in super().changed(add, remove) if '"mode"' not in one]


@in_stream("test_a_large_subscription_arrives_whole")
class SendsOnlyTheFirstMessages(KiteStream):
    def opened(self, wanted: Subscription) -> Sequence[str]:
        return super().opened(wanted)[:2]


@in_stream("test_a_change_of_nothing_says_nothing")
class AlwaysHasSomethingToSay(KiteStream):
    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str]:
        return [*super().changed(add, remove), '{"a":"subscribe","v":[]}']


@in_stream("test_a_heartbeat_is_no_data")
class ParsesHeartbeats(KiteStream):
    def received(self, data: str | bytes) -> Step:
        return DATA if isinstance(data, bytes) else super().received(data)


@in_stream("test_an_order_update_is_an_event")
class IgnoresOrders(KiteStream):
    def received(self, data: str | bytes) -> Step:
        return IGNORE if isinstance(data, str) else super().received(data)


@in_stream("test_nonsense_ends_no_thread")
class TrustsTheBroker(KiteStream):
    def received(self, data: str | bytes) -> Step:
        if isinstance(data, str) and not data.startswith("{"):
            raise ValueError(data)
        return super().received(data)


# --- parser -------------------------------------------------------------------------------------------


@in_parser("test_prices_are_rupees")
class GivesPaise(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        found.rows["last_price"] *= 100
        return found


@in_parser("test_times_are_utc")
class GivesIndiaTime(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        found.rows["exchange_ns"] += 11 * HOUR_NS // 2
        return found


@in_parser("test_an_unknown_token_is_minus_one")
class TakesUnknownTokensForTheFirst(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        found.rows["instrument"] = np.maximum(found.rows["instrument"], 0)
        return found


@in_parser("test_received_ns_is_that_of_the_frame")
class StampsAllFramesAlike(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        found.rows["received_ns"] = frames[0].received_ns if frames else 0
        return found


@in_parser("test_rows_are_private_and_writeable")
class GivesReadOnlyRows(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        found.rows.flags.writeable = False
        return found


@in_parser("test_a_new_parser_knows_nothing_of_the_last_one")
class KeepsItsStateInTheClass(KiteParser):
    seen: ClassVar[set[bytes]] = set()

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        new = [frame for frame in frames if frame.data not in self.seen]
        self.seen.update(frame.data for frame in frames)
        return super().__call__(new)


@in_parser("test_a_frame_cut_anywhere_raises_nothing")
class RaisesForDamage(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        if found.bad:
            raise ValueError(found.bad[0].reason)
        return found


@in_parser("test_a_cut_frame_is_reported")
class HidesDamage(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        return Parsed(super().__call__(frames).rows)


@in_parser("test_a_cut_frame_costs_no_other")
class ThrowsAwayTheWholeCall(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        return Parsed(found.rows[:0], found.bad) if found.bad else found


@in_parser("test_group_bits_say_what_a_row_carries")
class ForgetsAGroupBit(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        found.rows["flags"] &= ~np.uint32(Flag.OHLC)
        return found


@in_parser("test_rows_hold_what_the_broker_sent")
class SwapsBidAndAsk(KiteParser):
    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        bids = found.rows["bid_quantity"].copy()
        found.rows["bid_quantity"], found.rows["ask_quantity"] = found.rows["ask_quantity"], bids
        return found


@in_parser("test_a_token_that_is_added_later_is_known")
class CopiesTheTokenMap(KiteParser):
    def __init__(self, instruments: TokenMap) -> None:
        super().__init__(TokenMap(dict(instruments)))


@in_parser("test_a_token_with_a_new_number_gets_it")
class NumbersEachTokenOnce(KiteParser):
    def __init__(self, instruments: TokenMap) -> None:
        super().__init__(TokenMap(dict(instruments)))
        self.given = instruments

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        self._instruments.add({one: number for one, number in self.given.items() if one not in self._instruments})
        return super().__call__(frames)


@in_parser("test_a_feed_loses_nothing_over_drops")
class LosesEveryTwentiethCall(KiteParser):
    calls: ClassVar[Iterator[int]] = iter(range(10**9))

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        found = super().__call__(frames)
        return Parsed(found.rows[:0]) if next(self.calls) % 20 == 19 else found


# --- settings and login -------------------------------------------------------------------------------


def described(**changes: Any) -> Callable[[Sound], Vendor]:
    return lambda _: attrs.evolve(kite.marketfeed_vendor(), **changes)


@caught_by("test_every_hook_of_a_vendor_is_there")
class HasNoSandbox(Sound):
    marketfeed_sandbox = None  # type: ignore[assignment]


@attrs.frozen(kw_only=True)
class Telling(KiteSettings):
    """Shows its key."""

    api_key: str = attrs.field()
    """Key of the app"""


@attrs.frozen(kw_only=True)
class More(KiteSettings):
    """With a setting that nobody knows."""

    turbo: bool = False
    """Faster"""


@caught_by("test_secret_settings_are_marked")
class ShowsItsKey(Sound):
    describe = described(settings=Telling)


@caught_by("test_every_setting_is_documented")
class HasASettingThatNobodyKnows(Sound):
    describe = described(settings=More)


@caught_by("test_a_session_is_kept_and_used_again")
class KeepsNoSession(Sound):
    def log_in(self, settings: Any, tokens: Any, http: Any) -> Session:
        found = super().log_in(settings, tokens, http)
        tokens.forget("kite", settings.account)
        return found


@caught_by("test_a_wrong_secret_is_an_auth_error")
class LogsInWithoutAsking(Sound):
    def log_in(self, settings: Any, tokens: Any, http: Any) -> Session:
        return Session(vendor="kite", account=settings.account, access_token="x")


@caught_by("test_a_ready_token_leaves_out_the_login")
class AsksForAProfileFirst(Sound):
    def log_in(self, settings: Any, tokens: Any, http: Any) -> Session:
        http.get(f"{settings.rest_url}/user/profile")
        return super().log_in(settings, tokens, http)


@caught_by("test_secrets_do_not_show_when_a_login_fails")
class TellsItsSecret(Sound):
    def log_in(self, settings: Any, tokens: Any, http: Any) -> Session:
        raise AuthError(f"{settings.api_secret} was refused")


@caught_by("test_a_broker_without_a_proper_certificate_gets_nothing")
class VerifiesNothing(Sound):
    def master(self, settings: Any, session: Any, http: Any) -> InstrumentTable:
        requests.get(f"{settings.rest_url}/instruments", verify=False, timeout=10)
        return super().master(settings, session, http)


@caught_by("test_the_proxy_is_used")
class GoesPastTheProxy(Sound):
    def master(self, settings: Any, session: Any, http: Any) -> InstrumentTable:
        requests.get(f"{settings.rest_url}/instruments", timeout=10)
        return super().master(settings, session, http)


# --- instruments and candles --------------------------------------------------------------------------


class ChangedMaster(Sound):
    def change(self, one: Instrument) -> Mapping[str, Any]:
        raise NotImplementedError

    def master(self, settings: Any, session: Any, http: Any) -> InstrumentTable:
        return InstrumentTable(attrs.evolve(one, **self.change(one)) for one in super().master(settings, session, http))


@caught_by("test_tokens_are_unique")
class CutsTokens(ChangedMaster):
    def change(self, one: Instrument) -> Mapping[str, Any]:
        return {"token": one.token[:3]}


@caught_by("test_lots_and_tick_sizes_are_numbers_to_count_with")
class HasLotsOfNothing(ChangedMaster):
    def change(self, one: Instrument) -> Mapping[str, Any]:
        return {"lot_size": 0}


@caught_by("test_kinds_fit_what_they_say")
class LosesExpiries(ChangedMaster):
    def change(self, one: Instrument) -> Mapping[str, Any]:
        return {"expiry": None}


@caught_by("test_the_window_has_a_start_and_no_end")
class TakesTheEndToo(Sound):
    def candles(self, settings: Any, session: Any, http: Any, request: Any) -> CandleBatch:
        return super().candles(settings, session, http, attrs.evolve(request, end_ns=request.end_ns + 60 * 10**9))


@caught_by("test_candles_are_in_order_and_unique")
class BeginsWithTheNewest(Sound):
    def candles(self, settings: Any, session: Any, http: Any, request: Any) -> CandleBatch:
        found = super().candles(settings, session, http, request)
        return CandleBatch(found.rows[::-1].copy(), found.origin)


@caught_by("test_the_longest_window_is_taken")
class PromisesTooManyDays(Sound):
    describe = described(
        candle_days={interval: 2 * days for interval, days in kite.marketfeed_vendor().candle_days.items()}
    )


@caught_by("test_a_bulk_of_requests_keeps_the_brokers_pace")
class IsInAHurry(Sound):
    describe = described(rate_limits=(RateLimit("/", 1000),))


@pytest.mark.parametrize(("check", "buggy"), BUGS, ids=[buggy.__name__ for _, buggy in BUGS])
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_a_planted_bug_is_caught(check: str, buggy: type[Sound]) -> None:
    class Case(Contract):
        found = Plugins.of(buggy())
        patience_s = 10.0

    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        getattr(Case(), check)()
    assert not isinstance(caught.value, NotImplementedError | AttributeError | TypeError | ConfigError)
    print(f"{buggy.__name__}: {str(caught.value).splitlines()[:1]}")


class Contract(VendorContract):
    vendor = "kite"
    wrong_login = {"api_secret": "wrong"}
    documentation = DOCUMENTATION

    def login(self, box: Any) -> Mapping[str, Any]:
        world, login = box.world, box.broker.login
        token = world.new_token()
        login._request_tokens[token] = world.now_ns()  # what the pages in the browser would hand out
        return {"request_token": token}


@pytest.mark.parametrize("check", sorted({check for check, _ in BUGS} - {"test_a_feed_loses_nothing_over_drops"}))
def test_without_a_bug_the_same_check_passes(check: str) -> None:
    class Case(Contract):
        found = Plugins.of(Sound())

    getattr(Case(), check)()


def test_there_are_enough_of_both() -> None:
    assert len(_checks(VendorContract)) >= 40
    assert len({check for check, _ in BUGS}) >= 15
