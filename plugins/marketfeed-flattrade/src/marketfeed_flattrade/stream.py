"""The WebSocket protocol: the login dance over the socket, subscriptions, and which messages are data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from marketfeed.contract import DATA, IGNORE, Emit, Handshake, KeepAlive, Send, Session, Step, Subscription
from marketfeed.enums import Mode
from marketfeed.errors import SessionExpired, TakenOver
from marketfeed.instruments import Instrument
from marketfeed_flattrade.parser import is_market_data
from marketfeed_flattrade.settings import FlattradeSettings

__all__ = ["FlattradeStream"]

_DATA_TEXT: Final = ('{"t":"tf"', '{"t":"df"', '{"t":"tk"', '{"t":"dk"')
_DATA_BYTES: Final = tuple(one.encode() for one in _DATA_TEXT)
_TOKEN_NAMES: Final = {"a": "accesstoken", "c": "susertoken"}
_SUBSCRIBE: Final = {False: "t", True: "d"}
_UNSUBSCRIBE: Final = {False: "u", True: "ud"}


class FlattradeStream:
    """One connection. The first message logs in; subscriptions wait for the acknowledgement, because a
    subscription before it yields neither data nor an error. Nothing survives a reconnect.

    Full mode subscribes depth; the other modes subscribe touchline.
    """

    def __init__(self, settings: FlattradeSettings, session: Session) -> None:
        self._settings = settings
        self._session = session
        self._wanted = Subscription()
        self._acknowledged = False

    def handshake(self) -> Handshake:
        return Handshake(url=self._settings.stream_url)

    def opened(self, wanted: Subscription) -> Sequence[str]:
        self._wanted = wanted
        self._acknowledged = False
        generation = self._settings.connect_generation
        account = self._session.account
        hello = {"t": generation, "uid": account, "actid": account, "source": "API"}
        return [_text({**hello, _TOKEN_NAMES[generation]: self._session.access_token})]

    def changed(self, add: Subscription, remove: Subscription) -> Sequence[str]:
        before = self._wanted
        self._wanted = before - remove + add
        if not self._acknowledged:
            return []
        gone = {one: before[one] for one in remove if one in before}
        moved = {one: before[one] for one, mode in add.items() if _depth(before.get(one, mode)) != _depth(mode)}
        asked = {one: mode for one, mode in add.items() if one in moved or before.get(one, mode) == mode}
        return [*self._messages(_UNSUBSCRIBE, {**gone, **moved}), *self._messages(_SUBSCRIBE, asked)]

    def received(self, data: str | bytes) -> Step:
        if data.startswith(_DATA_TEXT) if isinstance(data, str) else data.startswith(_DATA_BYTES):
            return DATA
        try:
            message = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return DATA  # the parser counts it as bad
        if not isinstance(message, dict) or not isinstance(message.get("t"), str):
            return DATA
        return self._control(message)

    def keepalive(self) -> KeepAlive:
        return KeepAlive(self._settings.heartbeat_s, self._settings.dead_after_s, text='{"t":"h"}')

    @property
    def login_within_s(self) -> float:
        return self._settings.login_within_s

    def logged_in(self) -> bool:
        return self._acknowledged

    def closed(self, code: int, reason: str) -> TakenOver | None:
        """One socket per token: a second one ends the first with 1000 (third parties, measured live)."""
        if code != 1000:
            return None
        said = "another session took over this account's connection (FlatTrade closed it with code 1000)"
        return TakenOver(said, self._settings.takeover_wait_s)

    def _control(self, message: Mapping[str, Any]) -> Step:
        kind = message["t"]
        if is_market_data(kind):
            return DATA  # with its keys in another order
        if kind in ("ak", "ck"):
            return self._login_answer(str(message.get("s", "")))
        if kind == "om":
            return Emit("order_update", dict(message))
        return IGNORE

    def _login_answer(self, flag: str) -> Step:
        # The manual says "Ok", servers say "OK".
        if flag.upper() != "OK":
            # The server leaves a refused socket open and silent: raising makes the core close it.
            raise SessionExpired("FlatTrade refuses the access token on the socket; log in again")
        if self._acknowledged:
            return IGNORE
        self._acknowledged = True
        return Send(list(self._messages(_SUBSCRIBE, self._wanted)))

    def _messages(self, kinds: Mapping[bool, str], modes: Mapping[Instrument, Mode]) -> Iterator[str]:
        size = self._settings.scrips_per_message
        for depth in (False, True):
            scrips = [one.token for one, mode in modes.items() if _depth(mode) is depth]
            for start in range(0, len(scrips), size):
                yield _text({"t": kinds[depth], "k": "#".join(scrips[start : start + size])})


def _depth(mode: Mode) -> bool:
    return mode is Mode.FULL


def _text(message: Mapping[str, str]) -> str:
    return json.dumps(message, separators=(",", ":"))
