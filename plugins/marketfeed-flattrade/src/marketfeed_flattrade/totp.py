"""The six digits of an authenticator (RFC 6238: SHA-1, 30 seconds).

Written out because the usual library refuses secrets shorter than 112 bits, which brokers do hand out.
"""

from __future__ import annotations

import base64
import hmac

__all__ = ["totp"]


def totp(secret: str, at_s: int) -> str:
    """The code of a base32 secret at a moment (epoch seconds). ``ValueError`` if it is not base32."""
    text = secret.replace(" ", "").replace("-", "").upper().rstrip("=")
    key = base64.b32decode(text + "=" * (-len(text) % 8))
    if not key:
        raise ValueError("empty secret")
    digest = hmac.digest(key, (at_s // 30).to_bytes(8, "big"), "sha1")
    start = digest[-1] & 0xF
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFF_FFFF
    return f"{number % 1_000_000:06d}"
