"""A broker that sends prepared frames, as fast as the reader takes them or at a steady pace. Run as a child:
``python -m benchmarks._blaster PER_FRAME TOTAL RATE UNIVERSE POISONED`` prints its port, serves connections one after
another (or several at once), sends TOTAL ticks to each, then keeps quiet until the client leaves."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks._kite import frames_of, full_packets
from benchmarks._poison import poisoned

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PREPARED = 20_000


def _ws(data: bytes, text: bool = False) -> bytes:
    """A WebSocket frame."""
    size, kind = len(data), b"\x81" if text else b"\x82"
    if size < 126:
        return kind + bytes([size]) + data
    if size < 1 << 16:
        return kind + b"\x7e" + struct.pack(">H", size) + data
    return kind + b"\x7f" + struct.pack(">Q", size) + data


def _send(
    connection: socket.socket, frames: list[bytes], per_frame: int, total: int, rate: float, greeting: bytes
) -> None:
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1(key.split(b":")[1].strip() + _GUID).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if greeting:
            connection.recv(4096)  # whoever it is may come in
            connection.sendall(greeting)
        sent, at, start = 0, 0, time.perf_counter()
        try:
            while sent < total:
                if rate:
                    time.sleep(max(0.0, start + sent / rate - time.perf_counter()))
                    bundle = 1
                else:
                    bundle = max(1, 500 // per_frame)
                connection.sendall(b"".join(frames[at : at + bundle]))
                at = (at + bundle) % (len(frames) - bundle)
                sent += bundle * per_frame
            while connection.recv(4096):
                pass
        except OSError:
            return  # the client left


def serve(
    messages: list[bytes], per_frame: int, total: int, rate: float = 0, *, text: bool = False, login: bytes = b""
) -> None:
    """Print the port, then send ``total`` ticks to each who comes; ``login`` answers the client's first message."""
    frames = [_ws(data, text) for data in messages]
    greeting = _ws(login, text) if login else b""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            given = (server.accept()[0], frames, per_frame, total, rate, greeting)
            threading.Thread(target=_send, args=given, daemon=True).start()


def main(per_frame: int, total: int, rate: float, universe: int, share: float) -> None:
    # Where poison counts, nothing is sent a second time: that would be poison, too.
    packets = full_packets(_PREPARED, universe) if share < 0 else poisoned(full_packets(total + 500, universe), share)
    serve(frames_of(packets, per_frame), per_frame, total, rate)


@contextmanager
def blaster(per_frame: int, total: int, rate: float = 0, universe: int = 500, poison: float = -1) -> Iterator[int]:
    """A child process that serves; gives its port. With ``poison``, the share of bad packets, all are different."""
    with child("benchmarks._blaster", per_frame, total, rate, universe, poison) as port:
        yield port


@contextmanager
def child(module: str, *numbers: float) -> Iterator[int]:
    """A module run as a process that prints its port, with these arguments; gives the port."""
    command = [sys.executable, "-m", module, *map(str, numbers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
