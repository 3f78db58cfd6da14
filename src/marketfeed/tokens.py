"""Access tokens on disk, and how often a login failed: both must outlive the process.

A token is as good as a password for a day, so a file is readable by its owner alone; one that others
may read is not used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs

from marketfeed.contract import Session
from marketfeed.contract import TokenStore as TokenStore

__all__ = ["STATE_DIR", "FileTokenStore", "LenientTokenStore", "MemoryTokenStore", "TokenKeeper", "state_dir"]

STATE_DIR = "MARKETFEED_STATE_DIR"
"""Environment variable: the folder for what outlives a process, instead of the user's state folder."""
_POSIX = os.name == "posix"
_PATIENCE_S = 120.0
_MOST_FAILURES = 200  # lines kept of one account's failed logins
_log = logging.getLogger(__name__)


class TokenKeeper(TokenStore, Protocol):
    """A token store that also counts bad logins, for the rule that they never become a storm."""

    def count_failure(self, vendor: str, account: str, at_ns: int) -> None:
        """Remember that a login was refused at that time (UTC nanoseconds)."""

    def failures_since(self, vendor: str, account: str, since_ns: int) -> int:
        """How many logins were refused at or after that time."""

    def forgive(self, vendor: str, account: str) -> None:
        """Forget the failed logins of an account."""

    def alone(self, vendor: str, account: str) -> AbstractContextManager[None]:
        """While it is held, nobody else who uses the store logs in to the account: a second login may end the
        first one's session, and a one-time password works once."""


def state_dir() -> Path:
    """The folder for what outlives a process: ``MARKETFEED_STATE_DIR``, or the user's state folder."""
    if given := os.environ.get(STATE_DIR):
        return Path(given).expanduser()
    from platformdirs import user_state_path

    return user_state_path("marketfeed", appauthor=False)


