"""A sandbox inside this process: a server on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

from marketfeed.brokers import Credentials, SandboxBroker, SandboxOptions, SandboxWorld
from marketfeed.dtypes import Rows
from marketfeed.instruments import Instrument
from marketfeed.sandbox.log import KINDS, EventLog, SentFrame
from marketfeed.sandbox.world import Options, World

if TYPE_CHECKING:
    from marketfeed.sandbox.faults import Injected
    from marketfeed.sandbox.hub import Filter, Hub
    from marketfeed.sandbox.server import Server

__all__ = ["READY_TOKEN", "Broker", "Sandbox", "make_options"]

Broker = Callable[[SandboxWorld], SandboxBroker]
Result = TypeVar("Result")
READY_TOKEN = "sandbox-access-token"
"""The access token that a :class:`Sandbox` takes without a login, unless told otherwise."""
_ACCOUNT = frozenset(field.name for field in attrs.fields(Credentials))
_KNOWN = frozenset(field.name for field in attrs.fields(Options)) - {"credentials", "vendor_options"}


class Sandbox:
    """A broker on this machine, for tests and experiments.

    ::

        with Sandbox("kite", seed=1, instruments=50, ticks_per_second=200) as box:
            settings = box.settings()      # rest_url, stream_url, api_key, access_token, ...

    ``options`` are the fields of :class:`~marketfeed.sandbox.world.Options` and of
    :class:`~marketfeed.brokers.Credentials`, and the vendor's own (``dialect="a"``);
    ``access_token=None`` demands a login. ``log`` keeps what was sent in memory, ``log_file`` writes it as
    JSON lines; ``log_kinds`` are some of ``requests``, ``ticks``, ``events``. ``broker`` replaces the
    installed plugin of that name. Methods may be called from any thread.
    Raises ``PluginNotFound``, ``ValueError`` for a wrong option, ``OSError`` when the port is taken.
    """

    def __init__(
        self,
        vendor: str,
        *,
        broker: Broker | None = None,
        port: int = 0,
        log: bool = False,
        log_file: Path | None = None,
        log_kinds: Collection[str] = KINDS,
        **options: Any,
    ) -> None:
        options.setdefault("access_token", READY_TOKEN)
        self.vendor = vendor
        self.world = World(make_options(options))
        self.broker = (broker or _plugin_broker(vendor))(self.world)
        _check_vendor_options(self.world.vendor_options, self.broker)
        if self.world.captured is not None:
            self.world.captured.suit(vendor, self.broker)
        self._log = EventLog(log_kinds, keep=log, path=log_file)
        self._wanted_port = port
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> Self:
        """Open the port; the server runs until :meth:`stop`."""
        from marketfeed.sandbox.server import Server

        facts = {"vendor": self.vendor, "seed": self.world.options.seed}
        tokens = [self.broker.token(line) for line in range(len(self.instruments))]
        self._log.begin(tokens, clock_offset_ns=self.clock_offset_ns, **facts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"sandbox-{self.vendor}", daemon=True)
        self._thread.start()
        try:
            self._server = Server(self.world, self.broker, self._log)
            if self.world.options.ca_file is not None:
                self.world.options.ca_file.write_bytes(self.ca_pem or b"")
            self._run(self._server.start(self._wanted_port))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Cut all connections, close the port, end the thread. Doing it twice is harmless."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            if self._server is not None:
                self._run(self._server.stop())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
            self._loop = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- what a client needs ------------------------------------------------------------------

    @property
    def port(self) -> int:
        return self._running.port

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, ``https`` with TLS, without a path."""
        return f"http{'s' if self.world.options.tls else ''}://127.0.0.1:{self.port}"

    @property
    def ca_pem(self) -> bytes | None:
        """The authority behind the sandbox's certificates, for clients that are to trust it; None without TLS."""
        certificates = self._running.certificates
        return certificates.ca_pem if certificates is not None else None

    def settings(self) -> dict[str, Any]:
        """Vendor settings that make a feed use this sandbox."""
        return dict(self.broker.settings(self.url, self.url.replace("http", "ws", 1)))

    @property
    def clock_offset_ns(self) -> int:
        """Sandbox time minus host time, for an :class:`~marketfeed.clock.OffsetClock`."""
        return self.world.clock.offset_ns

    @property
    def instruments(self) -> Sequence[Instrument]:
        """The market's instruments, one per line."""
        return self.world.market.instruments

    # --- what happened ------------------------------------------------------------------------

    @property
    def log(self) -> Sequence[SentFrame]:
        """Every frame of ticks put on the wire so far, oldest first (with ``log``)."""
        return list(self._log.frames)

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """Requests and events so far, oldest first (with ``log``)."""
        return list(self._log.records)

    @property
    def counts(self) -> Counter[str]:
        """``requests``, ``connections``, ``messages``, ``ticks``, ``heartbeats``, ..."""
        return Counter(self._running.hub.counts)

    # --- what can be done to it -----------------------------------------------------------------

    def push(self, rows: Rows) -> None:
        """Send these ``TICK`` rows as they are to whoever is subscribed; ``instrument`` is the line."""
        self._call(lambda: self._running.hub.broadcast(rows, "push"))

    def order(self, **fields: Any) -> int:
        """Send an order update to every connection; returns how many there are."""
        return self._call(lambda: self._running.push_order(fields))

    def drop(self) -> int:
        """Cut every TCP connection without a closing handshake; returns how many."""
        return self._call(lambda: self._running.hub.drop())

    def expire(self) -> None:
        """Let every access token die. Open connections stay open, as far as is known of brokers."""
        self._call(self.broker.expire)

    def fault(self, kind: str, **parameters: Any) -> Injected:
        """Let a fault act from now on: ``box.fault("mute", seconds=7)``, or ``box.fault("mute for 7s")``.

        Kinds and parameters are listed in the reference and at ``GET /sandbox/faults``. The record that is
        returned has no end yet; :attr:`injected` has it later. Raises ``ValueError``.
        """
        from marketfeed.sandbox.faults import make, parse_now

        fault = make(kind, parameters) if parameters else parse_now(kind)
        return self._call(lambda: self._running.fault(fault))

    def clear(self, kind: str | None = None) -> int:
        """End the faults that act now, all or those of a kind; returns how many."""
        return self._call(lambda: self._running.faults.clear(kind))

    @property
    def injected(self) -> Sequence[Injected]:
        """Every fault that was started, oldest first."""
        return list(self._running.faults.injected)

    def set_rate(self, ticks_per_second: float) -> None:
        """Change the pace of invented ticks; 0 stops them."""

        def change() -> None:
            self._running.driver.ticks_per_second = ticks_per_second

        self._call(change)

    def add_filter(self, each: Filter) -> None:
        """Let every outgoing message pass through ``each`` from now on, after earlier filters."""
        self._call(lambda: self._running.hub.filters.append(each))

    @property
    def hub(self) -> Hub:
        """The connections; touch it on the server's thread only."""
        return self._running.hub

    # --- inside -------------------------------------------------------------------------------

    @property
    def _running(self) -> Server:
        if self._server is None:
            raise RuntimeError("the sandbox has not been started; use it in a with statement")
        return self._server

    def _call(self, action: Callable[[], Result]) -> Result:
        """Do something on the server's thread and wait for it."""

        async def wrapped() -> Result:
            return action()

        return self._run(wrapped())

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        if self._loop is None:
            work.close()
            raise RuntimeError("the sandbox is not running; use it in a with statement")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)


def make_options(given: Mapping[str, Any]) -> Options:
    """Options from fields of :class:`Options` and :class:`Credentials` in one mapping; others are the vendor's.

    Raises ``ValueError``.
    """
    account = Credentials(**{name: value for name, value in given.items() if name in _ACCOUNT})
    own = dict(given.get("vendor_options") or {})
    ours = _KNOWN | _ACCOUNT | {"vendor_options"}
    own |= {name: str(value) for name, value in given.items() if name not in ours and value is not None}
    rest = {name: value for name, value in given.items() if name in _KNOWN}
    return Options(credentials=account, vendor_options=own, **rest)


def _check_vendor_options(given: Mapping[str, str], broker: SandboxBroker) -> None:
    names = set(broker.option_names) if isinstance(broker, SandboxOptions) else set()
    unknown = sorted(set(given) - names)
    if unknown:
        choices = ", ".join(sorted(_KNOWN | _ACCOUNT | names))
        raise ValueError(f"unknown options: {', '.join(unknown)}; choose from {choices}")


def _plugin_broker(vendor: str) -> Broker:
    from marketfeed.plugins import Plugins

    return Plugins.discover().vendor(vendor).sandbox
