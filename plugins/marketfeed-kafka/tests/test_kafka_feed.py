"""Kafka in a whole feed: commands, metrics, dead letters, the consumer of the how-to page, a broker that is away."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from marketfeed_kafka.sink import KafkaSink
from servers.servers import KafkaServer
from waiting import until

from marketfeed.batches import TickBatch
from marketfeed.cli import main
from marketfeed.clock import Clock
from marketfeed.contract import Sink
from marketfeed.engine.deadletters import DeadLetters
from marketfeed.engine.delivery import Delivery, DeliveryState
from marketfeed.engine.logs import get_log
from marketfeed.instruments import Instrument
from marketfeed.journal import Journal, ticks_folder
from marketfeed.sinks.jsonl import JsonlSink

pytestmark = pytest.mark.servers

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "consume-kafka.md"
SHORT, LONG = (
    Instrument(exchange="NSE", symbol="A", token="2"),
    Instrument(exchange="NSE", symbol="X" * 5000, token="1"),
)


def marketfeed(*words: str | Path) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def feed_toml(tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]) -> Callable[..., Path]:
    """Writes a configuration with one Kafka sink."""

    def write(**options: Any) -> Path:
        lines = {"servers": kafka.bootstrap, "request_timeout_s": 2, **options}
        table = "\n".join(f"{name} = {json.dumps(value)}" for name, value in lines.items())
        file = tmp_path / "feed.toml"
        file.write_text(
            f'[feeds.main]\nvendor = "kite"\ninstruments = ["NSE:INFY"]\nsinks = ["kafka"]\n'
            f'[vendors.kite]\napi_key = "k"\napi_secret = "s"\n'
            f'[sinks.kafka]\n{table}\n[journal]\nfolder = "{tmp_path / "journal"}"\n'
        )
        return file

    return write


def test_check_connect_says_what_it_found_or_what_is_wrong(
    feed_toml: Callable[..., Path], topic: Callable[..., str]
) -> None:
    name = topic(partitions=3)
    good = marketfeed("check", feed_toml(topic=name), "--connect", "--json")
    assert good.exit_code == 0, good.output
    assert json.loads(good.output)["sinks"][0]["found"].endswith(f"{name} (3 partitions)")
    bad = marketfeed("check", feed_toml(servers="127.0.0.1:1"), "--connect", "--json")
    assert bad.exit_code == 1
    assert "check servers" in json.loads(bad.output)["sinks"][0]["error"]


def topics(verb: str, file: Path) -> list[Any]:
    """The lines of ``marketfeed topics``."""
    done = marketfeed("topics", verb, "--config", file)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.output.splitlines()]


def test_topics_are_planned_and_then_made(feed_toml: Callable[..., Path], topic: Callable[..., str]) -> None:
    name = topic()
    file = feed_toml(topic=name + "-new", candle_topic=name + "-candles", partitions=3, retention_hours=2)
    assert [one["action"] for one in topics("plan", file)] == ["create"] * 2
    assert [one["action"] for one in topics("plan", file)] == ["create"] * 2  # nothing was changed
    assert [one["topic"] for one in topics("apply", file)] == [name + "-new", name + "-candles"]
    until(lambda: [one["present"] for one in topics("plan", file)] == [3, 3])
    assert [one["action"] for one in topics("plan", file)] == ["keep"] * 2
    assert topics("apply", file) == []


def test_a_topic_for_each_exchange_is_planned_for_those_of_the_feed(
    feed_toml: Callable[..., Path], topic: Callable[..., str]
) -> None:
    name = topic()
    file = feed_toml(topic=name + ".{exchange}", candle_topic="{kind}.{symbol}." + name, dead_letter_topic=name)
    listed = file.read_text().replace('["NSE:INFY"]', '["@nifty50", "NFO:NIFTY FUT 1", "*:SENSEX"]')
    file.write_text(listed)
    wanted = [f"{name}.NFO", f"{name}.NSE"]  # of the first, named by its symbols, nothing is known yet
    assert [one["topic"] for one in topics("plan", file)] == [name, *wanted]
    assert [one["topic"] for one in topics("apply", file) if one["action"] == "create"] == wanted


def test_refused_ticks_come_back_from_their_topic_into_the_store(
    feed_toml: Callable[..., Path], topic: Callable[..., str], ticks: Any, kafka: KafkaServer, tmp_path: Path
) -> None:
    name, dead = topic(), topic()
    options = {"topic": name, "dead_letter_topic": dead, "max_message_bytes": 4000}
    out = KafkaSink(servers=kafka.bootstrap, **options)
    out.open()
    batch = ticks(5, 0, (SHORT,) * 4 + (LONG,))
    out.write(batch)
    out.flush()
    out.close()
    file, letters = feed_toml(**options), tmp_path / "letters.jsonl"
    done = marketfeed("deadletters", "--kafka", dead, "--dump", letters, "--config", file)
    assert done.exit_code == 0, done.output
    done = marketfeed("deadletters", "import", letters, "--config", file)
    assert done.exit_code == 0, done.output
    (listed,) = marketfeed("deadletters", "list", "--config", file).stdout.splitlines()
    letter = json.loads(listed)
    assert (letter["kind"], letter["reason"], letter["source"]) == ("refused", "MessageTooLarge", "kafka")
    assert letter["first_row"] == 4


def test_a_replay_that_kafka_refuses_again_says_so_and_one_that_it_takes_reaches_the_consumer(
    feed_toml: Callable[..., Path], topic: Callable[..., str], ticks: Any, kafka: KafkaServer, tmp_path: Path
) -> None:
    name, dead = topic(), topic()
    options = {"topic": name, "dead_letter_topic": dead, "max_message_bytes": 4000}
    with Journal.create(ticks_folder(tmp_path / "journal", "main"), feed="main") as journal:
        journal.instruments.register([SHORT, LONG])
        rows = ticks(5, 0, (SHORT,)).rows.copy()
        rows["instrument"] = [0, 0, 0, 0, 1]
        journal.append(rows.copy())
        out = KafkaSink(servers=kafka.bootstrap, **options)
        out.open()
        out.write(TickBatch(rows, journal.origin, 0))
        out.flush()
        out.close()
    letters = tmp_path / "letters.jsonl"
    for words in (("--kafka", dead, "--dump", letters), ("import", letters)):
        done = marketfeed("deadletters", *words, "--config", feed_toml(**options))
        assert done.exit_code == 0, done.output
    for limit, result in ((4000, "still-bad"), (900_000, "replayed"), (900_000, "done-before")):
        file = feed_toml(**{**options, "max_message_bytes": limit})
        done = marketfeed("deadletters", "replay", "--config", file)
        assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == [result], done.output
    options = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 3000}
    found = list(example(0)["ticks"](name, kafka.bootstrap, **options))
    assert [int(dict(one.headers)["seq"]) for one in found] == [0, 1, 2, 3, 4]


def test_two_sinks_that_share_a_dead_letter_topic_are_told_apart_before_a_dump(
    feed_toml: Callable[..., Path], tmp_path: Path
) -> None:
    file = feed_toml(dead_letter_topic="dlq")
    text = file.read_text().replace('["kafka"]', '["kafka", "second"]')
    file.write_text(text + '[sinks.second]\ntype = "kafka"\ndead_letter_topic = "dlq"\n')
    done = marketfeed("deadletters", "--kafka", "dlq", "--dump", tmp_path / "x", "--config", file)
    assert done.exit_code != 0
    assert "kafka and second share the dead-letter topic dlq" in f"{done.output} {done.exception}"


def test_what_the_library_says_about_its_options_shows_no_secret(feed_toml: Callable[..., Path]) -> None:
    file = feed_toml()
    secret = "hunter2hunter2"
    extra = f'[sinks.kafka.extra]\n"sasl.oauthbearer.client.secret" = "{secret}"\n[journal]'
    file.write_text(file.read_text().replace("[journal]", extra))
    for more in ([], ["--json"]):
        done = marketfeed("check", file, "--connect", *more)
        assert done.exit_code == 1
        assert "Unrecognized configs" in done.output
        assert secret not in done.output


def delivery_of(sink: Sink, journal: Any, name: str = "kafka", **options: Any) -> Delivery:
    return Delivery(
        name,
        sink,
        lambda: journal.reader(name, start="oldest"),
        Clock(),
        DeadLetters("main", Clock()),
        get_log(),
        lambda kind, data: None,
        **options,
    )


def test_a_row_refused_late_is_counted_as_a_dead_letter_and_not_as_delivered(
    kafka: KafkaServer, topic: Callable[..., str], ticks: Any, driver: str
) -> None:
    import random

    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))
    long = Instrument(exchange="NSE", symbol=noise, token="1")
    journal = Journal.memory()
    journal.instruments.register([SHORT, long])
    sink = KafkaSink(servers=kafka.bootstrap, driver=driver, topic=topic(max_message_bytes=4000), batch_bytes=3000)
    delivery = delivery_of(sink, journal)
    thread = threading.Thread(target=delivery.run)
    thread.start()
    assert delivery.opened.wait(20)
    journal.append(ticks(10, 0, (SHORT,)).rows)
    rows = ticks(3, 10, (SHORT,)).rows.copy()
    rows["instrument"] = [0, 1, 0]
    journal.append(rows)
    delivery.stop()
    thread.join(30)
    assert delivery.state is DeliveryState.DONE, delivery.error
    assert delivery.reader is not None
    counts = delivery.reader.counts
    assert (counts.delivered, counts.dead_lettered) == (12, 1)
    assert delivery.deadletters.counts == {("refused", "MessageTooLarge"): 1}


def test_the_consumer_of_the_page_sees_each_tick_once_and_in_order(
    kafka: KafkaServer, topic: Callable[..., str], ticks: Any
) -> None:
    name = topic(partitions=2)
    for _ in range(2):  # the second time as after a crash
        out = KafkaSink(servers=kafka.bootstrap, topic=name)
        out.open()
        out.write(ticks(100))
        out.flush()
        out.close()
    page = example(0)
    options = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 3000}
    found = list(page["ticks"](name, kafka.bootstrap, **options))
    assert sorted(int(dict(one.headers)["seq"]) for one in found) == list(range(100))


@pytest.mark.parametrize("number", [1, 2], ids=["pandas", "polars"])
def test_the_readers_of_columns_on_the_page_give_each_row_once(
    number: int, kafka: KafkaServer, topic: Callable[..., str], ticks: Any, driver: str
) -> None:
    name = topic(partitions=2)
    for rows in (60, 100):  # the second time as after a crash, in larger pieces
        out = KafkaSink(servers=kafka.bootstrap, topic=name, driver=driver, layout="arrow")
        out.open()
        out.write(ticks(rows))
        out.flush()
        out.close()
    page = example(number)
    frames = list(page["frames"](name, kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=3000))
    assert sorted(seq for frame in frames for seq in frame["seq"]) == list(range(100))
    received = frames[0]["received_time"].dt
    there = received.tz_convert("Asia/Kolkata") if number == 1 else received.convert_time_zone("Asia/Kolkata")
    assert f"{there[0]:%H:%M}" == "10:00"  # the page says how to show India time


def example(number: int) -> dict[str, Any]:
    """What the page's code block of that number defines."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    page: dict[str, Any] = {}
    exec(code[number], page)
    return page


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the system's count of memory")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_memory_is_bounded_and_other_sinks_go_on_while_the_broker_is_away(
    seconds: int,
    kafka: KafkaServer,
    topic: Callable[..., str],
    ticks: Any,
    driver: str,
    read: Any,
    kept: Any,
    tmp_path: Path,
) -> None:
    name, rate = topic(partitions=4), 9000
    journal = Journal.create(tmp_path / "journal", feed="main")
    journal.instruments.register(ticks(1).origin.instruments)
    sink = KafkaSink(servers=kafka.bootstrap, driver=driver, topic=name, request_timeout_s=2)
    file = JsonlSink(path=tmp_path / "ticks.jsonl", layout="compact")
    delivery, other = delivery_of(sink, journal), delivery_of(file, journal, "file", flush_every_s=0.2)
    threads = [threading.Thread(target=one.run) for one in (delivery, other)]
    for thread in threads:
        thread.start()
    assert delivery.opened.wait(20)
    rows = ticks(rate // 10).rows
    journal.append(rows)
    until(lambda: sink.metrics()["ingestion_kafka_messages_acknowledged_total"] >= rate // 10)
    with kafka.down():
        before, written = rss_anon(), 0
        for _ in range(seconds * 10):
            journal.append(rows)
            time.sleep(0.1)
            written = max(written, rss_anon() - before)
        until(lambda: delivered(other) == journal.committed)
        assert delivered(delivery) <= rate // 10
    assert written < 64 << 20
    for one, thread in zip((delivery, other), threads, strict=True):
        one.stop()
        thread.join(seconds * 9 + 60)
        assert one.state is DeliveryState.DONE, one.error
    journal.close()
    total = (seconds * 10 + 1) * (rate // 10)
    assert sorted(one.seq for one in kept(read(name))) == list(range(total))


def delivered(delivery: Delivery) -> int:
    """Rows that are certainly out."""
    assert delivery.reader is not None
    return delivery.reader.counts.delivered


def rss_anon() -> int:
    """Bytes of this process that are no file's."""
    text = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024


def test_a_topic_that_no_sink_names_is_said(feed_toml: Callable[..., Path], tmp_path: Path) -> None:
    done = marketfeed("deadletters", "--kafka", "nobody", "--dump", tmp_path / "x", "--config", feed_toml())
    assert done.exit_code == 1
    assert "dead_letter_topic = 'nobody'" in done.output
