"""One account at one broker that is asked over HTTP, without a feed: what history, quotes and instruments share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from marketfeed import config as configuration
from marketfeed.clock import Clock
from marketfeed.config import Config, VendorConfig
from marketfeed.engine.account import Account
from marketfeed.engine.choosing import choose
from marketfeed.engine.logs import get_log
from marketfeed.engine.metrics import ApiCalls
from marketfeed.errors import ConfigError, Problem
from marketfeed.http import HttpSession
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.plugins import Plugins
from marketfeed.tokens import FileTokenStore, LenientTokenStore, TokenKeeper

__all__ = ["BrokerClient", "Wanted", "vendor_config"]

Wanted = str | Instrument | Iterable[str | Instrument]
"""One name, glob, other selection or instrument, or several."""


class BrokerClient:
    """Logs in on first use and keeps the session; ``close`` (or ``with``) lets the connections go."""

    def __init__(
        self, vendor: VendorConfig, clock: Clock | None, tokens: TokenKeeper | None, cache_folder: Path | None = None
    ) -> None:
        self._vendor = vendor
        self._clock = clock or Clock()
        info, proxy, calls = vendor.plugin.info, vendor.settings.proxy, ApiCalls()
        self._http = HttpSession(info.name, info.rate_limits, proxy=proxy, clock=self._clock, on_call=calls.count)
        self._account = Account(
            vendor.plugin,
            vendor.settings,
            LenientTokenStore(tokens or FileTokenStore()),
            self._http,
            self._clock,
            get_log(vendor=vendor.name),
            cache_folder=cache_folder,
            calls=calls.total,
        )

    def close(self) -> None:
        """Close the connections; a call that waits ends with an error."""
        self._account.closed.set()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, wanted: Wanted, table: InstrumentTable | None = None) -> list[Instrument]:
        """Instruments as they are, names looked up in ``table``, by default today's master; without repeats."""
        given = [wanted] if isinstance(wanted, str | Instrument) else list(wanted)
        if table is None and any(isinstance(one, str) for one in given):
            table = self._account.instruments()
        found: dict[Instrument, None] = {}
        problems: list[str] = []
        for one in given:
            if isinstance(one, Instrument):
                found[one] = None
            elif table is not None:
                chosen = choose(self._account, [one], table)
                found.update(dict.fromkeys(chosen.instruments))
                problems += chosen.problems
        if problems:
            raise ConfigError([Problem("instruments", f"{text} (vendor {self._vendor.type})") for text in problems])
        return list(found)


def vendor_config(
    name: str,
    settings: Mapping[str, Any] | None,
    config: Config | None,
    plugins: Plugins | None,
    environ: Mapping[str, str] | None,
    placeholder: str | None = None,
) -> VendorConfig:
    """The account: a table of the configuration, or one made of ``settings`` and the environment.

    ``placeholder`` stands for what must be given and is not. Raises ``ConfigError`` with every problem.
    """
    if config is None:
        # A configuration is of feeds; this one is never started.
        feed = {"vendor": name, "instruments": ["*"]}
        tables = {"feeds": {"history": feed}, "vendors": {name: dict(settings or {})}}
        plugins = plugins or Plugins.discover()
        return configuration.build(tables, plugins, environ, placeholder=placeholder).vendors[name]
    if name not in config.vendors:
        known = ", ".join(config.vendors) or "no vendor"
        raise ConfigError([Problem("vendors", f"there is no [vendors.{name}]; the configuration has {known}")])
    return config.vendors[name]
