"""The hooks: the manual for plugin authors.

All are called at set-up or rarely, never per tick. Implement the ones you need with ``hookimpl``; an
implementation may name only the arguments it uses. *Vendor* hooks are called on the plugin of the
configured vendor alone, so no implementation tests a vendor name. Do not give an implementation
another name with ``specname``: it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from marketfeed.batches import CandleBatch
    from marketfeed.brokers import SandboxBroker, SandboxWorld
    from marketfeed.clock import Clock
    from marketfeed.contract import (
        CandleRequest,
        Event,
        Http,
        LoginPage,
        Parser,
        QuoteKind,
        Service,
        Session,
        Sink,
        Stream,
        TokenStore,
        Vendor,
    )
    from marketfeed.dtypes import Rows
    from marketfeed.instruments import Instrument, InstrumentTable, TokenMap

__all__ = ["hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("marketfeed")
hookimpl = pluggy.HookimplMarker("marketfeed")


@hookspec
def marketfeed_vendor() -> Vendor:  # type: ignore[empty-body]
    """Describe the broker: name, settings class, modes, limits. Called once, at discovery."""


@hookspec(firstresult=True)
def marketfeed_authenticate(  # type: ignore[empty-body]
    settings: Any, tokens: TokenStore, http: Http, clock: Clock
) -> Session:
    """*Vendor.* Return a session that works, from a given or stored token or by logging in.

    Called before the first connection and once more after ``SessionExpired`` (the stored token was
    forgotten by then). Raise ``AuthError`` when the credentials are wrong or a person is needed; the
    message says what to do. Never loop: the core counts attempts. ``clock`` is the feed's: take the time of
    one-time passwords and of expiry from it.
    """


@hookspec(firstresult=True)
def marketfeed_login_url(settings: Any) -> LoginPage | None:
    """*Vendor, optional.* Where a person logs in with a browser; called by ``marketfeed login``.

    None, or no implementation, where no browser is needed: then ``marketfeed_authenticate`` alone logs in.
    Raise ``AuthError`` when a setting is missing without which the login could not be finished.
    """


@hookspec(firstresult=True)
def marketfeed_instruments(settings: Any, session: Session | None, http: Http) -> InstrumentTable:  # type: ignore[empty-body]
    """*Vendor.* Fetch the instrument master. Called once a day; the core caches the result on disk.

    ``session`` is None where the core has not logged in (``marketfeed check``); raise
    ``SessionExpired`` if the master needs one.
    """


@hookspec(firstresult=True)
def marketfeed_connect(settings: Any, session: Session, http: Http) -> Stream:  # type: ignore[empty-body]
    """*Vendor.* Make the protocol object of one connection. Do not connect: the core does."""


@hookspec(firstresult=True)
def marketfeed_parser(settings: Any, instruments: TokenMap) -> Parser:  # type: ignore[empty-body]
    """*Vendor.* Make a parser for one socket; made anew on every reconnect, so it may keep state.

    ``instruments`` maps vendor tokens to the feed's numbers; it grows when instruments are added.
    """


@hookspec(firstresult=True)
def marketfeed_fetch_candles(settings: Any, session: Session, http: Http, request: CandleRequest) -> CandleBatch:  # type: ignore[empty-body]
    """*Vendor.* Fetch one window, never longer than ``Vendor.candle_days`` allows.

    Return candles whose start lies in ``[request.start_ns, request.end_ns)``, oldest first, with
    ``instrument`` 0 meaning ``request.instrument``. A running bar is flagged partial or left out.
    """


@hookspec(firstresult=True)
def marketfeed_quotes(  # type: ignore[empty-body]
    settings: Any, session: Session, http: Http, instruments: Sequence[Instrument], kind: QuoteKind
) -> Rows:
    """*Vendor, optional.* Ask for the present state of any number of instruments, in as many requests as needed.

    Return rows of ``TICK``, with ``instrument`` the index in ``instruments``, in that order; one that the
    broker does not know is left out. The core fills ``received_ns``.
    """


@hookspec(firstresult=True)
def marketfeed_sandbox(world: SandboxWorld) -> SandboxBroker:  # type: ignore[empty-body]
    """*Vendor.* Describe the broker's side, for a sandbox server on this machine."""


@hookspec
def marketfeed_sinks() -> Mapping[str, type[Sink]]:  # type: ignore[empty-body]
    """Name -> sink class. Called once, at discovery; a name given twice is a ``PluginError``."""


@hookspec
def marketfeed_services() -> Mapping[str, type[Service]]:  # type: ignore[empty-body]
    """Name -> service class, for things that run beside a feed. Called once, at discovery."""


@hookspec
def marketfeed_event(event: Event) -> None:
    """Something happened. Called on one thread of the feed, from a bounded queue that drops the oldest
    (counted); an implementation that raises is logged and the others still run."""
