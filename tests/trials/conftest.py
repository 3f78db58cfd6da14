"""The table of the trials, and time that passes only when somebody waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from trials._report import PROPERTY, Report, rows_of, table

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Adds a row to the table that is printed at the end."""

    def add(trial: str, count: int, found: str, *, aim: str = "") -> None:
        request.node.user_properties.append((PROPERTY, [trial, f"{count:,}", found, aim]))

    return add


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print the rows of all trials that reported one; a failed trial without a row stands there by its name."""
    rows = []
    for outcome in ("passed", "failed", "error"):
        for one in terminalreporter.stats.get(outcome, ()):
            if getattr(one, "when", "call") != "call" and outcome == "passed":
                continue
            found = rows_of(getattr(one, "user_properties", ()), outcome)
            if not found and outcome != "passed" and "/trials/" in one.nodeid:
                found = [(one.nodeid.rpartition("::")[2], "", "", "", outcome.upper())]
            rows += found
    if rows:
        terminalreporter.section("trials")
        for line in table(rows):
            terminalreporter.write_line(line)
