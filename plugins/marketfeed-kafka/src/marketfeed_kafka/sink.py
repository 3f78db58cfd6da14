"""Ticks and candles into Kafka topics."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
import numpy as np

from marketfeed.batches import TickBatch
from marketfeed.contract import Sink, secret, setting
from marketfeed.errors import SinkError
from marketfeed_kafka.chunks import Batch, Chunk, MessageTooLarge, Refused
from marketfeed_kafka.driver import Driver
from marketfeed_kafka.flow import Flow
from marketfeed_kafka.messages import OVERHEAD_BYTES, Layout, Messages, topics_without_instrument
from marketfeed_kafka.settings import Cluster

if TYPE_CHECKING:
    from marketfeed_kafka.topics import TopicPlan

__all__ = ["KafkaSink"]

_log = logging.getLogger(__name__)
_positive: Any = attrs.validators.gt(0)


@attrs.define(slots=False, kw_only=True)
class KafkaSink(Sink):
    """One message a tick, keyed by instrument, in order for each instrument; see the plugin's README."""

    accepts: ClassVar[frozenset[str]] = frozenset({"ticks", "candles"})
    read_by_number: ClassVar[bool] = True

    servers: str = setting(env="KAFKA_BROKERS", default="localhost:9092")
    """Addresses host:port of some brokers, comma separated"""
    driver: Literal["kafka-python", "confluent"] = "kafka-python"
    """Client library; confluent needs marketfeed[kafka-confluent]"""
    topic: str = "market_ticks"
    """Topic of ticks; {feed} and {kind} stand for their names, {exchange} and {symbol} for those of each instrument"""
    candle_topic: str = "market_candles"
    """Topic of candles, with the same placeholders"""
    dead_letter_topic: str | None = None
    """Topic for ticks that Kafka refuses, with the reason; by default they go to marketfeed's own dead letters"""
    layout: Layout = "full"
    """Value of a tick: full (JSON of every field), compact (token, ltp, volume, timestamp) or arrow (columns)"""
    compression: Literal["lz4", "zstd", "gzip", "snappy", "none"] = "lz4"
    """Compression of what is sent; snappy needs a library of its own with kafka-python"""
    linger_ms: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))
    """Milliseconds that a message waits for company before it is sent"""
    batch_bytes: int = attrs.field(default=262_144, validator=_positive)
    """Most bytes of one partition sent together; no more than the topic's max.message.bytes"""
    max_message_bytes: int = attrs.field(default=1_000_000, validator=attrs.validators.ge(1000))
    """Longer messages are refused without asking; no more than the topic's max.message.bytes"""
    max_in_flight_rows: int = attrs.field(default=10_000, validator=_positive)
    """Most rows that wait for their acknowledgement; all memory that this sink takes lies in them"""
    request_timeout_s: float = attrs.field(default=10.0, validator=_positive)
    """Seconds without an answer after which a connection attempt ends, or a producer is given up and made anew"""
    partitions: int = attrs.field(default=4, validator=_positive)
    """Partitions of a topic that `marketfeed topics apply` makes"""
    replication: int = attrs.field(default=-1, validator=attrs.validators.ge(-1))
    """Copies of such a topic; -1 is the cluster's default"""
    retention_hours: float | None = None
    """How long such a topic keeps messages; by default the cluster's choice"""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """SSL encrypts (the certificate is verified), SASL asks for a login"""
    sasl_mechanism: str | None = None
    """PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, ..."""
    sasl_username: str | None = setting(env="KAFKA_USERNAME", default=None)
    """Name for the login"""
    sasl_password: str | None = secret(env="KAFKA_PASSWORD", default=None)
    """Password for the login"""
    ssl_cafile: str | None = None
    """File of certificates to trust; by default those of the system"""
    ssl_certfile: str | None = None
    """File with a certificate of this client"""
    ssl_keyfile: str | None = None
    """File with its private key"""
    ssl_key_password: str | None = secret(default=None)
    """Password of that file"""
    extra: Mapping[str, Any] = secret(factory=dict, converter=dict)
    """Further options of the client library under its own names; they win over all others"""

    _flow: Flow = attrs.field(init=False, repr=False, eq=False)
    _topic_lost: bool = attrs.field(init=False, default=False, repr=False, eq=False)
    """The dead-letter topic could not be used; it is not asked again before these rows are somewhere else."""
    _messages: Messages = attrs.field(init=False, repr=False, eq=False)
    _taken: tuple[tuple[str, int, int], int, list[int]] = attrs.field(
        init=False, default=(("", 0, 0), 0, []), repr=False, eq=False
    )

    def __attrs_post_init__(self) -> None:
        self._messages = Messages(
            self.layout,
            self.topic,
            self.candle_topic,
            lambda topic: self._flow.partitions(topic),
            self.max_message_bytes,
        )
        self._flow = Flow(self._connect, self._messages.split, self.max_in_flight_rows, self.request_timeout_s)

    # --- the life of a sink -------------------------------------------------------------------

    def open(self) -> None:
        """Connect and look at the topics. ``SinkError`` says what is wrong: address, login, permission, topic."""
        self._flow.open()
        try:
            for topic in self._fixed_topics:
                self._flow.partitions(topic)
        except BaseException:
            self._flow.close()
            raise

    def write(self, batch: Batch) -> None:
        """Hand the rows over; returns before they are acknowledged, unless too many wait already.

        After ``SinkError(retryable=True)`` the same batch is to be written again.
        """
        where = batch.journal, batch.first_row, len(batch)
        start = self._taken[1] if self._taken[0] == where else 0
        large = list(self._taken[2]) if start else []
        while start < len(batch):
            large += self._write(batch[start : start + self._step], start)
            start += self._step
            self._taken = where, start, large  # or a second try would take the beginning twice
            self._flow.poll()
        self._taken = ("", 0, 0), 0, []
        if large:
            self._refuse(batch, sorted(large))

    def flush(self) -> None:
        """Return when the broker has acknowledged every row. ``SinkError`` while it does not: what is missing is
        kept and sent again, in order, by the next call."""
        self._flow.drain()
        if self._letters_to_topic():
            self._flow.drain()
        if self._flow.refused:
            self._raise_refused()
        self._topic_lost = False

    def close(self) -> None:
        """Let go of the connection; what is not acknowledged comes again from the journal."""
        self._flow.close()

    def for_replay(self) -> KafkaSink:
        """Without the dead-letter topic: what is refused again stays a dead letter where it is."""
        return attrs.evolve(self, dead_letter_topic=None)

    def probe(self) -> str:
        """Connect, look at the topics, and leave; for ``marketfeed check --connect``. Raises ``SinkError``."""
        self.open()
        try:
            topics = {topic: self._flow.partitions(topic) for topic in self._fixed_topics}
        finally:
            self.close()
        found = ", ".join(f"{topic} ({count} partitions)" for topic, count in topics.items())
        return f"Kafka at {self.servers}" + (f": {found}" if found else "")

    def metrics(self) -> Mapping[str, float]:
        """Numbers of this sink; names that end with ``_total`` are counters."""
        counts = self._flow.counts
        return {
            "ingestion_kafka_messages_sent_total": counts.sent,
            "ingestion_kafka_messages_acknowledged_total": counts.acknowledged,
            "ingestion_kafka_messages_retried_total": counts.retried,
            "ingestion_kafka_rows_refused_total": counts.refused,
            "ingestion_kafka_producer_rebuilds_total": counts.rebuilds,
            "ingestion_kafka_rows_in_flight": counts.in_flight,
            "ingestion_kafka_request_latency_seconds": counts.latency_s,
        }

    # --- topics and letters, for the commands -------------------------------------------------

    def plan_topics(self, kind: str = "ticks", exchanges: Iterable[str] = ()) -> list[TopicPlan]:
        """What ``marketfeed topics`` would make for ``ticks`` or ``candles``, with ``{exchange}`` standing for each
        of the exchanges. A topic named by ``{symbol}`` is not known before its first row. Raises ``SinkError``."""
        from marketfeed_kafka.topics import plan

        wanted = [self.candle_topic] if kind == "candles" else [self.topic, self.dead_letter_topic or ""]
        named = [one.replace("{exchange}", exchange) for one in wanted for exchange in exchanges if "{" in one]
        known = [one for one in (*wanted, *named) if one and "{" not in one]
        return plan(self._cluster, list(dict.fromkeys(known)), self._shape)

    def apply_topics(self, plans: Sequence[TopicPlan]) -> list[TopicPlan]:
        """Carry plans out; gives those that needed something. Raises ``SinkError``."""
        from marketfeed_kafka.topics import apply

        return apply(self._cluster, plans)

    def dump_letters(self, topic: str, source: str) -> Iterator[bytes]:
        """The letters of a dead-letter topic as lines for ``marketfeed deadletters import``. Raises ``SinkError``."""
        from marketfeed_kafka.letters import letters_in
        from marketfeed_kafka.python_driver import sink_error

        try:
            yield from letters_in(topic, self._cluster, source)
        except Exception as error:
            raise sink_error(error, self.servers, topic) from error

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _fixed_topics(self) -> list[str]:
        found = topics_without_instrument(self.topic, self.dead_letter_topic or "")
        return [one for one in found if "{" not in one]

    @property
    def _shape(self) -> dict[str, Any]:
        hours = self.retention_hours
        config = {} if hours is None else {"retention.ms": str(round(hours * 3_600_000))}
        return {"partitions": self.partitions, "replication": self.replication, "config": config}

    @property
    def _step(self) -> int:
        return max(1, self.max_in_flight_rows // 2)

    @property
    def _cluster(self) -> Cluster:
        return Cluster(
            servers=self.servers,
            security_protocol=self.security_protocol,
            sasl_mechanism=self.sasl_mechanism,
            sasl_username=self.sasl_username,
            sasl_password=self.sasl_password,
            ssl_cafile=self.ssl_cafile,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
            ssl_key_password=self.ssl_key_password,
            compression=self.compression,
            linger_ms=self.linger_ms,
            timeout_s=self.request_timeout_s,
            batch_bytes=min(self.batch_bytes, self.max_message_bytes),
            max_message_bytes=self.max_message_bytes,
            max_rows=self.max_in_flight_rows,
            extra=self.extra,
        )

    def _connect(self, alone: bool) -> Driver:
        if self.driver == "confluent":
            from marketfeed_kafka.confluent_driver import ConfluentDriver

            return ConfluentDriver(self._cluster, alone=alone)
        from marketfeed_kafka.python_driver import PythonDriver

        return PythonDriver(self._cluster, alone=alone)

    def _write(self, batch: Batch, start: int) -> list[int]:
        """Take a part; returns the rows (counted from ``start`` of the whole) whose messages are too large."""
        self._flow.make_room(len(batch))
        large: list[int] = []
        for chunk in self._messages.chunks(batch):
            for part in self._allowed(chunk, large):
                self._flow.put(part)
        return [start + row for row in large]

    def _allowed(self, chunk: Chunk, large: list[int]) -> list[Chunk]:
        """The chunk without messages that are too large; their rows are added to ``large``."""
        limit = self.max_message_bytes - OVERHEAD_BYTES
        if max(map(len, chunk.values)) + max(len(key or b"") for key in chunk.keys) <= limit:
            return [chunk]
        fit = [len(key or b"") + len(value) <= limit for key, value in zip(chunk.keys, chunk.values, strict=True)]
        large.extend(int(row) for fits, row in zip(fit, chunk.index, strict=False) if not fits)
        places = [place for place, fits in enumerate(fit) if fits]
        return [chunk.part(place, place + 1) for place in places]

    def _refuse(self, batch: Batch, rows: Sequence[int]) -> None:
        """All else of the batch was taken."""
        error = MessageTooLarge(f"longer than max_message_bytes ({self.max_message_bytes})")
        self._flow.counts.refused += len(rows)
        if self.dead_letter_topic and isinstance(batch, TickBatch):
            self._flow.refused.append(Refused(batch, np.array(rows, np.intp), error))
        else:
            raise SinkError(str(error), retryable=False, rejected=rows) from error

    def _letters_to_topic(self) -> bool:
        """Send what was refused to the dead-letter topic; what that refuses, too, stays."""
        topic = self.dead_letter_topic
        mine = [one for one in self._flow.refused if topic and isinstance(one.batch, TickBatch)]
        if not topic or not mine or self._topic_lost:
            return False
        from marketfeed_kafka.letters import letter_chunk

        try:
            self._flow.partitions(topic)
        except SinkError as error:  # gone since the start: bad rows must not hold up the good ones
            _log.warning("refused rows go to marketfeed's own dead letters: %s", error)
            self._topic_lost = True
            return False
        self._flow.refused[:] = [one for one in self._flow.refused if all(one is not other for other in mine)]
        for one in mine:
            self._flow.put(letter_chunk(one, topic))
        return True

    def _raise_refused(self) -> None:
        """The first of the rows that nobody takes, one by one; each goes to marketfeed's own dead letters."""
        batch, places, error = self._flow.refused.pop(0)
        if not isinstance(batch, TickBatch):  # the core's dead letters are ticks
            raise SinkError(f"{len(places)} candles refused: {error}", retryable=False) from error
        rows = np.zeros(len(batch), bool)
        rows[places] = True
        raise SinkError(str(error), refused=batch[rows]) from error
