"""The words of the field that have a fixed list of values."""

from __future__ import annotations

from enum import IntEnum, StrEnum

__all__ = ["Exchange", "Interval", "Kind", "Mode"]


class Exchange(StrEnum):
    """Exchanges (with their derivative segments) as Indian brokers abbreviate them."""

    NSE = "NSE"
    NFO = "NFO"
    BSE = "BSE"
    BFO = "BFO"
    CDS = "CDS"
    BCD = "BCD"
    MCX = "MCX"
    NCO = "NCO"


class Mode(IntEnum):
    """How much of an instrument a subscription asks for. The values stand in ``flags`` bits 0-3."""

    LTP = 1
    """Last price only."""
    QUOTE = 2
    """Last price, day's OHLC, volume and total quantities."""
    FULL = 3
    """Quote plus five levels of depth, open interest and times."""

    @property
    def word(self) -> str:
        """The name in configuration and JSON: ``ltp``, ``quote``, ``full``."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Mode:
        """The mode with that word; ``ValueError`` names the choices."""
        try:
            return cls[word.upper()]
        except KeyError:
            raise ValueError(f"unknown mode {word!r}; choose ltp, quote or full") from None


class Kind(StrEnum):
    """What an instrument is."""

    EQUITY = "EQ"
    INDEX = "INDEX"
    FUTURE = "FUT"
    CALL = "CE"
    PUT = "PE"


class Interval(StrEnum):
    """Length of a candle. A candle is labelled with its start."""

    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M10 = "10m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    D1 = "1d"

    @property
    def seconds(self) -> int:
        """Length in seconds; a day counts 86,400."""
        unit = {"m": 60, "h": 3600, "d": 86_400}[self.value[-1]]
        return int(self.value[:-1]) * unit
