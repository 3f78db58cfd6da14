"""How to reach a cluster, in the words of either library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

__all__ = ["Cluster"]


@attrs.frozen(kw_only=True)
class Cluster:
    """Addresses, security, and what the producers have in common."""

    servers: str
    security_protocol: str
    sasl_mechanism: str | None
    sasl_username: str | None
    sasl_password: str | None = attrs.field(repr=False)
    ssl_cafile: str | None
    ssl_certfile: str | None
    ssl_keyfile: str | None
    ssl_key_password: str | None = attrs.field(repr=False)
    compression: str
    linger_ms: float
    timeout_s: float
    batch_bytes: int
    max_message_bytes: int
    max_rows: int
    extra: Mapping[str, Any] = attrs.field(repr=False)

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of each server."""
        return [one.strip() for one in self.servers.split(",") if one.strip()]

    def python_options(self) -> dict[str, Any]:
        """For clients of kafka-python."""
        options = {
            "bootstrap_servers": self.addresses,
            "client_id": "marketfeed",
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "ssl_cafile": self.ssl_cafile,
            "ssl_certfile": self.ssl_certfile,
            "ssl_keyfile": self.ssl_keyfile,
            "ssl_password": self.ssl_key_password,
            "bootstrap_timeout_ms": round(self.timeout_s * 1000),
            "request_timeout_ms": round(self.timeout_s * 1000),
        }
        return {name: value for name, value in options.items() if value is not None}

    def others(self, known: Iterable[str]) -> dict[str, Any]:
        """Further options that a client of kafka-python knows, for those that are no producer."""
        return {name: value for name, value in self.extra.items() if name in known}

    def confluent_options(self) -> dict[str, Any]:
        """For clients of confluent-kafka."""
        options = {
            "bootstrap.servers": ",".join(self.addresses),
            "client.id": "marketfeed",
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ssl_cafile,
            "ssl.certificate.location": self.ssl_certfile,
            "ssl.key.location": self.ssl_keyfile,
            "ssl.key.password": self.ssl_key_password,
        }
        return {name: value for name, value in options.items() if value is not None}
