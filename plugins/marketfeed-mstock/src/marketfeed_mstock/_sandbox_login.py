"""mStock's login for the sandbox, in both dialects: password, then the SMS code or a TOTP."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from marketfeed.brokers import Credentials, HttpReply, HttpRequest, SandboxWorld
from marketfeed.clock import IST, NS, ist_text

__all__ = ["API_KEY", "SMS_CODE", "Login", "good", "key_of", "refused"]

API_KEY = "test+key/1=@"
"""Stands for the credentials' default: mStock's keys look like base64, and that is where clients go wrong."""
SMS_CODE = "123456"
_ATTEMPTS = 10
_LONGEST_NS = 12 * 3600 * NS


def key_of(account: Credentials) -> str:
    return API_KEY if account.api_key == Credentials().api_key else account.api_key


def good(dialect: str, data: Any, message: str = "SUCCESS") -> HttpReply:
    if dialect == "a":
        return _json({"status": "success", "data": data})
    return _json({"status": "true", "message": message, "errorcode": "", "data": data})


def refused(dialect: str, status: int, kind: str, code: str, message: str) -> HttpReply:
    """``kind`` is Type A's ``error_type``, ``code`` Type B's ``errorcode``."""
    if dialect == "a":
        return _json({"status": "error", "message": message, "error_type": kind, "data": None}, status)
    return _json({"status": "false", "message": message, "errorcode": code, "data": None}, status)


def _json(body: Any, status: int = 200) -> HttpReply:
    return HttpReply(status=status, body=json.dumps(body, separators=(",", ":")).encode())


@attrs.frozen
class _Token:
    dialect: str
    ends_ns: int
    for_rest: bool = True


class Login:
    """Tokens of the one account. A token speaks the dialect of the login that gave it; the fixed one speaks both."""

    def __init__(self, world: SandboxWorld, dialect: str) -> None:
        self._world = world
        self._account = world.credentials
        self._fixed = world.credentials.access_token
        self._dialects = dialect or "ab"
        self._tokens: dict[str, _Token] = {}
        self._pending: set[str] = set()
        """Second steps that may come: ids of Type B, ``a`` of Type A."""
        self._attempts = _ATTEMPTS
        self.api_key = key_of(world.credentials)

    def speaks(self, key: str, token: str, *, rest: bool) -> str:
        """The dialects of a token: ``a``, ``b``, ``ab``; empty for a wrong one."""
        if key != self.api_key or not token:
            return ""
        if token == self._fixed:
            return self._dialects
        known = self._tokens.get(token)
        if known is None or self._world.now_ns() >= known.ends_ns or (rest and not known.for_rest):
            return ""
        return known.dialect

    def expire(self) -> None:
        self._fixed = None
        self._tokens.clear()

    def logout(self, token: str) -> None:
        self._tokens.pop(token, None)

    def http(self, dialect: str, call: str, request: HttpRequest) -> HttpReply | None:
        """The reply, or None if the call is not about the login."""
        if request.method != "POST":
            return None
        form = request.form if dialect == "a" else _object(request.body)
        form = {name.lower(): value for name, value in form.items()}  # the Python SDK writes Username
        if call == "connect/login":
            return self._password(dialect, form)
        if call not in ("session/token", "session/verifytotp"):
            return None
        key = form.get("api_key", "") if dialect == "a" else request.headers.get("x-privatekey", "")
        if key != self.api_key:
            text = "API is suspended/expired for use. Please check your API subscription and try again."
            return refused(dialect, 403, "APIKeyException", "IA403", text)
        return self._second(dialect, form, totp=call == "session/verifytotp")

    def _password(self, dialect: str, form: Mapping[str, str]) -> HttpReply:
        user, password = form.get("username" if dialect == "a" else "clientcode"), form.get("password")
        if not user or not password:
            return refused(dialect, 400, "InputException", "400", "Please provide valid clientcode and password.")
        if (user, password) != (self._account.user_id, self._account.password):
            self._attempts = max(self._attempts - 1, 0)
            rest = f" {self._attempts} attempts remaining " if dialect == "b" else ""
            return refused(dialect, 200, "MiraeException", "MA500", f"Invalid username or password.{rest}")
        if not self._attempts:
            return refused(dialect, 200, "MiraeException", "MA500", "Your account is blocked.")  # guess
        self._attempts = _ATTEMPTS
        if dialect == "a":
            self._pending.add("a")
            flags = {"is_kyc": True, "is_activate": False, "is_password_reset": True, "is_error": False}
            return good("a", {"ugid": str(uuid.uuid4()), **flags, "cid": user, "nm": "", "flag": 0})
        if form.get("totp"):
            # A code in the first step gives a short token that the socket takes and REST refuses (third party).
            short = self._issue("b", for_rest=False)
            return good("b", {"jwtToken": short, "refreshToken": short, "feedToken": "", "state": "live"})
        step = str(uuid.uuid4())
        self._pending.add(step)
        # The trap: the id for the second step stands in jwtToken, refreshToken is empty.
        data = {"jwtToken": step, "refreshToken": "", "feedToken": "", "state": "live"}
        return good("b", data, "Please enter the OTP that we sent")

    def _second(self, dialect: str, form: Mapping[str, str], *, totp: bool) -> HttpReply:
        step = "a" if dialect == "a" else form.get("refreshtoken", "")
        alone = totp and dialect == "a"  # a third party uses that call without the password
        if step not in self._pending and not alone:
            return refused(dialect, 401, "TokenException", "IA401", "Invalid request. Please try again.")
        if totp and not self._world.totp_is_right(str(form.get("totp"))):
            # These keys in both dialects (documentation).
            kind = "MiraeException" if dialect == "a" else "MA400"
            return refused("a", 400, kind, "", "Please enter correct TOTP")
        if not totp and form.get("request_token" if dialect == "a" else "otp") != SMS_CODE:
            text = "The entered OTP is incorrect." if dialect == "a" else "Entered OTP has been expired."
            return refused(dialect, 200, "MiraeException", "MA500", text)
        self._pending.discard(step)
        return self._session(dialect, totp=totp)

    def _session(self, dialect: str, *, totp: bool) -> HttpReply:
        token = self._issue(dialect)
        if dialect == "a":
            return good("a", self._person(token))
        data = {"jwtToken": token, "refreshToken": self._world.new_token(), "feedToken": self._world.new_token()}
        if totp:  # its status is a real boolean (documentation)
            person = {"ClientName": "Sandbox User", "ClientId": self._account.user_id, "exchanges": ["NSE", "NFO"]}
            return _json({"status": True, "message": "SUCCESS", "errorcode": "", "data": {**person, **data}})
        return good("b", {**data, "state": "live"})

    def _person(self, token: str) -> dict[str, Any]:
        return {
            "user_type": "individual",
            "email": "sandbox@example.com",
            "user_name": "Sandbox User",
            "user_shortname": "NA",
            "broker": "MIRAE",
            "exchanges": ["NSE", "NFO", "CDS"],
            "products": ["CNC", "NRML", "MIS"],
            "order_types": ["MARKET", "LIMIT"],
            "avatar_url": "",
            "user_id": self._account.user_id,
            "api_key": self.api_key,
            "access_token": token,
            "public_token": self._world.new_token(),
            "enctoken": self._world.new_token(),
            "refresh_token": self._world.new_token(),
            "silo": "",
            "login_time": ist_text(self._world.now_ns())[:19],
            "meta": {"demat_consent": "physical"},
        }

    def _issue(self, dialect: str, *, for_rest: bool = True) -> str:
        """Good until midnight India time, twelve hours at most (documentation)."""
        now_ns = self._world.now_ns()
        day = datetime.fromtimestamp(now_ns // NS, UTC).astimezone(IST).date() + timedelta(days=1)
        midnight = int(datetime(day.year, day.month, day.day, tzinfo=IST).timestamp()) * NS
        token = ".".join(self._world.new_token() for _ in range(3))
        self._tokens[token] = _Token(dialect, min(midnight, now_ns + _LONGEST_NS), for_rest)
        return token


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}
