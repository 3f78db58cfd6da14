"""The plugins of a process, and calling one of them: a broken plugin is reported and stops nobody."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import attrs
import numpy as np

from marketfeed.batches import CandleBatch
from marketfeed.clock import Clock
from marketfeed.contract import LoginPage, Service, Session, Sink, Stream, Vendor, VendorSettings
from marketfeed.dtypes import TICK, Rows
from marketfeed.errors import MarketFeedError, PluginError, PluginLoadError, PluginNotFound
from marketfeed.instruments import InstrumentTable
from marketfeed.plugins.discovery import (
    CORE,
    GROUP,
    BrokenPlugin,
    Provider,
    error_text,
    load_entry_points,
    load_objects,
)

if TYPE_CHECKING:
    from marketfeed.brokers import SandboxBroker, SandboxWorld
    from marketfeed.contract import CandleRequest, Event, Http, Parser, QuoteKind, TokenStore
    from marketfeed.instruments import Instrument, TokenMap

__all__ = ["DISABLE", "EXTRAS", "GROUP", "BrokenPlugin", "Plugins", "Provider", "VendorPlugin"]

DISABLE = "MARKETFEED_DISABLE_PLUGINS"
"""Environment variable: entry-point names not to load, comma separated; ``*`` leaves the core's own."""
EXTRAS = ("kite", "mstock", "flattrade", "kafka", "postgres", "redis", "rabbitmq", "parquet")
"""Plugins that are an extra of the core: ``pip install 'marketfeed[kite]'``."""
_STREAM_METHODS = ("handshake", "opened", "changed", "received", "keepalive")
_SECRET_LENGTH = 4  # shorter values would blank out ordinary words
_log = logging.getLogger(__name__)
Thing = TypeVar("Thing")
Given = list[tuple[str, Any, Provider]]


@attrs.frozen(eq=False)
class VendorPlugin:
    """One vendor: its description, and its hooks, each called on this plugin alone.

    Errors of marketfeed's own tree pass through; any other exception of a hook, a missing
    implementation and a result of the wrong type are a ``PluginError`` that names the distribution.
    """

    info: Vendor
    provider: Provider

    def authenticate(self, settings: Any, tokens: TokenStore, http: Http, clock: Clock | None = None) -> Session:
        """``clock`` is the host's when it is not given."""
        clock = clock or Clock()
        result = self._call("marketfeed_authenticate", settings=settings, tokens=tokens, http=http, clock=clock)
        return self._typed("marketfeed_authenticate", result, Session)

    def login_page(self, settings: Any) -> LoginPage | None:
        """Where a person logs in with a browser; None where the vendor needs none."""
        hook = "marketfeed_login_url"
        if not self.offers(hook):
            return None
        result = self._call(hook, none_is_fine=True, settings=settings)
        return None if result is None else self._typed(hook, result, LoginPage)

    def instruments(self, settings: Any, session: Session | None, http: Http) -> InstrumentTable:
        result = self._call("marketfeed_instruments", settings=settings, session=session, http=http)
        return self._typed("marketfeed_instruments", result, InstrumentTable)

    def connect(self, settings: Any, session: Session, http: Http) -> Stream:
        result = self._call("marketfeed_connect", settings=settings, session=session, http=http)
        missing = [name for name in _STREAM_METHODS if not callable(getattr(result, name, None))]
        if missing:
            raise self._wrong("marketfeed_connect", result, f"a Stream (no {', '.join(missing)})")
        return cast("Stream", result)

    def parser(self, settings: Any, token_map: TokenMap) -> Parser:
        result = self._call("marketfeed_parser", settings=settings, instruments=token_map)
        if not callable(result):
            raise self._wrong("marketfeed_parser", result, "a callable")
        return cast("Parser", result)

    def fetch_candles(self, settings: Any, session: Session, http: Http, request: CandleRequest) -> CandleBatch:
        hook = "marketfeed_fetch_candles"
        result = self._call(hook, settings=settings, session=session, http=http, request=request)
        return self._typed(hook, result, CandleBatch)

    def quotes(
        self, settings: Any, session: Session, http: Http, instruments: Sequence[Instrument], kind: QuoteKind
    ) -> Rows:
        given = {"settings": settings, "session": session, "http": http, "instruments": instruments, "kind": kind}
        result = self._call("marketfeed_quotes", **given)
        if not isinstance(result, np.ndarray) or result.dtype != TICK:
            raise self._wrong("marketfeed_quotes", result, "rows of TICK")
        return result

    def sandbox(self, world: SandboxWorld) -> SandboxBroker:
        return cast("SandboxBroker", self._call("marketfeed_sandbox", world=world))

    def offers(self, hook: str) -> bool:
        """Whether the plugin implements that hook, such as ``marketfeed_fetch_candles``."""
        return self.provider.has(hook)

    def _call(self, hook: str, *, none_is_fine: bool = False, **arguments: Any) -> Any:
        failure: PluginError
        try:
            result = self.provider.call(hook, **arguments)
        except MarketFeedError:
            raise
        except Exception as error:
            failure = _failure(self.provider.owner, hook, error, arguments)
        else:
            if result is None and not none_is_fine:
                raise self._wrong(hook, result, "a result")
            return result
        raise failure  # outside the except block: an original that shows a secret is not chained

    def _typed(self, hook: str, result: Any, wanted: type[Thing]) -> Thing:
        if not isinstance(result, wanted):
            raise self._wrong(hook, result, f"a {wanted.__name__}")
        return result

    def _wrong(self, hook: str, result: object, wanted: str) -> PluginError:
        return PluginError(f"{self.provider.owner}: {hook} must return {wanted}, not {_kind(result)}")


