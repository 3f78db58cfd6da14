"""The capture of a running feed: frames handed over by the parse thread, written by a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_origin

import attrs

from marketfeed.clock import Clock
from marketfeed.contract import Frame, VendorSettings
from marketfeed.framelog.files import CaptureWriter, Shelf
from marketfeed.framelog.format import FileHeader, Turn
from marketfeed.instruments import Instrument, TokenMap
from marketfeed.journal.layout import safe_name
from marketfeed.redaction import hide

__all__ = ["CaptureCounts", "CaptureLog", "FrameLog", "told_settings"]

BLOCK_BYTES: Final = 256 * 1024
"""Payload bytes in one block; larger ones do not compress better."""
FLUSH_S: Final = 1.0
"""A block is written after this long even if it is small: what a kill may cost."""
QUEUE_BYTES: Final = 64 * 2**20
_POLL_S: Final = 0.05
"""The writer looks this often instead of being woken, so that handing over costs the parse thread nothing."""
_SHORTEST: Final = 8
"""Of a secret that is looked for in frames: a shorter one may stand in binary ticks by chance."""
_REPEAT_S: Final = 10.0
"""A failure that goes on is told again this often."""


class CaptureLog(Protocol):
    """The part of a logger that the capture uses."""

    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...


@attrs.define
class CaptureCounts:
    """What a capture did since the feed started. ``frames = written + dropped + those still waiting``."""

    frames: int = 0
    """Frames handed over."""
    written: int = 0
    stored_bytes: int = 0
    """Bytes in files, headers included."""
    dropped: Counter[str] = attrs.field(factory=Counter)
    """Frames that are in no file, by reason: ``queue`` (the disk is too slow), ``disk`` (it refuses), ``bug``."""
    files: int = 0
    """Files begun."""
    files_removed: int = 0
    """Old files removed to stay within ``keep_bytes``."""


class FrameLog:
    """Keeps raw frames of a feed in ``<folder>/<feed>/<connection>-<India time>.mfc``.

    :meth:`put` and :meth:`renewed` belong to the parse thread and never wait. Policy when the disk is too
    slow: beyond ``queue_bytes`` that wait, frames are dropped from the capture (never from the feed), counted
    and told. A write that fails costs its block, is told, and never stops the feed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        feed: str,
        vendor: str,
        label: str = "",
        mode: str = "",
        settings: VendorSettings | None = None,
        validation: attrs.AttrsInstance | None = None,
        tokens: TokenMap,
        instruments: Sequence[Instrument],
        clock: Clock,
        log: CaptureLog,
        rotate_bytes: int = 256_000_000,
        keep_bytes: int = 20_000_000_000,
        queue_bytes: int = QUEUE_BYTES,
        block_bytes: int = BLOCK_BYTES,
        emit: Callable[[str, Mapping[str, Any]], None] | None = None,
        hidden: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.folder = folder / safe_name(feed, "feed")
        self.counts = CaptureCounts()
        self.error = ""
        """Why frames are being lost now; empty while none are."""
        self._header = FileHeader(
            id="",
            run=secrets.token_hex(16),
            run_start_ns=clock.wall_ns(),
            part=0,
            connection=0,
            feed=feed,
            vendor=vendor,
            label=label or vendor,
            mode=mode,
            settings=told_settings(settings),
            validation=told_settings(validation),
            software=_version(),
        )
        self._tokens = tokens
        self._instruments = instruments
        self._clock = clock
        self._log = log
        self._hidden = hidden
        self._emit = emit or (lambda _kind, _data: None)
        self._rotate_bytes = rotate_bytes
        self._keep_bytes = keep_bytes
        self._queue_bytes = queue_bytes
        self._block_bytes = block_bytes
        self._queue: queue.SimpleQueue[tuple[int, Turn, int]] = queue.SimpleQueue()
        # Each has one writer, the parse thread or the capture thread: no lock needed.
        self._put_bytes = self._taken_bytes = 0
        self._turn = 0
        self._seen: tuple[Mapping[str, int], Mapping[int, Instrument]] = ({}, {})
        self._sockets: Counter[int] = Counter()
        self._closing = threading.Event()
        self._shelf: Shelf | None = None
        self._writers: dict[int, CaptureWriter] = {}
        self._waiting: dict[int, list[Turn]] = {}
        self._waiting_bytes: Counter[int] = Counter()
        self._flush_due_s = 0.0
        self._told_s = -_REPEAT_S
        self._told_dropped = 0

    # --- the parse thread's side ------------------------------------------------------------------

    def put(self, connection: int, frames: Sequence[Frame]) -> None:
        """Hand over frames that are about to be parsed together. Never waits, never raises."""
        size = sum([len(frame.data) for frame in frames])
        self._turn += 1
        self.counts.frames += len(frames)
        if self._put_bytes - self._taken_bytes + size > self._queue_bytes:
            self.counts.dropped["queue"] += len(frames)
            return
        self._put_bytes += size
        self._queue.put((connection, Turn(self._turn, max(self._sockets[connection], 1), frames), size))

    def renewed(self, connection: int) -> None:
        """The next frames of a connection come from a new socket."""
        self._sockets[connection] += 1

    def close(self) -> None:
        """No more will come: :meth:`run` writes what waits and ends. Returns at once."""
        self._closing.set()

    # --- the capture thread's side ----------------------------------------------------------------

    def run(self) -> None:
        """The thread's loop."""
        last = False
        while not last:
            last = self._clock.wait(self._closing, _POLL_S)
            self._drain()
            now_s = self._clock.monotonic()
            if last or now_s >= self._flush_due_s:
                self._flush_due_s = now_s + FLUSH_S
                for connection in list(self._waiting):
                    self._write(connection)
            self._tell(now_s, last)
        for writer in self._writers.values():
            writer.close()

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            for _ in range(self._queue.qsize()):
                connection, turn, size = self._queue.get_nowait()
                self._waiting.setdefault(connection, []).append(turn)
                self._waiting_bytes[connection] += size
                if self._waiting_bytes[connection] >= self._block_bytes:
                    self._write(connection)

    def _write(self, connection: int) -> None:
        """Write what waits of one connection as a block."""
        turns = _without(self._hidden(), self._waiting.pop(connection))
        frames = sum(len(turn.frames) for turn in turns)
        try:
            writer = self._writer(connection)
            files = writer.files
            self.counts.stored_bytes += writer.write(turns, self._known())
            self.counts.files += writer.files - files
            self.counts.written += frames
            if self.error:
                self._log.info("the capture can be written again", folder=str(self.folder))
            self.error = ""
        except Exception as error:  # a bug, too, must neither be silent nor end the capture
            self.counts.dropped["disk" if isinstance(error, OSError) else "bug"] += frames
            self.error = str(error) or repr(error)
        finally:
            self._taken_bytes += self._waiting_bytes.pop(connection)

    def _writer(self, connection: int) -> CaptureWriter:
        if self._shelf is None:
            self._shelf = Shelf(self.folder, self._keep_bytes, self._removed)
        known = self._writers.get(connection)
        if known is None:
            header = attrs.evolve(self._header, connection=connection)
            known = self._writers[connection] = CaptureWriter(self._shelf, header, self._rotate_bytes)
        # Files that are open are never removed, so together they must fit twice.
        known.rotate_bytes = min(self._rotate_bytes, self._keep_bytes // (2 * len(self._writers)))
        return known

    def _known(self) -> Mapping[int, Instrument]:
        """The instruments that frames may name by now; the feed adds to its map when it subscribes more."""
        present = self._tokens.present
        if present is not self._seen[0]:
            self._seen = (present, {number: self._instruments[number] for number in present.values()})
        return self._seen[1]

    def _removed(self, path: Path, size: int) -> None:
        self.counts.files_removed += 1
        self._log.warning("an old capture was removed to stay within keep_bytes", file=path.name, bytes=size)
        self._emit("capture_removed", {"file": path.name, "bytes": size})

    def _tell(self, now_s: float, last: bool) -> None:
        """Say that frames are missing: at once, then every ten seconds while it goes on."""
        dropped = self.counts.dropped.total()
        if dropped == self._told_dropped or (now_s - self._told_s < _REPEAT_S and not last):
            return
        reason = self.error or "the disk is slower than the broker"
        lost = dropped - self._told_dropped
        self._told_s, self._told_dropped = now_s, dropped
        self._log.error("frames are missing in the capture; the feed goes on", frames=lost, reason=reason)
        self._emit("capture_dropped", {"frames": lost, "reason": reason})


def told_settings(settings: attrs.AttrsInstance | None) -> dict[str, Any]:
    """The settings that rows may depend on and that no secret can hide in: switches, numbers, choices.

    Free text is left out whatever its name, and so are lists; ``Literal`` fields are choices.
    """
    if settings is None:
        return {}
    told = {}
    for field in attrs.fields(attrs.resolve_types(type(settings))):
        value = getattr(settings, field.name)
        choice = get_origin(field.type) is Literal
        if not field.metadata.get("secret") and (choice or field.type in (bool, int, float)):
            told[field.name] = value
    return told


def _without(words: Iterable[str], turns: Sequence[Turn]) -> list[Turn]:
    """The frames with secrets that the broker repeats overwritten by as many ``*``; others as they are."""
    long = [word for word in words if len(word) >= _SHORTEST]
    return [
        turn._replace(frames=[frame._replace(data=hide(frame.data, long)) for frame in turn.frames]) for turn in turns
    ]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"marketfeed {version('marketfeed')}"
    except PackageNotFoundError:
        return "marketfeed"
