"""FlatTrade's market data messages for the sandbox: rows to fields, and fields to snapshots and deltas.

Written without the plugin's parser on purpose: each checks the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfeed.clock import NS
from marketfeed.dtypes import Rows
from marketfeed_flattrade._sandbox_scrips import Scrip

__all__ = ["ABSENT", "DAMAGES", "DEPTH", "FAMILIES", "TOUCHLINE", "Family", "Messages"]

Values = NDArray[np.int64]
ABSENT = np.iinfo(np.int64).min
"""A field that the message does not have."""
_IST_S = 19_800
_DAY_S = 86_400
_PRICES = {"lp": "last_price", "o": "open", "h": "high", "l": "low", "c": "close", "ap": "average_price"}
_SIDES = {"b": "bid", "s": "ask"}
_PARTS = {"p": "price", "q": "quantity", "o": "orders"}
_LEVELS = [f"{side}{part}{level}" for part in "pqo" for level in range(1, 6) for side in "bs"]
_INDEX_HAS = frozenset({"lp", "pc", "o", "h", "l", "c", "ft"})
_TOUCHLINE = (*("lp", "pc", "o", "h", "l", "c", "ap", "v", "oi", "ft"), *("bp1", "sp1", "bq1", "sq1"))
_DEPTH = (
    *("lp", "pc", "o", "h", "l", "c", "ap", "v", "oi", "ft", "ltt", "ltq", "tbq", "tsq", "uc", "lc", "52h", "52l"),
    *_LEVELS,
)
_WHOLE = {"v": "volume", "ltq": "last_quantity", "tbq": "buy_quantity", "tsq": "sell_quantity"}
_YEAR_PRICES = {"52h": (1.25, "high"), "52l": (0.75, "low")}


@attrs.frozen(kw_only=True)
class Family:
    """Touchline or depth: message types and fields."""

    number: int
    snapshot: str
    delta: str
    fields: tuple[str, ...]


TOUCHLINE = Family(number=0, snapshot="tk", delta="tf", fields=_TOUCHLINE)
DEPTH = Family(number=1, snapshot="dk", delta="df", fields=_DEPTH)
FAMILIES = (TOUCHLINE, DEPTH)


class Messages:
    """Rows of the market to messages. Knows the scrips, not who got what."""

    def __init__(self, scrips: Sequence[Scrip]) -> None:
        self._scrips = scrips
        self._index = np.array([one.is_index for one in scrips], bool)
        self._future = np.array([bool(one.expiry) for one in scrips], bool)
        self._scale = np.array([10.0**one.digits for one in scrips])
        self._names = [f'"e":"{one.exchange}","tk":"{one.token}"' for one in scrips]
        self._heads = ["".join(f',"{name}":"{value}"' for name, value in one.head.items()) for one in scrips]

    def values(self, family: Family, rows: Rows) -> Values:
        """Whole numbers for the fields of a family, prices scaled. Shape ``(rows, fields)``."""
        lines = rows["instrument"]
        scale, index = self._scale[lines], self._index[lines]
        found = np.empty((len(rows), len(family.fields)), np.int64)
        for place, name in enumerate(family.fields):
            column = self._column(name, rows, scale, lines)
            found[:, place] = column if name in _INDEX_HAS else np.where(index, np.int64(ABSENT), column)
        return found

    def snapshot(self, family: Family, line: int, values: Values) -> str:
        """Everything that is known."""
        text = self._fields(family, line, values, np.flatnonzero(values != ABSENT).tolist())
        return f'{{"t":"{family.snapshot}",{self._names[line]}{self._heads[line]}{text}}}'

    def delta(self, family: Family, line: int, values: Values, before: Values) -> str:
        """What differs from ``before``; a value that is no longer there is ``NA``."""
        text = self._fields(family, line, values, np.flatnonzero(values != before).tolist())
        return f'{{"t":"{family.delta}",{self._names[line]}{text}}}'

    def texts(self, family: Family, line: int, values: Values) -> dict[str, str]:
        """Field -> text, as a quote over REST has it."""
        return {family.fields[place]: text for place, text in self._texts(family, line, values) if text != "NA"}

    def _fields(self, family: Family, line: int, values: Values, places: list[int]) -> str:
        names = family.fields
        return "".join(f',"{names[place]}":"{text}"' for place, text in self._texts(family, line, values, places))

    def _texts(
        self, family: Family, line: int, values: Values, places: Sequence[int] | None = None
    ) -> Iterator[tuple[int, str]]:
        digits, numbers = self._scrips[line].digits, values.tolist()
        for place in range(len(numbers)) if places is None else places:
            number = numbers[place]
            yield place, "NA" if number == ABSENT else _FORMAT[family.number][place](number, digits)

    def _column(self, name: str, rows: Rows, scale: NDArray[np.float64], lines: Any) -> Any:
        if name in _PRICES:
            return _scaled(rows[_PRICES[name]], scale)
        if name in _WHOLE:
            return rows[_WHOLE[name]]
        if name in ("uc", "lc"):
            return _scaled(rows["upper_circuit" if name == "uc" else "lower_circuit"], scale)
        if name == "pc":
            close = rows["close"]
            return _scaled((rows["last_price"] - close) / np.where(close, close, np.nan) * 100, np.array(100.0))
        if name == "oi":
            return np.where(self._future[lines], rows["open_interest"], ABSENT)
        if name == "ft":
            return rows["exchange_ns"] // NS
        if name == "ltt":
            return (rows["last_trade_ns"] // NS + _IST_S) % _DAY_S
        if name in _YEAR_PRICES:  # the market has no year: these are invented
            factor, limit = _YEAR_PRICES[name]
            part = np.fmax if limit == "high" else np.fmin
            return _scaled(part(rows[limit], np.round(rows["close"] * factor)), scale)
        column = rows[f"{_SIDES[name[0]]}_{_PARTS[name[1]]}"][:, int(name[2]) - 1]
        return _scaled(column, scale) if name[1] == "p" else column


def _scaled(prices: NDArray[np.float64], scale: NDArray[np.float64]) -> Values:
    missing = ~np.isfinite(prices)
    raw: Values = np.where(missing, ABSENT, np.rint(np.where(missing, 0.0, prices) * scale).astype(np.int64))
    return raw


def _price(number: int, digits: int) -> str:
    return f"{number / 10**digits:.{digits}f}"


def _clock(number: int, _: int) -> str:
    return f"{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}"


def _format(name: str) -> Callable[[int, int], str]:
    if name == "ltt":
        return _clock
    if name == "pc":
        return lambda number, _: f"{number / 100:.2f}"
    price = name in _PRICES or name in ("uc", "lc") or name in _YEAR_PRICES or name[1:2] == "p"
    return _price if price else lambda number, _: str(number)


_FORMAT: Sequence[Sequence[Callable[[int, int], str]]] = [
    [_format(one) for one in family.fields] for family in FAMILIES
]

# --- damage -------------------------------------------------------------------------------------------


def _with(text: str, name: str, value: str) -> str:
    """A field added at the end, where a decoder lets it win."""
    return f'{text[:-1]},"{name}":{value}}}'


DAMAGES: Mapping[str, Callable[[str], str]] = {
    "cut": lambda text: text[: len(text) // 2],
    "not-an-object": lambda text: f"[{text}]",
    "not-json": lambda text: f"<html>{len(text)}</html>",
    "no-type": lambda text: "{" + text.partition(",")[2],
    "no-exchange": lambda text: text.replace('"e":', '"ex":', 1),
    "no-token": lambda text: text.replace('"tk":', '"tok":', 1),
    "null-token": lambda text: _with(text, "tk", "null"),
    "unknown-type": lambda text: _with(text, "t", '"zz"'),
    "number-type": lambda text: _with(text, "t", "7"),
}
"""Damage that FlatTrade's messages can have, by name; each makes the message useless."""
