"""What can be traded: one :class:`Instrument`, a table of them, and the numbers they get in a feed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import cached_property

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.enums import Exchange, Kind
from marketfeed.lookup import Places, SearchIndex

__all__ = ["Instrument", "InstrumentTable", "TokenMap"]


@attrs.frozen(kw_only=True, cache_hash=True)
class Instrument:
    """One instrument as one vendor lists it on one day."""

    exchange: str
    """``NSE``, ``NFO``, ... (:class:`~marketfeed.enums.Exchange`)"""
    symbol: str
    """The exchange's trading symbol, such as ``RELIANCE`` or ``NIFTY26NOVFUT``."""
    token: str
    """The vendor's own number or name for it, as text."""
    vendor: str = ""
    exchange_token: str = ""
    """The exchange's number; the same at every vendor."""
    name: str = ""
    kind: str = Kind.EQUITY
    series: str = ""
    """``EQ``, ``BE``, ... for cash instruments."""
    expiry: date | None = None
    strike: float = 0.0
    lot_size: int = 1
    tick_size: float = 0.05
    """Smallest price step in rupees; 0 where the master does not say."""
    segment: str = ""
    trading_symbol: str = ""
    """The vendor's own spelling of the symbol, where it is another one."""

    @property
    def key(self) -> str:
        """The name people use: ``EXCHANGE:SYMBOL``."""
        return f"{self.exchange}:{self.symbol}"


class InstrumentTable:
    """The instruments of one vendor and one day; look up by key or token, search by glob.

    The order of ``instruments`` is kept. Where a key or token occurs twice, the first one wins. ``missing`` names
    what the broker did not give today, such as the file of one segment: what is not here may exist all the same.
    """

    def __init__(self, instruments: Iterable[Instrument], *, missing: Iterable[str] = ()) -> None:
        self._all = tuple(instruments)
        self.missing = tuple(missing)
        self._by_key: dict[str, Instrument] = {}
        self._by_token: dict[str, Instrument] = {}
        for instrument in self._all:
            self._by_key.setdefault(instrument.key, instrument)
            self._by_token.setdefault(instrument.token, instrument)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._all)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __getitem__(self, key: str) -> Instrument:
        """The instrument named ``EXCHANGE:SYMBOL``; ``KeyError`` says what is near."""
        try:
            return self._by_key[key]
        except KeyError:
            raise KeyError(self._missing(key)) from None

    def get(self, key: str) -> Instrument | None:
        """The instrument named ``EXCHANGE:SYMBOL``, or None."""
        return self._by_key.get(key)

    def by_token(self, token: str | int) -> Instrument | None:
        """The instrument with that vendor token, or None."""
        return self._by_token.get(str(token))

    def search(self, pattern: str, *, exchange: str | None = None, kind: str | None = None) -> list[Instrument]:
        """Instruments whose key or symbol matches a glob, in table order.

        ``NFO:NIFTY*FUT`` is matched against the key, ``NIFTY*`` against the symbol; upper and
        lower case are the same. ``exchange`` and ``kind`` narrow further.
        """
        index = self._index
        places = (index.keys if ":" in pattern else index.symbols).glob(pattern)
        return self._at(index.narrow(places, exchange, kind))

    def find(
        self,
        text: str,
        *,
        exchange: str | None = None,
        kind: str | None = None,
        expiry: date | None = None,
        strike: float | None = None,
    ) -> list[Instrument]:
        """Instruments whose symbol or name holds a text, or a glob; the best first.

        Best are those that are called exactly so (for ``NIFTY`` also the contracts on NIFTY), then symbols
        that begin so, then the rest; among equals in table order. The other arguments narrow.
        """
        index = self._index
        if any(letter in text for letter in "*?["):
            places = (index.keys if ":" in text else index.symbols).glob(text)
        elif ":" in text:
            places = index.keys.beginning(text.upper())
        else:
            places = index.ranked(text) if text.strip() else np.arange(len(self._all))
        day = expiry.toordinal() if expiry is not None else None
        return self._at(index.narrow(places, exchange, kind, day, strike))

    def contracts(self, name: str, exchange: str | None = None) -> list[Instrument]:
        """Futures and options on an underlying, such as ``NIFTY``, in table order."""
        index = self._index
        places = index.narrow(index.names.equal(name.upper()), exchange)
        return [one for one in self._at(places) if one.expiry is not None]

    def _at(self, places: Places) -> list[Instrument]:
        return list(map(self._all.__getitem__, places.tolist()))

    def by_exchange_token(self, exchange: str, token: str) -> Instrument | None:
        """The instrument with the exchange's own number, or None. Indices have no such number in common."""
        return self._by_exchange_token.get((exchange, token))

    @cached_property
    def _by_exchange_token(self) -> dict[tuple[str, str], Instrument]:
        found: dict[tuple[str, str], Instrument] = {}
        for one in self._all:
            if one.exchange_token and one.kind != Kind.INDEX:
                found.setdefault((one.exchange, one.exchange_token), one)
        return found

    @cached_property
    def _index(self) -> SearchIndex:
        return SearchIndex(self._all)

    def select(self, names: Iterable[str]) -> tuple[list[Instrument], list[str]]:
        """Resolve names and globs: the instruments without repeats, and a sentence per name that fails."""
        found: dict[Instrument, None] = {}
        problems = []
        for name in names:
            if any(letter in name for letter in "*?["):
                hits = self.search(name)
                found.update(dict.fromkeys(hits))
                if not hits:
                    problems.append(f"no instrument matches {name!r}")
            elif name in self._by_key:
                found[self._by_key[name]] = None
            else:
                problems.append(self._missing(name))
        return list(found), problems

    def _missing(self, key: str) -> str:
        import difflib

        if ":" not in key:
            choices = [f"{exchange}:{key}" for exchange in Exchange if f"{exchange}:{key}" in self._by_key]
            hint = f"; did you mean {' or '.join(choices)}?" if choices else "; write it as EXCHANGE:SYMBOL"
            return f"unknown instrument {key!r}{hint}"
        near = difflib.get_close_matches(key, self._by_key, n=1)
        return f"unknown instrument {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")


