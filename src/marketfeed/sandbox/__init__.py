"""A broker on this machine: the vendor's HTTP and WebSocket protocol, invented or recorded prices.

:class:`Sandbox` runs on a thread of this process, :func:`spawn_sandbox` in a child process. Which
vendor it plays is told by that vendor's plugin (:mod:`marketfeed.brokers`).
"""

from __future__ import annotations

from marketfeed.sandbox.box import READY_TOKEN, Sandbox
from marketfeed.sandbox.child import ChildSandbox, spawn_sandbox
from marketfeed.sandbox.log import SentFrame
from marketfeed.sandbox.world import MAX_SPEED
from marketfeed.totp import totp

__all__ = ["MAX_SPEED", "READY_TOKEN", "ChildSandbox", "Sandbox", "SentFrame", "spawn_sandbox", "totp"]
