"""A place in which the code of README, docs and examples runs as it is printed.

What is substituted, and nothing else:

- ``marketfeed.Feed``, ``Historical``, ``Instruments`` and ``Quotes`` get the settings of a sandbox (URLs, key, token)
  where the code names none, and forget access tokens with the process;
- loops over a feed end after a few batches and ``feed.wait()`` after half a second, since a page's feed has no end;
- the working directory is an empty one with ``feed.toml`` (``examples/feed.toml``) and what a short run of it left:
  ``data/journal`` and ``data/ticks-main.jsonl``.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import marketfeed
from marketfeed import Feed, Historical, Instruments, Quotes, TickBatch, config
from marketfeed.plugins import Plugins
from marketfeed.sandbox import Sandbox
from marketfeed.tokens import MemoryTokenStore

ROOT = Path(__file__).resolve().parents[2]
BATCHES = 4
WAIT_S = 0.5


@pytest.fixture(scope="session")
def broker() -> Iterator[Sandbox]:
    with Sandbox("kite", seed=1, instruments=110, ticks_per_second=500, rate_limits=False) as box:
        yield box


@pytest.fixture(scope="session")
def left_behind(broker: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``data`` as a short run of ``examples/feed.toml`` leaves it."""
    folder = tmp_path_factory.mktemp("left")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plugins = Plugins.discover()
        plan = config.load(ROOT / "examples" / "feed.toml", plugins, {}, placeholder="sandbox")
        vendor = attrs.evolve(
            plan.vendors["kite"], settings=attrs.evolve(plan.vendors["kite"].settings, **broker.settings())
        )
        plan = attrs.evolve(
            plan,
            vendors={"kite": vendor},
            feeds={"main": attrs.evolve(plan.feeds["main"], sinks=("archive",))},
        )
        with Feed.from_config(plan, "main", plugins=plugins, tokens=MemoryTokenStore()) as feed:
            for batch in feed:
                if batch.first_row > 50:
                    break
    return folder / "data"


@pytest.fixture
def stage(broker: Sandbox, left_behind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a page's code; see above."""
    settings = broker.settings()

    class SandboxFeed(Feed):
        def __init__(self, vendor: str, **options: Any) -> None:
            options.setdefault("settings", settings)
            options.setdefault("tokens", MemoryTokenStore())
            super().__init__(vendor, **options)

        @classmethod
        def from_config(cls, config: Any, name: str, **options: Any) -> Any:
            table = config.vendors["kite"]
            table = attrs.evolve(table, settings=attrs.evolve(table.settings, **settings))
            return super().from_config(attrs.evolve(config, vendors={"kite": table}), name, **options)

        def batches(self, max_rows: int = 4096) -> Generator[TickBatch, None, None]:
            yield from itertools.islice(super().batches(max_rows), BATCHES)

        async def __aiter__(self) -> AsyncIterator[TickBatch]:
            count = 0
            async for batch in super().__aiter__():
                yield batch
                if (count := count + 1) == BATCHES:
                    return

        def wait(self, timeout_s: float | None = None) -> bool:
            return super().wait(WAIT_S)

    class SandboxHistorical(Historical):
        def __init__(self, vendor: str, **options: Any) -> None:
            super().__init__(vendor, settings=settings, tokens=MemoryTokenStore(), **options)

    class SandboxQuotes(Quotes):
        def __init__(self, vendor: str, **options: Any) -> None:
            super().__init__(vendor, settings=settings, tokens=MemoryTokenStore(), **options)

    monkeypatch.setattr(marketfeed, "Quotes", SandboxQuotes, raising=False)
    monkeypatch.setattr(marketfeed, "Feed", SandboxFeed)

    class SandboxInstruments(Instruments):
        def __init__(self, vendor: str, **options: Any) -> None:
            options.setdefault("settings", settings)
            options.setdefault("tokens", MemoryTokenStore())
            super().__init__(vendor, **options)

    monkeypatch.setattr(marketfeed, "Historical", SandboxHistorical)
    monkeypatch.setattr(marketfeed, "Instruments", SandboxInstruments, raising=False)
    monkeypatch.setenv("KITE_API_KEY", "testkey")
    monkeypatch.setenv("MARKETFEED_STATE_DIR", str(tmp_path / "state"))
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(left_behind, folder / "data")
    shutil.copy(ROOT / "examples" / "feed.toml", folder)
    monkeypatch.chdir(folder)
    return folder
