"""The WebSocket protocol of both dialects: what to send, and which messages are data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from marketfeed.contract import DATA, IGNORE, Emit, Handshake, KeepAlive, Session, Step, Subscription
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument
from marketfeed_mstock.settings import MstockSettings
from marketfeed_mstock.type_b import LAYOUTS, header_of

__all__ = ["TypeAStream", "TypeBStream", "socket_url", "text_step"]

_Token = TypeVar("_Token", str, int)
_UNSAFE = re.compile(r"[+&#% ]")


def socket_url(settings: MstockSettings, session: Session) -> str:
    """The socket's URL with token and API key, in the order in which the SDKs send them.

    API keys look like base64. Only what would change a query's meaning is percent-encoded (guess),
    and nothing when ``percent_encode`` is off.
    """

    def clean(text: str) -> str:
        return _UNSAFE.sub(lambda hit: f"%{ord(hit[0]):02X}", text) if settings.percent_encode else text

    token, key = clean(session.access_token), clean(settings.api_key or "")
    return f"{settings.stream_url}?ACCESS_TOKEN={token}&API_KEY={key}"


def text_step(data: bytes, token: str) -> Step:
    """The step for a text message of the server, of either dialect. Never shows ``token``."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        message = {}
    kind = message.get("order_status", message.get("type"))
    if kind in ("order", "trade"):
        return Emit("order_update", {"type": kind, "data": message.get("orderData", message.get("data"))})
    if kind == "error":
        return Emit("broker_error", {"message": _shown(str(message.get("data", "")), token)})
    # The answer to LOGIN comes by here; its wording is unknown.
    return Emit("broker_message", {"text": _shown(data.decode("utf-8", "replace"), token)})


def _shown(text: str, token: str) -> str:
    return (text.replace(token, "***") if token else text)[:200]


class _Stream:
    """What the dialects share: the URL, LOGIN as the first message, everything sent again after a reconnect."""

    def __init__(self, settings: MstockSettings, session: Session) -> None:
        self._settings = settings
        self._session = session
        self._modes: dict[Instrument, Mode] = {}

    def handshake(self) -> Handshake:
        return Handshake(url=socket_url(self._settings, self._session))

    def opened(self, wanted: Subscription) -> Sequence[str]:
        self._modes = dict(wanted)
        return [f"LOGIN:{self._session.access_token}", *self._subscribe(wanted)]

    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str]:
        gone = {one: self._modes.pop(one) for one in remove if one in self._modes}
        moved = {one: self._modes[one] for one, mode in add.items() if self._modes.get(one, mode) != mode}
        self._modes.update(add)
        return [*self._unsubscribe(gone, moved), *self._subscribe(add)]

    def keepalive(self) -> KeepAlive:
        return KeepAlive(self._settings.ping_period_s, self._settings.dead_after_s)

    def _parts(self, tokens: Sequence[_Token]) -> Iterator[Sequence[_Token]]:
        size = self._settings.tokens_per_message
        return (tokens[start : start + size] for start in range(0, len(tokens), size))

    def _subscribe(self, modes: Mapping[Instrument, Mode]) -> Iterator[str]:
        raise NotImplementedError

    def _unsubscribe(self, gone: Mapping[Instrument, Mode], moved: Mapping[Instrument, Mode]) -> Iterator[str]:
        """``gone`` with the mode that each had; ``moved`` will be subscribed again in another."""
        raise NotImplementedError


class TypeBStream(_Stream):
    """One Type B connection: a message per mode and exchange."""

    def received(self, data: str | bytes) -> Step:
        if isinstance(data, str):
            return text_step(data.encode("utf-8", "replace"), self._session.access_token)
        if len(data) in LAYOUTS and data[0] in (1, 2, 3):
            return DATA
        if len(data) <= 4 and not data.startswith(b"{"):
            return IGNORE  # the official SDK drops these too; Type A calls them heartbeats
        if not 0x20 <= data[0] < 0x7F or header_of(data):
            return DATA
        return text_step(data, self._session.access_token)

    def _subscribe(self, modes: Mapping[Instrument, Mode]) -> Iterator[str]:
        return self._messages(1, modes)

    def _unsubscribe(self, gone: Mapping[Instrument, Mode], moved: Mapping[Instrument, Mode]) -> Iterator[str]:
        # The mode must be the one subscribed: an instrument that changes its mode is taken off in the old one.
        return self._messages(0, {**gone, **moved})

    def _messages(self, action: int, modes: Mapping[Instrument, Mode]) -> Iterator[str]:
        groups: dict[tuple[Mode, int], list[str]] = {}
        for instrument, mode in modes.items():
            exchange, _, token = instrument.token.partition(":")
            groups.setdefault((mode, int(exchange)), []).append(token)
        for (mode, number), tokens in groups.items():
            for part in self._parts(tokens):
                entry = {"exchangeType": number, "tokens": part}
                yield _text(
                    {"correlationID": "", "action": action, "params": {"mode": int(mode), "tokenList": [entry]}}
                )


class TypeAStream(_Stream):
    """One Type A connection: bare token numbers; first subscribe, then set the mode."""

    def received(self, data: str | bytes) -> Step:
        if isinstance(data, str) or data.startswith(b"{"):
            text = data.encode("utf-8", "replace") if isinstance(data, str) else data
            return text_step(text, self._session.access_token)
        return DATA if len(data) >= 2 else IGNORE

    def _subscribe(self, modes: Mapping[Instrument, Mode]) -> Iterator[str]:
        for mode, instruments in Subscription(modes).by_mode().items():
            for part in self._parts([_bare(one) for one in instruments]):
                yield _text({"a": "subscribe", "v": part})
                yield _text({"a": "mode", "v": [mode.word, part]})

    def _unsubscribe(self, gone: Mapping[Instrument, Mode], moved: Mapping[Instrument, Mode]) -> Iterator[str]:
        for part in self._parts([_bare(one) for one in gone]):
            yield _text({"a": "unsubscribe", "v": part})


def _bare(instrument: Instrument) -> int:
    """The token without its exchange type."""
    return int(instrument.token.rpartition(":")[2])


def _text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
