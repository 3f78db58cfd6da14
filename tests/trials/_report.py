"""What the trials found, as one table at the end of a run.

A trial takes the fixture ``report`` and calls it once::

    report("2 outages in virtual time", 100, "the ledger equals what was injected", aim="all equal")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

__all__ = ["COLUMNS", "PROPERTY", "Report", "rows_of", "table"]

COLUMNS = ("trial", "count", "found", "aim", "")
PROPERTY = "trial row"
"""Name of the user property of a test report that holds a row: it travels from xdist's workers, too."""


class Report(Protocol):
    """Adds one row to the table."""

    def __call__(self, trial: str, count: int, found: str, *, aim: str = "") -> None:
        """``trial`` begins with its number in the list of what is shown, by which the rows are sorted."""


def rows_of(properties: Iterable[tuple[str, Any]], outcome: str) -> list[Sequence[str]]:
    """The rows in a test's properties, with what became of the test; a failed one says so where it found."""
    return [(*row, "" if outcome == "passed" else outcome.upper()) for name, row in properties if name == PROPERTY]


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of equal columns, sorted by the trials' numbers."""
    lines = [COLUMNS, *sorted(rows, key=_place)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    shown = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [shown[0], "  ".join("-" * width for width in widths).rstrip(), *shown[1:]]


def _place(row: Sequence[str]) -> tuple[float, str]:
    number = row[0].split(" ")[0]
    return (float(number), row[0]) if number.replace(".", "", 1).isdigit() else (float("inf"), row[0])
