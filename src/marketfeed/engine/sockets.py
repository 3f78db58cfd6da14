"""Opening a broker's WebSocket: verified TLS, proxy, and errors that say what to do and no secret."""

from __future__ import annotations

import ssl
from time import monotonic
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import websocket

from marketfeed.contract import Handshake, is_loopback
from marketfeed.errors import LineLost, MarketFeedError, RateLimited, RequestRejected, SessionExpired, VendorError

__all__ = ["kind_of", "open_socket", "text_of"]

_SEND_S = 10.0
"""How long a piece of a message may take to leave: a long subscription over a slow line takes a while."""

_DIRECTLY = {"http_proxy_host": "none", "http_proxy_port": 1, "http_no_proxy": ["*"]}
"""Without the name of a proxy, websocket-client would look for one by itself, also for this machine."""


class _PatientSocket(websocket.WebSocket):
    """Sends with a time limit of its own: the socket's is as short as the reader's looks at the line."""

    def _send(self, data: str | bytes) -> int:
        end = monotonic() + _SEND_S
        while True:
            try:
                return int(super()._send(data))
            except websocket.WebSocketTimeoutException:
                if monotonic() >= end:
                    raise


def open_socket(handshake: Handshake, *, proxy: str | None = None, timeout_s: float = 10.0) -> websocket.WebSocket:
    """Connect and upgrade, with verified TLS; redirects are not followed.

    ``timeout_s`` is for each step: connecting to one address, a read, a write. Raises ``SessionExpired``
    on 401 and 403, ``RateLimited`` on 429, ``RequestRejected`` for what can never work (plain ``ws`` to
    another machine, a proxy that is not an HTTP proxy, a broken URL), ``LineLost`` on anything else. No
    message shows the URL, which may hold a token; nor is the original chained, which may show it, too.
    """
    failure: VendorError
    try:
        parts = urlsplit(handshake.url)
        options = _options(parts, proxy)
        return websocket.create_connection(
            handshake.url,
            class_=_PatientSocket,
            timeout=timeout_s,
            header=[f"{name}: {value}" for name, value in handshake.headers.items()],
            subprotocols=list(handshake.subprotocols) or None,
            suppress_origin=True,
            enable_multithread=True,
            redirect_limit=0,  # the headers may hold a token, which is meant for this host alone
            **options,
        )
    except VendorError:
        raise
    except (OSError, websocket.WebSocketException) as error:
        failure = _failure(str(parts.hostname), error)
    except ValueError:  # urllib, idna and the library have many words for this, some quote the URL
        failure = RequestRejected("the address of the stream, or of its proxy, is not a valid URL")
    raise failure  # outside the except block: the original must not become its context


def _options(parts: SplitResult, proxy: str | None) -> dict[str, Any]:
    """What websocket-client is told beyond the URL; ``RequestRejected`` when the way there is not safe."""
    if parts.scheme == "wss":
        options: dict[str, Any] = {"sslopt": {"context": ssl.create_default_context()}}
    elif parts.scheme == "ws" and is_loopback(parts.hostname):
        options = {}
    else:
        raise RequestRejected(f"only wss is spoken, except with this machine; {parts.hostname} was asked for")
    host = parts.hostname or ""
    if not is_loopback(host):
        proxy = proxy or (None if proxy_bypass(host) else getproxies().get("https"))
        if proxy:
            return options | _through(urlsplit(proxy if "://" in proxy else f"http://{proxy}"))
    return options | _DIRECTLY


def _through(proxy: SplitResult) -> dict[str, Any]:
    if proxy.scheme != "http" or not proxy.hostname:
        # A socks server would not understand, and to an https one the password would go in plain text.
        raise RequestRejected(f"the proxy must be an HTTP proxy (http://host:port), not {proxy.scheme}://")
    options: dict[str, Any] = {"http_proxy_host": proxy.hostname, "http_proxy_port": proxy.port or 80}
    options["http_no_proxy"] = [""]  # what NO_PROXY says was looked at; it does not hold for a proxy of the settings
    if proxy.username:
        options["http_proxy_auth"] = (unquote(proxy.username), unquote(proxy.password or ""))
    return options


def _failure(host: str, error: Exception) -> VendorError:
    if isinstance(error, websocket.WebSocketBadStatusException):
        status = error.status_code
        if status in (401, 403):
            return SessionExpired(f"{host} refused the connection with HTTP {status}: the token is not accepted")
        if status == 429:
            return RateLimited(f"{host} has too many connections of this account (HTTP 429)", 5.0)
        return LineLost(f"{host} refused the connection with HTTP {status}", http_status=status)
    if isinstance(error, ssl.SSLError):
        return LineLost(f"TLS with {host} failed: {error.reason or 'certificate not accepted'}")
    return LineLost(f"cannot connect to {host}: {kind_of(error)}")


def kind_of(error: BaseException) -> str:
    """What went wrong, without the text of libraries that quote URLs."""
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def text_of(error: BaseException) -> str:
    """An error in words: its own where they are ours, and so without a secret, else what kind it is."""
    return str(error) if isinstance(error, MarketFeedError) else repr(error)
