"""The layers of the core: a module imports from its own layer or from the layers above it in the table, and
within a layer without cycles. Read from the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "marketfeed"

LAYERS: list[tuple[str, ...]] = [
    ("errors", "enums", "clock", "redaction", "totp", "_shipped"),
    ("dtypes", "instruments", "batches", "_frames", "calendars", "data", "lookup", "symbols", "chains", "identity"),
    ("contract", "brokers", "hookspecs"),
    ("plugins", "config", "http", "tokens", "masters", "universes", "selection"),
    ("journal", "framelog", "deadletters", "gaps", "runs"),
    ("engine",),
    ("client",),
    ("feed", "history", "quotes", "instrument_book", "capture", "monitoring", "sinkprocess", "overview"),
    ("sinks", "sandbox", "cli", "testing", "__main__"),
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def unit_of(path: Path) -> str:
    """The top-level module or package of the core that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(source: str) -> set[str]:
    """Units of the core that a module imports, at import time or later, but not for type checking alone."""
    tree = ast.parse(source)
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "marketfeed":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("marketfeed.")}
    return found


def graph() -> dict[str, set[str]]:
    units: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        if path != SOURCE / "__init__.py":
            unit = unit_of(path)
            units.setdefault(unit, set()).update(imports_of(path.read_text()) - {unit})
    return units


def test_every_module_has_a_layer() -> None:
    assert set(graph()) <= set(RANK)


def test_nobody_imports_from_a_layer_below() -> None:
    wrong = [
        f"{unit} (layer {RANK[unit]}) imports {other} (layer {RANK[other]})"
        for unit, others in graph().items()
        for other in others
        if other in RANK and RANK[other] > RANK[unit]
    ]
    assert not wrong


def test_modules_of_one_layer_do_not_import_each_other_in_a_circle() -> None:
    units = graph()

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        near = {other for other in units.get(start, ()) if RANK.get(other) == RANK[goal]} - seen
        return goal in near or any(reaches(other, goal, seen | near) for other in near)

    assert [unit for unit in units if reaches(unit, unit, set())] == []


def test_the_reading_finds_every_way_to_import() -> None:
    source = """
import marketfeed.sinks.files
from marketfeed import feed
from marketfeed.engine.wire import Wire
if TYPE_CHECKING:
    from marketfeed.cli import main
def later():
    from marketfeed.http import HttpSession
"""
    assert imports_of(source) == {"sinks", "feed", "engine", "http"}
