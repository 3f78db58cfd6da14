"""The sink kit, against a real broker, with both drivers; and what the page for users must name."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from marketfeed_kafka.sink import KafkaSink
from servers.proxy import Proxy
from servers.servers import KafkaServer

from marketfeed.contract import Sink
from marketfeed.errors import SinkError
from marketfeed.testing import SinkContract
from marketfeed.testing.driving import open_files

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "kafka.md"


class _Kafka(SinkContract):
    """Reaches the broker through a proxy, so that the server can go and come back in no time."""

    __test__ = False
    can_fail = True
    can_be_slow = True
    can_be_hopeless = True
    documentation = PAGE
    # The proxy listens anew after it refused, which counts as a socket left; see the test of its own below.
    test_nothing_is_left_after_an_open_that_failed = None  # type: ignore[assignment]

    @pytest.fixture(autouse=True)
    def _server(self, kafka: KafkaServer, kafka_proxy: Proxy, read: Any) -> None:
        self.server, self.proxy, self.read_topic = kafka, kafka_proxy, read

    def make(self, folder: Path) -> Sink:
        name = self.topic(folder)
        options = {"servers": self.proxy.address, "topic": name, "candle_topic": f"{name}-candles"}
        return KafkaSink(**{**options, "request_timeout_s": 2, **self.options})

    @staticmethod
    def topic(folder: Path) -> str:
        return "kit-" + hashlib.blake2b(str(folder).encode(), digest_size=8).hexdigest()

    def read(self, folder: Path) -> list[dict[str, Any]]:
        name = self.topic(folder)
        return [json.loads(one.value) for one in self.read_topic(name, f"{name}-candles")]

    def break_server(self, folder: Path) -> None:
        self.proxy.refuse()

    def mend_server(self, folder: Path) -> None:
        self.proxy.accept()
        self.proxy.delay(0)

    def slow_server(self, folder: Path) -> None:
        self.proxy.delay(0.1)

    def make_hopeless(self, folder: Path) -> Sink:
        return KafkaSink(servers=self.proxy.address, driver=self.options["driver"], extra={"no.such.option": 1})


@pytest.mark.servers
class TestKafkaPython(_Kafka):
    __test__ = True
    sink = KafkaSink
    options: ClassVar[dict[str, Any]] = {"driver": "kafka-python"}
    name = "kafka"


@pytest.mark.servers
class TestConfluent(_Kafka):
    __test__ = True
    sink = KafkaSink
    options: ClassVar[dict[str, Any]] = {"driver": "confluent"}


def test_the_page_names_every_metric() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in KafkaSink().metrics() if f"`{name}`" not in text] == []


def test_the_page_names_every_option() -> None:
    from marketfeed.config.options import options_of

    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in options_of(KafkaSink) if f"`{name}`" not in text] == []


@pytest.mark.servers  # for its patience with sockets that kafka-python leaves to the garbage collector
@pytest.mark.parametrize("driver", ["kafka-python", "confluent"])
def test_nothing_is_left_of_connections_that_failed(driver: str) -> None:
    def fail(times: int) -> None:
        for _ in range(times):
            out = KafkaSink(servers="127.0.0.1:1", driver=driver, request_timeout_s=0.3)
            with pytest.raises(SinkError):
                out.open()
            out.close()
        gc.collect()

    logging.disable()  # pytest keeps what is logged, and with it the sockets that it names
    try:
        fail(1)
        before = len(open_files()), threading.active_count()
        fail(3)
        assert (len(open_files()), threading.active_count()) == before
    finally:
        logging.disable(logging.NOTSET)
