"""A vendor plugin on the bench: its sandbox runs, its HTTP is counted, its protocol talks without a socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import attrs
import numpy as np

from marketfeed import config
from marketfeed.brokers import HttpReply, HttpRequest, SandboxConnection, SandboxMemory
from marketfeed.contract import DATA, Emit, Frame, Handshake, Parsed, Parser, Send, Session, Step, Stream, Subscription
from marketfeed.dtypes import Rows
from marketfeed.enums import Mode
from marketfeed.http import HttpSession
from marketfeed.instruments import Instrument, InstrumentTable, TokenMap
from marketfeed.plugins import Plugins, VendorPlugin
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

__all__ = ["Bench", "Talk"]

_MOST_ROUNDS = 1000
"""Of one dialogue: more means that client and broker answer each other for ever."""


class Bench:
    """One vendor with a running sandbox that sends no ticks by itself. Use it in a ``with`` statement.

    ``given`` are settings above those that the sandbox hands out.
    """

    def __init__(self, plugins: Plugins, vendor: str, box: Sandbox, given: Mapping[str, Any]) -> None:
        self.plugins = plugins
        self.plugin: VendorPlugin = plugins.vendor(vendor)
        self.box = box
        self.given = given
        self.calls: list[tuple[str, int]] = []
        """Endpoint and status of each HTTP call that went through the core"""
        self.http = HttpSession(vendor, sleep=lambda _: None, on_call=self._called)
        self.tokens = MemoryTokenStore()
        self._table: InstrumentTable | None = None

    def __enter__(self) -> Self:
        self.box.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.box.stop()

    def _called(self, vendor: str, endpoint: str, status: int, seconds: float) -> None:
        del vendor, seconds
        self.calls.append((endpoint, status))

    def settings(self, **changes: Any) -> Any:
        """Settings for the sandbox, through the configuration, as a TOML table would give them."""
        return settings_of(self.plugins, self.plugin.info.name, {**self.box.settings(), **self.given, **changes})

    def session(self) -> Session:
        """A session that the sandbox takes."""
        return self.plugin.authenticate(self.settings(), self.tokens, self.http)

    @property
    def instruments(self) -> list[Instrument]:
        """Those of the sandbox, under the vendor's tokens; the index is the line."""
        name, token = self.plugin.info.name, self.box.broker.token
        return [attrs.evolve(one, token=token(line), vendor=name) for line, one in enumerate(self.box.instruments)]

    def token_map(self, instruments: Iterable[Instrument] | None = None) -> TokenMap:
        """Tokens to lines."""
        chosen = None if instruments is None else set(instruments)
        return TokenMap(
            {one.token: line for line, one in enumerate(self.instruments) if chosen is None or one in chosen}
        )

    def parser(self, tokens: TokenMap | None = None) -> Parser:
        return self.plugin.parser(self.settings(), self.token_map() if tokens is None else tokens)

    def talk(self, session: Session | None = None) -> Talk:
        """A connection that is not open yet."""
        settings = self.settings()
        return Talk(self, self.plugin.connect(settings, session or self.session(), self.http))

    def opened(self, wanted: Subscription) -> Talk:
        """A connection, subscribed."""
        talk = self.talk()
        talk.open(wanted)
        return talk

    def listed(self, line: int) -> Instrument:
        """An instrument as the vendor's master has it, with the names that its calls need."""
        if self._table is None:
            self._table = self.plugin.instruments(self.settings(), self.session(), self.http)
        token = self.box.broker.token(line)
        found = self._table.by_token(token)
        assert found is not None, f"the master has no token {token}"
        return found

    def traded(self) -> list[Instrument]:
        """Those of the sandbox that stand in the vendor's master."""
        tokens = {one.token for one in self.plugin.instruments(self.settings(), self.session(), self.http)}
        return [one for one in self.instruments if one.token in tokens]

    def subscription(self, mode: Mode, count: int | None = None) -> Subscription:
        """The first ``count`` instruments of the sandbox."""
        return Subscription.of(self.instruments[:count], mode)

    def rows(self, lines: Sequence[int] | None = None) -> Rows:
        """The next tick of each line, as the market invents it."""
        chosen = np.arange(len(self.box.instruments)) if lines is None else np.array(lines, np.int64)
        return self.box.world.simulated.advance(chosen, self.box.world.now_ns())