class MemoryTokenStore:
    """Tokens that live as long as the process: for tests, and where nothing may be written."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], Session] = {}
        self._failures: dict[tuple[str, str], list[int]] = {}
        self._lock = threading.Lock()

    def load(self, vendor: str, account: str) -> Session | None:
        return self._sessions.get((vendor, account))

    def save(self, session: Session) -> None:
        self._sessions[session.vendor, session.account] = session

    def forget(self, vendor: str, account: str) -> None:
        self._sessions.pop((vendor, account), None)

    def count_failure(self, vendor: str, account: str, at_ns: int) -> None:
        self._failures.setdefault((vendor, account), []).append(at_ns)

    def failures_since(self, vendor: str, account: str, since_ns: int) -> int:
        return sum(at >= since_ns for at in self._failures.get((vendor, account), ()))

    def forgive(self, vendor: str, account: str) -> None:
        self._failures.pop((vendor, account), None)

    @contextmanager
    def alone(self, vendor: str, account: str) -> Iterator[None]:
        with self._lock:
            yield


class FileTokenStore:
    """One file per vendor and account, mode 0600, in ``<folder>/tokens``, mode 0700.

    ``folder`` is :func:`state_dir` by default. Files are replaced whole, so a reader sees the old
    session or the new one. A file that others can read, or that belongs to somebody else, is not used:
    a warning names it, and the next login replaces it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = (folder if folder is not None else state_dir()) / "tokens"

    def load(self, vendor: str, account: str) -> Session | None:
        """The stored session, or None: there is none, or the file is not safe, whole or of this account."""
        text = _read_private(self._file(vendor, account, "json"))
        if text is None:
            return None
        try:
            session = Session(**json.loads(text))
        except (ValueError, TypeError):
            _log.warning("the stored session of %s is damaged and is not used; log in again", vendor)
            return None
        return session if (session.vendor, session.account) == (vendor, account) else None

    def save(self, session: Session) -> None:
        """Store a session, replacing the account's former one. Raises ``OSError`` where that is impossible."""
        values: dict[str, Any] = attrs.asdict(session, value_serializer=_plain)
        self._write(self._file(session.vendor, session.account, "json"), json.dumps(values, indent=1))

    def forget(self, vendor: str, account: str) -> None:
        """Remove the stored session, if there is one."""
        self._file(vendor, account, "json").unlink(missing_ok=True)

    def count_failure(self, vendor: str, account: str, at_ns: int) -> None:
        """Remember a refused login; one appended line, so that two processes do not undo each other."""
        file = self._file(vendor, account, "failures")
        self._make_folder()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(file, flags, 0o600)
        try:
            os.write(handle, f"{at_ns}\n".encode())
        finally:
            os.close(handle)
        times = self._failures(vendor, account)
        if len(times) > 2 * _MOST_FAILURES:
            self._write(file, "".join(f"{at}\n" for at in times[-_MOST_FAILURES:]))

    def failures_since(self, vendor: str, account: str, since_ns: int) -> int:
        return sum(at >= since_ns for at in self._failures(vendor, account))

    def forgive(self, vendor: str, account: str) -> None:
        self._file(vendor, account, "failures").unlink(missing_ok=True)

    @contextmanager
    def alone(self, vendor: str, account: str) -> Iterator[None]:
        """A lock on a file, among the threads and processes of this machine; after two minutes it lets go on in any
        case. Where the folder cannot be written, or the system has no such locks, nothing is locked."""
        handle = None
        try:
            self._make_folder()
            handle = os.open(self._file(vendor, account, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            _log.warning("logins of %s are not kept apart: %s", vendor, error.strerror)
        try:
            if handle is not None:
                _lock(handle, _PATIENCE_S)
            yield
        finally:
            if handle is not None:
                os.close(handle)

    def _failures(self, vendor: str, account: str) -> list[int]:
        text = _read_private(self._file(vendor, account, "failures")) or ""
        return [int(line) for line in text.splitlines() if line.isdecimal()]

    def _file(self, vendor: str, account: str, kind: str) -> Path:
        # The account may be an API key, or text with slashes: a digest is safe as a name and tells nothing.
        digest = hashlib.sha256(f"{vendor}\0{account}".encode()).hexdigest()[:16]
        return self._folder / f"{re.sub('[^A-Za-z0-9_-]', '_', vendor)[:40]}-{digest}.{kind}"

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _POSIX and stat.S_IMODE(self._folder.stat().st_mode) & 0o077:
            self._folder.chmod(0o700)

    def _write(self, file: Path, text: str) -> None:
        self._make_folder()
        fresh = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(file)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


class LenientTokenStore:
    """A token store for a feed: what cannot be written lasts as long as the process, with a warning.

    A full disk or a folder that is read-only must not cost a session that the broker has given.
    """

    def __init__(self, store: TokenKeeper) -> None:
        self._store = store
        self._mine = MemoryTokenStore()
        self._dead: set[str] = set()
        """Access tokens that could not be removed."""

    def load(self, vendor: str, account: str) -> Session | None:
        found = self._store.load(vendor, account)  # first: another process may have logged in meanwhile
        if found is None or found.access_token in self._dead:
            return self._mine.load(vendor, account)
        return found

    def save(self, session: Session) -> None:
        try:
            self._store.save(session)
        except OSError as error:
            _warn("the session cannot be kept, the next start needs a new login", error)
            self._mine.save(session)

    def forget(self, vendor: str, account: str) -> None:
        found = self.load(vendor, account)
        self._mine.forget(vendor, account)
        try:
            self._store.forget(vendor, account)
        except OSError as error:
            _warn("a dead session cannot be removed", error)
            self._dead |= set() if found is None else {found.access_token}

    def count_failure(self, vendor: str, account: str, at_ns: int) -> None:
        try:
            self._store.count_failure(vendor, account, at_ns)
        except OSError as error:
            _warn("a refused login cannot be noted", error)
            self._mine.count_failure(vendor, account, at_ns)

    def failures_since(self, vendor: str, account: str, since_ns: int) -> int:
        return sum(one.failures_since(vendor, account, since_ns) for one in (self._mine, self._store))

    def forgive(self, vendor: str, account: str) -> None:
        self._mine.forgive(vendor, account)
        try:
            self._store.forgive(vendor, account)
        except OSError as error:
            _warn("refused logins cannot be forgiven", error)

    @contextmanager
    def alone(self, vendor: str, account: str) -> Iterator[None]:
        with self._mine.alone(vendor, account), self._store.alone(vendor, account):
            yield


def _warn(what: str, error: OSError) -> None:
    _log.warning("%s: %s", what, error.strerror)


def _lock(handle: int, patience_s: float) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    end, held = time.monotonic() + patience_s, False
    while not held and time.monotonic() < end:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            time.sleep(0.02)
        except OSError as error:  # a file system without such locks
            return _warn("logins are not kept apart", error)
    if not held:
        _log.warning("another login of this account has not ended for %g s; going on without waiting", patience_s)
    return None


def _read_private(file: Path) -> str | None:
    """The text of a file that only its owner can read; None when it is missing or not private."""
    try:
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s is not used: %s", file, error.strerror)
        return None
    with os.fdopen(handle, encoding="utf-8", errors="replace") as text:
        reason = _not_private(os.fstat(text.fileno()))
        if reason:
            _log.warning("%s is not used: %s; remove it and log in again", file, reason)
            return None
        return text.read()


def _not_private(status: os.stat_result) -> str | None:
    """Why a file may not be trusted, as far as the system can tell (Windows keeps rights elsewhere)."""
    if not _POSIX:
        return None
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"others may read it (mode {stat.S_IMODE(status.st_mode):04o})"
    getuid: Callable[[], int] = os.getuid
    return None if status.st_uid == getuid() else "it belongs to another user"


def _plain(_: object, __: object, value: Any) -> Any:
    return dict(value) if hasattr(value, "keys") else value
