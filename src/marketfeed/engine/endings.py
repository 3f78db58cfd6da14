"""What the end of a connection means, as far as the broker gave a reason."""

from __future__ import annotations

import attrs

from marketfeed.contract import CloseCodes, Stream
from marketfeed.engine.supervisor import Market
from marketfeed.errors import LineLost, TakenOver, VendorError
from marketfeed.gaps import Cause

__all__ = ["Refusals", "cause_of", "error_of_close"]

_GATEWAY = (502, 503, 504)
_TOLD_EVERY = 3


def error_of_close(stream: Stream, payload: bytes) -> VendorError:
    """The error of a close frame: what the vendor's stream says it means, or else a lost line."""
    code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
    reason = payload[2:].decode("utf-8", "replace")
    meant = stream.closed(code, reason) if isinstance(stream, CloseCodes) else None
    if meant is not None:
        return meant
    return LineLost(f"closed by the broker with code {code}" + (f" ({reason})" if reason else ""))


def cause_of(error: Exception) -> Cause:
    """The cause of the gap that this error begins."""
    return Cause.TAKEN_OVER if isinstance(error, TakenOver) else Cause.OUTAGE


@attrs.define
class Refusals:
    """Upgrades refused by a gateway, one after the other, in market hours.

    Outside them some brokers answer 502 every night; that is nothing to tell.
    """

    count: int = 0

    def note(self, error: Exception, market: Market) -> str | None:
        """An attempt failed. Every third such refusal in a row gives a sentence for people."""
        status = error.http_status if isinstance(error, LineLost) else None
        if status not in _GATEWAY or market.open_for_s is None:
            self.count = 0
            return None
        self.count += 1
        if self.count % _TOLD_EVERY:
            return None
        return (
            f"the broker refused {self.count} connections in a row with HTTP {status} in market hours: it may be down, "
            "or it does not accept the access token or this machine's IP address"
        )

    def reset(self) -> None:
        """A connection was opened."""
        self.count = 0
