"""From what people write to instruments: names, globs, ``@lists``, nearest futures, options at the money.

========================================  ==========================================================
``NSE:RELIANCE``                          one instrument
``NFO:NIFTY*FUT``, ``NSE:*``              all that match
``@nifty50``, ``@my.csv``, ``@my.json``   a list (:mod:`marketfeed.universes`)
``NFO:NIFTY FUT 1``                       the nearest future that has not expired; 2 is the one after it
``NFO:NIFTY OPT ATM+-5``                  options of the nearest expiry: the strike at the money and five on each side
``NFO:NIFTY OPT ALL``                     all strikes of the nearest expiry
========================================  ==========================================================

After ``ATM+-5`` or ``ALL`` may follow, in this order: which expiry (``2`` = the one after the nearest, or
``2026-11-24``), one side (``CE`` or ``PE``), and a price of the underlying (``@24000``) for the money.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import Final, Literal

import attrs

from marketfeed.chains import OptionChain, expiries, futures, option_chain, underlying
from marketfeed.enums import Exchange
from marketfeed.errors import MarketFeedError
from marketfeed.instruments import Instrument, InstrumentTable
from marketfeed.symbols import index_named
from marketfeed.universes import built_in, check, read_universe

__all__ = ["Found", "form_problem", "is_moving", "select"]

Price = Callable[[Instrument], float]
"""A present price of an instrument, in rupees; may raise ``MarketFeedError``."""
_FUTURE: Final = re.compile(r"(?P<exchange>[A-Z]+):(?P<name>.+?) FUT (?P<number>[1-9]\d?)", re.ASCII)
_OPTIONS: Final = re.compile(
    r"(?P<exchange>[A-Z]+):(?P<name>.+?) OPT (?:ATM(?:\+-(?P<width>\d{1,3}))?|(?P<all>ALL))"
    r"(?: (?P<expiry>[1-9]\d?|\d{4}-\d\d-\d\d))?(?: (?P<side>CE|PE))?(?: @(?P<price>\d+(?:\.\d+)?))?",
    re.ASCII,
)
_MEANT: Final = re.compile(r" (FUT|OPT)\b")
_GLOB: Final = re.compile(r"[*?\[]")


@attrs.frozen
class _Future:
    text: str
    exchange: str
    name: str
    number: int


@attrs.frozen
class _Options:
    text: str
    exchange: str
    name: str
    width: int | None
    """Strikes on each side; None = all."""
    expiry: date | int
    """A day, or which one counted from 1."""
    side: Literal["CE", "PE"] | None
    price: float | None


@attrs.frozen(kw_only=True)
class Found:
    """What a selection came to."""

    instruments: tuple[Instrument, ...]
    """Without repeats, in the order of the selection."""
    problems: tuple[str, ...] = ()
    """A sentence for each thing that cannot be had."""
    notes: tuple[str, ...] = ()
    """What was found, but should be known, such as a new name."""


def form_problem(text: str) -> str | None:
    """What is wrong with the form of a selection, without looking into a master; None = nothing."""
    if text.startswith("@"):
        if len(text) > 1 and (text[1:] in built_in() or text.endswith((".csv", ".json"))):
            return None
        return f"names no list; built in are {', '.join(f'@{one}' for one in built_in())}, files end in .csv or .json"
    if not (re.search(r".:.", text) or _GLOB.search(text)):
        return "has no exchange; write it as EXCHANGE:SYMBOL"
    if _MEANT.search(text):
        try:
            _parse(text)
        except ValueError as error:
            return str(error)
    return None


def is_moving(text: str) -> bool:
    """Whether a selection means other instruments on other days, as the nearest future does."""
    return bool(_MEANT.search(text)) and not text.startswith("@")


def select(
    texts: Iterable[str], table: InstrumentTable, *, vendor: str, today: date, price: Price | None = None
) -> Found:
    """Resolve a selection in a vendor's master. ``today`` is the day in India; contracts that expire on it count.

    ``price`` is asked for the underlying where ``ATM`` names no price of its own.
    """
    found: dict[Instrument, None] = {}
    problems: list[str] = []
    notes: list[str] = []
    for text in texts:
        try:
            if text.startswith("@"):
                part = _listed(text, table, vendor)
            elif _MEANT.search(text):
                part = Found(instruments=tuple(_contracts(_parse(text), table, today, price)))
            else:
                instruments, wrong = table.select([text])
                part = Found(instruments=tuple(instruments), problems=tuple(wrong))
        except (ValueError, OSError, MarketFeedError) as error:
            problems.append(f"{text!r}: {error}")
            continue
        found.update(dict.fromkeys(part.instruments))
        problems += part.problems
        notes += part.notes
    return Found(instruments=tuple(found), problems=tuple(problems), notes=tuple(notes))


def _listed(text: str, table: InstrumentTable, vendor: str) -> Found:
    checked = [check(entry, table, vendor) for entry in read_universe(text[1:])]
    return Found(
        instruments=tuple(one.instrument for one in checked if one.instrument is not None),
        problems=tuple(f"{text}: {problem}" for one in checked for problem in one.problems),
        notes=tuple(f"{text}: {one.note}" for one in checked if one.note),
    )


def _parse(text: str) -> _Future | _Options:
    """Raises ``ValueError`` for what is neither."""
    if hit := _FUTURE.fullmatch(text):
        return _Future(text, *_place(hit), int(hit["number"]))
    hit = _OPTIONS.fullmatch(text.replace("\N{PLUS-MINUS SIGN}", "+-"))
    if hit is None:
        raise ValueError(
            "is not understood; write 'NFO:NIFTY FUT 1' or 'NFO:NIFTY OPT ATM+-5 [EXPIRY] [CE|PE] [@PRICE]'"
        )
    expiry = hit["expiry"] or "1"
    side: Literal["CE", "PE"] | None = "CE" if hit["side"] == "CE" else "PE" if hit["side"] else None
    return _Options(
        text,
        *_place(hit),
        width=None if hit["all"] else int(hit["width"] or 0),
        expiry=date.fromisoformat(expiry) if "-" in expiry else int(expiry),
        side=side,
        price=float(hit["price"]) if hit["price"] else None,
    )


def _place(hit: re.Match[str]) -> tuple[str, str]:
    """Exchange and underlying; who writes the index's name means its contracts."""
    exchange, name = hit["exchange"], hit["name"]
    if exchange not in tuple(Exchange):
        raise ValueError(f"{exchange!r} is no exchange; choose {', '.join(Exchange)}")
    index = index_named("BSE" if exchange == "BFO" else "NSE", name)
    return exchange, index.underlying if index and index.underlying else name


