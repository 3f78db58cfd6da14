"""The producer of confluent-kafka (librdkafka)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import attrs

from marketfeed.errors import SinkError
from marketfeed_kafka.chunks import Chunk
from marketfeed_kafka.driver import Failure, Outcome
from marketfeed_kafka.settings import Cluster

__all__ = ["ConfluentDriver"]


@attrs.define(eq=False)
class _Ticket:
    """Delivery reports of a chunk; those of a partition come in the order of its messages."""

    total: int
    sent: int = 0
    reports: list[Any] = attrs.field(factory=list)
    error: Failure | None = None
    """Why the message after those that were sent could not be handed over."""

    def report(self, error: Any, _: object) -> None:
        self.reports.append(error)

    @property
    def settled(self) -> bool:
        return len(self.reports) >= self.sent

    def failed(self) -> bool:
        return self.error is not None or self.reports.count(None) < len(self.reports)

    def outcomes(self) -> Sequence[Outcome]:
        known: list[Outcome] = [True if error is None else _failure(error) for error in self.reports]
        known += [None] * (self.sent - len(known))
        if self.error is not None:
            known.append(self.error)
        return known + [None] * (self.total - len(known))


def _failure(error: Any) -> Failure:
    from confluent_kafka import KafkaError

    large = error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
    invalid = error.code() in (KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP)
    return Failure(f"{error.name()}: {error.str()}", large or invalid, large)


class ConfluentDriver:
    """See :class:`~marketfeed_kafka.driver.Driver`."""

    exact = False  # all messages of a batch fail with the one that is too large

    def __init__(self, cluster: Cluster, *, alone: bool = False) -> None:
        try:
            from confluent_kafka import KafkaException, Producer
        except ImportError as error:
            message = "driver = \"confluent\" needs confluent-kafka: pip install 'marketfeed[kafka-confluent]'"
            raise SinkError(message, retryable=False) from error
        self._cluster = cluster
        self._errors: list[Any] = []
        self.fatal: Failure | None = None
        self._counts: dict[str, int] = {}
        options = {
            **cluster.confluent_options(),
            "acks": "all",
            "enable.idempotence": True,
            # A batch that fails for good must stop those behind it: what follows could no longer be put in order.
            "enable.gapless.guarantee": not alone,
            "compression.type": cluster.compression,
            "linger.ms": 0 if alone else cluster.linger_ms,
            "batch.size": cluster.batch_bytes,
            "message.max.bytes": max(1000, cluster.max_message_bytes),
            "message.timeout.ms": 0,  # giving up is the sink's decision: after it, order is lost
            "request.timeout.ms": round(cluster.timeout_s * 1000),
            "queue.buffering.max.messages": max(100_000, 2 * cluster.max_rows),
            "queue.buffering.max.kbytes": 2_097_151,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": self._errors.append,
            "logger": _logger(),
            "log_level": 3,  # errors; it warns of enable.gapless.guarantee at every start
            **cluster.extra,
        }
        try:
            self._producer: Any = Producer(options)
        except (KafkaException, ValueError, TypeError) as error:
            raise SinkError(f"Kafka at {cluster.servers}: {_text(error)}", retryable=False) from error

    def partitions(self, topic: str) -> int:
        from confluent_kafka import KafkaException

        if topic in self._counts:
            return self._counts[topic]
        self._errors.clear()
        try:
            found = self._producer.list_topics(topic, timeout=self._cluster.timeout_s).topics[topic]
            for _ in range(20):  # a topic that is being made has no leader yet
                if found.error is None and found.partitions:
                    self._counts[topic] = len(found.partitions)
                    return self._counts[topic]
                self._producer.poll(0.1)
                found = self._producer.list_topics(topic, timeout=self._cluster.timeout_s).topics[topic]
                if found.error is not None and not found.error.retriable() and not _unknown(found.error):
                    break
        except KafkaException as error:
            self.wait(0)
            raise self._unreachable(error) from error
        raise self._refusal(topic, found.error)

    def _unreachable(self, error: Exception) -> SinkError:
        from confluent_kafka import KafkaError

        refused = [one for one in self._errors if one.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)]
        if refused:
            what = "login refused" if refused[0].code() == KafkaError._AUTHENTICATION else "TLS failed"
            return SinkError(f"Kafka at {self._cluster.servers}: {what} ({refused[0].str()})", retryable=False)
        if any(one.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED for one in [*self._errors, *error.args[:1]]):
            text = f"Kafka at {self._cluster.servers}: no permission; allow this user to write idempotently"
            return SinkError(text, retryable=False)
        return SinkError(
            f"Kafka at {self._cluster.servers}: no answer ({_text(error)}); check servers and that it runs"
        )

    def _refusal(self, topic: str, error: Any) -> SinkError:
        what = f"Kafka at {self._cluster.servers}"
        if error is None or _unknown(error):
            return SinkError(
                f"{what} has no topic {topic!r} and makes none by itself; make it: marketfeed topics apply"
            )
        if error.name() == "TOPIC_AUTHORIZATION_FAILED":
            text = f"{what}, topic {topic!r}: no permission; allow this user to describe and write"
            return SinkError(text, retryable=False)
        return SinkError(f"{what}, topic {topic!r}: {error.str()}", retryable=bool(error.retriable()))

    def send(self, chunk: Chunk) -> _Ticket:
        from confluent_kafka import KafkaException

        ticket = _Ticket(len(chunk))
        produce, report = self._producer.produce, ticket.report
        topic, partition = chunk.topic, chunk.partition
        try:
            for key, value, headers in zip(chunk.keys, chunk.values, chunk.headers, strict=True):
                produce(topic, value, key, partition, report, 0, headers=headers)
                ticket.sent += 1
        except (KafkaException, BufferError) as error:
            ticket.error = _failure(error.args[0]) if isinstance(error, KafkaException) else Failure(str(error))
        self.wait(0)
        return ticket

    def wait(self, timeout_s: float) -> None:
        from confluent_kafka import KafkaException

        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:  # raised for fatal ones, after the reports were served
            self.fatal = _failure(error.args[0])

    def close(self) -> None:
        """Without waiting for anything in flight."""
        from confluent_kafka import KafkaException

        with contextlib.suppress(KafkaException):  # a fatal error, for which it is being closed
            self._producer.poll(0)  # what was reported is known
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer.flush(0.2)


def _unknown(error: Any) -> bool:
    return str(error.name()) in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "LEADER_NOT_AVAILABLE")


def _text(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return str(first.str()) if hasattr(first, "str") else str(first)


def _logger() -> Any:
    import logging

    from marketfeed_kafka.quiet import quieten

    logger = logging.getLogger("confluent_kafka")
    quieten("confluent_kafka")
    return logger