class Talk:
    """A stream and the broker's side of its WebSocket, talking to each other without a socket."""

    def __init__(self, bench: Bench, stream: Stream) -> None:
        self.bench = bench
        self.stream = stream
        self.connection: SandboxConnection | None = None
        self.sent: list[str | bytes] = []
        """By the client, on the present socket"""
        self.steps: list[Step] = []
        self.data: list[str | bytes] = []
        """Messages that the stream takes for market data, and has handed to the parser"""
        self.closed: int | None = None

    def upgrade(self, handshake: Handshake) -> HttpReply | SandboxConnection:
        """The broker's answer to a request for a WebSocket."""
        parts = urlsplit(handshake.url)
        request = HttpRequest(
            method="GET",
            path=unquote(parts.path) or "/",
            raw_query=parts.query,
            headers={name.lower(): value for name, value in handshake.headers.items()},
        )
        return self.bench.box.broker.upgrade(request, 0)

    def open(self, wanted: Subscription) -> None:
        """A new socket, as after each reconnect. Fails where the broker refuses the handshake."""
        answer = self.upgrade(self.stream.handshake())
        assert not isinstance(answer, HttpReply), f"the broker refuses the handshake: {answer.status} {answer.body!r}"
        self.connection, self.closed, self.sent, self.data = answer, None, [], []
        self.hear(answer.opened())
        self.say(self.stream.opened(wanted))

    def change(self, add: Subscription | None = None, remove: Subscription | None = None) -> None:
        self.say(self.stream.changed(add or Subscription(), remove or Subscription()))

    def say(self, messages: Iterable[str | bytes]) -> None:
        """Hand messages to the broker, and answers to the stream, until both are silent."""
        waiting = list(messages)
        assert self.connection is not None
        for _ in range(_MOST_ROUNDS):
            if not waiting or self.closed is not None:
                return
            message = waiting.pop(0)
            assert isinstance(message, str | bytes), f"a message is text or bytes, not {type(message).__name__}"
            self.sent.append(message)
            reaction = self.connection.received(message)
            waiting += self.hear(reaction.messages)
            if len(reaction.snapshot):
                rows = self.bench.box.world.market.snapshot(reaction.snapshot)
                waiting += self.hear(one.data for one in self.connection.encode(rows, snapshot=True))
            self.closed = reaction.close
        raise AssertionError(f"{_MOST_ROUNDS} messages and no end; the last one: {self.sent[-1]!r}")

    def hear(self, messages: Iterable[str | bytes]) -> list[str | bytes]:
        """What the stream answers to messages of the broker."""
        answers: list[str | bytes] = []
        for message in messages:
            step = self.stream.received(message)
            self.steps.append(step)
            if step is DATA:
                self.data.append(message)
            elif isinstance(step, Send):
                answers += step.messages
        return answers

    def frames(self, rows: Rows, *, received_ns: int | None = None) -> list[Frame]:
        """Rows of subscribed lines as the broker sends them."""
        assert self.connection is not None
        at = self.bench.box.world.now_ns() if received_ns is None else received_ns
        encoded = [one.data for one in self.connection.encode(rows, snapshot=False)]
        for one in encoded:
            assert self.stream.received(one) is DATA, f"the stream does not take this for data: {one!r:.200}"
        self.data += encoded
        return [frame_of(one, at + number) for number, one in enumerate(encoded)]

    def parser(self, tokens: TokenMap | None = None) -> Parser:
        """A parser that read all data of this socket so far: a message may only tell what changed."""
        parser = self.bench.parser(tokens)
        now = self.bench.box.world.now_ns()
        parser([frame_of(one, now) for one in self.data])
        return parser

    def forget(self) -> None:
        """What this client knows is unsure: the broker tells everything again, where it tells changes only."""
        if isinstance(self.connection, SandboxMemory):
            self.connection.forget()

    @property
    def modes(self) -> dict[int, Mode]:
        """Line -> mode, as the broker has it."""
        assert self.connection is not None
        return {line: Mode(int(mode)) for line, mode in enumerate(self.connection.modes) if mode}

    @property
    def events(self) -> list[Emit]:
        return [one for one in self.steps if isinstance(one, Emit)]


def frame_of(data: str | bytes, received_ns: int) -> Frame:
    """A message as the reader thread hands it over."""
    text = isinstance(data, str)
    return Frame(data.encode() if isinstance(data, str) else data, received_ns, text)


def settings_of(
    plugins: Plugins, vendor: str, table: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> Any:
    """What the configuration makes of ``[vendors.NAME]``. Raises ``ConfigError``."""
    values = {
        "feeds": {"main": {"vendor": vendor, "instruments": ["NSE:RELIANCE"]}},
        "vendors": {vendor: dict(table)},
    }
    return config.build(values, plugins, environ or {}).vendors[vendor].settings


def parsed(parser: Parser, frames: Sequence[Frame]) -> Parsed:
    """One call, with what every call must keep to."""
    result = parser(frames)
    assert result.rows.ndim == 1, "rows are one-dimensional"
    for bad in result.bad:
        assert 0 <= bad.frame < len(frames), f"{bad} names a frame that was not given"
        assert 0 <= bad.offset <= len(frames[bad.frame].data), f"{bad} lies outside its frame"
        assert bad.reason, "a bad packet says why"
    return result


@contextlib.contextmanager
def without_calls(bench: Bench) -> Iterator[None]:
    """Nothing in here may call the broker."""
    before = list(bench.calls)
    yield
    assert bench.calls == before, f"the broker was called: {bench.calls[len(before) :]}"
