"""The proxy of the server tests, before an echo server."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from servers.proxy import Proxy
from waiting import until


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with Proxy(target=server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def connect(proxy: Proxy) -> socket.socket:
    host, port = proxy.address.split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionError:
        return True


def test_bytes_pass_unchanged_in_both_directions(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 4096
    with connect(proxy) as client:
        threading.Thread(target=client.sendall, args=(sent,)).start()
        assert client.makefile("rb").read(len(sent)) == sent


def test_a_client_that_closes_leaves_nothing_open(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert (proxy.connections, proxy.open_connections) == (1, 1)
    until(lambda: proxy.open_connections == 0)


def test_a_cut_ends_every_connection_and_lets_new_ones_pass(proxy: Proxy) -> None:
    with connect(proxy) as first, connect(proxy) as second:
        until(lambda: proxy.open_connections == 2)
        assert proxy.cut() == 2
        assert ended(first)
        assert ended(second)
    with connect(proxy) as third:
        third.sendall(b"x")
        assert third.recv(1) == b"x"


def test_refused_until_it_accepts_again_at_the_same_address(proxy: Proxy) -> None:
    with connect(proxy) as client:
        until(lambda: proxy.open_connections == 1)
        proxy.refuse()
        assert ended(client)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.accept()
    with connect(proxy) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"


def test_held_answers_are_kept_and_pass_when_released(proxy: Proxy) -> None:
    proxy.hold(answers=True)
    with connect(proxy) as client:
        client.sendall(b"abc")
        until(lambda: proxy.held_answers == 3)
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(3)
        client.settimeout(5)
        proxy.release()
        assert client.recv(3) == b"abc"
        assert proxy.held_answers == 0


def test_held_requests_do_not_reach_the_server_and_are_lost_with_a_cut(proxy: Proxy) -> None:
    proxy.hold(requests=True)
    with connect(proxy) as client:
        client.sendall(b"lost")
        until(lambda: proxy.held_requests == 4)
        proxy.cut()
        assert ended(client)
    until(lambda: proxy.held_requests == 0)
    proxy.release()
    with connect(proxy) as client:
        client.sendall(b"x")
        assert client.recv(100) == b"x"


def test_a_client_that_gives_up_on_a_held_connection_does_not_keep_the_proxy_open(proxy: Proxy) -> None:
    proxy.hold(answers=True, requests=True)
    with connect(proxy) as client:
        client.sendall(b"x")
        until(lambda: proxy.held_requests == 1)
    assert proxy.open_connections == 1
    proxy.release()
    until(lambda: proxy.open_connections == 0)


def test_a_delay_holds_each_direction_back(proxy: Proxy) -> None:
    proxy.delay(0.1)
    with connect(proxy) as client:
        started = time.monotonic()
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert time.monotonic() - started >= 0.2


def test_a_server_that_is_down_looks_like_a_connection_that_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with Proxy(target=port) as proxy, connect(proxy) as client:
        assert ended(client)
