"""``Instruments``: the master of one broker, searched, against sandboxes of the vendors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from marketfeed import Feed, Historical, Instruments
from marketfeed.contract import Session, Vendor, VendorSettings, secret
from marketfeed.errors import ConfigError, SessionExpired
from marketfeed.hookspecs import hookimpl
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.plugins import Plugins
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

NOON = "2026-11-20 12:00:00"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox("kite", seed=1, start=NOON) as box:
        yield box


@pytest.fixture
def book(box: Sandbox) -> Iterator[Instruments]:
    with Instruments("kite", settings=box.settings(), clock=box.world.clock) as book:
        yield book


def test_a_search_puts_what_is_called_so_first(book: Instruments) -> None:
    calls = book.search("NIFTY", expiry="2026-11-24", type="ce", limit=3)
    assert [one.key for one in calls] == [f"NFO:NIFTY26NOV{strike}CE" for strike in (24600, 24650, 24700)]
    assert [one.key for one in book.search("relia")][:2] == ["NSE:RELIANCE", "NFO:RELIANCE26NOVFUT"]
    assert [one.key for one in book.search("NFO:*FUT", strike=0.0, limit=1)] == ["NFO:NIFTY26NOVFUT"]
    assert {one.exchange for one in book.search(exchange="MCX")} == {"MCX"}
    assert book.search("nosuch") == []
    with pytest.raises(ValueError, match="OPTION"):
        book.search("NIFTY", type="option")


def test_futures_and_chains_of_an_underlying(book: Instruments) -> None:
    assert book.future("NIFTY").key == "NFO:NIFTY26NOVFUT"
    assert book.future("CRUDEOIL", 2).key == "MCX:CRUDEOIL26DECFUT"
    assert [str(day) for day in book.expiries("NIFTY")] == ["2026-11-24"]
    assert book.chain("NIFTY") == book.chain("NIFTY", "2026-11-24")
    assert [one.strike for one in book.chain("NIFTY").around(24_860, 0)] == [24_850.0, 24_850.0]


def test_what_is_not_there_is_an_error_that_says_what_is(book: Instruments) -> None:
    for call, text in (
        (lambda: book.future("NIFTY", 9), "NFO lists 2 futures on NIFTY"),
        (lambda: book.chain("NIFTY", "2026-11-25"), "expiries are 2026-11-24"),
        (lambda: book.chain("NOSUCH"), "no futures or options on 'NOSUCH'"),
        (lambda: book.select("NSE:INFI"), "did you mean 'NSE:INFY'"),
    ):
        with pytest.raises(ConfigError, match=text):
            call()


def test_it_is_a_mapping_by_name(book: Instruments) -> None:
    assert "NSE:INFY" in book
    assert book["NSE:INFY"] == book.get("NSE:INFY")
    assert len(book) == len(list(book)) == len(book.table) == 119
    assert book.sync() is book.table
    assert book.previous() is None


def test_the_same_selection_is_the_same_instrument_at_two_brokers(book: Instruments) -> None:
    chosen = ["@nifty50", "NSE:NIFTY 50", "NFO:NIFTY FUT 1", "NFO:NIFTY OPT ATM+-2"]
    with (
        Sandbox("flattrade", seed=1, start=NOON) as other_box,
        Instruments("flattrade", settings=other_box.settings(), clock=other_box.world.clock) as other,
    ):
        ours, theirs = book.select(chosen), other.select(chosen)
        pairs = dict(list(book.map(other)))
    assert len(ours) == len(theirs) == 50 + 1 + 1 + 10
    assert [pairs[one] for one in ours] == theirs
    assert [one.key for one in ours] == [one.key for one in theirs]


def test_feed_and_history_understand_the_same_selections(box: Sandbox) -> None:
    settings, clock = box.settings(), box.world.clock
    tokens = MemoryTokenStore()
    with Historical("kite", settings=settings, clock=clock, tokens=tokens) as history:
        bars = history.candles("NFO:NIFTY FUT 1", "5m", start="2026-11-20")
    assert set(bars.symbols) == {"NFO:NIFTY26NOVFUT"}
    with Feed("kite", instruments=["NFO:NIFTY OPT ATM+-1"], settings=settings, clock=clock, tokens=tokens) as feed:
        assert len(feed.pipeline.journal.instruments) == 6
        feed.subscribe(["NFO:NIFTY FUT 2"])
        lines = feed.pipeline.lines
        assert lines is not None
        feed.unsubscribe(["NFO:NIFTY FUT 1"])  # which is not subscribed
        assert "NFO:NIFTY26DECFUT" in {one.key for one in lines.wanted}
        feed.unsubscribe(["NFO:NIFTY FUT 2"])
        wanted = lines.wanted
    assert "NFO:NIFTY26DECFUT" not in {one.key for one in wanted}


def test_a_feed_refuses_a_list_that_contradicts_the_master(box: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(
        '[{"symbol": "RELIANCE", "tokens": {"kite": "256265"}}, {"symbol": "LT", "tokens": {"kite": "500510"}}]'
    )
    feed = Feed(
        "kite", instruments=[f"@{path}"], settings=box.settings(), clock=box.world.clock, tokens=MemoryTokenStore()
    )
    with pytest.raises(ConfigError) as error, feed:
        pass
    assert "NSE:RELIANCE: kite token 256265 is wrong, the right one is 738561" in str(error.value)
    assert "NSE:LT: kite token 500510 is wrong, the right one is 2939649" in str(error.value)


@attrs.frozen(kw_only=True)
class ShopSettings(VendorSettings):
    api_key: str = secret(env="SHOP_KEY")


class Shop:
    """A vendor that gives its instruments to customers only, or to everybody."""

    given = 0
    """Masters given since the newest shop opened."""

    def __init__(self, *, public: bool) -> None:
        self.public = public
        Shop.given = 0

    @hookimpl
    def marketfeed_vendor(self) -> Vendor:
        return Vendor(name="shop", title="Shop", settings=ShopSettings)

    @hookimpl
    def marketfeed_instruments(self, session: Session | None) -> InstrumentTable:
        if session is None and not self.public:
            raise SessionExpired("log in")
        Shop.given += 1
        return InstrumentTable([Instrument(exchange="NSE", symbol="INFY", token="1")])

    @hookimpl
    def marketfeed_authenticate(self) -> Session:
        return Session(vendor="shop", account="me", access_token="t")


def shop(folder: Path, *, public: bool, **settings: Any) -> Instruments:
    plugins = Plugins.of(Shop(public=public))
    return Instruments("shop", settings=settings, plugins=plugins, environ={}, folder=folder, tokens=MemoryTokenStore())


def test_credentials_are_asked_for_only_where_the_broker_wants_them(tmp_path: Path) -> None:
    url = {"rest_url": "https://shop.example"}
    assert "NSE:INFY" in shop(tmp_path / "a", public=True, **url)
    with pytest.raises(ConfigError, match="api_key"):
        len(shop(tmp_path / "b", public=False, **url))
    assert "NSE:INFY" in shop(tmp_path / "c", public=False, api_key="k", **url)


@pytest.mark.parametrize("public", [True, False])
def test_sync_asks_the_broker_though_todays_master_is_on_disk(tmp_path: Path, public: bool) -> None:
    book = shop(tmp_path, public=public, rest_url="https://shop.example", api_key="k")
    assert book.table is book.table
    assert len(book.sync()) == len(book.sync()) == 1
    assert Shop.given == 3
