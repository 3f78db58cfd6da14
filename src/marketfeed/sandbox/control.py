"""``/sandbox/...``: what whoever runs a sandbox may ask of it over HTTP. Nothing here is a vendor's."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
from aiohttp import web

from marketfeed.brokers import HttpRequest
from marketfeed.clock import ist_text
from marketfeed.enums import Mode
from marketfeed.sandbox.faults import described, make, parse_now
from marketfeed.sandbox.peer import Peer

if TYPE_CHECKING:
    from marketfeed.sandbox.server import Server

__all__ = ["Control"]


class Control:
    """One method for each request: ``_get_clock`` answers ``GET /sandbox/clock``."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def answer(self, asked: HttpRequest) -> web.Response:
        action = getattr(self, f"_{asked.method.lower()}_{asked.path.removeprefix('/sandbox/')}", None)
        if action is None:
            return web.json_response({"error": f"no {asked.method} {asked.path} here"}, status=404)
        try:
            return web.json_response(action(asked))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)

    def _get_clock(self, _: HttpRequest) -> dict[str, Any]:
        now = self._server.world.now_ns()
        return {"now_ns": now, "offset_ns": self._server.world.clock.offset_ns, "india_time": ist_text(now)}

    def _get_state(self, _: HttpRequest) -> dict[str, Any]:
        replay, captured = self._server.world.replay, self._server.world.captured
        return {
            "seed": self._server.world.options.seed,
            "instruments": len(self._server.world.market.instruments),
            "ticks_per_second": self._server.driver.ticks_per_second,
            "connections": [_described(peer) for peer in self._server.hub.peers.values()],
            "filters": len(self._server.hub.filters),
            "replay": None
            if replay is None
            else {"rows": len(replay), "sent": replay.sent, "begun": self._server.driver.replay_begun},
            "capture": None
            if captured is None
            else {"frames_sent": captured.sent, "begun": self._server.driver.replay_begun},
        }

    def _get_stats(self, _: HttpRequest) -> dict[str, int]:
        self._server.log.flush()
        return dict(self._server.hub.counts)

    def _post_order(self, asked: HttpRequest) -> dict[str, int]:
        import msgspec

        order = msgspec.json.decode(asked.body, type=dict[str, Any]) if asked.body else {}
        return {"sent": self._server.push_order(order)}

    def _post_drop(self, _: HttpRequest) -> dict[str, int]:
        return {"dropped": self._server.hub.drop()}

    def _post_expire(self, _: HttpRequest) -> dict[str, bool]:
        self._server.broker.expire()
        self._server.log.event("expired", at_ns=self._server.clock.wall_ns())
        return {"expired": True}

    def _post_replay(self, _: HttpRequest) -> dict[str, bool]:
        if self._server.world.replay is None and self._server.world.captured is None:
            raise ValueError("this sandbox has no recording")
        self._server.driver.replay_begun = True
        return {"begun": True}

    def _post_rate(self, asked: HttpRequest) -> dict[str, float]:
        rate = float(dict(asked.query).get("ticks_per_second", "nan"))
        if not 0 <= rate < float("inf"):
            raise ValueError("give ?ticks_per_second=NUMBER, 0 or more")
        self._server.driver.ticks_per_second = rate
        return {"ticks_per_second": rate}

    def _get_faults(self, _: HttpRequest) -> dict[str, Any]:
        faults = self._server.faults
        return {
            "kinds": described(),
            "planned": [one.text for one in faults.planned],
            "injected": [attrs.asdict(one) for one in faults.injected],
        }

    def _post_fault(self, asked: HttpRequest) -> dict[str, Any]:
        """``{"kind": "mute", "seconds": 7}``, or ``{"fault": "mute for 7s"}``."""
        given = _json_object(asked.body)
        line = given.get("fault")
        fault = make(str(given.pop("kind", "")), given) if line is None else parse_now(str(line))
        return attrs.asdict(self._server.fault(fault))

    def _post_clear(self, asked: HttpRequest) -> dict[str, int]:
        """End the faults that act now; ``?kind=mute`` those of a kind."""
        return {"cleared": self._server.faults.clear(dict(asked.query).get("kind"))}


def _json_object(body: bytes) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    except msgspec.MsgspecError as error:
        raise ValueError(f"the body must be a JSON object: {error}") from None


def _described(peer: Peer) -> dict[str, Any]:
    modes = Counter(peer.broker_side.modes.tolist())
    subscribed = {mode.word: modes[mode.value] for mode in Mode}
    return {"number": peer.number, "subscribed": subscribed, "ticks": peer.ticks, "backlog_bytes": peer.backlog}
