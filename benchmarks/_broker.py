"""The real Kafka of the tests, for benchmarks."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["broker"]


@contextmanager
def broker() -> Iterator[Any]:
    """A ``KafkaServer`` of its own, gone afterwards; None, and a word on stderr, where Kafka cannot run."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from servers.servers import KafkaServer, ServerUnavailable

    with tempfile.TemporaryDirectory(prefix="marketfeed-bench-", ignore_cleanup_errors=True) as folder:
        server = KafkaServer.at(Path(folder) / "kafka")
        try:
            server.start()
        except ServerUnavailable as problem:
            print(f"left out, no Kafka: {problem}", file=sys.stderr)
            yield None
        else:
            yield server
        finally:
            server.wipe()
