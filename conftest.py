"""What all tests share: the folder of recorded material that lies beside a checkout of the team, if it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["servers.fixtures"]
collect_ignore_glob = ["plugins/_template-*"]  # tested as what `marketfeed new` makes of it

SHARED = Path(__file__).resolve().parents[1] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """``../shared``: fixtures and recordings of others, which the project may read but not contain."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED.name}/ is not beside the checkout: recorded material not compared")
    return SHARED
