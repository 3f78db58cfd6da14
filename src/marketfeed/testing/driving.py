"""Drives a sink as a feed does: every call on one thread of the sink's own, none of them without end."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.contract import Sink
from marketfeed.errors import SinkError

__all__ = ["CAN_KILL", "Driver", "killed", "open_files"]

Batch = TickBatch | CandleBatch
Answer = TypeVar("Answer")
CAN_KILL: Final = hasattr(os, "fork")
"""Whether :func:`killed` works here."""


class Driver:
    """A sink on its own thread. Every call waits at most ``patience_s`` and then fails with ``AssertionError``.

    As a context manager it opens the sink, and in the end closes it if the test did not.
    """

    def __init__(self, sink: Sink, patience_s: float) -> None:
        self.sink = sink
        self.patience_s = patience_s
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sink under test", daemon=True)
        self._thread.start()
        self._closed = False

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if not self._closed:
                # After a failed check its own error is the one to see.
                with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
                    self.close()
        finally:
            self._end()

    def open(self) -> None:
        self.call("open", self.sink.open)

    def position(self, journal: str) -> int | None:
        return self.call("position", lambda: self.sink.position(journal))

    def write(self, *batches: Batch) -> None:
        """Write them in order, as they are."""
        for batch in batches:
            self.call("write", lambda batch=batch: self.sink.write(batch))  # type: ignore[misc]

    def flush(self) -> None:
        self.call("flush", self.sink.flush)

    def close(self) -> None:
        self._closed = True
        self.call("close", self.sink.close)

    def deliver(self, batches: Iterable[Batch], *, pause_s: float = 0.02) -> None:
        """Write all and flush, each call again after a retryable error, as a feed would; ``patience_s`` in all."""
        end = time.monotonic() + self.patience_s
        for batch in batches:
            self._again(lambda batch=batch: self.write(batch), end, pause_s)  # type: ignore[misc]
        self._again(self.flush, end, pause_s)

    def call(self, what: str, function: Callable[[], Answer]) -> Answer:
        """``function`` on the sink's thread: its result or its exception."""
        answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                answer.put((function(), None))
            except BaseException as error:
                answer.put((None, error))

        self._work.put(work)
        try:
            result, error = answer.get(timeout=self.patience_s)
        except queue.Empty:
            raise AssertionError(f"{what} did not return within {self.patience_s:g} s") from None
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def _again(self, call: Callable[[], None], end: float, pause_s: float) -> None:
        while True:
            try:
                return call()
            except SinkError as error:
                if not error.retryable or error.rejected or time.monotonic() > end:
                    raise
                time.sleep(pause_s)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # or this thread would keep the batch alive

    def _end(self) -> None:
        self._work.put(None)
        self._thread.join(self.patience_s)


def open_files() -> list[str]:
    """What this process has open, as far as the system tells: files, sockets, pipes."""
    folder = "/proc/self/fd"
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else ():  # noqa: PTH112, PTH208
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"{folder}/{name}"))  # noqa: PTH115
    return sorted(one for one in found if not one.startswith(folder))


def killed(work: Callable[[], object], patience_s: float) -> None:
    """Run ``work`` in a child process that dies by SIGKILL the moment it returns; what it returns is alive until
    then, so that no buffer is emptied by the end of its owner.

    Raises ``AssertionError`` with the child's traceback when ``work`` raises, or when it takes too long.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads may run here; the child needs none of them
        child = os.fork()
    if child == 0:
        _die_after(work, writing)
    os.close(writing)
    try:
        with _alarm(child, patience_s) as late, os.fdopen(reading, encoding="utf-8") as told:
            trouble = told.read()
    finally:
        _, status = os.waitpid(child, 0)
    assert not late, f"the process that was to be killed was not ready within {patience_s:g} s"
    assert not trouble, f"in the process that was to be killed: {trouble}"
    assert os.WIFSIGNALED(status), f"the process ended by itself with {os.waitstatus_to_exitcode(status)}"


def _die_after(work: Callable[[], object], writing: int) -> None:
    try:
        alive = work()  # noqa: F841
        os.kill(os.getpid(), signal.SIGKILL)
    except BaseException:
        os.write(writing, traceback.format_exc().encode())
    finally:
        os._exit(1)


@contextlib.contextmanager
def _alarm(child: int, patience_s: float) -> Iterator[list[float]]:
    """Ends a child that takes too long; the list says so."""
    done, late = threading.Event(), list[float]()

    def watch() -> None:
        if not done.wait(patience_s):
            late.append(patience_s)
            os.kill(child, signal.SIGKILL)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield late
    finally:
        done.set()
        watcher.join()
