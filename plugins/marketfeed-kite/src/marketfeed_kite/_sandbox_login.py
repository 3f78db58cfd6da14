"""Kite's login for the sandbox: pages, second factor, token exchange, and which access tokens are good."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import attrs

from marketfeed.brokers import HttpReply, HttpRequest, SandboxWorld
from marketfeed.clock import NS, ist_text
from marketfeed_kite._sandbox_json import person, refused, success

__all__ = ["Login"]

REQUEST_TOKEN_S = 300
"""A request token is good once and for five minutes (staff answer)."""


class Login:
    """The login pages, the token exchange, and which access tokens are good."""

    def __init__(self, world: SandboxWorld) -> None:
        self._world = world
        self._account = world.credentials
        self._access = {self._account.access_token} - {None}
        self._issued: str | None = None  # by a login; the next login ends it
        self._pending: set[str] = set()  # request_ids: the password was right
        self._browsers: set[str] = set()  # cookies of browsers that are logged in
        self._visits: dict[str, str] = {}  # sess_id -> the rest of the redirect URL
        self._request_tokens: dict[str, int] = {}  # -> when it was given, sandbox nanoseconds
        self._routes = {
            ("GET", "/connect/login"): self._page,
            ("POST", "/connect/login"): self._submitted,
            ("GET", "/connect/finish"): self._finish,
            ("POST", "/api/login"): self._password,
            ("POST", "/api/twofa"): self._second_factor,
            ("POST", "/session/token"): self._exchange,
            ("DELETE", "/session/token"): self._logout,
        }

    def http(self, request: HttpRequest) -> HttpReply:
        route = self._routes.get((request.method, request.path))
        return route(request) if route else refused(404, "GeneralException", "Route not found")

    def may(self, authorization: str) -> bool:
        """``token api_key:access_token``"""
        kind, _, pair = authorization.partition(" ")
        key, _, token = pair.partition(":")
        return kind == "token" and self.knows(key, token)

    def knows(self, api_key: str, access_token: str) -> bool:
        return api_key == self._account.api_key and access_token in self._access

    def expire(self) -> None:
        self._access.clear()
        self._browsers.clear()

    def _page(self, request: HttpRequest) -> HttpReply:
        query = dict(request.query)
        if query.get("api_key") != self._account.api_key:
            return refused(400, "InputException", "Invalid `api_key`.")
        if request.cookies.get("kite_session") in self._browsers:
            return self._onwards(query)
        return _html(_FORM.format(query=html.escape(request.raw_query)))

    def _onwards(self, query: Mapping[str, str]) -> HttpReply:
        """One redirect on our own host first, as the live page does; the next one holds the request token."""
        visit = self._world.new_token()
        self._visits[visit] = query.get("redirect_params", "")
        target = "/connect/finish?" + urlencode({"api_key": self._account.api_key, "sess_id": visit})
        return HttpReply(status=302, content_type="text/html", headers={"Location": target})

    def _finish(self, request: HttpRequest) -> HttpReply:
        extra = self._visits.pop(dict(request.query).get("sess_id", ""), None)
        if extra is None or request.cookies.get("kite_session") not in self._browsers:
            return refused(400, "InputException", "Invalid session.")
        token = self._world.new_token()
        self._request_tokens[token] = self._world.now_ns()
        query = urlencode({"action": "login", "type": "login", "status": "success", "request_token": token})
        target = self._account.redirect_url
        target += ("&" if "?" in target else "?") + query + ("&" + extra if extra else "")
        return HttpReply(status=302, content_type="text/html", headers={"Location": target})

    def _submitted(self, request: HttpRequest) -> HttpReply:
        """The form for people: password and code at once."""
        form = request.form
        right = self._password_is_right(form) and self._world.totp_is_right(form.get("totp", ""))
        if not right:
            return _html("<p>Wrong user id, password or code. <a href=''>Again</a></p>", status=403)
        answer = self._onwards(dict(request.query))
        return attrs.evolve(answer, headers={**answer.headers, **self._new_browser()})

    def _new_browser(self) -> dict[str, str]:
        cookie = self._world.new_token()
        self._browsers.add(cookie)
        return {"Set-Cookie": f"kite_session={cookie}; Path=/; HttpOnly"}

    def _password_is_right(self, form: Mapping[str, str]) -> bool:
        return form.get("user_id") == self._account.user_id and form.get("password") == self._account.password

    def _password(self, request: HttpRequest) -> HttpReply:
        if not self._password_is_right(request.form):
            return refused(403, "UserException", "Invalid username or password.")  # status and words: guess
        request_id = self._world.new_token()
        self._pending.add(request_id)
        return success(
            {
                "user_id": self._account.user_id,
                "request_id": request_id,
                "twofa_type": "totp",
                "twofa_types": ["totp"],
                "twofa_status": "active",
                "profile": {"user_name": "Sandbox User", "user_shortname": "Sandbox", "avatar_url": None},
            }
        )

    def _second_factor(self, request: HttpRequest) -> HttpReply:
        form = request.form
        if form.get("request_id") not in self._pending or form.get("user_id") != self._account.user_id:
            return refused(400, "InputException", "Invalid `request_id`.")  # guess
        if not self._world.totp_is_right(form.get("twofa_value", "")):
            return refused(403, "TwoFAException", "Invalid TOTP.")  # guess
        self._pending.discard(form["request_id"])
        return attrs.evolve(success({}), headers=self._new_browser())

    def _exchange(self, request: HttpRequest) -> HttpReply:
        form, account = request.form, self._account
        request_token = form.get("request_token", "")
        wanted = hashlib.sha256((account.api_key + request_token + account.api_secret).encode()).hexdigest()
        if form.get("api_key") != account.api_key:
            return refused(403, "TokenException", "Invalid `api_key`.")
        if form.get("checksum") != wanted:
            return refused(403, "TokenException", "Invalid `checksum`.")
        given = self._request_tokens.pop(request_token, None)
        if given is None or self._world.now_ns() - given > REQUEST_TOKEN_S * NS:
            return refused(403, "TokenException", "Token is invalid or has expired.")
        self._access.discard(self._issued)
        self._issued = self._world.new_token()
        self._access.add(self._issued)
        return success(self._session(self._issued))

    def _session(self, access_token: str) -> dict[str, Any]:
        return person(self._account) | {
            "user_id": self._account.user_id,
            "api_key": self._account.api_key,
            "access_token": access_token,
            "public_token": self._world.new_token(),
            "enctoken": self._world.new_token(),
            "refresh_token": "",
            "silo": "",
            "login_time": ist_text(self._world.now_ns())[:19],
        }

    def _logout(self, request: HttpRequest) -> HttpReply:
        query = dict(request.query)
        if not self.knows(query.get("api_key", ""), query.get("access_token", "")):
            return refused(403, "TokenException", "Incorrect `api_key` or `access_token`.")
        self._access.discard(query["access_token"])
        return success(True)


def _html(body: str, status: int = 200) -> HttpReply:
    page = f"<!doctype html><title>Kite sandbox</title><h1>Kite sandbox</h1>{body}"
    return HttpReply(status=status, body=page.encode(), content_type="text/html; charset=utf-8")


_FORM = """<form method="post" action="/connect/login?{query}">
<p><label>User ID <input name="user_id"></label></p>
<p><label>Password <input name="password" type="password"></label></p>
<p><label>TOTP code <input name="totp" inputmode="numeric"></label></p>
<p><button>Log in</button></p></form>
<p>This is a sandbox on this machine. Its account is printed in the documentation of marketfeed.</p>"""
