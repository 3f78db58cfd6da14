"""A TOML file as text: its values, the line of each key, and the environment it may refer to."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from marketfeed.errors import ConfigError, Problem

__all__ = ["Document", "key_lines", "read_document", "read_environ"]

Path_ = tuple[str, ...]
_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_TOKEN = re.compile(r'''"""|\'\'\'|"(?:[^"\\]|\\.)*"|'[^']*'|[\[\]{}#]''')
_POSITION = re.compile(r"\s*\(at line (\d+), column (\d+)\)$")


@attrs.frozen
class Document:
    """What a file says, not yet judged."""

    values: Mapping[str, Any]
    lines: Mapping[Path_, int] = attrs.field(factory=dict)
    """Path of a key -> its line, from 1."""

    def line(self, path: Path_) -> int | None:
        """The line of a key, or of the innermost table around it that has one."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None


def read_document(path: Path) -> Document:
    """Read a TOML file. Raises ``ConfigError`` where it cannot be read or is not TOML."""
    problem: Problem
    try:
        text = path.read_bytes().decode("utf-8").removeprefix("\ufeff")
        return Document(tomllib.loads(text), key_lines(text))
    except FileNotFoundError:
        problem = Problem("", "there is no such file; `marketfeed init` writes one")
    except OSError as error:
        problem = Problem("", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problem = Problem("", f"is not UTF-8 text (byte {error.start}); save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        problem = _syntax_problem(str(error))
    raise ConfigError([problem], path)


def read_environ(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` over the ``.env`` file in that folder, if there is one; nothing is put into the process.

    Values of ``.env`` are taken as they stand (no ``${...}`` inside). Empty variables count as not set. Raises
    ``ConfigError`` for a ``.env`` that cannot be read.
    """
    from dotenv import dotenv_values

    file = folder / ".env"
    try:
        given = dotenv_values(file, interpolate=False) if file.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([Problem("", f"cannot be read: {why}")], file) from None
    return {name: value for name, value in {**given, **environ}.items() if value}


def key_lines(text: str) -> dict[Path_, int]:
    """The line of every table header and key; a scan, for files that tomllib accepts."""
    lines: dict[Path_, int] = {}
    section: Path_ = ()
    depth, quote = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        start = 0
        if depth == 0 and not quote:
            if header := _HEADER.match(line):
                section = _parts(header[1])
                lines.setdefault(section, number)
                continue
            if key := _KEY.match(line):
                lines.setdefault(section + _parts(key[1]), number)
                start = key.end()
        depth, quote = _skip_value(line, start, depth, quote)
    return lines


def _skip_value(line: str, start: int, depth: int, quote: str) -> tuple[int, str]:
    """Bracket depth and open triple quote at the end of a line."""
    while start < len(line):
        if quote:
            end = line.find(quote, start)
            if end < 0:
                return depth, quote
            start, quote = end + 3, ""
            continue
        token = _TOKEN.search(line, start)
        if token is None or token[0] == "#":
            break
        start = token.end()
        if token[0] in ('"""', "'''"):
            quote = token[0]
        elif len(token[0]) == 1:
            depth += 1 if token[0] in "[{" else -1
    return depth, quote


def _parts(dotted: str) -> Path_:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))


def _syntax_problem(message: str) -> Problem:
    found = _POSITION.search(message)
    if not found:
        return Problem("", f"is not valid TOML: {message}")
    return Problem("", f"is not valid TOML: {message[: found.start()]} (column {found[2]})", int(found[1]))
