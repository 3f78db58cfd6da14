"""Real servers for tests, each an object around its script in this folder: on the loopback, gone with the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
from servers.proxy import Proxy

HERE = Path(__file__).resolve().parent
_CANNOT_BE_HAD = 3


class ServerUnavailable(Exception):
    """The server cannot be had on this machine; the message says what is missing. Tests skip by it."""


@attrs.define
class Server:
    """A server that its script starts and stops. ``start`` returns when it takes work, and does nothing while it runs.

    ``folder`` (absolute, not existing yet or from an earlier run) takes data, ports and logs. A server that is started
    again is at the same address. Whatever happens, it is killed when this process has gone.
    """

    name: str
    folder: Path
    #: further settings of the script, see its head
    settings: Mapping[str, str] = attrs.field(factory=dict)
    url: str = attrs.field(default="", init=False)

    def start(self) -> None:
        """Raises ServerUnavailable where it cannot be had, RuntimeError with its last words where it fails."""
        self._run("start")
        self.url = self._run("url")

    def stop(self) -> None:
        """In order, as its administrator would; returns when it has gone."""
        self._run("stop")

    def kill(self) -> None:
        """kill -9; returns when it has gone."""
        self._run("kill")

    def restart(self) -> None:
        self._run("restart")

    def wipe(self) -> None:
        """Kill it and delete all it wrote."""
        self._run("wipe")

    @contextmanager
    def down(self) -> Iterator[None]:
        """Killed while the block runs, up again after it."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @property
    def pid(self) -> int:
        """Its process id; raises OSError while it does not run."""
        return int((self.folder / self._pid_file).read_text().split()[0])

    @property
    def _pid_file(self) -> str:
        return {"redis": "redis.pid", "postgres": "data/postmaster.pid"}.get(self.name, "pid")

    def _run(self, verb: str) -> str:
        done = subprocess.run(
            [HERE / f"{self.name}.sh", verb],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode == _CANNOT_BE_HAD:
            raise ServerUnavailable(done.stderr.strip())
        if done.returncode:
            raise RuntimeError(f"{self.name}.sh {verb}: {done.stderr.strip()}")
        return done.stdout.strip()

    def _environment(self) -> dict[str, str]:
        ports = dict.fromkeys(("MF_KAFKA_PORT", "MF_PG_PORT", "MF_REDIS_PORT", "MF_AMQP_PORT"), "0")
        own = {"MF_DIR": str(self.folder), "MF_OWNER": str(os.getpid()), "PYTHON": sys.executable}
        return {**os.environ, **ports, **own, **self.settings}


@attrs.define
class KafkaServer(Server):
    """Apache Kafka, one KRaft node. Settings by ``KafkaServer.at``; ``url`` is ``bootstrap``."""

    @classmethod
    def at(
        cls,
        folder: Path,
        *,
        properties: Mapping[str, object] | None = None,
        users: Mapping[str, str] | None = None,
        pem: Path | None = None,
        acl: bool = False,
        data: Path | None = None,
        heap: str = "512m",
    ) -> KafkaServer:
        """A node that is not started yet.

        ``properties``: lines of server.properties, such as ``{"message.max.bytes": 2000}``; topics are made when first
        named unless ``"auto.create.topics.enable": False``. ``users``: names and passwords of a SASL PLAIN listener.
        ``pem``: private key and certificates of a TLS listener; with users, of one that wants both. ``acl``: nobody may
        do anything without an ACL, except clients of ``bootstrap`` and user ``admin``. ``data``: its log folder, to put
        it on a disk of its own. ``heap``: of the JVM; its resident memory is some 230 MiB at the start.
        """
        lines = "\n".join(
            f"{key}={str(value).lower() if isinstance(value, bool) else value}"
            for key, value in (properties or {}).items()
        )
        settings = {
            "MF_KAFKA_PROPERTIES": lines,
            "MF_KAFKA_USERS": " ".join(f"{name}:{password}" for name, password in (users or {}).items()),
            "MF_KAFKA_PEM": str(pem or ""),
            "MF_KAFKA_ACL": "1" if acl else "",
            "MF_KAFKA_DATA": str(data or ""),
            "KAFKA_HEAP_OPTS": f"-Xmx{heap}",
        }
        return cls("kafka", folder, settings)

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:PORT``, plaintext."""
        return self._address("port")

    @property
    def sasl_bootstrap(self) -> str:
        """SASL_PLAINTEXT, mechanism PLAIN; needs ``users``."""
        return self._address("sasl")

    @property
    def tls_bootstrap(self) -> str:
        """SSL; needs ``pem``."""
        return self._address("tls")

    @property
    def sasl_tls_bootstrap(self) -> str:
        """SASL_SSL; needs both."""
        return self._address("sasl_tls")

    def proxy(self) -> Proxy:
        """A proxy before this node, to be used in a ``with`` block, one at a time. Clients that start at its address
        stay on it: the node tells them that address, not its own."""
        return Proxy(target=self._port("behind"), port=self._port("front"))

    def topic(self, name: str, partitions: int = 1, **config: object) -> str:
        """Make a topic, wait until it can be written to, return its name; ``config`` with ``_`` for ``.``."""
        from kafka.admin import KafkaAdminClient, NewTopic

        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        finally:
            admin.close()
        return name

    @property
    def log(self) -> str:
        """What the node has written, warnings and errors, over all its starts."""
        return (self.folder / "log" / "kafka.log").read_text()

    def _address(self, listener: str) -> str:
        return f"127.0.0.1:{self._port(listener)}"

    def _port(self, listener: str) -> int:
        words = (self.folder / "ports").read_text().split()
        return int(dict(word.split("=") for word in words)[listener])
