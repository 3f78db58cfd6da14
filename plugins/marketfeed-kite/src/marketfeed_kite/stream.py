"""One Kite connection's protocol: what to send, and what an incoming message is.

There is no acknowledgement of a subscription and no limit on one message's length (official
documentation); 500 tokens a message is our choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from marketfeed.contract import DATA, IGNORE, Emit, Handshake, KeepAlive, Session, Step, Subscription
from marketfeed.enums import Mode
from marketfeed.instruments import Instrument
from marketfeed_kite.settings import KiteSettings

__all__ = ["KiteStream"]

_TOKENS_PER_MESSAGE: Final = 500
_USER_AGENT: Final = "marketfeed-kite"

# The server sends a byte every second or two while it has nothing to say, so bytes alone prove that it
# lives: a silent server that still answers pings must not pass for a live one. Hence pings are rare and
# the limit is short. The official Go SDK gives up after 5 s; 10 s lets TCP repeat a lost segment five
# times (0.2 + 0.4 + ... + 3.2 s) before we throw away a connection that was about to go on.
_KEEPALIVE: Final = KeepAlive(period_s=30.0, dead_after_s=10.0, pongs_prove=False)

_EVENTS: Final = {"order": "order_update", "error": "broker_error", "message": "broker_message"}


class KiteStream:
    """See :class:`marketfeed.contract.Stream`."""

    def __init__(self, settings: KiteSettings, session: Session) -> None:
        self._settings = settings
        self._session = session
        self._subscribed: dict[Instrument, Mode] = {}

    def handshake(self) -> Handshake:
        """The token goes into the URL, encoded: the official SDK sends it raw, which breaks ``+``, ``/`` and ``=``."""
        query = urlencode({"api_key": self._settings.api_key, "access_token": self._session.access_token})
        return Handshake(
            url=f"{self._settings.stream_url.rstrip('/')}/?{query}",
            headers={"X-Kite-Version": "3", "User-Agent": _USER_AGENT},
        )

    def opened(self, wanted: Subscription) -> Sequence[str]:
        """Per mode, and per 500 instruments: subscribe, then set the mode.

        A new subscription is in quote mode until the mode message is read, so the two stand next
        to each other and the wrong packets in between are few.
        """
        self._subscribed = {}
        return self.changed(wanted, Subscription())

    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str]:
        """An instrument that only changes its mode is not subscribed again: that would set it to quote first."""
        gone = [one for one in remove if one not in add]
        for one in gone:
            self._subscribed.pop(one, None)
        messages = [_message("unsubscribe", tokens) for tokens in _chunks(gone)]
        for mode, instruments in add.by_mode().items():
            messages += self._add(mode, instruments)
        return messages

    def _add(self, mode: Mode, instruments: Sequence[Instrument]) -> list[str]:
        known = [one for one in instruments if self._subscribed.get(one, mode) != mode]
        new = [one for one in instruments if self._subscribed.get(one, mode) == mode]
        self._subscribed.update(dict.fromkeys(instruments, mode))
        subscribed = ((_message("subscribe", tokens), _message("mode", [mode.word, tokens])) for tokens in _chunks(new))
        return [*chain.from_iterable(subscribed), *(_message("mode", [mode.word, tokens]) for tokens in _chunks(known))]

    def received(self, data: str | bytes) -> Step:
        """Binary of two bytes or more is market data, one byte is the heartbeat, text is JSON about other things."""
        if isinstance(data, bytes):
            return DATA if len(data) > 1 else IGNORE
        return _event(data)

    def keepalive(self) -> KeepAlive:
        """Ten seconds without a byte end the line."""
        return _KEEPALIVE


def _chunks(instruments: Sequence[Instrument]) -> Iterator[list[int]]:
    tokens = [int(one.token) for one in instruments]
    return (tokens[start : start + _TOKENS_PER_MESSAGE] for start in range(0, len(tokens), _TOKENS_PER_MESSAGE))


def _message(action: str, value: Sequence[Any]) -> str:
    return msgspec.json.encode({"a": action, "v": value}).decode()


def _event(text: str) -> Step:
    """An order update, an error or a message of the broker; anything else is ignored, as the documentation asks."""
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return IGNORE
    kind = _EVENTS.get(str(body.get("type"))) if isinstance(body, dict) else None
    if kind is None:
        return IGNORE
    data = body.get("data")
    return Emit(kind, data if isinstance(data, dict) else {"message": data})