def _contracts(
    wanted: _Future | _Options, table: InstrumentTable, today: date, price: Price | None
) -> Iterator[Instrument]:
    if isinstance(wanted, _Options):
        yield from _options(wanted, table, today, price)
        return
    listed = futures(table, wanted.exchange, wanted.name, today)
    if len(listed) < wanted.number:
        raise ValueError(f"{wanted.exchange} lists {len(listed) or 'no'} futures on {wanted.name}")
    yield listed[wanted.number - 1]


def _options(wanted: _Options, table: InstrumentTable, today: date, price: Price | None) -> Iterator[Instrument]:
    chain = _chain(wanted, table, today)
    options = chain.options
    if wanted.width is not None:
        options = chain.around(_money(wanted, table, today, price), wanted.width)
    yield from (one for one in options if wanted.side in (None, one.kind))


def _chain(wanted: _Options, table: InstrumentTable, today: date) -> OptionChain:
    days = expiries(table, wanted.exchange, wanted.name, today)
    if not days:
        raise ValueError(f"{wanted.exchange} lists no options on {wanted.name}")
    expiry = wanted.expiry
    if isinstance(expiry, int):
        if expiry > len(days):
            raise ValueError(f"there are {len(days)} days of expiry, the last is {days[-1]}")
        expiry = days[expiry - 1]
    elif expiry not in days:
        ordinal = expiry.toordinal()
        near = sorted(days, key=lambda day: abs(day.toordinal() - ordinal))[:3]
        raise ValueError(f"nothing expires on {expiry}; near it are {', '.join(map(str, near))}")
    return option_chain(table, wanted.exchange, wanted.name, expiry)


def _money(wanted: _Options, table: InstrumentTable, today: date, price: Price | None) -> float:
    if wanted.price is not None:
        return wanted.price
    remedy = f"write one, such as '{wanted.text} @24000'"
    base = underlying(table, wanted.exchange, wanted.name, today)
    if base is None or price is None:
        raise ValueError(f"the price of {base.key if base else wanted.name} is not known here; {remedy}")
    try:
        return price(base)
    except MarketFeedError as error:
        raise ValueError(f"no price of {base.key} ({error}); {remedy}") from error
