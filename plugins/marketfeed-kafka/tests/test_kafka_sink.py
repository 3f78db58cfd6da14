"""The Kafka sink against a real broker, with both drivers."""

from __future__ import annotations

import logging
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from marketfeed_kafka.messages import partition_of
from marketfeed_kafka.sink import KafkaSink
from servers.proxy import Proxy
from servers.servers import KafkaServer

from marketfeed.errors import SinkError
from marketfeed.instruments import Instrument

pytestmark = pytest.mark.servers

MakeSink = Callable[..., KafkaSink]
Topic = Callable[..., str]


def in_order(messages: list[Any]) -> bool:
    """Ascending ``seq`` for each key."""
    seen: dict[bytes, list[int]] = defaultdict(list)
    for one in messages:
        seen[one.key].append(one.seq)
    return all(one == sorted(one) for one in seen.values())


def test_every_tick_is_a_message_in_order_for_each_instrument(
    sink: MakeSink, topic: Topic, ticks: Any, read: Any
) -> None:
    name = topic(partitions=4)
    out = sink(topic=name)
    for start in range(0, 3000, 500):
        out.write(ticks(500, start))
    out.flush()
    found = read(name)
    assert sorted(one.seq for one in found) == list(range(3000))
    assert in_order(found)
    assert len({one.partition for one in found}) > 1


def test_a_message_names_its_origin_in_headers_and_its_instrument_in_the_key(
    sink: MakeSink, topic: Topic, ticks: Any, read: Any
) -> None:
    name = topic()
    out = sink(topic=name)
    batch = ticks(3, 70)
    out.write(batch)
    out.flush()
    first = read(name)[0]
    assert first.key == batch[0].describe.key.encode()
    assert first.headers == {
        "journal": batch.journal.encode(),
        "seq": b"70",
        "feed": b"main",
        "schema": b"tick.full.1",
    }
    assert first.tick["symbol"] == batch[0].symbol
    assert first.tick["depth"]["buy"][0] == {"price": 2499.95, "quantity": 100, "orders": 1}


def test_compact_is_exactly_four_fields(sink: MakeSink, topic: Topic, ticks: Any, read: Any) -> None:
    name = topic()
    out = sink(topic=name, layout="compact")
    out.write(ticks(1))
    out.flush()
    assert list(read(name)[0].tick) == ["token", "ltp", "volume", "timestamp"]


def test_arrow_is_one_record_batch_per_partition_and_write(sink: MakeSink, topic: Topic, ticks: Any, read: Any) -> None:
    import pyarrow as pa

    name = topic(partitions=2)
    out = sink(topic=name, layout="arrow")
    out.write(ticks(600))
    out.write(ticks(600, 600))
    out.flush()
    found = read(name)
    assert len(found) == 4
    tables = [pa.ipc.open_stream(one.value).read_all() for one in found]
    assert sorted(seq for table in tables for seq in table["seq"].to_pylist()) == list(range(1200))
    assert [one.headers["seq"] for one in found] == [str(table["seq"][0].as_py()).encode() for table in tables]
    assert tables[0].schema.metadata[b"feed"] == b"main"


def test_a_topic_for_each_exchange(sink: MakeSink, topic: Topic, ticks: Any, read: Any) -> None:
    name = topic()
    out = sink(topic=name + ".{exchange}")
    out.write(ticks(24))
    out.flush()
    found = {exchange: read(f"{name}.{exchange}") for exchange in ("NSE", "NFO")}
    assert {exchange: len(messages) for exchange, messages in found.items()} == {"NSE": 12, "NFO": 12}
    assert all(one.tick["exchange"] == exchange for exchange, messages in found.items() for one in messages)


def test_a_flush_with_nothing_written_returns_at_once(sink: MakeSink, topic: Topic, ticks: Any) -> None:
    out = sink(topic=topic())
    out.flush()
    out.write(ticks(0))
    out.flush()


def test_nothing_is_lost_when_the_broker_is_killed_and_comes_back(
    kafka: KafkaServer, sink: MakeSink, topic: Topic, ticks: Any, read: Any, kept: Any
) -> None:
    name = topic(partitions=3)
    out = sink(topic=name, request_timeout_s=2)
    out.write(ticks(500))
    out.flush()
    out.write(ticks(500, 500))
    with kafka.down():
        out.write(ticks(500, 1000))
        with pytest.raises(SinkError) as failure:
            out.flush()
        assert failure.value.retryable
        with pytest.raises(SinkError):
            out.flush()  # now there is not even a producer
    flush_until_it_works(out)
    out.write(ticks(500, 1500))
    out.flush()
    found = read(name)
    assert sorted(one.seq for one in kept(found)) == list(range(2000))
    assert in_order(kept(found))
    assert out.metrics()["ingestion_kafka_producer_rebuilds_total"] >= 1


