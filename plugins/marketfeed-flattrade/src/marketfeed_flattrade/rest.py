"""The REST API's manners: the body, and what a refusal means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from marketfeed.contract import Http, Session
from marketfeed.errors import LineLost, RateLimited, RequestRejected, SessionExpired, VendorError
from marketfeed_flattrade.settings import FlattradeSettings

__all__ = ["answer", "call"]


def call(http: Http, settings: FlattradeSettings, session: Session, route: str, data: Mapping[str, str]) -> Any:
    """What a route answers: an object, or a list that is empty for "no data". Raises the fitting ``VendorError``.

    The server reads ``jData`` literally, so it is not URL-encoded; an ampersand would end it and becomes
    the JSON escape (third parties, live).
    """
    text = json.dumps({"uid": session.account, **data}, separators=(",", ":")).replace("&", "\\u0026")
    body = f"jData={text}&jKey={session.access_token}"
    reply = http.post(f"{settings.rest_url.rstrip('/')}/{route}", data=body)
    return answer(reply.status_code, bytes(reply.content), route)


def answer(status: int, body: bytes, what: str) -> Any:
    """The content of an answer. Refusals are told by their text: the status is 200, 400 or 401 for the same ones."""
    try:
        content: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise LineLost(f"FlatTrade answered {what} with HTTP {status} and something that is not JSON") from None
    if isinstance(content, dict) and str(content.get("stat", "")).lower() == "not_ok":
        text = str(content.get("emsg", ""))
        if "no data" in text.lower():
            return []
        raise _refusal(status, text, what)
    if status >= 400:
        raise _refusal(status, "", what)
    return content


def _refusal(status: int, text: str, what: str) -> VendorError:
    low = text.lower()
    message = f"FlatTrade refused {what} with HTTP {status}: {text[:200]}"
    if "session expired" in low or "invalid session" in low or status == 401:
        return SessionExpired(message)
    if "exceeds limit" in low:
        return RateLimited(message, 60.0 if "minute" in low else 1.0)
    return LineLost(message) if status >= 500 else RequestRejected(message)
