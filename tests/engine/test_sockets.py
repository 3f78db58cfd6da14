"""Opening a WebSocket against real sockets that answer as a test wishes: errors by class, TLS, proxies, no secrets."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from marketfeed.clock import Clock
from marketfeed.contract import DATA, Frame, Handshake, KeepAlive, Step, Subscription, is_loopback
from marketfeed.engine.inbox import Inbox
from marketfeed.engine.logs import get_log
from marketfeed.engine.sockets import open_socket
from marketfeed.engine.supervisor import State
from marketfeed.engine.wire import Wire
from marketfeed.errors import LineLost, RateLimited, RequestRejected, SessionExpired, VendorError

SECRET = "canary-token-98765"


@contextmanager
def server(talk: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port of this machine where ``talk`` has every connection."""

    def serve(line: socket.socket) -> None:
        try:
            with tls.wrap_socket(line, server_side=True) if tls else line as wrapped:
                talk(wrapped)
        except OSError:
            return  # the client went away: the test looks at the client's side

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(line,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def request(line: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = line.recv(4096)
        if not piece:
            break
        head += piece
    return head


def upgrade(line: socket.socket) -> None:
    """Say yes, as RFC 6455 wants it."""
    import base64
    import hashlib

    key = request(line).split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    line.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
    )


def answering(text: str) -> Callable[[socket.socket], None]:
    def talk(line: socket.socket) -> None:
        request(line)
        line.sendall(text.replace("\n", "\r\n").encode())

    return talk


def handshake(port: int, scheme: str = "ws", host: str = "127.0.0.1") -> Handshake:
    return Handshake(url=f"{scheme}://{host}:{port}/?access_token={SECRET}", headers={"Authorization": SECRET})


@pytest.mark.parametrize(
    ("status", "kind"), [(401, SessionExpired), (403, SessionExpired), (429, RateLimited), (502, LineLost)]
)
def test_a_refusal_is_an_error_by_class_that_hides_the_url(status: int, kind: type[VendorError]) -> None:
    with server(answering(f"HTTP/1.1 {status} No\nContent-Length: 0\n\n")) as port, pytest.raises(kind) as caught:
        open_socket(handshake(port))
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None  # the library's error may quote what was sent


def test_a_redirect_is_not_followed_for_the_headers_hold_the_token() -> None:
    asked: list[bytes] = []
    with server(lambda line: asked.append(request(line))) as elsewhere:
        answer = f"HTTP/1.1 302 Found\nLocation: ws://127.0.0.1:{elsewhere}/\nContent-Length: 0\n\n"
        with server(answering(answer)) as port, pytest.raises(LineLost):
            open_socket(handshake(port))
    assert asked == []


@pytest.mark.parametrize("host", ["stream.example.com", "127.0.0.1.example.com"])
def test_plain_ws_to_another_machine_is_refused(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(RequestRejected, match="only wss"):
        open_socket(handshake(80, host=host))


@pytest.mark.parametrize("proxy", ["https://user:pw@proxy.example.com", "socks5://proxy.example.com:1080"])
def test_a_proxy_that_would_get_its_password_in_plain_text_or_not_understand_is_refused(proxy: str) -> None:
    with pytest.raises(RequestRejected, match="HTTP proxy"):
        open_socket(handshake(443, "wss", "stream.example.com"), proxy=proxy)


@pytest.mark.parametrize("variable", ["", "HTTPS_PROXY"])
def test_a_proxy_is_asked_for_a_tunnel_with_its_decoded_password(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked: list[bytes] = []

    def talk(line: socket.socket) -> None:
        asked.append(request(line))
        line.sendall(b"HTTP/1.1 407 No\r\n\r\n")

    with server(talk) as port:
        proxy = f"http://user:p%40ss@127.0.0.1:{port}"
        if variable:
            monkeypatch.setenv(variable, proxy)
        else:
            monkeypatch.setenv("NO_PROXY", "*")  # what the settings say goes before the environment
        with pytest.raises(LineLost):
            open_socket(handshake(443, "wss", "stream.example.com"), proxy=None if variable else proxy)
    assert asked[0].startswith(b"CONNECT stream.example.com:443 ")
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in asked[0]  # user:p@ss
    assert SECRET.encode() not in asked[0]


def test_this_machine_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.com")
    with server(upgrade) as port:
        open_socket(handshake(port), proxy="http://127.0.0.1:9").close()


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for 127.0.0.1 in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    day = datetime.timedelta(days=1)
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, now - day, now + day)
    signed = builder.add_extension(host, critical=False).sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def context_of(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_self_signed_certificate_is_refused(certificate: Path) -> None:
    with server(upgrade, context_of(certificate)) as port, pytest.raises(LineLost, match=r"TLS .* failed"):
        open_socket(handshake(port, "wss"))


def test_a_certificate_for_another_host_is_refused(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with server(upgrade, context_of(certificate)) as port, pytest.raises(LineLost, match=r"TLS .* failed"):
        open_socket(handshake(port, "wss", "localhost"))


def test_a_stop_says_goodbye_inside_tls_and_takes_nothing_undecoded(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    goodbye: list[bytes] = []
    ended = threading.Event()

    def talk(line: socket.socket) -> None:
        upgrade(line)
        line.sendall(b"\x82\x05hello")
        try:
            while piece := line.recv(100):
                goodbye.append(piece)
        finally:
            ended.set()

    with server(talk, context_of(certificate)) as port:
        wire = wire_on(handshake(port, "wss"))
        thread = threading.Thread(target=wire.run)
        thread.start()
        items = wire.inbox.take()
        assert items is not None
        if items[-1].frames is None:  # the new socket was told first
            items = wire.inbox.take()
        assert items is not None
        assert [frame.data for frame in items[-1].frames or ()] == [b"hello"]
        wire.stop()
        thread.join(5)
        assert not thread.is_alive()
        assert ended.wait(5)
    assert goodbye[-1][:1] == b"\x88"  # a close frame that the server could decrypt
    assert wire.error is None


# --- the wire and its socket --------------------------------------------------------------------


class Plain:
    """A stream that subscribes to nothing and takes everything for data."""

    def __init__(self, where: Handshake) -> None:
        self.where = where

    def handshake(self) -> Handshake:
        return self.where

    def opened(self, wanted: Subscription) -> list[str | bytes]:
        return []

    def changed(self, add: Subscription, remove: Subscription) -> list[str | bytes]:
        return []

    def received(self, data: str | bytes) -> Step:
        return DATA

    def keepalive(self) -> KeepAlive | None:
        return None


def wire_on(where: Handshake, stream: Plain | None = None) -> Wire:
    clock = Clock()
    stream = stream or Plain(where)
    return Wire(
        number=0,
        stream=stream,
        wanted=Subscription(),
        inbox=Inbox(1, clock),
        clock=clock,
        log=get_log(),
        emit=lambda kind, connection, data: None,
        renew=lambda: stream,
    )


def test_a_stop_while_connecting_opens_nothing() -> None:
    asked, go = threading.Event(), threading.Event()

    def talk(line: socket.socket) -> None:
        asked.set()
        go.wait(5)
        upgrade(line)
        line.recv(100)

    with server(talk) as port:
        wire = wire_on(handshake(port))
        thread = threading.Thread(target=wire.run)
        thread.start()
        assert asked.wait(5)
        wire.stop()
        go.set()
        thread.join(5)
    assert not thread.is_alive()
    assert wire.counts.connects == 0
    assert wire.error is None


def test_a_vendors_bug_ends_the_wire_with_its_state_and_error() -> None:
    class Broken(Plain):
        def opened(self, wanted: Subscription) -> list[str | bytes]:
            raise KeyError("a vendor's bug")

    with server(upgrade) as port:
        where = handshake(port)
        wire = wire_on(where, Broken(where))
        wire.run()
    assert isinstance(wire.error, KeyError)
    assert wire.supervisor.state is State.FAILED


def test_data_before_damage_in_one_chunk_is_handed_over() -> None:
    def talk(line: socket.socket) -> None:
        upgrade(line)
        line.sendall(b"\x82\x04tick" + b"\x83\x01x")
        line.recv(100)

    with server(talk) as port:
        wire = wire_on(handshake(port))
        thread = threading.Thread(target=wire.run)
        thread.start()
        frames: list[Frame] = []
        while not frames:
            for item in wire.inbox.take() or ():
                frames += item.frames or ()
        wire.stop()
        thread.join(5)
    assert [frame.data for frame in frames] == [b"tick"]


def test_a_long_subscription_may_leave_slowly() -> None:
    taken: list[int] = []

    def talk(line: socket.socket) -> None:
        upgrade(line)
        time.sleep(0.5)  # longer than the reader's looks at the line
        while piece := line.recv(65536):
            taken.append(len(piece))

    with server(talk) as port:
        opened = open_socket(handshake(port))
        opened.settimeout(0.05)
        opened.send("x" * 30_000_000)
        opened.shutdown()
        end = time.monotonic() + 5
        while sum(taken) < 30_000_000 and time.monotonic() < end:
            time.sleep(0.01)
    assert sum(taken) >= 30_000_000