def flush_until_it_works(out: KafkaSink, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            out.flush()
            return
        except SinkError as error:
            if not error.retryable or time.monotonic() > deadline:
                raise


def test_a_cut_connection_loses_nothing(
    kafka_proxy: Proxy, sink: MakeSink, topic: Topic, ticks: Any, read: Any, kept: Any
) -> None:
    name = topic(partitions=2)
    out = sink(topic=name, servers=kafka_proxy.address, request_timeout_s=3)
    for start in range(0, 4000, 250):
        out.write(ticks(250, start))
        if start % 1000 == 500:
            kafka_proxy.cut()
    flush_until_it_works(out)
    found = kept(read(name))
    assert sorted(one.seq for one in found) == list(range(4000))
    assert in_order(found)


def test_a_producer_that_gets_no_answers_is_given_up_and_what_it_sent_comes_again(
    kafka_proxy: Proxy, sink: MakeSink, topic: Topic, ticks: Any, read: Any, kept: Any
) -> None:
    name = topic(partitions=2)
    out = sink(topic=name, servers=kafka_proxy.address, request_timeout_s=1.5)
    out.write(ticks(200))
    out.flush()
    kafka_proxy.hold(answers=True)
    out.write(ticks(200, 200))
    with pytest.raises(SinkError, match="not acknowledged anything"):
        out.flush()
    kafka_proxy.release()
    flush_until_it_works(out)
    found = read(name)
    assert sorted(one.seq for one in kept(found)) == list(range(400))
    assert in_order(kept(found))
    assert out.metrics()["ingestion_kafka_messages_retried_total"] == 200


def test_rows_in_flight_are_bounded(kafka_proxy: Proxy, sink: MakeSink, topic: Topic, ticks: Any) -> None:
    out = sink(topic=topic(), servers=kafka_proxy.address, request_timeout_s=1, max_in_flight_rows=1000)
    out.write(ticks(10))
    out.flush()
    kafka_proxy.hold(requests=True)
    out.write(ticks(500, 10))
    out.write(ticks(500, 510))
    with pytest.raises(SinkError) as failure:
        out.write(ticks(500, 1010))
    assert failure.value.retryable
    assert out.metrics()["ingestion_kafka_rows_in_flight"] == 1000
    kafka_proxy.release()


def test_a_row_longer_than_the_limit_is_rejected_and_the_rest_delivered(
    sink: MakeSink, topic: Topic, ticks: Any, read: Any
) -> None:
    from marketfeed.instruments import Instrument

    name = topic()
    long = Instrument(exchange="NSE", symbol="X" * 5000, token="1")
    out = sink(topic=name, max_message_bytes=4000)
    with pytest.raises(SinkError) as failure:
        out.write(ticks(10, 0, (Instrument(exchange="NSE", symbol="A", token="2"),) * 4 + (long,)))
    assert failure.value.rejected == (4, 9)
    assert type(failure.value.__cause__).__name__ == "MessageTooLarge"
    out.flush()
    assert [one.seq for one in read(name)] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_a_row_that_only_the_broker_finds_too_long_is_refused_at_flush(
    sink: MakeSink, topic: Topic, ticks: Any, read: Any, kept: Any
) -> None:
    import random

    from marketfeed.instruments import Instrument

    name = topic(max_message_bytes=4000)
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))
    short = Instrument(exchange="NSE", symbol="A", token="2")
    out = sink(topic=name, batch_bytes=3000)
    out.write(ticks(20, 0, (short,) * 9 + (Instrument(exchange="NSE", symbol=noise, token="1"),)))
    out.write(ticks(20, 20, (short,)))
    with pytest.raises(SinkError) as failure:
        out.flush()
    refused = []
    for _ in range(5):
        assert failure.value.refused is not None
        refused += failure.value.refused.seq.tolist()
        try:
            out.flush()
            break
        except SinkError as error:
            failure.value.refused = error.refused
    assert refused == [9, 19]
    assert [one.seq for one in kept(read(name))] == [seq for seq in range(40) if seq not in (9, 19)]


def test_refused_rows_go_to_the_dead_letter_topic_with_their_reason(
    sink: MakeSink, topic: Topic, ticks: Any, read: Any
) -> None:
    name, dead = topic(), topic()
    long = Instrument(exchange="NSE", symbol="X" * 5000, token="1")
    out = sink(topic=name, dead_letter_topic=dead, max_message_bytes=4000)
    out.write(ticks(5, 0, (Instrument(exchange="NSE", symbol="A", token="2"),) * 4 + (long,)))
    out.flush()
    assert [one.seq for one in read(name)] == [0, 1, 2, 3]
    letters = read(dead)
    assert [one.seq for one in letters] == [4]
    assert letters[0].headers["reason"] == b"MessageTooLarge"
    assert letters[0].tick["kind"] == "refused"


