"""Killed feeds, killed brokers, cut networks, at random moments at 5,000 ticks a second: no tick is missing in Kafka,
and a reader that follows the rule of the how-to page sees each instrument in order. What came twice was in flight."""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.proxy import Proxy
from servers.servers import KafkaServer
from trials._report import Report
from waiting import until

from marketfeed.clock import Clock
from marketfeed.dtypes import empty_ticks
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.delivery import Delivery, DeliveryState
from marketfeed.engine.logs import get_log
from marketfeed.engine.retry import Backoff
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal

pytestmark = pytest.mark.servers
DRIVERS = ("kafka-python", "confluent")
RATE, STEP_S, PARTITIONS, IN_FLIGHT = 5000, 0.02, 3, 10_000
KNOWN = [Instrument(exchange="NSE", symbol=f"S{number}", token=str(number)) for number in range(20)]


class Desk:
    """A journal that is written at ``RATE``, and its delivery into a topic, until it is told to end."""

    def __init__(self, folder: Path, servers: str, topic: str, driver: str) -> None:
        from marketfeed_kafka.sink import KafkaSink

        self.journal: Any = Journal.create(folder, feed="main")
        numbers = self.journal.instruments.register(KNOWN)
        self.sink = KafkaSink(
            servers=servers, topic=topic, driver=driver, request_timeout_s=2, max_in_flight_rows=IN_FLIGHT
        )
        clock = Clock()
        self.delivery = Delivery(
            name="kafka",
            sink=self.sink,
            open_reader=lambda: self.journal.reader("kafka", start="oldest"),
            clock=clock,
            deadletters=DeadLetters("main", clock),
            log=get_log(),
            emit=lambda kind, data: None,
            flush_every_s=0.2,
            on_startup_error="retry",
            backoff=Backoff(0.05, 0.5),
        )
        self._rows = empty_ticks(round(RATE * STEP_S))
        self._rows["instrument"] = np.resize(numbers, len(self._rows))
        self._rows["last_price"] = 100.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=one, name=f"trial {one.__name__}") for one in (self._write, self._run)]
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        while not self._stop.wait(STEP_S):
            self._rows["received_ns"] = time.time_ns()
            self.journal.append(self._rows)

    def _run(self) -> None:
        self.delivery.run()

    def end(self) -> int:
        """Deliver everything; the number of rows in the journal."""
        self._stop.set()
        self._threads[0].join()
        self.delivery.stop()
        self._threads[1].join(60)
        assert self.delivery.state is DeliveryState.DONE, self.delivery.error
        committed: int = self.journal.committed
        self.journal.close()
        return committed


