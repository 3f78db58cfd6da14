"""Makes the helper modules beside the tests importable, which the importlib mode of pytest does not."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
