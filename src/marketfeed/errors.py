"""Every error that marketfeed raises. The class says what to do; nobody reads a message.

::

    MarketFeedError
      ConfigError            mend the configuration; carries every problem at once
      PluginError            a plugin breaks the contract
        PluginNotFound       install it; the message names the extra
        PluginLoadError      it failed to import; the original is chained
      VendorError
        AuthError            stop: the credentials are wrong
        SessionExpired       log in again once, then stop
        RateLimited          wait .retry_after_s, then go on
        LineLost             reconnect with back-off
          TakenOver          reconnect after .wait_s, ever later: another session has the connection
        RequestRejected      stop this one request
      SinkError              .retryable; .rejected rows go to the dead letters
      JournalError           the store cannot be used as asked
        Overrun              a reader was overtaken; .missed rows are gone

What each class leads to is one table: ``marketfeed.engine.retry``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from marketfeed.batches import TickBatch

__all__ = [
    "AuthError",
    "ConfigError",
    "JournalError",
    "LineLost",
    "MarketFeedError",
    "Overrun",
    "PluginError",
    "PluginLoadError",
    "PluginNotFound",
    "Problem",
    "RateLimited",
    "RequestRejected",
    "SessionExpired",
    "SinkError",
    "TakenOver",
    "VendorError",
]


class MarketFeedError(Exception):
    """Base of all errors that this package raises on purpose."""


@attrs.frozen
class Problem:
    """One thing wrong with a configuration, and what to do about it."""

    path: str
    """Where it stands, such as ``sinks.kafka.topic``; empty for the file as a whole."""
    message: str
    """What is wrong and what to do, in one sentence, without any secret."""
    line: int | None = None
    """Line of the file, counted from 1, where a scan found the key."""

    def __str__(self) -> str:
        where = self.path or "the file"
        if self.line is not None:
            where += f" (line {self.line})"
        return f"{where}: {self.message}"


class ConfigError(MarketFeedError):
    """A configuration cannot be used. ``problems`` holds every one of them, in file order."""

    def __init__(self, problems: Sequence[Problem], source: Path | None = None) -> None:
        self.problems = tuple(problems)
        self.source = source
        name = str(source) if source else "configuration"
        count = len(self.problems)
        head = f"{name}: {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n  ".join([head, *map(str, self.problems)]))


class PluginError(MarketFeedError):
    """A plugin does not keep to the contract; the message names its distribution."""


class PluginNotFound(PluginError):
    """No installed plugin has that name; the message says which extra to install."""


class PluginLoadError(PluginError):
    """A plugin failed to import. The original error is chained as ``__cause__``."""


class VendorError(MarketFeedError):
    """Something a broker said or did."""


class AuthError(VendorError):
    """The broker refuses the credentials. Trying again with the same ones is never right."""


class SessionExpired(VendorError):
    """The access token is no longer good. One new login is worth a try."""


class RateLimited(VendorError):
    """The broker asks to slow down."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LineLost(VendorError):
    """The connection is gone or useless; reconnecting is the cure.

    ``http_status`` is the answer to the upgrade where that was not 101.
    """

    def __init__(self, message: str, *, http_status: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status


class TakenOver(LineLost):
    """Another session of the account has the connection now: coming back at once would drive that one out.

    ``wait_s`` is how long to stay away the first time; the core doubles it when it happens again.
    """

    def __init__(self, message: str, wait_s: float = 60.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class RequestRejected(VendorError):
    """The broker understood one request and refuses it; others may go on."""


class SinkError(MarketFeedError):
    """A sink could not take rows.

    ``retryable`` says whether the same call may succeed later. ``rejected`` names the rows of
    the batch (indices from 0) that this sink will never take; all other rows were taken.
    ``refused``, from ``flush``, are rows of earlier batches that it will never take, as it learnt since
    (a TickBatch): they go to the dead letters, and ``flush`` is called again.
    """

    def __init__(
        self, message: str, *, retryable: bool = True, rejected: Sequence[int] = (), refused: TickBatch | None = None
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.rejected = tuple(rejected)
        self.refused = refused


class JournalError(MarketFeedError):
    """The journal cannot be opened, written or read as asked."""


class Overrun(JournalError):
    """Rows that a reader had not read yet were removed by retention."""

    def __init__(self, reader: str, missed: int, next_row: int) -> None:
        super().__init__(f"reader {reader!r} missed {missed} rows; the next one kept is {next_row}")
        self.reader = reader
        self.missed = missed
        self.next_row = next_row
