"""What ``marketfeed topics`` shows and makes. The administration client is always kafka-python's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from marketfeed.errors import SinkError
from marketfeed_kafka.python_driver import sink_error
from marketfeed_kafka.settings import Cluster

__all__ = ["TopicPlan", "apply", "plan"]


@attrs.frozen(kw_only=True)
class TopicPlan:
    """A topic as it is wanted, and what is to be done."""

    topic: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    action: str
    """``create``, ``add partitions``, ``configure``, ``keep``"""
    present: int = 0
    """Partitions that it has now; 0 when there is no such topic"""


@contextlib.contextmanager
def _admin(cluster: Cluster) -> Iterator[Any]:
    from kafka import KafkaAdminClient

    try:
        more = cluster.others(KafkaAdminClient.DEFAULT_CONFIG)
        client = KafkaAdminClient(**{**cluster.python_options(), **more})
        try:
            yield client
        finally:
            client.close()
    except SinkError:
        raise
    except Exception as error:
        raise sink_error(error, cluster.servers) from error


def plan(cluster: Cluster, topics: Sequence[str], shape: Mapping[str, Any]) -> list[TopicPlan]:
    """Compare with what is there; changes nothing. Raises ``SinkError``."""
    with _admin(cluster) as client:
        existing = set(client.list_topics())
        return [_plan(client, topic, shape, topic in existing) for topic in topics]


def _plan(client: Any, topic: str, shape: Mapping[str, Any], there: bool) -> TopicPlan:
    wanted = TopicPlan(topic=topic, action="create", **shape)
    if not there:
        return wanted
    found = client.describe_topics([topic])[0]
    present = len(found["partitions"])
    action = "add partitions" if present < wanted.partitions else "keep"
    if action == "keep" and wanted.config and not _configured(client, topic, wanted.config):
        action = "configure"
    return attrs.evolve(wanted, action=action, present=present)


def _configured(client: Any, topic: str, config: Mapping[str, str]) -> bool:
    from kafka.admin import ConfigResource, ConfigResourceType

    found = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    present = found.get("topic", {}).get(topic, {})
    return all(present.get(name, {}).get("value") == value for name, value in config.items())


def apply(cluster: Cluster, plans: Sequence[TopicPlan]) -> list[TopicPlan]:
    """Do it; returns the plans that were carried out. Raises ``SinkError``."""
    from kafka.admin import NewTopic

    done = [one for one in plans if one.action != "keep"]
    if not done:
        return []
    with _admin(cluster) as client:
        new = [
            NewTopic(one.topic, one.partitions, one.replication, topic_configs=dict(one.config))
            for one in done
            if one.action == "create"
        ]
        if new:
            client.create_topics(new)
        for one in done:
            _change(client, one)
    return done


def _change(client: Any, one: TopicPlan) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions

    if one.action == "add partitions":
        client.create_partitions({one.topic: NewPartitions(one.partitions)})
    if one.action in ("add partitions", "configure") and one.config:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, one.topic, configs=dict(one.config))])
