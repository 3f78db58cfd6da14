"""Settings classes as options: what they are called, what they take, and values turned into it.

A frozen attrs class is the whole description of a table; cattrs does the conversion, with hooks that
are strict for what TOML says and lenient for text from the environment.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

import attrs
import cattrs

from marketfeed.enums import Mode

__all__ = [
    "EnvText",
    "Mismatch",
    "Option",
    "convert",
    "docs_of",
    "near",
    "one_of",
    "options_of",
    "parse_bytes",
    "type_text",
]

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_SEQUENCES = (list, tuple, set, frozenset, Sequence)
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


class EnvText(str):
    """Text of an environment variable: it may stand for a number, a truth value, a list."""

    __slots__ = ("variable",)
    variable: str

    def __new__(cls, text: str, variable: str) -> EnvText:
        self = super().__new__(cls, text)
        self.variable = variable
        return self


class Mismatch(ValueError):
    """A value is not of the wanted kind; ``wanted`` completes "must be ..."."""

    def __init__(self, wanted: str) -> None:
        super().__init__(f"must be {wanted}")
        self.wanted = wanted


@attrs.frozen
class Option:
    """One key of a table."""

    name: str
    field: attrs.Attribute[Any]
    type: Any

    @property
    def required(self) -> bool:
        return self.field.default is attrs.NOTHING

    @property
    def secret(self) -> bool:
        return bool(self.field.metadata.get("secret"))

    @property
    def env(self) -> str | None:
        """The environment variable that stands in for an absent key."""
        name: str | None = self.field.metadata.get("env")
        return name

    @property
    def default(self) -> Any:
        """The default value; None where there is none."""
        default: Any = self.field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            return None if default.takes_self else default.factory()
        return None if default is attrs.NOTHING else default

    @property
    def optional(self) -> bool:
        return type(None) in get_args(self.type)


def options_of(cls: type) -> dict[str, Option]:
    """The options of an attrs class by name, in order; none for a class that is not one of attrs.

    Raises ``NameError`` where an annotation cannot be resolved (an import under TYPE_CHECKING).
    """
    if not attrs.has(cls):
        return {}
    fields = attrs.fields(attrs.resolve_types(cls))
    return {
        field.alias or field.name: Option(field.alias or field.name, field, field.type)
        for field in fields
        if field.init
    }


def docs_of(cls: type) -> dict[str, str]:
    """The text under each field of a class and its bases; empty where there is no source to read."""
    docs: dict[str, str] = {}
    for one in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for item, after in pairwise(body):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                text = after.value if isinstance(after, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    docs[item.target.id] = " ".join(text.value.split())
    return docs


def convert(option: Option, value: Any) -> Any:
    """The value as the option wants it, validated. Raises ``Mismatch`` or whatever the class raises.

    An option with a converter of its own gets the value as it stands.
    """
    if isinstance(value, str) and not value and option.optional:
        value = None  # an empty text is how an environment says "nothing"
    if option.field.converter is None and option.type is not None:
        return CONVERTER.structure(value, option.type)
    return value


def parse_bytes(value: int | str) -> int:
    """A size in bytes: an integer, or text such as ``4GB`` (10^9) or ``128MiB`` (2^20)."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _BYTES.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise Mismatch('a size such as "4GB" or "128MiB"')
    power = "kmgt".find(found[2].lower()) + 1 if found[2] else 0
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def near(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    hits = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {hits[0]!r}?" if hits else ""


def one_of(words: Iterable[object]) -> str:
    """The choices for people: ``"a", "b" or "c"``."""
    *most, last = [f'"{word}"' for word in words]
    return f"{', '.join(most)} or {last}" if most else last


def type_text(kind: Any) -> str:
    """A type for people: ``text``, ``whole number``, ``list of text``."""
    names = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path", Mode: "text"}
    if get_origin(kind) is Literal:
        return one_of(get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(type_text(one) for one in get_args(kind) if one is not type(None))
    if get_origin(kind) in _SEQUENCES or get_origin(kind) is Sequence:
        return "list of " + type_text(next(iter(get_args(kind)), str))
    return names.get(kind, getattr(kind, "__name__", "value"))


# --- conversion -------------------------------------------------------------------------------


def _scalar(value: Any, kind: type) -> Any:
    """One entry for all plain types: cattrs picks hooks by base class, and an IntEnum is an int too."""
    if issubclass(kind, Mode):
        return _mode(value)
    if issubclass(kind, Enum):
        return _enum(value, kind)
    return _SCALARS[kind](value) if kind in _SCALARS else cast("Any", kind)(value)


def _int(value: Any) -> int:
    if isinstance(value, EnvText):
        try:
            return int(value.strip())
        except ValueError:
            raise Mismatch("a whole number") from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise Mismatch("a whole number")
    return value


def _float(value: Any) -> float:
    try:
        if isinstance(value, bool) or (isinstance(value, str) and not isinstance(value, EnvText)):
            raise ValueError
        number = float(value)
    except (ValueError, TypeError):
        raise Mismatch("a number") from None
    if not math.isfinite(number):
        raise Mismatch("a finite number")
    return number


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, EnvText) else None
    if word not in _TRUE + _FALSE:
        raise Mismatch("true or false")
    return word in _TRUE


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch("text in quotes")
    return str(value)


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise Mismatch("a path in quotes")
    return Path(str(value)).expanduser()


def _mode(value: Any) -> Mode:
    if isinstance(value, Mode):
        return value
    if not isinstance(value, str) or value.upper() not in Mode.__members__:
        raise Mismatch(one_of(mode.word for mode in Mode))
    return Mode.of(value)


def _enum(value: Any, kind: type[Enum]) -> Enum:
    for member in kind:
        if value is member or value == member.value:
            return member
    raise Mismatch(one_of(member.value for member in kind))


_SCALARS: dict[type, Callable[[Any], Any]] = {int: _int, float: _float, bool: _bool, str: _str, Path: _path}


def _literal(value: Any, kind: Any) -> Any:
    for choice in get_args(kind):
        if value == choice and isinstance(value, type(choice)):
            return choice
        if isinstance(value, EnvText) and value.strip().lower() == str(choice).lower():  # LOG_LEVEL=INFO
            return choice
    raise Mismatch(one_of(get_args(kind)))


def _union(value: Any, kind: Any) -> Any:
    """The first member that takes the value; None only where the union has it."""
    members = [one for one in get_args(kind) if one is not type(None)]
    if value is None and len(members) < len(get_args(kind)):
        return None
    wanted: list[str] = []
    for member in members:
        try:
            return CONVERTER.structure(value, member)
        except Mismatch as error:
            wanted.append(error.wanted)
        except (ValueError, TypeError):
            wanted.append(type_text(member))
    raise Mismatch(" or ".join(wanted))


def _sequence(value: Any, kind: Any) -> Any:
    origin, (member, *_) = get_origin(kind), get_args(kind)
    if isinstance(value, EnvText):
        value = [EnvText(part.strip(), value.variable) for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple | set | frozenset):
        raise Mismatch("a list")
    try:
        items = [CONVERTER.structure(item, member) for item in value]
    except Mismatch as error:
        raise Mismatch(f"a list of which each item is {error.wanted}") from None
    return origin(items) if origin in (list, set, frozenset) else tuple(items)


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


def _is_union(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin in (Union, UnionType)


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) in _SEQUENCES and bool(get_args(kind))


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False, forbid_extra_keys=True, prefer_attrib_converters=True)
    for kind in (*_SCALARS, Enum):
        converter.register_structure_hook(kind, _scalar)
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook_func(_is_union, _union)
    converter.register_structure_hook_func(_is_sequence, _sequence)
    return converter


CONVERTER = _converter()