class Plugins:
    """The plugins of one process, as far as they work; ``broken`` tells about the rest."""

    def __init__(self, providers: Sequence[Provider], broken: Sequence[BrokenPlugin] = ()) -> None:
        self._broken = list(broken)
        self._owners: dict[tuple[str, str], Provider] = {}
        self._contested: dict[tuple[str, str], BrokenPlugin] = {}
        useless: set[Provider] = set()
        offers = {
            "vendor": self._collect(providers, "marketfeed_vendor", _read_vendor, useless),
            "sink": self._collect(providers, "marketfeed_sinks", _read_classes(Sink), useless),
            "service": self._collect(providers, "marketfeed_services", _read_classes(Service), useless),
        }
        named = {kind: self._merge(kind, given, useless) for kind, given in offers.items()}
        self.providers: Sequence[Provider] = tuple(one for one in providers if one not in useless)
        self.vendors: Mapping[str, VendorPlugin] = MappingProxyType(named["vendor"])
        self.sinks: Mapping[str, type[Sink]] = MappingProxyType(named["sink"])
        self.services: Mapping[str, type[Service]] = MappingProxyType(named["service"])

    @classmethod
    def discover(cls, disabled: Iterable[str] | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Load every installed plugin. ``disabled`` as in :data:`DISABLE`, which it replaces."""
        if disabled is None:
            disabled = (environ if environ is not None else os.environ).get(DISABLE, "").split(",")
        return cls(*load_entry_points(disabled))

    @classmethod
    def of(cls, *objects: Any) -> Self:
        """Plugins given as modules or objects, without entry points: for tests and embedding."""
        return cls(*load_objects(objects))

    @property
    def broken(self) -> Sequence[BrokenPlugin]:
        """What could not be used, and why."""
        return tuple(self._broken)

    def vendor(self, name: str) -> VendorPlugin:
        """The vendor of that name. Raises ``PluginNotFound`` or ``PluginLoadError``."""
        return self._get("vendor", name, self.vendors)

    def sink(self, name: str) -> type[Sink]:
        """The sink class of that name. Raises ``PluginNotFound`` or ``PluginLoadError``."""
        return self._get("sink", name, self.sinks)

    def service(self, name: str) -> type[Service]:
        """The service class of that name. Raises ``PluginNotFound`` or ``PluginLoadError``."""
        return self._get("service", name, self.services)

    def owner(self, kind: str, name: str) -> Provider:
        """The plugin that gave the ``vendor``, ``sink`` or ``service`` of that name; ``KeyError`` if none."""
        return self._owners[kind, name]

    def notify(self, event: Event) -> None:
        """Call ``marketfeed_event`` of every plugin; one that raises is logged, the others still run."""
        for provider in self.providers:
            if provider.has("marketfeed_event"):
                try:
                    provider.call("marketfeed_event", event=event)
                except Exception:
                    _log.exception("marketfeed_event of %s failed for event %r", provider.owner, event.kind)

    def _collect(
        self,
        providers: Sequence[Provider],
        hook: str,
        read: Callable[[Provider, Any], Mapping[str, Any]],
        useless: set[Provider],
    ) -> Given:
        """What each plugin offers through one hook; a plugin whose hook fails is broken as a whole."""
        given: Given = []
        for provider in providers:
            if not provider.has(hook):
                continue
            try:
                named = read(provider, provider.call(hook))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                text = str(error) if isinstance(error, PluginError) else f"{hook} failed: {error_text(error)}"
                self._broken.append(provider.broken(text, error))
                useless.add(provider)
            else:
                given += [(name, thing, provider) for name, thing in named.items()]
        return given

    def _merge(self, kind: str, given: Given, useless: set[Provider]) -> dict[str, Any]:
        """Name -> thing. A name given twice belongs to nobody (the core's own excepted): otherwise the
        order of installation would decide where ticks go."""
        named: dict[str, Any] = {}
        given = [one for one in given if one[2] not in useless]
        for name, thing, provider in given:
            rivals = [other for other_name, _, other in given if other_name == name and other is not provider]
            if rivals and provider.distribution != CORE:
                owners = " and ".join(sorted({provider.owner, *(one.owner for one in rivals)}))
                text = f"the {kind} name {name!r} is given twice, by {owners}; uninstall or disable one of them"
                self._contested[kind, name] = provider.broken(text, PluginError(text))
                self._broken.append(self._contested[kind, name])
            else:
                named[name] = thing
                self._owners[kind, name] = provider
        return named

    def _get(self, kind: str, name: str, known: Mapping[str, Thing]) -> Thing:
        if name in known:
            return known[name]
        broken = self._contested.get((kind, name)) or next((one for one in self._broken if one.name == name), None)
        if broken:
            raise PluginLoadError(f"the {kind} {name!r} cannot be used: {broken}") from broken.cause
        raise self._not_found(kind, name, known)

    def _not_found(self, kind: str, name: str, known: Iterable[str]) -> PluginNotFound:
        message = f"no installed plugin has a {kind} {name!r}"
        near = difflib.get_close_matches(name, [*known, *EXTRAS], n=1)
        if name in EXTRAS:
            message += f"; install it: pip install 'marketfeed[{name}]'"
        elif near:
            message += f"; did you mean {near[0]!r}?"
        else:
            message += f"; there are {', '.join(sorted(known)) or 'none'}"
        if self._broken:
            message += "; not usable: " + "; ".join(map(str, self._broken))
        return PluginNotFound(message)


# --- reading what hooks return ----------------------------------------------------------------


def _read_vendor(provider: Provider, info: Any) -> Mapping[str, VendorPlugin]:
    if not isinstance(info, Vendor):
        raise PluginError(f"marketfeed_vendor must return a Vendor, not {_kind(info)}")
    settings = info.settings
    if not (
        isinstance(settings, type) and issubclass(settings, VendorSettings) and "__attrs_attrs__" in vars(settings)
    ):
        raise PluginError(f"Vendor.settings must be an attrs class made from VendorSettings, not {settings!r}")
    return {info.name: VendorPlugin(info, provider)}


def _read_classes(base: type) -> Callable[[Provider, Any], Mapping[str, Any]]:
    hook = f"marketfeed_{base.__name__.lower()}s"

    def read(provider: Provider, named: Any) -> Mapping[str, Any]:
        if not isinstance(named, Mapping):
            raise PluginError(f"{hook} must return a mapping of name to class, not {_kind(named)}")
        for name, thing in named.items():
            if not isinstance(name, str) or not (isinstance(thing, type) and issubclass(thing, base)):
                what = thing.__name__ if isinstance(thing, type) else _kind(thing)
                raise PluginError(f"{hook} must map names to {base.__name__} classes; {name!r} is {what}")
        return named

    return read


# --- words ------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _failure(owner: str, hook: str, error: Exception, arguments: Mapping[str, Any]) -> PluginError:
    """The error for a hook that raised; secrets of its arguments are taken out of the text."""
    text = shown = error_text(error)
    for value in _secrets(arguments.values()):
        shown = shown.replace(value, "***")
    failure = PluginError(f"{owner}: {hook} failed: {shown}")
    if shown == text:  # a chained original would print the secret after all
        failure.__cause__ = error
    return failure


def _secrets(things: Iterable[Any]) -> list[str]:
    """Values of the secret fields of attrs objects, long enough to be looked for in a text."""
    found: list[str] = []
    for thing in things:
        for field in attrs.fields(type(thing)) if attrs.has(type(thing)) else ():
            if field.metadata.get("secret"):
                value = getattr(thing, field.name)
                found += value.values() if isinstance(value, Mapping) else [value]
    return [value for value in found if isinstance(value, str) and len(value) >= _SECRET_LENGTH]
