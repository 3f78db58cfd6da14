"""Taking secrets out of text that is shown or kept."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["HIDDEN", "USERINFO", "clean", "hide"]

HIDDEN = "***"
_NAMED = re.compile(
    r"((?:access_?token|request_?token|api_?key|api_?secret|password|totp|jkey|checksum)[\"']?\s*[=:]\s*[\"']?)[^\s&\"',}]+"
    r"|((?:Bearer|token)\s+)[\w.:+/=-]{8,}",
    re.IGNORECASE,
)
USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")
"""Name and password in a URL, up to its last ``@``: a password may hold one."""
_SHORTEST = 4  # shorter values would blank out ordinary words


def clean(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without ``secrets``, values of secret names (``api_key=...``) and passwords in URLs."""
    for secret in _worth_hiding(secrets):  # first: the patterns below may end in the middle of one
        text = text.replace(secret, HIDDEN)
    text = _NAMED.sub(lambda match: (match[1] or match[2]) + HIDDEN, text)
    return USERINFO.sub(HIDDEN, text)


def hide(data: bytes, secrets: Iterable[str]) -> bytes:
    """``data`` with each secret overwritten by as many ``*``, so that offsets stay true."""
    for secret in _worth_hiding(secrets):
        raw = secret.encode()
        if raw in data:
            data = data.replace(raw, b"*" * len(raw))
    return data


def _worth_hiding(secrets: Iterable[str]) -> list[str]:
    return sorted((one for one in secrets if len(one) >= _SHORTEST), key=len, reverse=True)
