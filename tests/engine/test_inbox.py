"""The hand-over between reader threads and the parse thread."""

from __future__ import annotations

import threading

from marketfeed.clock import Clock
from marketfeed.contract import Frame
from marketfeed.engine.inbox import Delivered, Inbox


def frames(*payloads: bytes) -> list[Frame]:
    return [Frame(payload, 1) for payload in payloads]


def test_everything_that_waits_is_taken_at_once_in_order() -> None:
    inbox = Inbox(2, Clock())
    inbox.renewed(0)
    inbox.put(0, frames(b"a"))
    inbox.put(1, frames(b"b"))
    assert inbox.take() == [Delivered(0, None), Delivered(0, frames(b"a")), Delivered(1, frames(b"b"))]


def test_after_close_the_rest_is_taken_and_then_nothing() -> None:
    inbox = Inbox(1, Clock())
    inbox.put(0, frames(b"a"))
    inbox.close()
    assert inbox.take() == [Delivered(0, frames(b"a"))]
    assert inbox.take() is None


def test_a_producer_waits_while_its_own_bytes_are_over_the_bound() -> None:
    inbox = Inbox(2, Clock(), max_bytes=10)
    inbox.put(0, frames(b"x" * 11))
    blocked = threading.Thread(target=inbox.put, args=(0, frames(b"y")))
    blocked.start()
    inbox.put(1, frames(b"free"))  # another connection is not held up
    blocked.join(0.05)
    assert blocked.is_alive()
    assert inbox.waits > 0
    inbox.take()
    blocked.join(5)
    assert not blocked.is_alive()
    assert inbox.waiting_bytes(0) == 1


def test_closing_frees_a_waiting_producer() -> None:
    inbox = Inbox(1, Clock(), max_bytes=1)
    inbox.put(0, frames(b"xx"))
    blocked = threading.Thread(target=inbox.put, args=(0, frames(b"y")))
    blocked.start()
    inbox.close()
    blocked.join(5)
    assert not blocked.is_alive()


def test_opened_wide_the_last_frames_get_in_before_the_end() -> None:
    inbox = Inbox(1, Clock(), max_bytes=1)
    inbox.put(0, frames(b"xx"))
    blocked = threading.Thread(target=inbox.put, args=(0, frames(b"y")))
    blocked.start()
    inbox.open_wide()
    blocked.join(5)
    assert not blocked.is_alive()
    inbox.close()
    assert inbox.take() == [Delivered(0, frames(b"xx")), Delivered(0, frames(b"y"))]
    assert inbox.take() is None
