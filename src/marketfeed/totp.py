"""The six digits that an authenticator shows."""

from __future__ import annotations

import binascii

__all__ = ["totp"]


def totp(secret: str, at_s: int) -> str:
    """The code of a base32 secret at a moment (epoch seconds): RFC 6238 with SHA-1 and steps of 30 s.

    Spaces and dashes, as authenticators print them, do not matter. Raises ``ValueError`` for text
    that is not base32, without showing it.
    """
    from pyotp.totp import TOTP

    text = secret.replace(" ", "").replace("-", "").upper()
    if not text:
        raise ValueError("empty TOTP secret")
    try:
        return TOTP(text).at(at_s)
    except (binascii.Error, ValueError):
        pass
    raise ValueError("the TOTP secret is not base32")  # outside the except block: the original may show it
