"""How a Kite session comes about: given, kept, exchanged, or a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from kite_rest_server import Answer, RestServer
from marketfeed_kite import KiteSettings
from marketfeed_kite.auth import authenticate, login_page, session_end_ns

from marketfeed.clock import NS, ist_text
from marketfeed.contract import Session
from marketfeed.errors import AuthError, LineLost, RateLimited, VendorError
from marketfeed.http import HttpSession
from marketfeed.sandbox import Sandbox, totp
from marketfeed.tokens import MemoryTokenStore


@pytest.fixture
def http() -> Iterator[HttpSession]:
    with HttpSession("kite", sleep=lambda _: None) as session:
        yield session


@pytest.fixture
def server() -> Iterator[RestServer]:
    with RestServer() as running:
        yield running


def make_settings(**given: Any) -> KiteSettings:
    return KiteSettings(**{"api_key": "key", "api_secret": "very-secret", **given})


def test_a_given_access_token_is_used_as_it_is(http: HttpSession) -> None:
    session = authenticate(make_settings(access_token="given"), MemoryTokenStore(), http)
    assert (session.access_token, session.account) == ("given", "key")


def test_a_kept_session_is_used_until_the_broker_refuses_it(http: HttpSession) -> None:
    tokens = MemoryTokenStore()
    kept = Session(vendor="kite", account="AB1234", access_token="kept", expires_ns=1)
    tokens.save(kept)
    assert authenticate(make_settings(user_id="AB1234", request_token="unused"), tokens, http) is kept


def test_without_any_token_the_error_names_the_login_page(http: HttpSession) -> None:
    settings = make_settings()
    with pytest.raises(AuthError) as caught:
        authenticate(settings, MemoryTokenStore(), http)
    assert login_page(settings) == "https://kite.zerodha.com/connect/login?v=3&api_key=key"
    assert login_page(settings) in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_a_request_token_without_the_secret_says_which_variable_to_set(http: HttpSession) -> None:
    settings = KiteSettings(api_key="key", request_token="abc")
    with pytest.raises(AuthError, match="KITE_API_SECRET"):
        authenticate(settings, MemoryTokenStore(), http)


@pytest.mark.parametrize(
    ("login", "end"),
    [
        (datetime(2026, 11, 20, 9, 0), "2026-11-21 06:00:00.000"),
        (datetime(2026, 11, 20, 6, 0), "2026-11-21 06:00:00.000"),
        (datetime(2026, 11, 20, 1, 0), "2026-11-20 06:00:00.000"),
    ],
)
def test_a_session_may_be_dead_from_six_in_the_morning(login: datetime, end: str) -> None:
    assert ist_text(session_end_ns(login)) == end


def test_secrets_do_not_show_in_settings() -> None:
    text = repr(make_settings(request_token="req-1", access_token="acc-1"))
    assert not any(secret in text for secret in ("very-secret", "req-1", "acc-1"))


# --- the exchange, against a server that says what it is told ----------------------------------

SUCCESS = {"access_token": "fresh", "user_id": "AB1234", "login_time": "2026-11-20 09:00:00"}


@pytest.mark.parametrize(
    "given", ["abc", " abc\n", "https://me.example/?action=login&request_token=abc&status=success"]
)
def test_a_request_token_is_exchanged_and_the_session_kept(http: HttpSession, server: RestServer, given: str) -> None:
    server.answers = [Answer.json({"status": "success", "data": SUCCESS})]
    tokens = MemoryTokenStore()
    settings = make_settings(rest_url=server.url, request_token=given)
    session = authenticate(settings, tokens, http)
    assert (session.access_token, session.extra["user_id"]) == ("fresh", "AB1234")
    assert ist_text(session.expires_ns or 0) == "2026-11-21 06:00:00.000"
    assert tokens.load("kite", "key") == session
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/session/token")
    assert parse_qs(request.body)["request_token"] == ["abc"]
    # printf 'keyabcvery-secret' | sha256sum
    assert parse_qs(request.body)["checksum"] == ["6b93547f76815c6788efebff897b3d1cfcbbdf5628045e1c0c5e5b0c4de28331"]


def refused(kind: str, status: int, message: str = "No.") -> Answer:
    return Answer.json({"status": "error", "message": message, "error_type": kind, "data": None}, status)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused("TokenException", 403, "Token is invalid or has expired."), AuthError),
        (refused("InputException", 400), AuthError),
        (refused("NetworkException", 429), RateLimited),
        (refused("NetworkException", 503), LineLost),
        (refused("GeneralException", 500), LineLost),
        (Answer(502, "text/html", b"<h1>Bad gateway</h1>"), LineLost),
        (Answer(200, "text/html", b"access_token=leaked"), LineLost),
        (Answer(200, "application/json", b'{"data": {"access_token": "leaked"'), LineLost),
        (Answer.json({"status": "success"}), AuthError),
        (Answer.json({"status": "success", "data": {"access_token": "leaked"}}), AuthError),
        (Answer.json({"status": "success", "data": ["leaked"]}), AuthError),
    ],
)
def test_a_refused_exchange_raises_what_to_do_and_shows_no_secret(
    http: HttpSession, server: RestServer, answer: Answer, error: type[VendorError]
) -> None:
    server.answers = [answer]
    with pytest.raises(error) as caught:
        authenticate(make_settings(rest_url=server.url, request_token="abc"), MemoryTokenStore(), http)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert not any(secret in str(chain) for secret in ("leaked", "very-secret", "abc"))
        chain = chain.__cause__ or chain.__context__
    assert len(server.requests) == 1  # a login is never repeated by itself


# --- against the sandbox ----------------------------------------------------------------------


def test_the_sandbox_accepts_a_person_and_exchanges_the_token(http: HttpSession) -> None:
    with Sandbox("kite", instruments=5, access_token=None, ticks_per_second=0) as box:
        known = {name: value for name, value in box.settings().items() if hasattr(KiteSettings, name)}
        settings = KiteSettings(**{**known, "request_token": None, "access_token": None})
        redirect = log_in(box, settings)
        settings = KiteSettings(**{**known, "request_token": redirect, "access_token": None})
        session = authenticate(settings, MemoryTokenStore(), http)
        headers = {"Authorization": f"token {settings.api_key}:{session.access_token}"}
        assert http.get(f"{box.url}/user/profile", headers=headers).status_code == 200
        with pytest.raises(AuthError, match="log in again"):  # it was good once
            authenticate(settings, MemoryTokenStore(), http)


def log_in(box: Sandbox, settings: KiteSettings) -> str:
    """What a person does in the browser; returns the address at which it ends."""
    account = box.world.credentials
    with requests.Session() as browser:
        form = {"user_id": account.user_id, "password": account.password}
        step = browser.post(f"{box.url}/api/login", data=form).json()["data"]
        code = totp(account.totp_secret, box.world.now_ns() // NS)
        form = {"user_id": account.user_id, "request_id": step["request_id"], "twofa_value": code}
        browser.post(f"{box.url}/api/twofa", data=form).raise_for_status()
        address = login_page(settings)
        while True:
            address = browser.get(address, allow_redirects=False).headers["Location"]
            if "request_token" in address:
                return address
            if not urlsplit(address).hostname:
                address = box.url + address
