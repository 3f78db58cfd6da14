"""The producer of kafka-python, with its weaknesses contained.

Read in its source, 3.0.12: ``buffer_memory`` is gone, so only the sink's own bound keeps memory; ``send`` waits for a
topic's partitions up to ``max_block_ms`` (so a new producer is asked for them before anything is sent); ``close`` waits
for what is in flight and then raises without stopping its thread, so the thread is told by its own method.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from marketfeed.errors import SinkError
from marketfeed_kafka.chunks import Chunk
from marketfeed_kafka.driver import Failure, Outcome
from marketfeed_kafka.quiet import quieten
from marketfeed_kafka.settings import Cluster

__all__ = ["PythonDriver", "sink_error"]

_FOREVER_MS = 2**31 - 1


@attrs.define(eq=False)
class _Ticket:
    """The futures of a chunk; ``error`` is that of the first message that could not even be handed over."""

    futures: list[Any]
    count: int
    error: Failure | None = None

    @property
    def settled(self) -> bool:
        return not self.futures or (self.futures[-1].is_done and all(one.is_done for one in self.futures))

    def failed(self) -> bool:
        return self.error is not None or any(one.exception is not None for one in self.futures)

    def outcomes(self) -> Sequence[Outcome]:
        known: list[Outcome] = [_outcome(one) for one in self.futures]
        if self.error is not None:
            known.append(self.error)
        return known + [None] * (self.count - len(known))


def _outcome(future: Any) -> Outcome:
    if not future.is_done:
        return None
    return True if future.exception is None else _failure(future.exception)


def _failure(error: BaseException) -> Failure:
    from kafka import errors

    large = isinstance(error, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError)
    invalid = isinstance(error, errors.InvalidRecordError | errors.InvalidTimestampError)
    return Failure(_text(error), large or invalid, large)


def _text(error: BaseException) -> str:
    text = str(error).strip()
    return text if text.startswith(type(error).__name__) else f"{type(error).__name__}: {text}".rstrip(": ")


def sink_error(error: Exception, servers: str, topic: str = "") -> SinkError:
    """What an error of kafka-python means: wrong credentials and settings do not heal, all else may."""
    from kafka import errors

    what = f"Kafka at {servers}" + (f", topic {topic!r}" if topic else "")
    if isinstance(error, errors.AuthorizationError):
        return SinkError(
            f"{what}: no permission ({_text(error)}); allow this user to describe and write", retryable=False
        )
    if isinstance(error, errors.SaslAuthenticationFailedError | errors.UnsupportedSaslMechanismError):
        return SinkError(f"{what}: login refused; check sasl_mechanism, sasl_username, sasl_password", retryable=False)
    if isinstance(error, errors.InvalidTopicError):
        return SinkError(f"{what}: not a name of a topic", retryable=False)
    if isinstance(error, ValueError | TypeError | errors.KafkaConfigurationError | OSError) and not isinstance(
        error, ConnectionError | TimeoutError
    ):
        return SinkError(f"{what}: {_text(error)}", retryable=False)
    return SinkError(f"{what}: no answer ({_text(error)}); check servers and that it runs")


def _remembering(clients: list[Any]) -> Callable[..., Any]:
    from kafka.producer.kafka import KafkaNetClient

    def make(**options: Any) -> Any:
        clients.append(KafkaNetClient(**options))
        return clients[-1]

    return make


def _unreachable(error: Exception, cluster: Cluster) -> SinkError:
    """kafka-python 3.0.12 does not say that a login was refused: the broker hangs up, and it tries again."""
    from kafka.errors import KafkaTimeoutError

    if isinstance(error, KafkaTimeoutError) and cluster.security_protocol.startswith("SASL"):
        hint = "check servers, and whether the login is right: sasl_mechanism, sasl_username, sasl_password"
        return SinkError(f"Kafka at {cluster.servers}: no answer, or login refused; {hint}")
    return sink_error(error, cluster.servers)


class PythonDriver:
    """See :class:`~marketfeed_kafka.driver.Driver`."""

    fatal: Failure | None = None

    def __init__(self, cluster: Cluster, *, alone: bool = False) -> None:
        from kafka import KafkaProducer

        self._cluster = cluster
        self._settled = threading.Event()
        # It splits a batch that is too large until the one message is left. An idempotent one then fails for good
        # and takes all that is in flight along, with the same error.
        self.exact = alone
        options = {
            **cluster.python_options(),
            "acks": "all",
            "enable_idempotence": not alone,
            **({"max_in_flight_requests_per_connection": 1} if alone else {}),
            "compression_type": None if cluster.compression == "none" else cluster.compression,
            "linger_ms": 0 if alone else cluster.linger_ms,
            "batch_size": cluster.batch_bytes,
            "max_request_size": cluster.max_message_bytes,
            "max_block_ms": round(cluster.timeout_s * 1000),
            "delivery_timeout_ms": _FOREVER_MS,  # giving up is the sink's decision: after it, order is lost
            "reconnect_backoff_max_ms": 1000,
            "metrics_enabled": False,
            **cluster.extra,
        }
        quieten()  # a broker that is away makes the constructor talk, too
        clients: list[Any] = []
        try:
            self._producer: Any = KafkaProducer(**options, kafka_client=_remembering(clients))
        except Exception as error:
            for client in clients:  # which nobody else would close: an outage must not cost a socket a minute
                with contextlib.suppress(Exception):
                    client.close()
            raise _unreachable(error, cluster) from error
        quieten()

    def partitions(self, topic: str) -> int:
        try:
            return len(self._producer.partitions_for(topic))
        except Exception as error:
            from kafka.errors import KafkaTimeoutError

            if isinstance(error, KafkaTimeoutError):
                raise SinkError(
                    f"Kafka at {self._cluster.servers} has no topic {topic!r} and makes none by itself; "
                    "make it: marketfeed topics apply"
                ) from error
            raise sink_error(error, self._cluster.servers, topic) from error

    def send(self, chunk: Chunk) -> _Ticket:
        send: Callable[..., Any] = self._producer.send
        ticket = _Ticket([], len(chunk))
        put = ticket.futures.append
        topic, partition = chunk.topic, chunk.partition
        try:
            for key, value, headers in zip(chunk.keys, chunk.values, chunk.headers, strict=True):
                put(send(topic, value, key, headers, partition))
        except Exception as error:
            ticket.error = _failure(error)
        if ticket.futures:
            ticket.futures[-1].add_both(self._wake)
        return ticket

    def _wake(self, _: object) -> None:
        self._settled.set()

    def wait(self, timeout_s: float) -> None:
        if timeout_s:
            self._settled.wait(timeout_s)
        self._settled.clear()

    def close(self) -> None:
        """Without waiting for anything in flight."""
        producer = self._producer
        sender = getattr(producer, "_sender", None)
        if sender is not None:
            sender.force_close()
            sender.join(1.0)
        with contextlib.suppress(Exception):
            producer.close(timeout=0)
