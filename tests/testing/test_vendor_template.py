"""What ``marketfeed new vendor`` writes is a broker that works: it passes the contract of all vendors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from marketfeed.cli import main


@pytest.mark.process
def test_a_new_vendor_passes_its_tests(tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert CliRunner().invoke(main, ["new", "vendor", "acme-one", "--output", str(made)]).exit_code == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(made)],
        cwd=made,
        env={**os.environ, "PYTHONPATH": str(made / "src")},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
