"""``marketfeed login``: the daily login at a broker, for the session that feeds then use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marketfeed.cli._output import warn

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from marketfeed.config import VendorConfig
    from marketfeed.contract import LoginPage, Session
    from marketfeed.tokens import TokenKeeper

__all__ = ["command"]


@click.command(name="login", short_help="Log in at a broker, for today's session.")
@click.argument("vendor")
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Take the account and its credentials from this configuration.",
)
@click.option("--account", help="Which [vendors.NAME] table of the configuration, if not the one called VENDOR.")
@click.option(
    "--url", "url_only", is_flag=True, help="Print the address and read the token from a pipe, if there is one."
)
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5000,
    show_default=True,
    help="Port of 127.0.0.1 that the app's redirect address names; 0 does not listen.",
)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True, help="In seconds."
)
def command(
    vendor: str,
    config_file: Path | None,
    account: str | None,
    url_only: bool,
    no_browser: bool,
    port: int,
    timeout: float,
) -> None:
    """Log in at VENDOR and keep the session where feeds look for it.

    Opens the broker's login page. The token comes back by itself if the app's redirect address is
    http://127.0.0.1:5000/ (or names --port); otherwise paste the address that the browser ends at, or pipe
    it in. A token is never an argument, since others could read it in the process list.
    Where the broker needs no browser the login is done with the configured credentials.
    """
    chosen = _account(vendor, config_file, account)
    page = chosen.plugin.login_page(chosen.settings)
    token = None
    if page is not None:
        if url_only and _at_terminal():
            click.echo(page.url)
            return
        token = _token(page, port=0 if url_only else port, browser=not (url_only or no_browser), timeout_s=timeout)
        if token is None and url_only:  # nothing was piped in
            return
    elif url_only:
        raise click.UsageError(f"{vendor} logs in without a browser, so there is no address; leave --url out")
    _tell(chosen, _log_in(chosen, page, token))


def _account(vendor: str, config_file: Path | None, account: str | None) -> VendorConfig:
    """The account meant. Raises ``ConfigError``, ``PluginNotFound`` and click's ``UsageError``."""
    from marketfeed import config as configuration
    from marketfeed.plugins import Plugins

    plugins = Plugins.discover()
    if config_file is None:
        if account is not None:
            raise click.UsageError("--account names a table of a configuration: add --config FILE")
        plugins.vendor(vendor)
        # A configuration is of feeds; this one is never started.
        tables = {"feeds": {"login": {"vendor": vendor, "instruments": ["*"]}}, "vendors": {vendor: {}}}
        return configuration.build(tables, plugins).vendors[vendor]
    known = configuration.load(config_file, plugins).vendors
    fitting = [one for one in known.values() if vendor in (one.name, one.type)]
    named = [one for one in fitting if one.name == (account or vendor)]
    found = named or ([] if account else fitting)
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.name for one in fitting) or "none"
    raise click.UsageError(f"which account? {config_file} has for {vendor}: {names}; choose with --account NAME")


def _token(page: LoginPage, *, port: int, browser: bool, timeout_s: float) -> str | None:
    """What the browser brings back or a person pastes; None when the input ended without it and nobody listens.

    Raises ``MarketFeedError`` when nothing came in time.
    """
    from marketfeed.cli._redirect import TokenWait
    from marketfeed.errors import MarketFeedError

    with TokenWait(page) as waiting:
        if port:
            try:
                waiting.listen(port)
            except OSError as error:
                warn(f"port {port} cannot be used ({error.strerror}): paste the address that the browser ends at")
        click.echo(page.url)  # only now: a quick browser would find nobody listening
        if _at_terminal():
            click.echo(
                "Log in there. If nothing happens here then, paste the address that the browser ended at:", err=True
            )
            if browser:
                _open(page.url)
        if sys.stdin is not None:
            waiting.read(sys.stdin.fileno())
        try:
            return waiting.take(timeout_s)
        except TimeoutError:
            pass
    raise MarketFeedError(f"nobody has logged in within {timeout_s:g} s; run the command again")


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _open(url: str) -> None:
    import webbrowser

    try:
        webbrowser.open(url)
    except webbrowser.Error:
        warn("no browser can be opened here; open the address yourself")


def _log_in(chosen: VendorConfig, page: LoginPage | None, token: str | None) -> Session:
    """A new session, kept on disk. Raises ``AuthError`` and what else the broker says."""
    import attrs

    from marketfeed.clock import Clock
    from marketfeed.engine.account import Account
    from marketfeed.engine.logs import get_log
    from marketfeed.errors import MarketFeedError
    from marketfeed.http import HttpSession
    from marketfeed.tokens import FileTokenStore

    if page is not None and token is None:
        raise MarketFeedError(f"no {page.parameters[0]} was given; log in and paste the address, or pipe it in")
    given: dict[str, Any] = {page.setting: token} if page is not None else {}
    settings = attrs.evolve(chosen.settings, access_token=None, **given)
    plugin, calls = chosen.plugin, 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    info = plugin.info
    with HttpSession(info.name, info.rate_limits, proxy=settings.proxy, on_call=count) as http:
        tokens = _NewSession(FileTokenStore(), counts=page is None)
        account = Account(plugin, settings, tokens, http, Clock(), get_log(vendor=info.name), calls=lambda: calls)
        return account.session()


def _tell(chosen: VendorConfig, session: Session) -> None:
    from marketfeed.clock import ist_text

    until = f", good until about {ist_text(session.expires_ns)[:16]} India time" if session.expires_ns else ""
    click.echo(f"{chosen.name}: logged in; the session is kept for feeds{until}", err=True)
    if chosen.settings.access_token:
        warn(f"feeds will not use it: access_token of vendors.{chosen.name} is set and goes first")


class _NewSession:
    """A token store that has no session yet, so that one is obtained; what is obtained is kept.

    ``counts``: whether earlier refusals forbid another try. They do not where a person has just logged in
    in a browser: that token is good, whatever was wrong with those before.
    """

    def __init__(self, tokens: TokenKeeper, counts: bool) -> None:
        self._tokens = tokens
        self._counts = counts

    def load(self, vendor: str, account: str) -> Session | None:
        return None

    def save(self, session: Session) -> None:
        self._tokens.save(session)

    def forget(self, vendor: str, account: str) -> None:
        """Nothing: the session on disk may still work, and is replaced by the new one."""

    def count_failure(self, vendor: str, account: str, at_ns: int) -> None:
        if self._counts:
            self._tokens.count_failure(vendor, account, at_ns)

    def failures_since(self, vendor: str, account: str, since_ns: int) -> int:
        return self._tokens.failures_since(vendor, account, since_ns) if self._counts else 0

    def forgive(self, vendor: str, account: str) -> None:
        self._tokens.forgive(vendor, account)

    def alone(self, vendor: str, account: str) -> AbstractContextManager[None]:
        return self._tokens.alone(vendor, account)
