"""The requests library, bent where it would be careless: verification, redirects, proxies, error texts."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies

from marketfeed.contract import is_loopback
from marketfeed.errors import RequestRejected

__all__ = ["VerifiedSession", "endpoint_of", "reason_of"]

_IDENTIFIER = re.compile(r"\d+|.*\d.*\d.*\d.*|.{25,}|.*[%:@].*")
_HARMLESS_HEADERS = frozenset({"accept", "accept-encoding", "connection", "user-agent"})


class VerifiedSession(requests.Session):
    """A requests session that verifies TLS whatever it is told, and hands every request to ``call``.

    ``call(send, method, url, **options)`` does the pacing and the errors; ``send`` is requests' own way.
    """

    def __init__(self, call: Callable[..., requests.Response], proxy: str | None) -> None:
        super().__init__()
        self._call = call
        self._proxy = proxy
        self.headers["User-Agent"] = f"marketfeed/{version('marketfeed')}"
        self.auth = _as_it_is  # otherwise requests would put a ~/.netrc entry over the broker's own header
        self.mount("https://", _Adapter())
        self.mount("http://", _Adapter())

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "verify":  # stays True; the usual REQUESTS_CA_BUNDLE names other authorities
            super().__setattr__(name, value)

    verify = True

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **options: Any) -> requests.Response:
        if args:  # positional beyond the URL: give them requests' names
            options.update(
                zip(("params", "data", "headers", "cookies", "files", "auth", "timeout"), args, strict=False)
            )
        options.pop("verify", None)
        options.pop("proxies", None)
        method, url = (one.decode() if isinstance(one, bytes) else one for one in (method, url))
        return self._call(super().request, method, url, **options)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        options["verify"] = options.get("verify") or True
        options["proxies"] = self._proxies_for(request.url or "")
        return super().send(request, **options)

    def resolve_redirects(self, *args: Any, **options: Any) -> Iterator[Any]:
        if options.get("yield_requests"):  # allow_redirects=False: the caller reads the Location himself
            return iter(())
        redirects: Iterator[Any] = super().resolve_redirects(*args, **options)
        return redirects

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Called before a redirect is followed: secrets stay with the host they were meant for."""
        here, there = urlsplit(response.request.url or ""), urlsplit(prepared_request.url or "")
        if there.scheme != "https" and not is_loopback(there.hostname):
            raise RequestRejected(f"{here.hostname} redirects to plain {there.scheme}, which is not followed")
        if (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port):
            return
        if prepared_request.method not in ("GET", "HEAD"):
            raise RequestRejected(
                f"{here.hostname} redirects a {prepared_request.method} to {there.hostname}; not followed"
            )
        for name in [name for name in prepared_request.headers if name.lower() not in _HARMLESS_HEADERS]:
            del prepared_request.headers[name]

    def _proxies_for(self, url: str) -> Mapping[str, str]:
        if is_loopback(urlsplit(url).hostname):
            return {}
        if self._proxy:
            return {"http": self._proxy, "https": self._proxy}
        return get_environ_proxies(url, no_proxy=None)


class _Response(requests.Response):
    def raise_for_status(self) -> None:
        """As usual, but without the URL's query in the text."""
        if self.status_code >= 400:
            parts = urlsplit(self.url)
            raise RequestRejected(
                f"{parts.hostname}{endpoint_of(parts.path)} answered {self.status_code} {self.reason}"
            )


class _Adapter(HTTPAdapter):
    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = super().build_response(req, resp)
        response.__class__ = _Response  # requests has no hook for the class
        return response


def endpoint_of(path: str) -> str:
    """A path as a template: ids become ``{}``, so that it can be a label of a metric and tells nothing."""
    return "/".join("{}" if _IDENTIFIER.fullmatch(part) else part for part in path.split("/"))


def reason_of(error: BaseException) -> str:
    """Why a call failed, in words without the URL."""
    if isinstance(error, requests.ConnectTimeout):
        return "connecting took too long"
    if isinstance(error, requests.Timeout):
        return "the answer took too long"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its TLS certificate is not trusted ({cause.verify_message})"
        if isinstance(cause, socket.gaierror):
            return "its name is not known (DNS)"
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException) and cause.strerror:
            return cause.strerror
    return type(error).__name__


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and all that led to it; urllib3 keeps originals in ``reason`` and ``args``."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
