"""What plugins give and get. Read with :mod:`marketfeed.hookspecs`, which says when.

A vendor plugin is pure: bytes in, values out. The core owns every socket, HTTP call, thread, retry
and clock, so a stream and a parser are tested with a bytes literal.
"""

from __future__ import annotations

from marketfeed.contract.consumers import Event, Service, Sink
from marketfeed.contract.rest import (
    CandleRequest,
    Http,
    LoginPage,
    QuoteKind,
    Session,
    TokenStore,
)
from marketfeed.contract.settings import (
    RateLimit,
    Vendor,
    VendorSettings,
    base_url,
    is_loopback,
    secret,
    setting,
)
from marketfeed.contract.stream import (
    DATA,
    IGNORE,
    BadPacket,
    CloseCodes,
    Emit,
    Frame,
    Handshake,
    KeepAlive,
    LoginOnSocket,
    Parsed,
    Parser,
    Plain,
    Send,
    Step,
    Stream,
    Subscription,
)

__all__ = [
    "DATA",
    "IGNORE",
    "BadPacket",
    "CandleRequest",
    "CloseCodes",
    "Emit",
    "Event",
    "Frame",
    "Handshake",
    "Http",
    "KeepAlive",
    "LoginOnSocket",
    "LoginPage",
    "Parsed",
    "Parser",
    "Plain",
    "QuoteKind",
    "RateLimit",
    "Send",
    "Service",
    "Session",
    "Sink",
    "Step",
    "Stream",
    "Subscription",
    "TokenStore",
    "Vendor",
    "VendorSettings",
    "base_url",
    "is_loopback",
    "secret",
    "setting",
]
