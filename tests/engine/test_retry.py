"""The retry table covers every error class, and the docs show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketfeed import errors
from marketfeed.engine.retry import ACTIONS, Action, action_for

ROOT = Path(__file__).resolve().parents[2]


def test_every_vendor_error_has_a_line_of_its_own() -> None:
    assert set(errors.VendorError.__subclasses__()) <= set(ACTIONS)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (errors.LineLost("x"), Action.RECONNECT),
        (errors.PluginNotFound("x"), Action.STOP),
        (errors.Overrun("x", 1, 2), Action.STOP),
        (errors.SinkError("x"), Action.RETRY),
        (errors.SinkError("x", retryable=False), Action.STOP),
        (KeyError("a bug"), Action.STOP),
    ],
)
def test_the_nearest_class_decides(error: Exception, action: Action) -> None:
    assert action_for(error) is action


def test_the_table_in_the_docs_is_the_table_in_the_code() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    for kind, action in ACTIONS.items():
        assert f"| `{kind.__name__}` | {action.value} |" in page
