"""Calls that only have to type-check: the public interface as a user's type checker sees it. Nothing here is run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import assert_type

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed import (
    Candle,
    CandleBatch,
    Exchange,
    Feed,
    Historical,
    Instrument,
    Instruments,
    InstrumentTable,
    Interval,
    Journal,
    MarketFeedError,
    Mode,
    Sink,
    SinkError,
    Tick,
    TickBatch,
    hookimpl,
)
from marketfeed.config import Config, load
from marketfeed.contract import (
    DATA,
    IGNORE,
    BadPacket,
    Emit,
    Event,
    Frame,
    Handshake,
    Http,
    KeepAlive,
    Parsed,
    Parser,
    Send,
    Session,
    Step,
    Stream,
    Subscription,
    TokenStore,
    Vendor,
    VendorSettings,
    base_url,
    secret,
    setting,
)
from marketfeed.dtypes import Flag, empty_ticks
from marketfeed.instruments import TokenMap
from marketfeed.plugins import Plugins
from marketfeed.sandbox import Sandbox

# --- consuming ------------------------------------------------------------------------------------


def consume(feed: Feed) -> None:
    with feed as running:
        assert_type(running, Feed)
        for batch in running:
            assert_type(batch, TickBatch)
            assert_type(batch.where(symbol="INFY"), TickBatch)
            assert_type(batch[1:2], TickBatch)
            assert_type(batch[batch["last_price"] > 5.0], TickBatch)
            assert_type(batch[0], Tick)
            assert_type(batch.mid_price, NDArray[np.float64])
            assert_type(batch.seq, NDArray[np.int64])
            for tick in batch:
                assert_type(tick.last_price, float)
                assert_type(tick.volume, int)
                assert_type(tick.bid_price[0], float)
                assert_type(tick.symbol, str)
                assert_type(tick.describe, Instrument)
        assert_type(running.latest["NSE:INFY"], Tick)
        batches: Iterator[TickBatch] = running.batches(max_rows=10)
        assert_type(next(batches), TickBatch)
    assert_type(feed.stop().lines(), list[str])
    if feed.error is not None:
        raise feed.error


async def consume_in_a_loop(feed: Feed) -> AsyncIterator[float]:
    async with feed as running:
        async for batch in running:
            yield float(batch["last_price"].mean())


def callbacks(feed: Feed) -> None:
    def show(batch: TickBatch) -> None:
        print(len(batch))

    def told(event: Event) -> None:
        print(event.kind, event.data.get("reason"))

    feed.on_batch(show, name="shown")
    feed.on_event(told)
    assert_type(feed.wait(timeout_s=1.0), bool)


def make(box: Sandbox, sink: Sink) -> Sequence[Feed]:
    feed = Feed(
        "kite",
        instruments=["NSE:INFY"],
        mode="full",
        settings=box.settings(),
        sinks=["stdout", sink],
        journal=Path("data"),
        on_error="stop",
    )
    plugins = Plugins.discover()
    config = load("feed.toml", plugins)
    assert_type(config, Config)
    return [feed, Feed.from_config(config, "main", plugins=plugins)]


def history() -> CandleBatch:
    with Historical("kite", settings={"api_key": "k"}) as past:
        bars = past.candles("NSE:INFY", Interval.M1, start=date(2025, 1, 1), end=datetime(2025, 2, 1))
        assert_type(bars, CandleBatch)
        assert_type(bars[0], Candle)
        assert_type(bars[0].close, float)
        assert_type(bars.intervals, list[Interval])
        bars.to_pandas().head()
        return past.candles(["NSE:INFY", "NSE:TCS"], "1d", start="2025-01-01", open_interest=True)


def instruments() -> list[Instrument]:
    with Instruments("kite") as book, Instruments("flattrade") as other:
        assert_type(book.search("NIFTY", expiry=date(2026, 11, 24), type="CE"), list[Instrument])
        assert_type(book.chain("NIFTY").calls[24_000.0], Instrument)
        assert_type(book.chain("NIFTY", "2026-11-24").strikes, tuple[float, ...])
        assert_type(book.future("NIFTY", 1).expiry, date | None)
        for mine, theirs in book.map(other):
            print(mine.key, theirs.token)
        return book.select(["@nifty50", "NFO:NIFTY OPT ATM+-5"])


def journal() -> int:
    with Journal.attach("data/journal/main/ticks") as store, store.reader("mine", start="oldest") as reader:
        batch = reader.take(max_rows=10, wait_s=0.1)
        assert_type(batch, TickBatch)
        reader.commit()
        assert_type(reader.lag, int)
        for one in store.follow(start="newest"):
            return len(one)
    return Journal.memory().committed


# --- a sink ---------------------------------------------------------------------------------------


@attrs.define
class PriceCsv(Sink):
    path: Path
    accepts = frozenset({"ticks", "candles"})

    def position(self, journal: str) -> int | None:
        return None

    def write(self, batch: TickBatch | CandleBatch) -> None:
        if isinstance(batch, TickBatch):
            raise SinkError("not these", rejected=[0])
        raise SinkError("later", retryable=True) from MarketFeedError("no")


@hookimpl
def marketfeed_sinks() -> Mapping[str, type[Sink]]:
    return {"price-csv": PriceCsv}


# --- a vendor -------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AcmeSettings(VendorSettings):
    rest_url: str = base_url("https://api.acme.example")
    user_id: str = setting(env="ACME_USER")
    password: str = secret(env="ACME_PASSWORD")


class AcmeStream:
    def __init__(self, settings: AcmeSettings, session: Session) -> None:
        self.url = f"{settings.stream_url}/?token={session.access_token}"

    def handshake(self) -> Handshake:
        return Handshake(url=self.url, headers={"X-Version": "1"})

    def opened(self, wanted: Subscription) -> Sequence[str | bytes]:
        return [one.token for one in wanted.by_mode()[Mode.FULL]]

    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str | bytes]:
        return [one.token for one in (add - remove) + remove]

    def received(self, data: str | bytes) -> Step:
        if isinstance(data, bytes):
            return DATA
        return IGNORE if data == "hb" else Send(["pong"]) if data == "ping" else Emit("broker_message", {"text": data})

    def keepalive(self) -> KeepAlive | None:
        return KeepAlive(period_s=3.0, text="ping")


class AcmeParser:
    def __init__(self, instruments: TokenMap) -> None:
        self.instruments = instruments

    def __call__(self, frames: Sequence[Frame]) -> Parsed:
        rows = empty_ticks(len(frames))
        rows["instrument"] = self.instruments.numbers(np.zeros(len(frames), np.int64))
        rows["flags"] = Mode.LTP | Flag.VOLUME
        return Parsed(rows, [BadPacket(0, 0, "torn")])


@hookimpl
def marketfeed_vendor() -> Vendor:
    return Vendor(name="acme", title="Acme", settings=AcmeSettings)


@hookimpl
def marketfeed_authenticate(settings: AcmeSettings, tokens: TokenStore, http: Http) -> Session:
    known = tokens.load("acme", settings.user_id)
    return known or Session(vendor="acme", account=settings.user_id, access_token=http.get(settings.login_url).text)


@hookimpl
def marketfeed_instruments() -> InstrumentTable:
    return InstrumentTable([Instrument(exchange=Exchange.NSE, symbol="INFY", token="1")])


@hookimpl
def marketfeed_connect(settings: AcmeSettings, session: Session) -> Stream:
    return AcmeStream(settings, session)


@hookimpl
def marketfeed_parser(instruments: TokenMap) -> Parser:
    return AcmeParser(instruments)
