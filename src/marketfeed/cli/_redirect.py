"""What a broker's login page hands over: taken from the browser's redirect to this machine, or pasted."""

from __future__ import annotations

import os
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from marketfeed.cli._output import warn
from marketfeed.contract import LoginPage

__all__ = ["TokenWait", "token_in"]

_HOST: Final = "127.0.0.1"
_MOST_BYTES: Final = 8192
"""Longer lines are no token."""
_DONE: Final = (
    "<p>marketfeed has what it needs; whether the login worked is told there.</p><p>You may close this window.</p>"
)
_NOTHING: Final = "<p>marketfeed waits for a login, and this address does not bring one.</p>"


def token_in(text: str, page: LoginPage) -> str:
    """The token out of a redirect address or its query, or the text itself; empty if there is none."""
    text = text.strip()
    query = urlsplit(text).query if "://" in text or text.startswith("/") else text
    if query == text and "=" not in text:
        return text if text and len(text.split()) == 1 else ""
    values = parse_qs(query)
    return next((values[name][0] for name in page.parameters if name in values), "")


class TokenWait:
    """Waits for a token on a loopback port, on a file handle, or on both; the first one counts.

    Use it in a with statement. The token is shown to nobody.
    """

    def __init__(self, page: LoginPage) -> None:
        self._page = page
        self._arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None: a source has dried up
        self._sources = 0
        self._server: _Listener | None = None

    def listen(self, port: int) -> None:
        """Take the redirect on that port of 127.0.0.1, whatever its path. Raises ``OSError``."""
        self._server = _Listener(port, self._page, self._arrived)
        self._sources += 1
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="login-redirect", daemon=True).start()

    def read(self, handle: int) -> None:
        """Take the first line of a file handle that holds a token."""
        self._sources += 1
        threading.Thread(target=self._read, args=(handle,), name="login-input", daemon=True).start()

    def take(self, timeout_s: float) -> str | None:
        """The token, or None when no source is left. Raises ``TimeoutError``."""
        until = time.monotonic() + timeout_s
        while self._sources:
            try:
                token = self._arrived.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                raise TimeoutError from None
            if token is not None:
                return token
            self._sources -= 1
        return None

    def __enter__(self) -> TokenWait:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _read(self, handle: int) -> None:
        # os.read, not sys.stdin: a thread that waits inside the latter's lock would break the exit.
        pending = b""
        while piece := _piece(handle):
            *lines, pending = (pending + piece).split(b"\n")
            if any(self._offer(line) for line in lines) or len(pending) > _MOST_BYTES:
                break
        else:
            self._offer(pending)  # a last line without its end
        self._arrived.put(None)

    def _offer(self, line: bytes) -> bool:
        text = line.decode(errors="replace").strip()
        token = token_in(text, self._page)
        if token:
            self._arrived.put(token)
        elif text:
            warn(f"no {self._page.parameters[0]} in that; paste the whole address that the browser ended at")
        return bool(token)


class _Listener(ThreadingHTTPServer):
    """The address that the browser is sent to. Threads, since browsers open connections ahead of need."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, page: LoginPage, arrived: queue.SimpleQueue[str | None]) -> None:
        super().__init__((_HOST, port), _Handler)
        self.page = page
        self.arrived = arrived

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no news, and a traceback could show the request."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    timeout = 5.0
    server_version = "marketfeed"
    sys_version = ""

    def do_GET(self) -> None:
        token = token_in(self.path, self.server.page)
        body = f"<!doctype html><title>marketfeed</title>{_DONE if token else _NOTHING}".encode()
        self.send_response(200 if token else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True
        if token:
            self.server.arrived.put(token)

    def log_message(self, *_: Any) -> None:
        """Nothing: the request line holds the token."""


def _piece(handle: int) -> bytes:
    try:
        return os.read(handle, 4096)
    except OSError:
        return b""
