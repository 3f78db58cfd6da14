"""Faults as text: ``drop@5s``, ``mute@10s for 7s``, ``refuse@live+5s attempts=3 status=429``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import attrs

from marketfeed.sandbox.faults.base import Fault
from marketfeed.sandbox.faults.kinds import make

__all__ = ["Planned", "parse", "parse_file", "parse_now"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_FORM = 'write KIND[@TIME] [for TIME] [name=value ...], such as "mute@10s for 7s"'


@attrs.frozen(kw_only=True)
class Planned:
    """A fault that starts at its time."""

    at_s: float
    live: bool
    """Counted from the first subscription instead of the sandbox's start."""
    fault: Fault
    text: str


def parse(line: str) -> Planned:
    """One fault of a schedule. Without ``@`` it starts with the sandbox. Raises ``ValueError``."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ValueError(f"fault {line!r}: {error}; {_FORM}") from None
    if not words:
        raise ValueError(f"an empty fault; {_FORM}")
    kind, at, when = words[0].partition("@")
    live = when.startswith("live+")
    at_s = _seconds(when.removeprefix("live+"), line) if at else 0.0
    return Planned(at_s=at_s, live=live, fault=_fault(kind, words[1:], line), text=line.strip())


def parse_now(line: str) -> Fault:
    """A fault without a time, such as ``mute for 7s``. Raises ``ValueError``."""
    if "@" in line.split(" ")[0]:
        raise ValueError(f"fault {line!r}: it starts at once, so it has no time after @")
    return parse(line).fault


def parse_file(path: Path) -> list[Planned]:
    """One fault a line; empty lines and what follows ``#`` do not count. Raises ``ValueError``, ``OSError``."""
    return list(_parsed(path.name, path.read_text(encoding="utf-8").splitlines()))


def _parsed(name: str, lines: Iterable[str]) -> Iterable[Planned]:
    for number, line in enumerate(lines, 1):
        wanted = re.sub(r"(^|\s)#.*", "", line).strip()
        if not wanted:
            continue
        try:
            yield parse(wanted)
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from None


def _fault(kind: str, words: list[str], line: str) -> Fault:
    given: dict[str, object] = {}
    rest = iter(words)
    for word in rest:
        if word == "for":
            given["seconds"] = _seconds(next(rest, ""), line)
            continue
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"fault {line!r}: {word!r} is not understood; {_FORM}")
        given[name.replace("-", "_")] = value
    return make(kind, given)


def _seconds(word: str, line: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", word)
    if found is None:
        raise ValueError(f"fault {line!r}: {word!r} is not a time; write 5s, 500ms, 2m or 1h")
    return float(found[1]) * _UNITS[found[2]]
