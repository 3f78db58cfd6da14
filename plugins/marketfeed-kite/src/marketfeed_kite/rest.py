"""The REST API's manners: headers, and what a refusal means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from marketfeed.contract import Http, Session
from marketfeed.errors import LineLost, RateLimited, RequestRejected, SessionExpired, VendorError
from marketfeed_kite.settings import KiteSettings

__all__ = ["get", "refusal"]

_GATEWAY: Final = "without a reason"
"""In place of an ``error_type``: somebody before the API refused, who knows nothing of tokens."""


def get(http: Http, settings: KiteSettings, session: Session | None, path: str, **params: str | Sequence[str]) -> bytes:
    """The body of a good answer. Raises the ``VendorError`` that fits any other."""
    headers = {"X-Kite-Version": "3"}
    if session is not None:
        headers["Authorization"] = f"token {settings.api_key}:{session.access_token}"
    reply = http.get(settings.rest_url.rstrip("/") + path, params=params, headers=headers)
    if reply.status_code != 200:
        kind, message = _complaint(reply.content)
        raise refusal(kind, reply.status_code, f"GET {path}: {message}")
    return bytes(reply.content)


def refusal(kind: str, status: int, message: str) -> VendorError:
    """The error for an answer with this ``error_type`` and HTTP status (official documentation)."""
    text = f"Kite refused with HTTP {status} {kind}: {message}"
    if status == 429:
        return RateLimited(text)  # no Retry-After is documented; the windows are one second
    if kind == "TokenException" or (status == 403 and kind not in ("PermissionException", _GATEWAY)):
        return SessionExpired(text)
    if status >= 500 or (status == 403 and kind == _GATEWAY):
        return LineLost(text)
    return RequestRejected(text)


def _complaint(body: bytes) -> tuple[str, str]:
    """``error_type`` and message of an error body; gateways answer in HTML, which says nothing."""
    try:
        content: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return _GATEWAY, "not the API's JSON"
    return str(content.get("error_type")), str(content.get("message"))
