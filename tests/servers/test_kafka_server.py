"""The Kafka that other tests rely on: is it real, does it keep what it acknowledged, does it stay where it was."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from servers.proxy import Proxy
from servers.servers import HERE, KafkaServer
from waiting import until

pytestmark = pytest.mark.servers

Topic = Callable[..., str]


def producer(bootstrap: str, **options: Any) -> Any:
    return closing(
        KafkaProducer(bootstrap_servers=bootstrap, **{"acks": "all", "reconnect_backoff_max_ms": 500, **options})
    )


def count(kafka: KafkaServer, topic: str) -> int:
    """Records in the topic, by the offsets of its partitions."""
    with closing(KafkaConsumer(bootstrap_servers=kafka.bootstrap)) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        return sum(consumer.end_offsets(partitions).values())


def read_all(kafka: KafkaServer, topic: str) -> list[bytes]:
    """Every value of the topic, partition by partition."""
    values = []
    with closing(KafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")) as consumer:
        for number in consumer.partitions_for_topic(topic):
            partition = TopicPartition(topic, number)
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            end = consumer.end_offsets([partition])[partition]
            while consumer.position(partition) < end:
                values += [record.value for record in consumer.poll(500).get(partition, [])]
    return values


class Writer:
    """Sends numbers to one partition, one after the other, and notes which were acknowledged."""

    def __init__(self, producer: Any, topic: str) -> None:
        self.acknowledged: list[int] = []
        self.failed: list[BaseException] = []
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(producer, topic))

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self, producer: Any, topic: str) -> None:
        while not self._stop.wait(0.001):
            number = self.sent
            future = producer.send(topic, str(number).encode(), partition=0)
            future.add_callback(lambda _, number=number: self.acknowledged.append(number))
            future.add_errback(self.failed.append)
            self.sent += 1


def test_nothing_acknowledged_is_lost_when_the_broker_is_killed_and_comes_back(
    kafka: KafkaServer, topic: Topic
) -> None:
    name = topic()
    with producer(kafka.bootstrap) as out:
        writer = Writer(out, name)
        with writer.writing():
            until(lambda: len(writer.acknowledged) > 300)
            with kafka.down():
                before = len(writer.acknowledged)
                sent = writer.sent
                until(lambda: writer.sent > sent + 50)
                assert len(writer.acknowledged) == before
            until(lambda: len(writer.acknowledged) > before + 300)
        out.flush(timeout=30)
    assert writer.failed == []
    assert len(writer.acknowledged) == writer.sent
    assert [int(value) for value in read_all(kafka, name)] == list(range(writer.sent))


def test_a_broker_started_again_has_its_address_and_its_data(kafka: KafkaServer, topic: Topic) -> None:
    name, address, process = topic(), kafka.bootstrap, kafka.pid
    with producer(kafka.bootstrap) as out:
        out.send(name, b"before").get(10)
    kafka.restart()
    assert (kafka.bootstrap, kafka.url) == (address, address)
    assert kafka.pid != process
    assert read_all(kafka, name) == [b"before"]


def test_two_members_of_a_group_share_the_partitions(kafka: KafkaServer, topic: Topic) -> None:
    name = topic(partitions=4)
    with producer(kafka.bootstrap) as out:
        for number in range(400):
            out.send(name, str(number).encode(), partition=number % 4)
        out.flush(timeout=10)

    def member() -> Any:
        settings = {"bootstrap_servers": kafka.bootstrap, "group_id": f"group-{name}", "auto_offset_reset": "earliest"}
        return closing(KafkaConsumer(name, **settings, heartbeat_interval_ms=300, session_timeout_ms=6000))

    read: list[Counter[int]] = [Counter(), Counter()]
    with member() as first, member() as second:
        members = (first, second)

        def poll(only_assign: bool) -> None:
            for one, values in zip(members, read, strict=True):
                for records in one.poll(100, max_records=1 if only_assign else 500).values():
                    values.update(int(record.value) for record in records)

        def shared() -> bool:
            poll(only_assign=True)
            return [len(one.assignment()) for one in members] == [2, 2]

        until(shared)
        assert first.assignment() | second.assignment() == {TopicPartition(name, number) for number in range(4)}
        for one in members:
            one.seek_to_beginning()
        for values in read:
            values.clear()

        def complete() -> bool:
            poll(only_assign=False)
            return sum(map(len, read)) >= 400

        until(complete)
    assert [len(values) for values in read] == [200, 200]
    assert read[0] + read[1] == Counter(range(400))


@pytest.mark.parametrize(("idempotent", "copies"), [(True, 1), (False, 2)])
def test_a_retry_through_a_cut_connection_is_stored_once_only_if_idempotent(
    kafka: KafkaServer, kafka_proxy: Proxy, topic: Topic, idempotent: bool, copies: int
) -> None:
    name = topic()
    with producer(kafka_proxy.address, enable_idempotence=idempotent, linger_ms=20) as out:
        out.send(name, b"first").get(10)
        kafka_proxy.hold(answers=True)
        sent = [out.send(name, str(number).encode()) for number in range(100)]
        until(lambda: count(kafka, name) == 101)  # stored, and the producer cannot know
        assert not any(future.is_done for future in sent)
        kafka_proxy.cut()
        kafka_proxy.release()
        for future in sent:
            future.get(20)
    assert Counter(read_all(kafka, name)) == {b"first": 1} | {str(number).encode(): copies for number in range(100)}


def test_clients_that_start_at_the_proxy_stay_on_it(kafka: KafkaServer, kafka_proxy: Proxy, topic: Topic) -> None:
    name = topic()
    with producer(kafka_proxy.address, request_timeout_ms=500, delivery_timeout_ms=1500) as out:
        out.send(name, b"through").get(10)
        kafka_proxy.refuse()
        with pytest.raises(KafkaError):
            out.send(name, b"cut off").get(10)
    assert read_all(kafka, name) == [b"through"]


def certificate(folder: Path) -> Path:
    """Key and certificate of a server at 127.0.0.1, in one file."""
    folder.mkdir()
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
    files = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(folder / "key"),
        "-out",
        str(folder / "certificate"),
    ]
    subprocess.run([*new, *files], check=True, capture_output=True)
    (folder / "both").write_text((folder / "key").read_text() + (folder / "certificate").read_text())
    return folder / "both"


@pytest.fixture
def guarded(start_kafka: Callable[..., KafkaServer], servers_folder: Path) -> KafkaServer:
    """With users, TLS, permissions, small messages, and no topic that nobody made."""
    return start_kafka(
        users={"feed": "s3cret", "admin": "adm1n"},
        pem=certificate(servers_folder / "tls"),
        acl=True,
        properties={"message.max.bytes": 2000, "auto.create.topics.enable": False},
    )


def test_a_guarded_broker_wants_password_certificate_permission_and_size(guarded: KafkaServer) -> None:
    name = guarded.topic("ticks")
    login = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "feed", "sasl_plain_password": "s3cret"}
    admin = login | {"sasl_plain_username": "admin", "sasl_plain_password": "adm1n"}
    trusted = {"ssl_cafile": str(Path(guarded.settings["MF_KAFKA_PEM"]).with_name("certificate"))}

    with producer(guarded.sasl_bootstrap, security_protocol="SASL_PLAINTEXT", **admin) as out:
        out.send(name, b"by the admin").get(10)
        with pytest.raises(MessageSizeTooLargeError):
            out.send(name, os.urandom(3000)).get(10)
    with producer(guarded.sasl_tls_bootstrap, security_protocol="SASL_SSL", **admin, **trusted) as out:
        out.send(name, b"encrypted").get(10)
    with (
        producer(guarded.sasl_bootstrap, security_protocol="SASL_PLAINTEXT", max_block_ms=5000, **login) as out,
        pytest.raises(TopicAuthorizationFailedError),
    ):
        out.send(name, b"by nobody").get(10)
    context = ssl.create_default_context()  # which does not know this certificate
    address = ("127.0.0.1", int(guarded.tls_bootstrap.split(":")[1]))
    with socket.create_connection(address) as raw, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(raw, server_hostname="127.0.0.1")
    assert read_all(guarded, name) == [b"by the admin", b"encrypted"]
    with producer(guarded.bootstrap, max_block_ms=1000) as out, pytest.raises(KafkaError):
        out.send("nobody-made-this", b"").get(10)


def test_a_broker_does_not_outlive_the_process_that_owns_it(servers_folder: Path, kafka: KafkaServer) -> None:
    folder = servers_folder / "orphan"
    child = (
        "import os, sys; from pathlib import Path; from servers.servers import KafkaServer\n"
        "server = KafkaServer.at(Path(sys.argv[1])); server.start(); print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([sys.executable, "-c", child, folder], env=environment, capture_output=True, text=True)
    process = int(done.stdout)
    try:
        until(lambda: not (folder / "pid").exists(), 10)
        assert not Path(f"/proc/{process}/cmdline").exists() or not Path(f"/proc/{process}/cmdline").read_bytes()
    finally:
        KafkaServer.at(folder).wipe()


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with a shell and little else."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "sed", "mkdir", "cat", "grep", "head", "tr", "rm"):
        found = shutil.which(tool)
        assert found
        (tools / tool).symlink_to(found)
    return {"PATH": str(tools), "MF_DIR": str(tmp_path / "kafka")}


def test_where_it_cannot_be_had_the_script_says_why_and_exits_with_3(bare: dict[str, str]) -> None:
    done = subprocess.run([HERE / "kafka.sh", "start"], env=bare, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.strip() == "Apache Kafka cannot run here: no Java 17 here, and no Docker that answers"


@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("1", "1 error"), ("redis,kafka", "1 error")])
def test_where_it_cannot_be_had_tests_are_skipped_by_name_or_fail_if_required(
    bare: dict[str, str], required: str, outcome: str
) -> None:
    one = f"{__file__}::{test_a_broker_started_again_has_its_address_and_its_data.__name__}"
    environment = bare | {"MARKETFEED_REQUIRE_SERVERS": required}
    command = [sys.executable, "-m", "pytest", "-q", "-rsE", one]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert outcome in done.stdout.splitlines()[-1]
    assert "server kafka cannot run here" in done.stdout
    assert "no Java 17 here" in done.stdout