class TokenMap(Mapping[str, int]):
    """Vendor token -> the ``instrument`` number of the feed, also for whole arrays of numeric tokens.

    The feed adds to it when instruments are subscribed; parsers only read it. Numbers are never
    taken back, so a late tick of an unsubscribed instrument still finds its name.
    """

    def __init__(self, numbers: Mapping[str, int] | None = None) -> None:
        self._numbers: dict[str, int] = dict(numbers or {})
        self._index: tuple[dict[str, int], NDArray[np.int64], NDArray[np.int32]] | None = None

    def __getitem__(self, token: str) -> int:
        return self._numbers[token]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def present(self) -> Mapping[str, int]:
        """The map as it is now, which never changes: a new object once tokens were added."""
        return self._numbers

    def add(self, numbers: Mapping[str, int]) -> None:
        """Add tokens. A reader on another thread sees the old or the new map, never a mix."""
        self._numbers = {**self._numbers, **numbers}

    def numbers(self, tokens: NDArray[np.integer]) -> NDArray[np.int32]:
        """The ``instrument`` of each numeric token, -1 where unknown. Shape ``(n,)`` in and out."""
        index = self._index
        if index is None or index[0] is not self._numbers:
            index = self._build()
        _, known, values = index
        places = known.searchsorted(tokens)  # the last entry is a sentinel, so this never runs off the end
        found: NDArray[np.int32] = values.take(places)
        found[known.take(places) != tokens] = -1
        return found

    def _build(self) -> tuple[dict[str, int], NDArray[np.int64], NDArray[np.int32]]:
        # Keeps the dictionary it was made from: one added to meanwhile makes it out of date, never wrong for good.
        numbers = self._numbers
        pairs = sorted((int(token), number) for token, number in numbers.items() if token.isdecimal())
        known = np.array([token for token, _ in pairs] + [np.iinfo(np.int64).max], np.int64)
        values = np.array([number for _, number in pairs] + [-1], np.int32)
        self._index = (numbers, known, values)
        return self._index