def test_a_dead_letter_topic_that_cannot_be_used_is_said_at_open_and_later_holds_nobody_up(
    kafka: KafkaServer, sink: MakeSink, topic: Topic, ticks: Any, read: Any, driver: str
) -> None:
    name = topic()
    long = Instrument(exchange="NSE", symbol="X" * 5000, token="1")
    options = {"topic": name, "max_message_bytes": 4000, "request_timeout_s": 2.0}
    missing = KafkaSink(servers=kafka.bootstrap, driver=driver, dead_letter_topic="no name", **options)
    with pytest.raises(SinkError, match="no name"):
        missing.open()
    missing.close()
    out = sink(dead_letter_topic=topic(), **options)
    out.dead_letter_topic = "no name"
    out.write(ticks(5, 0, (Instrument(exchange="NSE", symbol="A", token="2"),) * 4 + (long,)))
    with pytest.raises(SinkError, match="max_message_bytes") as caught:
        out.flush()
    assert caught.value.refused is not None
    assert caught.value.refused.seq.tolist() == [4]
    out.flush()
    assert [one.seq for one in read(name)] == [0, 1, 2, 3]


def test_a_wrong_address_is_said_at_open(driver: str) -> None:
    out = KafkaSink(servers="127.0.0.1:1", driver=driver, request_timeout_s=1)
    with pytest.raises(SinkError, match=r"127\.0\.0\.1:1.*check servers") as failure:
        out.open()
    assert failure.value.retryable
    out.close()


def test_wrong_credentials_no_permission_and_an_unknown_topic_are_said_at_open(
    start_kafka: Callable[..., KafkaServer], driver: str
) -> None:
    server = start_kafka(
        users={"feed": "s3cret", "admin": "adm1n"}, acl=True, properties={"auto.create.topics.enable": False}
    )
    server.topic("there")

    def opened(user: str, password: str, topic: str) -> SinkError | None:
        login: Any = {"sasl_mechanism": "PLAIN", "sasl_username": user, "sasl_password": password}
        servers = {"servers": server.sasl_bootstrap, "security_protocol": "SASL_PLAINTEXT"}
        out = KafkaSink(driver=driver, topic=topic, request_timeout_s=3, **servers, **login)
        assert password not in repr(out)
        try:
            out.open()
        except SinkError as error:
            return error
        finally:
            out.close()
        return None

    assert opened("admin", "adm1n", "there") is None
    wrong = opened("feed", "gu3ss", "there")
    assert wrong is not None
    assert "login" in str(wrong)
    assert "gu3ss" not in str(wrong)
    assert wrong.retryable is (driver == "kafka-python")  # which cannot tell it from a broker that is not there
    forbidden = opened("feed", "s3cret", "there")
    assert forbidden is not None
    assert "no permission" in str(forbidden)
    assert not forbidden.retryable
    unknown = opened("admin", "adm1n", "absent")
    assert unknown is not None
    assert "'absent'" in str(unknown)
    assert "marketfeed topics apply" in str(unknown)
    assert unknown.retryable


def test_closing_twice_and_while_the_broker_is_away_ends_soon(
    kafka_proxy: Proxy, sink: MakeSink, topic: Topic, ticks: Any
) -> None:
    out = sink(topic=topic(), servers=kafka_proxy.address)
    kafka_proxy.hold(requests=True, answers=True)
    out.write(ticks(100))
    started = time.monotonic()
    out.close()
    out.close()
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("key", "number"),  # read in the tests of Kafka's Java client: its murmur2 of these keys
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_a_key_goes_to_the_partition_that_kafkas_own_clients_choose(key: bytes, number: int) -> None:
    assert [partition_of(key, count) for count in (1, 7, 12)] == [(number & 0x7FFFFFFF) % count for count in (1, 7, 12)]


def test_tls_is_verified(start_kafka: Callable[..., KafkaServer], driver: str, topic: Topic, tmp_path: Path) -> None:
    key, certificate, both = tmp_path / "key", tmp_path / "certificate", tmp_path / "both"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    server = start_kafka(pem=both)
    server.topic("there")

    def open_with(cafile: Path | None) -> None:
        options = {"ssl_cafile": str(cafile)} if cafile else {}
        out = KafkaSink(
            servers=server.tls_bootstrap,
            topic="there",
            driver=driver,
            security_protocol="SSL",
            request_timeout_s=4,
            **options,
        )
        try:
            out.open()
        finally:
            out.close()

    open_with(certificate)
    with pytest.raises(SinkError):
        open_with(None)


@pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")  # of refused connections before it
def test_the_library_may_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    from marketfeed_kafka.quiet import quieten

    logger = logging.getLogger("kafka.some.part")
    quieten()
    for number in range(100):
        logger.error("broker %d is away", number)
    assert len(caplog.records) == 5
