"""The one HTTP session: verified TLS, proxy, time limits, pacing, retries, metrics and no secret in any error.

A vendor calls a broker through it and through nothing else; a vendor SDK that wants a requests session
gets :attr:`HttpSession.session`, for which all of this holds, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import tenacity

from marketfeed.clock import Clock
from marketfeed.contract import RateLimit, is_loopback
from marketfeed.errors import LineLost, RateLimited, RequestRejected, VendorError
from marketfeed.http.pacing import Pacer
from marketfeed.http.session import VerifiedSession, endpoint_of, reason_of

__all__ = ["HttpSession", "OnCall"]

OnCall = Callable[[str, str, int, float], None]
"""vendor, endpoint (a path template), status (0 = no answer), seconds: called after every attempt."""

CONNECT_TIMEOUT_S = 7.0
READ_TIMEOUT_S = 30.0
"""Between two bytes, not for the whole answer."""
_TRIES = 3
_UNAVAILABLE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_REPEATABLE = ("GET", "HEAD", "OPTIONS")
_LONGEST_WAIT_S = 3600.0


class _Outcome(NamedTuple):
    """What came of one attempt; ``again`` tells whether another one may help."""

    response: requests.Response | None
    failure: VendorError | None = None
    again: bool = False


class HttpSession:
    """Calls to one vendor, from any thread.

    ``rate_limits`` are kept exactly, also across threads: a call waits for its turn. ``proxy`` is for
    all schemes; without it the usual environment variables hold, and loopback addresses are never
    proxied. ``sleep`` waits between retries (seconds); by default it waits on ``clock`` and ends at once
    when the session is closed.
    """

    def __init__(
        self,
        vendor: str,
        rate_limits: Iterable[RateLimit] = (),
        *,
        proxy: str | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], None] | None = None,
        on_call: OnCall | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self.vendor = vendor
        self._clock = clock or Clock()
        self._closed = threading.Event()
        self._sleep = sleep or self._wait
        self._on_call = on_call
        self._timeout = (connect_timeout_s, read_timeout_s)
        self._pacer = Pacer(tuple(rate_limits), self._clock, self._wait)
        self._session = VerifiedSession(self._call, proxy)

    @property
    def session(self) -> requests.Session:
        """For vendor SDKs that want a requests session; everything holds for it, too."""
        return self._session

    def get(self, url: str, **options: Any) -> requests.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> requests.Response:
        return self.request("POST", url, **options)

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """As ``requests.Session.request``; ``verify`` is ignored.

        A GET is tried three times when there is no answer or a gateway answers (502, 503, 504). Raises
        ``LineLost`` when no useful answer came, ``RateLimited`` on 429, ``RequestRejected`` when the
        request cannot be sent as it is. Any other status is the caller's to judge.
        """
        return self._session.request(method, url, **options)

    def close(self) -> None:
        """Close all connections; whoever waits for a turn gets ``LineLost``."""
        self._closed.set()
        self._session.close()

    def __enter__(self) -> HttpSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, send: Callable[..., requests.Response], method: str, url: str, **options: Any) -> requests.Response:
        """Everything around one request of the session: pacing, tries, errors."""
        _refuse_plain(url, self.vendor)
        if options.get("timeout") is None:
            options["timeout"] = self._timeout
        tries = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_TRIES if method.upper() in _REPEATABLE else 1),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
            retry=tenacity.retry_if_result(lambda outcome: outcome.again),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
            sleep=self._sleep,
        )
        outcome: _Outcome = tries(self._attempt, send, method, url, options)
        if outcome.response is None:
            raise outcome.failure or LineLost(f"{self.vendor}: no answer")
        return outcome.response

    def _attempt(
        self, send: Callable[..., requests.Response], method: str, url: str, options: dict[str, Any]
    ) -> _Outcome:
        parts = urlsplit(url)
        self._pacer.take(parts.path or "/")
        endpoint = endpoint_of(parts.path or "/")
        started, status = time.perf_counter(), 0
        try:
            response = send(method, url, **options)
            status = response.status_code
        except (requests.RequestException, OSError, ValueError) as error:
            # The failure is returned, not raised here: the original, whose text holds the whole URL,
            # must not become its context.
            return _failed(error, f"{self.vendor}: {method} {parts.hostname}{endpoint}")
        finally:
            if self._on_call:
                self._on_call(self.vendor, endpoint, status, time.perf_counter() - started)
        return self._judged(response, f"{self.vendor}: {method} {endpoint}")

    def _judged(self, response: requests.Response, what: str) -> _Outcome:
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            wait_s = _retry_after_s(response.headers.get("Retry-After"), self._clock)
            return _Outcome(None, RateLimited(f"{what} answered 429; wait {wait_s:g} s", wait_s))
        if response.status_code in _UNAVAILABLE:
            text = f"{what} answered {response.status_code}: the broker's servers are not available"
            return _Outcome(None, LineLost(text), again=True)
        return _Outcome(response)

    def _wait(self, seconds: float) -> None:
        if self._clock.wait(self._closed, max(seconds, 0.0)):
            raise LineLost(f"{self.vendor}: the HTTP session was closed")


def _failed(error: Exception, what: str) -> _Outcome:
    if isinstance(error, ValueError | requests.TooManyRedirects):
        return _Outcome(None, RequestRejected(f"{what} cannot be sent: {type(error).__name__}"))
    again = isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError)
    return _Outcome(None, LineLost(f"{what} got no answer: {reason_of(error)}"), again)


def _refuse_plain(url: str, vendor: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise RequestRejected(
            f"{vendor}: only https is spoken, except with this machine; {parts.hostname} was asked for"
        )


def _retry_after_s(value: str | None, clock: Clock) -> float:
    """Seconds from a ``Retry-After`` header, which is a number or a date; 1 where it says nothing useful."""
    from email.utils import parsedate_to_datetime

    try:
        seconds = float(value or 1)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(str(value)).timestamp() - clock.wall_ns() / 1e9
        except (ValueError, TypeError):
            seconds = 1.0
    return min(max(seconds, 0.0), _LONGEST_WAIT_S) if seconds == seconds else 1.0
