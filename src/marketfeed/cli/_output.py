"""What commands print: a table for people, JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

__all__ = ["on_terminal", "print_json", "print_table", "warn"]


def on_terminal() -> bool:
    """Whether somebody reads standard output."""
    return sys.stdout.isatty()


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], indent: str = "") -> None:
    """Aligned columns under a headline; the last column may be as long as it likes."""
    lines = [tuple(headers), *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for number, line in enumerate(lines):
        text = indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)


def warn(text: object) -> None:
    """A line on standard error."""
    click.echo(f"{click.style('warning:', fg='yellow')} {text}", err=True)
