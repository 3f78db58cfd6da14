"""Free ports of the loopback, and whether a Kafka node answers on one; `kafka.sh` and `servers.py` use both.

From a shell: ``python ports.py free 3`` prints three ports; ``python ports.py kafka PORT`` exits 0 if it is ready.
"""

from __future__ import annotations

import random
import socket
import struct
import sys

# Below the range from which Linux and macOS take the local ports of outgoing connections. A client that keeps trying
# to reach a server that is down can otherwise be given that very port, connect to itself, and keep the server out.
_FIRST, _LAST = 20_000, 30_000
_METADATA, _VERSION = 3, 5


def free_ports(count: int) -> list[int]:
    """``count`` different ports of 127.0.0.1 that nothing listens on now; nothing reserves them."""
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            held += _bound(random.SystemRandom().randint(_FIRST, _LAST))
        return [sock.getsockname()[1] for sock in held]
    finally:
        for sock in held:
            sock.close()


def _bound(port: int) -> list[socket.socket]:
    sock = socket.socket()
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        return []
    return [sock]


def kafka_ready(port: int, timeout_s: float = 2.0) -> bool:
    """Whether the node on this plaintext port lists at least one broker that takes work.

    A listening port is not enough: a node that still recovers its logs accepts connections, and then refuses to make
    topics. The question is a Metadata request, version 5, for no topic (the protocol guide of Apache Kafka).
    """
    client = b"ready"
    body = struct.pack(">hhih", _METADATA, _VERSION, 1, len(client)) + client + struct.pack(">i?", 0, False)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as sock:
            sock.settimeout(timeout_s)
            sock.sendall(struct.pack(">i", len(body)) + body)
            answer = sock.makefile("rb").read(16)
    except OSError:
        return False
    # length, correlation, throttle time, number of brokers
    return len(answer) == 16 and struct.unpack(">iiii", answer)[3] > 0


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "free":
        print(*free_ports(int(arguments[1])))
        return 0
    if len(arguments) == 2 and arguments[0] == "kafka":
        return 0 if kafka_ready(int(arguments[1])) else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
