"""Lists of instruments as files: ``@nifty50`` is built in, ``@file.csv`` and ``@file.json`` are the user's.

A list may give numbers beside the names. They are checked against the day's master, and a list that
contradicts it is refused: a wrong number would bring the prices of something else under a trusted name.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs

from marketfeed.enums import Kind
from marketfeed.identity import exchange_token, kite_token
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.symbols import Index, index_named

__all__ = ["Checked", "Entry", "built_in", "check", "read_universe"]


@attrs.frozen(kw_only=True)
class Entry:
    """One line of a list."""

    exchange: str = "NSE"
    symbol: str
    exchange_token: str = ""
    """The exchange's number. It says which instrument is meant even where the name has changed."""
    tokens: Mapping[str, str] = attrs.field(factory=dict)
    """Vendor -> its token"""
    formerly: str = ""
    """An older name of the same instrument."""

    @property
    def key(self) -> str:
        """``EXCHANGE:SYMBOL``, indices in the spelling of every vendor."""
        index = index_named(self.exchange, self.symbol)
        return f"{self.exchange}:{index.symbol if index else self.symbol}"


@attrs.frozen
class Checked:
    """What an entry came to: an instrument, or sentences that say what is wrong."""

    instrument: Instrument | None = None
    problems: tuple[str, ...] = ()
    note: str = ""
    """Something that is right, but that somebody should know."""


# --- reading ----------------------------------------------------------------------------------


def built_in() -> list[str]:
    """Names of the lists that are shipped with the package."""
    return sorted(one.name.removesuffix(".json") for one in files("marketfeed.data").joinpath("universes").iterdir())


def read_universe(name: str) -> list[Entry]:
    """The entries of a built-in list, or of a CSV or JSON file (relative to the working directory).

    CSV: one ``EXCHANGE:SYMBOL`` a line (``#`` begins a comment), or a headline with ``symbol`` and any of
    ``exchange``, ``exchange_token``, ``kite_token``, ``mstock_token``, ... JSON: a list, or ``instruments``
    of an object, of texts or objects with ``symbol``, ``exchange``, ``exchange_token``, ``tokens``.
    Raises ``ValueError`` and ``OSError``.
    """
    if name in built_in():
        text = files("marketfeed.data").joinpath("universes", f"{name}.json").read_text("utf-8")
        return list(_from_json(json.loads(text)))
    path = Path(name)
    if path.suffix == ".json":
        return list(_from_json(json.loads(path.read_text("utf-8"))))
    if path.suffix == ".csv":
        return list(_from_csv(path.read_text("utf-8-sig")))
    raise ValueError(f"there is no such list; built in are {', '.join(built_in())}, and files end in .csv or .json")


def _from_json(document: Any) -> Iterator[Entry]:
    rows = document.get("instruments") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise ValueError("not a list of instruments")
    for row in rows:
        if isinstance(row, str):
            yield _entry({"symbol": row}, {})
        elif isinstance(row, dict) and isinstance(row.get("tokens", {}), dict):
            yield _entry(row, {str(vendor): str(token) for vendor, token in row.get("tokens", {}).items()})
        else:
            raise ValueError(f"{row!r} is neither a name nor an object with a symbol")


def _from_csv(text: str) -> Iterator[Entry]:
    rows = [row for row in csv.reader(text.splitlines()) if any(map(str.strip, row)) and not row[0].startswith("#")]
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if "symbol" not in header:
        yield from (_entry({"symbol": row[0]}, {}) for row in rows)
        return
    for row in rows[1:]:
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=False)}
        vendors = (name for name in header if name.endswith("_token") and name != "exchange_token")
        yield _entry(cells, {name.removesuffix("_token"): cells[name] for name in vendors if cells.get(name)})


def _entry(row: Mapping[str, Any], tokens: Mapping[str, str]) -> Entry:
    exchange, _, symbol = str(row.get("symbol") or "").strip().rpartition(":")
    if not symbol:
        raise ValueError(f"{dict(row)!r} has no symbol")
    return Entry(
        exchange=exchange or str(row.get("exchange") or "NSE"),
        symbol=symbol,
        exchange_token=str(row.get("exchange_token") or ""),
        tokens=tokens,
        formerly=str(row.get("formerly") or ""),
    )


# --- checking ---------------------------------------------------------------------------------


def check(entry: Entry, table: InstrumentTable, vendor: str) -> Checked:
    """Look an entry up in a vendor's master, and compare every number that it gives, also other vendors'."""
    named = table.get(entry.key)
    if named is None:
        return _renamed(entry, table, vendor)
    index = index_named(entry.exchange, entry.symbol)
    problems = []
    for who, token in _numbers(entry):
        right = _right_token(who, token, named, index, vendor)
        if right is not None:
            owner = _owner(who, token, entry.exchange, table, vendor)
            also = f" ({token} is {owner})" if owner and owner != named.key else ""
            problems.append(f"{entry.key}: {_label(who)} {token} is wrong, the right one is {right}{also}")
    return Checked(None, tuple(problems)) if problems else Checked(named)


def _numbers(entry: Entry) -> list[tuple[str, str]]:
    """Who gives which token; the exchange is ''."""
    own = [("", entry.exchange_token)] if entry.exchange_token else []
    return own + list(entry.tokens.items())


def _label(who: str) -> str:
    return f"{who} token" if who else "exchange token"


def _right_token(who: str, token: str, named: Instrument, index: Index | None, vendor: str) -> str | None:
    """The token that should be there; None where this one is right, or nothing is known about it."""
    number = exchange_token(who, token)
    if named.kind == Kind.INDEX:
        known = index.tokens.get(who, "") if index else ""
        expected = known or (named.exchange_token if who == vendor else "")
        if not expected or number == expected or (who == vendor and number == named.exchange_token):
            return None
        return kite_token(named.exchange, expected, index=True) if who == "kite" else expected
    if who == "kite":
        expected = kite_token(named.exchange, named.exchange_token)
        return expected if expected and token != expected else None
    return named.exchange_token if number != named.exchange_token else None


def _owner(who: str, token: str, exchange: str, table: InstrumentTable, vendor: str) -> str:
    """The key of the instrument that a wrong token belongs to; empty where this master does not tell."""
    found = table.by_token(token) if who == vendor else None
    if found is None and not (who == "kite" and token != kite_token(exchange, exchange_token(who, token))):
        found = table.by_exchange_token(exchange, exchange_token(who, token))
    return found.key if found else ""


def _renamed(entry: Entry, table: InstrumentTable, vendor: str) -> Checked:
    """An entry whose name the master does not have: its numbers may still say which instrument is meant."""
    numbers = {exchange_token(who, token) for who, token in _numbers(entry)}
    missing = f"{entry.key} of the list is not in the master of {vendor}"
    if not numbers:
        return Checked(None, (missing,))
    if len(numbers) > 1:
        said = ", ".join(f"{_label(who)} {token}" for who, token in _numbers(entry))
        return Checked(None, (f"{missing}, and its tokens contradict each other: {said}",))
    other = table.by_exchange_token(entry.exchange, numbers.pop())
    if other is None:
        return Checked(None, (missing,))
    # One vendor's number alone is no proof: it may as well be the number that is wrong.
    if entry.exchange_token or len(entry.tokens) > 1 or entry.formerly == other.symbol:
        return Checked(other, note=f"{entry.key} is {other.key} at {vendor}: same exchange token, other name")
    return Checked(None, (f"{missing}; its token is that of {other.key}: if it was renamed, write that name",))
