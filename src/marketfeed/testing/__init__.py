"""The kit for authors of plugins: contract tests to subclass, and batches to test with.

It needs ``pip install marketfeed[testing]`` (pytest and jsonschema); nothing else of marketfeed imports it.
"""

from __future__ import annotations

import pytest

# Before the checks are imported: then a failing assert of the kit shows its values, as one of the test file's own.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            *("basics", "case", "driving", "manners", "reading", "trouble"),
            *("bench", "vendor_basics", "vendor_calls", "vendor_case", "vendor_feed", "vendor_parser", "vendor_stream"),
        )
    )
)

from marketfeed.testing.samples import sample_candles, sample_ticks, tick_batch  # noqa: E402
from marketfeed.testing.schemas import schema  # noqa: E402
from marketfeed.testing.sinks import SinkContract  # noqa: E402
from marketfeed.testing.vendors import VendorContract  # noqa: E402

__all__ = ["SinkContract", "VendorContract", "sample_candles", "sample_ticks", "schema", "tick_batch"]
