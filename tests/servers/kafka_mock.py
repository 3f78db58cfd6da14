"""A Kafka-protocol mock cluster on the loopback: librdkafka's own, driven through the library in confluent-kafka.

    with MockKafka(brokers=3) as kafka:
        kafka.topic("ticks", partitions=4)
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, api_version=MockKafka.KAFKA_PYTHON_API)
        kafka.error(PRODUCE, NOT_LEADER, NOT_LEADER)    # the next two Produce requests fail
        kafka.down(1); kafka.up(1); kafka.rtt(1, 2500); kafka.leader("ticks", 0, 2)

For errors that a broker gives rarely, and for nothing else: everything is in memory, a partition keeps only its newest
~5 MiB, timestamps are constant, retried batches are appended again (no de-duplication), a second member of a
kafka-python group fails (InvalidRequestError). Durability, idempotence and groups need the fixture ``kafka``.
Use ``down`` and ``up`` with one broker: with more, its metadata names the downed leader but not the broker, and
kafka-python 3.0.12 then loops and never delivers.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, FIND_COORDINATOR, JOIN_GROUP = 0, 1, 2, 3, 8, 10, 11
INIT_PRODUCER_ID = 22
NOT_LEADER, REQUEST_TIMED_OUT, MSG_TOO_LARGE, NOT_ENOUGH_REPLICAS, TOPIC_AUTHORIZATION_FAILED = 6, 7, 10, 19, 29

_PRODUCER = 0
_POINTER, _INT, _TEXT, _INT16, _INT32 = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int16, ctypes.c_int32
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "conf_new": (_POINTER, []),
    "conf_set": (_INT, [_POINTER, _TEXT, _TEXT, _POINTER, ctypes.c_size_t]),
    "new": (_POINTER, [_INT, _POINTER, _POINTER, ctypes.c_size_t]),
    "destroy": (None, [_POINTER]),
    "mock_cluster_new": (_POINTER, [_POINTER, _INT]),
    "mock_cluster_destroy": (None, [_POINTER]),
    "mock_cluster_bootstraps": (_TEXT, [_POINTER]),
    "mock_topic_create": (_INT, [_POINTER, _TEXT, _INT, _INT]),
    "mock_topic_set_error": (None, [_POINTER, _TEXT, _INT]),
    "mock_partition_set_leader": (_INT, [_POINTER, _TEXT, _INT32, _INT32]),
    "mock_broker_set_down": (_INT, [_POINTER, _INT32]),
    "mock_broker_set_up": (_INT, [_POINTER, _INT32]),
    "mock_broker_set_rtt": (_INT, [_POINTER, _INT32, _INT]),
    "mock_push_request_errors_array": (None, [_POINTER, _INT16, ctypes.c_size_t, ctypes.POINTER(_INT)]),
    "mock_clear_request_errors": (None, [_POINTER, _INT16]),
}


def _library() -> ctypes.CDLL:
    """The librdkafka inside the wheel, with the types of what is called here."""
    import confluent_kafka

    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*.so*"))))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class MockKafka:
    #: kafka-python must be told this version: the mock's ApiVersions stops at v2; newer versions start at v3.
    KAFKA_PYTHON_API = (2, 3)

    def __init__(self, brokers: int = 1) -> None:
        self._lib = _library()
        conf = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set(conf, b"log_level", b"3", None, 0)
        self._client = self._lib.rd_kafka_new(_PRODUCER, conf, None, 0)
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, brokers)
        self.bootstrap: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def __enter__(self) -> MockKafka:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def topic(self, name: str, partitions: int = 1, replicas: int = 1) -> None:
        self._check(self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, replicas))

    def topic_error(self, name: str, code: int) -> None:
        """Every request about this topic fails with this code; 0 ends it."""
        self._lib.rd_kafka_mock_topic_set_error(self._cluster, name.encode(), code)

    def error(self, api_key: int, *codes: int) -> None:
        """The next requests of this kind fail, one for each code."""
        array = (_INT * len(codes))(*codes)
        self._lib.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(codes), array)

    def clear_errors(self, api_key: int) -> None:
        self._lib.rd_kafka_mock_clear_request_errors(self._cluster, api_key)

    def leader(self, topic: str, partition: int, broker: int) -> None:
        """Brokers are numbered from 1, partitions from 0."""
        self._check(self._lib.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), partition, broker))

    def down(self, broker: int) -> None:
        self._check(self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker))

    def up(self, broker: int) -> None:
        self._check(self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker))

    def rtt(self, broker: int, milliseconds: int) -> None:
        """Every answer of this broker is this late."""
        self._check(self._lib.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds))

    def close(self) -> None:
        if self._cluster:
            self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
            self._lib.rd_kafka_destroy(self._client)
            self._cluster = self._client = None

    @staticmethod
    def _check(code: int) -> None:
        if code:
            raise RuntimeError(f"librdkafka error {code}")
