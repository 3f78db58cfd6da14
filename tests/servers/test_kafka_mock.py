"""The mock cluster gives the errors it is asked for, to both drivers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer
from kafka.errors import TopicAuthorizationFailedError
from servers.kafka_mock import MSG_TOO_LARGE, NOT_LEADER, PRODUCE, TOPIC_AUTHORIZATION_FAILED, MockKafka

pytestmark = pytest.mark.servers


@pytest.fixture
def mock() -> Iterator[MockKafka]:
    with MockKafka() as mock:
        mock.topic("ticks")
        yield mock


def test_kafka_python_retries_what_it_may_and_reports_the_rest(mock: MockKafka) -> None:
    mock.error(PRODUCE, NOT_LEADER)
    settings = {"bootstrap_servers": mock.bootstrap, "api_version": MockKafka.KAFKA_PYTHON_API}
    with closing(KafkaProducer(**settings)) as producer:
        assert producer.send("ticks", b"retried").get(10).offset == 0
        mock.error(PRODUCE, TOPIC_AUTHORIZATION_FAILED)
        with pytest.raises(TopicAuthorizationFailedError):
            producer.send("ticks", b"refused").get(10)


def test_confluent_retries_what_it_may_and_reports_the_rest(mock: MockKafka) -> None:
    seen: list[object] = []
    producer = Producer({"bootstrap.servers": mock.bootstrap})
    for code in (NOT_LEADER, MSG_TOO_LARGE):
        mock.error(PRODUCE, code)
        producer.produce("ticks", b"x", on_delivery=lambda error, _: seen.append(error and error.code()))
        assert producer.flush(10) == 0
    assert seen == [None, MSG_TOO_LARGE]
