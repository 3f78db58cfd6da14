"""One client of a sandbox: its socket, its queue, and what of it has not left this machine yet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.brokers import SandboxConnection
from marketfeed.dtypes import Rows

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Outgoing", "Peer"]

TAIL = 8192
_ESTABLISHED = 1  # TCP_ESTABLISHED of Linux
_SIOCOUTQNSD = 0x894B  # linux/sockios.h: bytes not sent yet, those on their way left out


class Outgoing(NamedTuple):
    """One message on its way to one client."""

    connection: int
    data: str | bytes
    origin: str
    """``tick``, ``snapshot``, ``replay``, ``push``; ``reply``, ``heartbeat``, ``order``, ``fault``."""
    rows: Rows | None = None
    modes: NDArray[np.uint8] | None = None
    intact: bool = True
    """False: ``data`` no longer holds ``rows``."""
    faults: tuple[str, ...] = ()
    """Kinds of fault that touched it."""


class Peer:
    """One client."""

    def __init__(self, number: int, broker_side: SandboxConnection, socket: web.WebSocketResponse) -> None:
        self.number = number
        self.broker_side = broker_side
        self.socket = socket
        self.transport: asyncio.BaseTransport | None = None
        self.backlog = 0
        self.ticks = 0
        self.commands = 0
        self.busy_until = 0.0
        self.over = False
        """Nothing more is sent: it was cut, or closed by us."""
        self.frozen = False
        self.closing: asyncio.Task[None] | None = None
        self.last_sent = asyncio.get_running_loop().time()
        self.queue: asyncio.Queue[Outgoing] = asyncio.Queue()
        self.tail: deque[tuple[int, int]] = deque(maxlen=TAIL)
        """Of the newest messages: bytes, and the number of the tick they begin with."""

    def abort(self, *, reset: bool = False) -> None:
        """Cut the TCP connection without a word; ``reset`` = with RST instead of FIN."""
        self.over = True
        if reset and (raw := self._raw()) is not None:
            with contextlib.suppress(OSError):
                form = "hh" if os.name == "nt" else "ii"
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(form, 1, 0))
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()

    def freeze(self) -> None:
        """Read nothing more from the socket."""
        self.frozen = True
        if isinstance(self.transport, asyncio.ReadTransport):
            self.transport.pause_reading()

    def gone(self) -> bool:
        """Whether the client of a frozen connection has closed it; known on Linux only."""
        raw = self._raw()
        if raw is None or not hasattr(socket, "TCP_INFO"):
            return False
        try:
            return raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED
        except OSError:
            return True

    def first_lost(self) -> int | None:
        """Number of the first tick that the kernel has not passed on yet; None = all has left."""
        unsent = _unsent(self.transport, self._raw())
        lost = None
        for size, first_seq in reversed(self.tail):
            if unsent <= 0:
                break
            unsent -= size
            lost = first_seq
        return lost

    def _raw(self) -> socket.socket | None:
        found: socket.socket | None = self.transport.get_extra_info("socket") if self.transport else None
        return found


def _unsent(transport: asyncio.BaseTransport | None, raw: socket.socket | None) -> int:
    """Bytes that wait in this process, and on Linux those in the kernel that were never sent."""
    waiting = transport.get_write_buffer_size() if isinstance(transport, asyncio.WriteTransport) else 0
    if raw is None or not sys.platform.startswith("linux"):
        return waiting
    import fcntl

    with contextlib.suppress(OSError, ValueError):  # ValueError: the client has closed it, its number is -1
        waiting += struct.unpack("i", fcntl.ioctl(raw.fileno(), _SIOCOUTQNSD, b"\0" * 4))[0]
    return waiting
