"""A sandbox with TLS: clients that trust its authority get in, and no others; bad certificates are refused."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket

from marketfeed.sandbox import Sandbox

pytest.importorskip("trustme")
Play = Callable[..., AbstractContextManager[Sandbox]]


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return tmp_path / "ca.pem"


def refusal(box: Sandbox, authority: Path) -> str:
    """Why a client that trusts the sandbox's authority does not connect."""
    context = ssl.create_default_context(cafile=str(authority))
    with pytest.raises(ssl.SSLCertVerificationError) as error:
        websocket.create_connection(box.url.replace("http", "ws"), timeout=10, sslopt={"context": context})
    with pytest.raises(requests.exceptions.SSLError), requests.Session() as session:
        session.get(box.url + "/any", timeout=10, verify=str(authority))
    return error.value.verify_message


def test_http_and_websocket_work_over_tls(play: Play, authority: Path) -> None:
    with play(tls="good", ca_file=authority, ticks_per_second=500) as box:
        assert box.settings() == {"rest_url": box.url, "stream_url": box.url.replace("https", "wss")}
        assert authority.read_bytes() == box.ca_pem
        with requests.Session() as session:
            assert session.get(box.url + "/any", timeout=10, verify=str(authority)).status_code == 200
        context = ssl.create_default_context(cafile=str(authority))
        client: Any = websocket.create_connection(
            box.url.replace("http", "ws"), timeout=10, sslopt={"context": context}
        )
        client.send("+1")
        assert [client.recv(), client.recv()] == ["hello", "ok +1"]
        assert json.loads(client.recv())["snapshot"]
        box.fault("drop", how="rst")
        with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError, ssl.SSLError)):
            [client.recv() for _ in range(1000)]
        client.shutdown()


@pytest.mark.parametrize(
    ("name", "why"),
    [("self-signed", "self-signed certificate"), ("wrong-host", "IP address mismatch"), ("expired", "has expired")],
)
def test_a_bad_certificate_is_refused(play: Play, authority: Path, name: str, why: str) -> None:
    with play(tls=name, ca_file=authority) as box:
        assert why in refusal(box, authority).replace("self signed", "self-signed")


def test_the_certificate_may_turn_bad_and_good_again(play: Play, authority: Path) -> None:
    with play(tls="good", ca_file=authority) as box, requests.Session() as session:
        box.fault("certificate", how="wrong-host")
        assert "mismatch" in refusal(box, authority)
        box.clear("certificate")
        assert session.get(box.url + "/any", timeout=10, verify=str(authority)).status_code == 200


def test_an_untrusted_authority_is_refused(play: Play) -> None:
    with play(tls="good") as box, requests.Session() as session, pytest.raises(requests.exceptions.SSLError):
        session.get(box.url + "/any", timeout=10)


def test_wrong_options_are_refused_by_name(authority: Path) -> None:
    with pytest.raises(ValueError, match="tls is 'bad'; choose good, self-signed"):
        Sandbox("kite", tls="bad")
    with pytest.raises(ValueError, match="ca_file means nothing without tls"):
        Sandbox("kite", ca_file=authority)


def test_a_bad_certificate_needs_a_sandbox_with_tls(play: Play) -> None:
    with play() as box, pytest.raises(ValueError, match="the sandbox has no TLS"):
        box.fault("certificate")
