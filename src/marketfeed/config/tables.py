"""One raw table -> the values of one settings class, with a problem for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import attrs

from marketfeed.config.file import Document
from marketfeed.config.options import EnvText, Mismatch, Option, convert, near, options_of
from marketfeed.errors import Problem
from marketfeed.redaction import USERINFO

__all__ = ["TableReader"]

_MIN_SECRET = 4  # shorter texts would blank out ordinary words
_UNSET = object()
Made = TypeVar("Made")
Path = tuple[str, ...]


class TableReader:
    """Reads tables and remembers what was wrong. ``placeholder`` stands in for missing vendor settings."""

    def __init__(self, document: Document, environ: Mapping[str, str], placeholder: str | None = None) -> None:
        self._document = document
        self._environ = environ
        self._placeholder = placeholder
        self._secrets: set[str] = set()
        self._problems: list[Problem] = []

    @property
    def problems(self) -> list[Problem]:
        """What was wrong so far, without any secret."""
        return [attrs.evolve(one, message=self._scrub(one.message)) for one in self._problems]

    def problem(self, path: Path, message: str) -> None:
        one = Problem(".".join(path), message, self._document.line(path))
        if one not in self._problems:
            self._problems.append(one)

    def read(
        self,
        cls: type[Made],
        raw: Mapping[str, Any],
        path: Path,
        *,
        given: Mapping[str, Any] | None = None,
        from_environ: bool = False,
        placeholders: bool = False,
        also: Sequence[str] = (),
    ) -> Made | None:
        """An instance of the class, or None after reporting why not.

        ``given`` are fields that do not come from the table; ``from_environ`` lets fields take the
        variable they declare; ``also`` are keys that are fine but not meant for this class.
        """
        given = given or {}
        values, good = self.options(
            cls, raw, path, skip=given, from_environ=from_environ, placeholders=placeholders, also=also
        )
        if not good:
            return None
        try:
            return cls(**given, **values)
        except Exception as error:
            self.problem(path, f"is not valid: {_first(error)}")
            return None

    def options(
        self,
        cls: type,
        raw: Mapping[str, Any],
        path: Path,
        *,
        skip: Mapping[str, Any] | None = None,
        from_environ: bool = False,
        placeholders: bool = False,
        also: Sequence[str] = (),
    ) -> tuple[dict[str, Any], bool]:
        """The values of those fields that the table sets rightly, and whether all was right."""
        known = {name: one for name, one in options_of(cls).items() if name not in (skip or {})}
        before = len(self._problems)
        for key in raw:
            if key not in known:
                self.problem((*path, key), f"is not an option here{near(key, [*known, *also])}")
        values: dict[str, Any] = {}
        for option in known.values():
            value = self._value(option, raw, path, from_environ, placeholders)
            if value is not _UNSET:
                value = self._converted(option, value, (*path, option.name))
            if value is not _UNSET:
                values[option.name] = value
        bad = self._validate(known, values, path)
        return {name: value for name, value in values.items() if name not in bad}, len(self._problems) == before

    def resolve(self, value: Any, path: Path) -> Any:
        """``{ env = "X", default = ... }`` anywhere in a value becomes its text; reports unset variables."""
        if isinstance(value, list):
            items = [self.resolve(item, path) for item in value]
            return _UNSET if _UNSET in items else items
        if not isinstance(value, Mapping):
            return value
        if not _is_reference(value):
            table = {key: self.resolve(item, (*path, key)) for key, item in value.items()}
            return _UNSET if _UNSET in table.values() else table
        name = value["env"]
        if self._environ.get(name):
            return EnvText(self._environ[name], name)
        if "default" in value:
            return value["default"]
        self.problem(path, f"the environment variable {name} is not set; set it, or write it to .env")
        return _UNSET

    def _value(self, option: Option, raw: Mapping[str, Any], path: Path, from_environ: bool, placeholders: bool) -> Any:
        """What the table, the environment or the placeholder say; ``_UNSET`` leaves the default."""
        stand_in = self._placeholder if placeholders and (option.secret or option.env) else None
        if option.name in raw:
            value = raw[option.name]
            if stand_in and _is_reference(value) and not ("default" in value or self._environ.get(value["env"])):
                return stand_in if option.required else _UNSET
            return self.resolve(value, (*path, option.name))
        if from_environ and option.env and self._environ.get(option.env):
            return EnvText(self._environ[option.env], option.env)
        if not option.required:
            return _UNSET
        if stand_in:
            return stand_in
        self.problem((*path, option.name), _missing(option, from_environ))
        return _UNSET

    def _converted(self, option: Option, value: Any, path: Path) -> Any:
        if option.secret:
            self._remember(value)
        try:
            return convert(option, value)
        except Mismatch as error:
            self.problem(path, f"must be {error.wanted}{_not_this(option, value)}")
        except Exception as error:
            text = "(value not shown)" if option.secret else f"({_first(error)})"
            self.problem(path, f"is not valid {text}")
        return _UNSET

    def _validate(self, known: Mapping[str, Option], values: Mapping[str, Any], path: Path) -> set[str]:
        """Run the class's own converters and validators one by one; the names that did not pass."""
        bad: set[str] = set()
        probe = SimpleNamespace(**values)
        for name, value in values.items():
            option = known[name]
            try:
                converter = option.field.converter
                if converter is not None and not isinstance(converter, attrs.Converter):
                    value = converter(value)
                if option.field.validator is not None:
                    option.field.validator(probe, option.field, value)
                continue
            except Mismatch as error:
                self.problem((*path, name), f"must be {error.wanted}{_not_this(option, values[name])}")
            except Exception as error:
                text = "(value not shown)" if option.secret else f"({_first(error)})"
                self.problem((*path, name), f"is not valid {text}")
            bad.add(name)
        return bad

    def _remember(self, value: Any) -> None:
        values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
        self._secrets |= {one for one in values if isinstance(one, str) and len(one) >= _MIN_SECRET}

    def _scrub(self, text: str) -> str:
        for value in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(value, "***")
        return USERINFO.sub("***", text)


def _is_reference(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("env"), str) and set(value) <= {"env", "default"}


def _not_this(option: Option, value: object) -> str:
    if option.secret:
        return " (value not shown)"
    if isinstance(value, EnvText):
        return f", not {str(value)!r} (from {value.variable})"
    return f", not {_toml(value)}"


def _toml(value: object) -> str:
    """A value roughly as it stands in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else repr(value)


def _missing(option: Option, from_environ: bool) -> str:
    if option.env and from_environ:
        return f"is missing, and {option.env} is not set; set it, or write {option.name} = ..."
    if option.env:
        return f'is missing; write {option.name} = {{ env = "{option.env}" }}'
    return f"is missing; write {option.name} = ..."


def _first(error: Exception) -> str:
    """The text of an exception; attrs puts the field and the value behind it, which nobody needs."""
    return str(error.args[0]) if error.args else type(error).__name__
