"""A vendor as it is configured: fields of settings, and what the core must know before it connects."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import attrs

from marketfeed.enums import Interval, Mode

__all__ = [
    "RateLimit",
    "Vendor",
    "VendorSettings",
    "base_url",
    "is_loopback",
    "secret",
    "setting",
]


def secret(*, env: str | None = None, **options: Any) -> Any:
    """An attrs field that never shows its value: not in ``repr``, errors, logs or ``check``.

    ``env`` as in :func:`setting`.
    """
    return attrs.field(repr=False, metadata={"secret": True, "env": env}, **options)


def setting(*, env: str | None = None, **options: Any) -> Any:
    """An attrs field that is read from the environment variable ``env`` where the TOML does not name it.

    That holds for the vendor's table of its own name (``[vendors.kite]``) and where there is no table;
    a second account (``[vendors.second]`` with ``type = "kite"``) must name everything itself.
    """
    return attrs.field(metadata={"env": env}, **options)


def is_loopback(host: str | None) -> bool:
    """True for addresses that cannot leave this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback  # a name such as 127.0.0.1.example.com is no address
    except ValueError:
        return False


def _check_url(_: object, field: attrs.Attribute[str], value: str) -> None:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise ValueError(f"{value!r} is not a URL; write https://host or wss://host")
    if parts.scheme in ("http", "ws") and not is_loopback(parts.hostname):
        raise ValueError(f"plain {parts.scheme} is accepted for loopback addresses only; use {parts.scheme}s")


def base_url(default: str) -> Any:
    """An attrs field for a base URL. Plain http and ws pass for loopback addresses only."""
    return attrs.field(default=default, validator=_check_url)


@attrs.frozen(kw_only=True)
class VendorSettings:
    """What every vendor's ``[vendors.NAME]`` table knows. A plugin subclasses it and sets the URLs."""

    login_url: str = base_url("https://localhost")
    """Base URL of the login pages"""
    rest_url: str = base_url("https://localhost")
    """Base URL of the REST API"""
    stream_url: str = base_url("wss://localhost")
    """Base URL of the WebSocket"""
    access_token: str | None = secret(default=None)
    """A ready access token; leaves out the login"""
    proxy: str | None = None
    """Proxy URL for HTTP and WebSocket; by default the usual environment variables"""

    @property
    def account(self) -> str:
        """What tells this account from another of the same vendor in the token store; not a secret."""
        return "default"


@attrs.frozen
class RateLimit:
    """At most ``calls`` calls in any window of ``per_s`` seconds to paths that begin with ``prefix``, or with one of
    several, which are counted together."""

    prefix: str | tuple[str, ...]
    calls: int
    per_s: float = 1.0


@attrs.frozen(kw_only=True)
class Vendor:
    """What the core needs to know of a broker before it connects."""

    name: str
    """Short name in configuration, metrics and rows: ``kite``"""
    title: str
    """Name for people: ``Zerodha Kite``"""
    settings: type[VendorSettings]
    modes: tuple[Mode, ...] = (Mode.LTP, Mode.QUOTE, Mode.FULL)
    instruments_per_connection: int = 1000
    connections_per_account: int = 1
    candle_days: Mapping[Interval, int] = attrs.field(factory=dict)
    """Most days that one historical request may span, per interval; an absent interval is not offered."""
    rate_limits: tuple[RateLimit, ...] = ()
    dead_token_statuses: frozenset[int] = frozenset()
    """Beside 401 and 403: with what the stream's upgrade is refused, among other things, when the token is dead. Read
    so once the session's ``expires_ns`` is past."""