def read(kafka: KafkaServer, topic: str) -> Iterator[tuple[tuple[int, bytes], int, bytes, bytes]]:
    """(partition and journal, seq, key, value) of all messages, in order for each partition."""
    from kafka import KafkaConsumer, TopicPartition

    with closing(KafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")) as consumer:
        for place in (TopicPartition(topic, number) for number in range(PARTITIONS)):
            consumer.assign([place])
            consumer.seek_to_beginning(place)
            end = consumer.end_offsets([place])[place]
            while consumer.position(place) < end:
                for one in consumer.poll(500, max_records=5000).get(place, ()):
                    headers = dict(one.headers)
                    yield (place.partition, headers["journal"]), int(headers["seq"]), one.key, one.value


def judge(kafka: KafkaServer, topic: str, committed: int) -> int:
    """All rows are there, in order for who drops repeats; how many came again."""
    last: dict[Any, int] = {}
    kept: dict[bytes, list[int]] = defaultdict(list)
    values: dict[int, bytes] = {}
    repeats = 0
    for place, seq, key, value in read(kafka, topic):
        assert values.setdefault(seq, value) == value, f"row {seq} came with two values"
        if seq > last.get(place, -1):
            last[place] = seq
            kept[key].append(seq)
        else:
            repeats += 1
    found = sorted(seq for rows in kept.values() for seq in rows)
    assert found == list(range(committed)), f"{committed - len(set(found))} of {committed} rows are missing"
    assert all(rows == sorted(rows) for rows in kept.values())
    return repeats


def kill_the_broker(draw: random.Random, kafka: KafkaServer, proxy: Proxy) -> None:
    with kafka.down():
        time.sleep(draw.uniform(0, 1))


def cut_the_network(draw: random.Random, kafka: KafkaServer, proxy: Proxy) -> None:
    """Cut, or silent in one direction and then cut, or refused for a while."""
    way = draw.randrange(3)
    if way == 1:
        proxy.hold(answers=draw.random() < 0.5, requests=draw.random() < 0.5)
    elif way == 2:
        proxy.refuse()
    time.sleep(draw.uniform(0, 1.5) if way else 0)
    proxy.cut()
    proxy.accept()
    proxy.release()


COUNTS = [pytest.param(2, id="2"), pytest.param(50, id="50", marks=pytest.mark.chaos)]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("trials", COUNTS)
@pytest.mark.parametrize(
    ("name", "harm"), [("killed broker", kill_the_broker), ("cut network", cut_the_network)], ids=["broker", "network"]
)
def test_nothing_is_missing_whatever_happens_to_broker_or_network(
    trials: int,
    name: str,
    harm: Callable[..., None],
    kafka: KafkaServer,
    kafka_proxy: Proxy,
    topic: Callable[..., str],
    tmp_path: Path,
    report: Report,
) -> None:
    rows = repeats = 0
    for number in range(trials):
        draw, where = random.Random(number), topic(partitions=PARTITIONS)
        desk = Desk(tmp_path / str(number), kafka_proxy.address, where, DRIVERS[number % 2])
        assert desk.delivery.opened.wait(30)
        try:
            time.sleep(draw.uniform(0.1, 1))
            harm(draw, kafka, kafka_proxy)
            time.sleep(draw.uniform(0.1, 0.5))
        finally:
            committed = desk.end()
        again = judge(kafka, where, committed)
        assert again <= IN_FLIGHT * max(1, desk.sink.metrics()["ingestion_kafka_producer_rebuilds_total"])
        rows, repeats = rows + committed, repeats + again
    report(f"5.2 Kafka, {name}", trials, f"0 of {rows:,} rows missing, {repeats:,} came again", aim="0 missing")


CHILD = """
import json, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from trials.test_kafka_trials import Desk
options = json.loads(sys.argv[1])
desk = Desk(Path(options["folder"]), options["servers"], options["topic"], options["driver"])
desk.delivery.opened.wait()
print("open", flush=True)
sys.stdin.readline()
print(desk.end(), flush=True)
"""


@pytest.mark.process
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("trials", COUNTS)
def test_nothing_is_missing_when_the_feed_is_killed_and_started_again(
    trials: int, kafka: KafkaServer, topic: Callable[..., str], tmp_path: Path, report: Report
) -> None:
    rows = repeats = 0
    for number in range(trials):
        draw, where = random.Random(number), topic(partitions=PARTITIONS)
        options = {"folder": str(tmp_path / str(number)), "servers": kafka.bootstrap, "topic": where}
        command = [sys.executable, "-c", CHILD, json.dumps({**options, "driver": DRIVERS[number % 2]})]
        command.append(str(Path(__file__).resolve().parents[1]))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "open\n"
            time.sleep(draw.uniform(0.05, 1.5))
            first.send_signal(signal.SIGKILL)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
            said, _ = second.communicate("\n", timeout=60)
        committed = int(said.split()[-1])
        again = judge(kafka, where, committed)
        assert again <= IN_FLIGHT
        rows, repeats = rows + committed, repeats + again
    report("5.2 Kafka, killed feed", trials, f"0 of {rows:,} rows missing, {repeats:,} came again", aim="0 missing")


@pytest.fixture
def small_disk(servers_folder: Path) -> Iterator[Path]:
    """A file system of 48 MB."""
    folder = servers_folder / f"disk-{secrets.token_hex(4)}"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True) if sys.platform == "linux" else None
    if done is None or done.returncode:
        pytest.skip(f"only an administrator of a Linux system makes a small disk: {done.stderr if done else ''}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("driver", ["kafka-python", pytest.param("confluent", marks=pytest.mark.chaos)])
def test_nothing_is_missing_when_the_disk_of_the_broker_was_full(
    driver: str, small_disk: Path, start_kafka: Callable[..., KafkaServer], tmp_path: Path, report: Report
) -> None:
    kafka = start_kafka(data=small_disk / "data")
    where = kafka.topic("t", PARTITIONS)
    desk = Desk(tmp_path / "desk", kafka.bootstrap, where, driver)
    assert desk.delivery.opened.wait(30)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            file.flush()
    until_gone(kafka)
    ballast.unlink()
    kafka.start()
    committed = desk.end()
    repeats = judge(kafka, where, committed)
    report(
        f"5 Kafka, full disk, {driver}", 1, f"0 of {committed:,} rows missing, {repeats:,} came again", aim="0 missing"
    )


def until_gone(kafka: KafkaServer) -> None:
    """A broker that cannot write its only log folder ends itself."""
    until(lambda: not Path(f"/proc/{kafka.pid}").exists(), 60)
