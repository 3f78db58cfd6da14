"""The JSON schemas of what JSON sinks publish; ``schemas/`` in the repository, part of every installation."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema

from marketfeed._shipped import shipped

__all__ = ["schema", "validator"]


@cache
def schema(name: str) -> dict[str, Any]:
    """The schema of that name: ``tick``, ``tick-compact``, ``candle``, ``dead-letter``, ``gap``.

    Raises ``ValueError`` for an unknown name.
    """
    folder = shipped("schemas")
    file = folder / f"{name}.schema.json"
    if not file.is_file():
        known = ", ".join(sorted(one.name.removesuffix(".schema.json") for one in folder.glob("*.schema.json")))
        raise ValueError(f"no schema {name!r}; there are {known}")
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """A validator for documents of that schema."""
    return jsonschema.Draft202012Validator(schema(name))
