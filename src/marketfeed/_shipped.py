"""Files that are no Python and travel with the package: JSON schemas, and the templates of ``marketfeed new``.

They have one home in the repository (``schemas/``, ``plugins/_template-*``); the wheel holds copies of them beside
the modules (``pyproject.toml``, force-include). An editable installation runs from the repository and reads the home.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["shipped"]

_PACKAGE: Final = Path(__file__).resolve().parent
_HOMES: Final = {
    "schemas": "schemas",
    "_templates/sink": "plugins/_template-sink",
    "_templates/vendor": "plugins/_template-vendor",
}
"""Folder in the wheel -> folder in the repository."""


def shipped(name: str) -> Path:
    """The folder of that name. Raises ``FileNotFoundError`` when this installation does not have it."""
    places = [_PACKAGE / name]
    if name in _HOMES:
        places.append(_PACKAGE.parents[1] / _HOMES[name])
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"this installation of marketfeed has no {name}")
