"""PostgreSQL, Redis, RabbitMQ: each keeps what it acknowledged when it is killed, and comes back where it was."""

from __future__ import annotations

import subprocess

import pika
import pytest
from servers.servers import Server

pytestmark = pytest.mark.servers


def tool(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


def test_postgres_keeps_a_committed_row_when_it_is_killed(postgres: Server) -> None:
    address, process = postgres.url, postgres.pid
    tool("psql", "-qc", "create table ticks (seq bigint primary key); insert into ticks values (42)", address)
    with postgres.down(), pytest.raises(subprocess.CalledProcessError):
        tool("psql", "-c", "select 1", address)
    assert postgres.pid != process
    assert tool("psql", "-qtAc", "select seq from ticks", address) == "42"


def test_redis_keeps_an_acknowledged_write_when_it_is_killed(redis: Server) -> None:
    client, process = ("redis-cli", "-u", redis.url), redis.pid
    assert tool(*client, "set", "last_price", "42.05") == "OK"
    with redis.down(), pytest.raises(subprocess.CalledProcessError):
        tool(*client, "ping")
    assert redis.pid != process
    assert tool(*client, "get", "last_price") == "42.05"


def test_rabbitmq_keeps_a_confirmed_message_when_it_is_killed(rabbitmq: Server) -> None:
    address = pika.URLParameters(rabbitmq.url)
    with pika.BlockingConnection(address) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("ticks", durable=True)
        channel.basic_publish("", "ticks", b"42.05", pika.BasicProperties(delivery_mode=2))
    process = rabbitmq.pid
    with rabbitmq.down(), pytest.raises(pika.exceptions.AMQPConnectionError):
        pika.BlockingConnection(address)
    assert rabbitmq.pid != process
    with pika.BlockingConnection(address) as connection:
        assert connection.channel().basic_get("ticks", auto_ack=True)[2] == b"42.05"
