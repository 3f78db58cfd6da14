"""Everything of FlatTrade's login for the sandbox: page, its back end, token exchange, Noren's own logins."""

from __future__ import annotations

import hashlib
import html
import json
from datetime import UTC, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from marketfeed.brokers import HttpReply, HttpRequest, SandboxWorld
from marketfeed.clock import IST, NS

__all__ = ["Login", "answer", "refused"]

CODE_S = 300
"""A request code lives "a few minutes" (manual)."""
_FLUSH = time(5, 0)
"""All tokens die (setup guide; the manual says between 05:00 and 06:00), India time."""


def answer(body: Any, status: int = 200) -> HttpReply:
    return HttpReply(status=status, body=json.dumps(body, separators=(",", ":")).encode())


def refused(text: str, status: int = 200) -> HttpReply:
    return answer({"stat": "Not_Ok", "emsg": text}, status)


class Login:
    """Tokens and codes of the one account."""

    def __init__(self, world: SandboxWorld) -> None:
        self._world = world
        self._account = world.credentials
        self._fixed = world.credentials.access_token
        self._issued: tuple[str, int] | None = None
        """The token of the newest login, and the moment from which it is void; a new login ends the one before."""
        self._codes: dict[str, int] = {}
        self._visits: set[str] = set()
        self._routes = {
            ("GET", "/"): self._page,
            ("POST", "/"): self._submitted,
            ("POST", "/auth/session"): self._session,
            ("POST", "/ftauth"): self._automatic,
            ("POST", "/trade/apitoken"): self._exchange,
        }

    def http(self, request: HttpRequest) -> HttpReply | None:
        """The reply, or None if it is not about the login."""
        route = self._routes.get((request.method, request.path))
        return route(request) if route else None

    def knows(self, user: str, token: str) -> bool:
        if user != self._account.user_id or not token:
            return False
        if token == self._fixed:
            return True
        return self._issued is not None and token == self._issued[0] and self._world.now_ns() < self._issued[1]

    def expire(self) -> None:
        self._fixed = self._issued = None

    def logout(self, token: str) -> None:
        if self._issued is not None and token == self._issued[0]:
            self._issued = None

    # --- browser and its back end -------------------------------------------------------------

    def _page(self, request: HttpRequest) -> HttpReply:
        if dict(request.query).get("app_key") != self._account.api_key:
            return _html("<p>Invalid API key</p>", 400)
        return _html(_FORM.format(query=html.escape(request.raw_query)))

    def _submitted(self, request: HttpRequest) -> HttpReply:
        """The form for people: client id, password and code at once."""
        form = request.form
        right = form.get("user_id") == self._account.user_id and form.get("password") == self._account.password
        if not right or not self._world.totp_is_right(form.get("totp", "")):
            return _html("<p>Wrong client id, password or code. <a href=''>Again</a></p>", 403)
        return HttpReply(status=302, content_type="text/html", headers={"Location": self._redirect()})

    def _redirect(self) -> str:
        """The redirect carries ``code`` and ``client`` (working programs), though the manual says ``request_code``."""
        code = self._world.new_token()
        self._codes[code] = self._world.now_ns()
        target = self._account.redirect_url
        return f"{target}{'&' if '?' in target else '?'}{urlencode({'code': code, 'client': self._account.user_id})}"

    def _session(self, _: HttpRequest) -> HttpReply:
        visit = self._world.new_token()
        self._visits.add(visit)
        return HttpReply(body=visit.encode(), content_type="text/plain")

    def _automatic(self, request: HttpRequest) -> HttpReply:
        form = _object(request.body)
        account = self._account
        if form.get("Sid") not in self._visits or form.get("Source") != "AUTHPAGE":
            return answer({"emsg": "Invalid Session", "RedirectURL": ""})
        if form.get("APIKey") != account.api_key:
            return answer({"emsg": "Invalid API key", "RedirectURL": ""})
        right = form.get("UserName") == account.user_id and form.get("Password") == _sha(account.password)
        if not right or not self._world.totp_is_right(str(form.get("PAN_DOB"))):
            return answer({"emsg": "Invalid Input : Wrong user id, password or OTP", "RedirectURL": ""})
        if self._issued is not None and form.get("Override") != "Y":
            return answer({"emsg": "DUPLICATE", "RedirectURL": ""})
        self._visits.discard(str(form["Sid"]))
        return answer({"emsg": "", "RedirectURL": self._redirect()})

    def _exchange(self, request: HttpRequest) -> HttpReply:
        form, account = _object(request.body), self._account
        code = str(form.get("request_code"))
        if form.get("api_key") != account.api_key:
            return self._no_token("Invalid Input : INVALID_API_KEY")
        if form.get("api_secret") != _sha(account.api_key + code + account.api_secret):
            return self._no_token("Invalid Input : INVALID_API_SECRET")
        if not self._redeem(code):
            return self._no_token("Invalid Input : INVALID_REQUEST_CODE")
        given = {"token": self._issue(), "client": account.user_id, "stat": "Ok", "status": "Ok", "emsg": ""}
        return answer(given)

    def _no_token(self, text: str) -> HttpReply:
        return answer({"stat": "Not_Ok", "status": "Not_Ok", "emsg": text, "token": "", "client": ""})

    def _redeem(self, code: str) -> bool:
        given = self._codes.pop(code, None)
        return given is not None and self._world.now_ns() - given <= CODE_S * NS

    def _issue(self) -> str:
        now = datetime.fromtimestamp(self._world.now_ns() // NS, UTC).astimezone(IST)
        flush = datetime.combine(now.date(), _FLUSH, IST)
        end = flush if now < flush else flush + timedelta(days=1)
        self._issued = (self._world.new_token(), int(end.timestamp()) * NS)
        return self._issued[0]

    # --- Noren's own logins, which FlatTrade does not use today but its clients speak ---------------

    def quick_auth(self, data: dict[str, Any]) -> HttpReply:
        """``QuickAuth`` (read in the official client): password, TOTP and the key's proof in one message."""
        account = self._account
        proof = _sha(f"{data.get('uid')}|{account.api_secret}")
        right = data.get("uid") == account.user_id and data.get("pwd") == _sha(account.password)
        if not right or data.get("appkey") != proof:
            return refused("Invalid Input : Wrong user id or password")
        if not self._world.totp_is_right(str(data.get("factor2"))):
            return refused("Invalid Input : INVALID_OTP")
        return answer({"stat": "Ok", "susertoken": self._issue(), **self._person()})

    def access_token(self, data: dict[str, Any]) -> HttpReply:
        """``GenAcsTok`` of the OAuth clients (read there): the code of the login page and a checksum."""
        account, code = self._account, str(data.get("code"))
        if data.get("checksum") != _sha(account.api_key + account.api_secret + code) or not self._redeem(code):
            return refused("Invalid Input : INVALID_CODE")
        token = self._issue()
        given = {
            "stat": "Ok",
            "access_token": token,
            "susertoken": token,
            "refresh_token": "",
            "USERID": account.user_id,
        }
        return answer({**given, **self._person()})

    def _person(self) -> dict[str, Any]:
        user = self._account.user_id
        return {
            "uid": user,
            "actid": user,
            "uname": "SANDBOX USER",
            "email": "sandbox@example.com",
            "brkname": "FLATTRADE",
        }


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _html(body: str, status: int = 200) -> HttpReply:
    page = f"<!doctype html><title>FlatTrade sandbox</title><h1>FlatTrade sandbox</h1>{body}"
    return HttpReply(status=status, body=page.encode(), content_type="text/html; charset=utf-8")


_FORM = """<form method="post" action="/?{query}">
<p><label>Client ID <input name="user_id"></label></p>
<p><label>Password <input name="password" type="password"></label></p>
<p><label>TOTP code <input name="totp" inputmode="numeric"></label></p>
<p><button>Log in</button></p></form>
<p>This is a sandbox on this machine. Its account is printed in the documentation of marketfeed.</p>"""
