"""When a market trades. Days are India days; times go in and out as UTC nanoseconds.

The table ``data/nse.json`` holds the regular hours, the holidays and every special session (muhurat,
weekend and halted days) and says until when it knows. Beyond that, weekdays count as trading days, and
:attr:`MarketCalendar.known_until` lets a program say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from marketfeed.clock import IST, NS, to_ns

__all__ = ["ALWAYS", "MarketCalendar", "TradingSession"]

_SATURDAY = 5
_SEARCH_DAYS = 30
"""No exchange was ever closed for a month; a table that says so is wrong."""


class TradingSession(NamedTuple):
    """One stretch of trading, ``[open_ns, close_ns)`` in UTC nanoseconds."""

    open_ns: int
    close_ns: int


@attrs.frozen
class MarketCalendar:
    """The sessions of one exchange; :data:`ALWAYS` is a market that never closes."""

    exchange: str
    regular: tuple[tuple[str, str], ...]
    """Open and close of an ordinary weekday, ``HH:MM`` India time."""
    holidays: frozenset[date] = frozenset()
    special: Mapping[date, tuple[tuple[str, str], ...]] = attrs.field(factory=dict)
    """Days with hours of their own, also weekend days and holidays."""
    weekends: bool = False
    """Whether Saturdays and Sundays are ordinary days."""
    known_until: date | None = None
    """Last day that the table speaks of; None = no end."""

    @classmethod
    def named(cls, name: str) -> MarketCalendar:
        """The calendar ``NSE`` or ``always``, or one of your own in a ``.json`` file.

        Raises ``KeyError`` for another name, ``OSError`` or ``ValueError`` for a file that cannot be used.
        """
        if name == "always":
            return ALWAYS
        if name.endswith(".json"):
            return cls.from_file(Path(name))
        if name != "NSE":
            raise KeyError(name)
        return cls.from_json(json.loads((files("marketfeed.data") / "nse.json").read_text(encoding="utf-8")))

    @classmethod
    def from_file(cls, path: Path) -> MarketCalendar:
        """A calendar of one's own, in the form of ``data/nse.json``. Raises ``OSError``, or ``ValueError`` that says
        what is wrong."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no calendar: {error!r}") from error

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MarketCalendar:
        """From the parsed content of such a file."""
        return cls(
            exchange=content["exchange"],
            regular=tuple((opens, closes) for opens, closes in content["regular"]),
            holidays=frozenset(date.fromisoformat(day) for day in content["holidays"]),
            special={
                date.fromisoformat(day): tuple((opens, closes) for opens, closes in hours)
                for day, hours in content["special"].items()
            },
            known_until=date.fromisoformat(content["known_until"]),
        )

    def ends_soon(self, now_ns: int) -> bool:
        """Whether the table ends within a month, or has ended: from then on holidays are not known."""
        return self.known_until is not None and india_day(now_ns) > self.known_until - timedelta(days=_SEARCH_DAYS)

    def sessions(self, day: date) -> list[TradingSession]:
        """The sessions of an India day, in order; empty on a day without trading."""
        hours = self.special.get(day)
        if hours is None:
            closed = day in self.holidays or (day.weekday() >= _SATURDAY and not self.weekends)
            hours = () if closed else self.regular
        return [TradingSession(_at(day, opens), _at(day, closes)) for opens, closes in hours]

    def is_open(self, now_ns: int) -> bool:
        """Whether a session runs at that moment."""
        return any(opens <= now_ns < closes for opens, closes in self.sessions(india_day(now_ns)))

    def next_open(self, now_ns: int) -> int:
        """Start of the session that runs at ``now_ns``, or else of the next one (UTC nanoseconds)."""
        day = india_day(now_ns)
        for ahead in range(_SEARCH_DAYS):
            for opens, closes in self.sessions(day + timedelta(days=ahead)):
                if now_ns < closes:
                    return opens
        raise ValueError(f"calendar {self.exchange} has no session within {_SEARCH_DAYS} days of {day}")

    def last_close(self, now_ns: int) -> int:
        """End of the latest session that is over at ``now_ns`` (UTC nanoseconds); 0 if none is near."""
        day = india_day(now_ns)
        for back in range(_SEARCH_DAYS):
            for _, closes in reversed(self.sessions(day - timedelta(days=back))):
                if closes <= now_ns:
                    return closes
        return 0

    def open_seconds(self, start_ns: int, end_ns: int) -> float:
        """How much of ``[start_ns, end_ns)`` (UTC nanoseconds) lies inside sessions."""
        day, inside = india_day(start_ns), 0
        while start_ns < end_ns and day <= india_day(end_ns):
            for opens, closes in self.sessions(day):
                inside += max(0, min(end_ns, closes) - max(start_ns, opens))
            day += timedelta(days=1)
        return inside / NS


def india_day(now_ns: int) -> date:
    """The India day of a moment in UTC nanoseconds."""
    return datetime.fromtimestamp(now_ns // NS, IST).date()


def _at(day: date, clock: str) -> int:
    """``HH:MM`` of an India day in UTC nanoseconds; ``24:00`` is the end of the day."""
    hours, minutes = clock.split(":")
    return to_ns(day) + (int(hours) * 60 + int(minutes)) * 60 * NS


ALWAYS = MarketCalendar("always", (("00:00", "24:00"),), weekends=True)
"""A market that never closes; for sandboxes and replays."""
