"""The REST API's manners in both dialects: headers, what counts as success, what a refusal means."""

from __future__ import annotations

from typing import Any

import msgspec

from marketfeed.contract import Http, Session
from marketfeed.errors import LineLost, RequestRejected, SessionExpired, VendorError
from marketfeed_mstock.settings import MstockSettings

__all__ = ["answer", "headers", "request", "url"]

VERSION = {"X-Mirae-Version": "1"}
"""Without it every call is refused (official documentation)."""


def url(settings: MstockSettings, path: str, base: str | None = None) -> str:
    """The address of a call of the dialect in use; ``path`` begins behind ``/openapi/type?/``."""
    return f"{(base or settings.rest_url).rstrip('/')}/openapi/type{settings.dialect}/{path}"


def headers(settings: MstockSettings, session: Session) -> dict[str, str]:
    """Headers of a call with a session (official SDKs)."""
    if settings.dialect == "a":
        return {**VERSION, "Authorization": f"token {settings.api_key}:{session.access_token}"}
    return {**VERSION, "Authorization": f"Bearer {session.access_token}", "X-PrivateKey": settings.api_key or ""}


def request(
    http: Http, settings: MstockSettings, session: Session, method: str, path: str, **options: Any
) -> tuple[int, bytes]:
    """Status and body of a call that needs a session."""
    reply = http.request(method, url(settings, path), headers=headers(settings, session), **options)
    return reply.status_code, bytes(reply.content)


def answer(status: int, body: bytes, what: str) -> Any:
    """The ``data`` of a good answer. Raises the ``VendorError`` that fits any other.

    Type B's status comes as ``"true"``, ``true`` and ``"True"``, so it is compared as text; a refused
    TOTP comes with Type A's keys. The first element of a list counts (read in the official SDK).
    """
    try:
        content: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        content = None
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, dict):
        raise LineLost(f"mStock answered {what} with HTTP {status} and something that is not JSON")
    good = str(content.get("status")).lower() in ("true", "success")
    if status < 400 and good:
        return content.get("data")
    raise _refusal(status, content, what)


def _refusal(status: int, content: dict[str, Any], what: str) -> VendorError:
    code = str(content.get("errorcode") or content.get("error_type") or "")
    text = f"mStock refused {what} with HTTP {status} {code}: {str(content.get('message'))[:200]}"
    if status == 401 or code in ("IA401", "TokenException"):
        return SessionExpired(text)
    return LineLost(text) if status >= 500 else RequestRejected(text)
