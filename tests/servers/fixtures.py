"""Fixtures of real servers, a plugin of pytest (the root ``conftest.py`` names it).

Each process of a run has its own servers, started when the first of its tests asks: a test may kill one without
disturbing those of the other workers. Where a server cannot be had, its tests are skipped by name; under
``MARKETFEED_REQUIRE_SERVERS`` (``1``, or names such as ``kafka,redis``) they fail instead.
"""

from __future__ import annotations

import gc
import os
import secrets
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from servers.proxy import Proxy
from servers.servers import KafkaServer, Server, ServerUnavailable

S = TypeVar("S", bound=Server)


def pytest_itemcollected(item: pytest.Item) -> None:
    """kafka-python 3.0 drops the socket of a connection that was refused without closing it."""
    if item.get_closest_marker("servers"):
        item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning"))  # socket, ssl.SSLSocket


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """... which is collected here, not in the middle of a later test: last of all, for the tracebacks in captured log
    records refer to those sockets."""
    yield
    if item.get_closest_marker("servers"):
        gc.collect()


def _started(server: S) -> Iterator[S]:
    try:
        server.start()
        yield server
    except ServerUnavailable as unavailable:
        _no_server(server.name, str(unavailable))
    finally:
        server.wipe()


def _no_server(name: str, why: str) -> None:
    required = os.environ.get("MARKETFEED_REQUIRE_SERVERS", "").split(",")
    if "1" in required or name in required:
        pytest.fail(f"server {name} cannot run here, and is required: {why}", pytrace=False)
    pytest.skip(f"server {name} cannot run here: {why}")


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Where servers keep their data. Not pytest's own folder, which the users that servers run as cannot enter."""
    with tempfile.TemporaryDirectory(prefix="marketfeed-servers-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def kafka(servers_folder: Path) -> Iterator[KafkaServer]:
    """A running KafkaServer. A test that kills it has it running again when it ends: ``with kafka.down(): ...``."""
    yield from _started(KafkaServer.at(servers_folder / "kafka"))


@pytest.fixture
def start_kafka(servers_folder: Path) -> Iterator[Callable[..., KafkaServer]]:
    """Start a Kafka of the test's own: ``start_kafka(acl=True)``, with options of KafkaServer.at."""
    started: list[KafkaServer] = []

    def start(**options: Any) -> KafkaServer:
        started.append(KafkaServer.at(servers_folder / f"kafka-{secrets.token_hex(4)}", **options))
        try:
            started[-1].start()
        except ServerUnavailable as unavailable:
            _no_server("kafka", str(unavailable))
        return started[-1]

    yield start
    for server in started:
        server.wipe()


@pytest.fixture
def kafka_proxy(kafka: KafkaServer) -> Iterator[Proxy]:
    """A proxy before ``kafka``: clients that start at its address stay on it."""
    with kafka.proxy() as proxy:
        yield proxy


@pytest.fixture
def topic(kafka: KafkaServer) -> Callable[..., str]:
    """Make a topic with a name of its own: ``topic(partitions=4)``, further arguments as of KafkaServer.topic."""
    return lambda partitions=1, **config: kafka.topic(f"t-{secrets.token_hex(6)}", partitions, **config)


@pytest.fixture(scope="session")
def postgres(servers_folder: Path) -> Iterator[Server]:
    """A running PostgreSQL, durable as by default; ``url`` names user and database."""
    yield from _started(Server("postgres", servers_folder / "postgres"))


@pytest.fixture(scope="session")
def redis(servers_folder: Path) -> Iterator[Server]:
    """A running Redis whose every write is on the disk before its answer."""
    yield from _started(Server("redis", servers_folder / "redis", {"MF_REDIS_FSYNC": "always"}))


@pytest.fixture(scope="session")
def rabbitmq(servers_folder: Path) -> Iterator[Server]:
    """A running RabbitMQ."""
    yield from _started(Server("rabbitmq", servers_folder / "rabbitmq"))
