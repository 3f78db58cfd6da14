"""The instruments of a journal: a list that only grows, whose places are the rows' ``instrument``."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, overload

import attrs
import msgspec

from marketfeed.errors import JournalError
from marketfeed.instruments import Instrument
from marketfeed.journal.files import force_folder, write_whole

__all__ = ["UNKNOWN", "Catalog", "FileCatalog"]

UNKNOWN = Instrument(exchange="", symbol="UNKNOWN", token="")
"""What ``instrument`` -1 stands for: a token that no instrument list names."""
_FIELDS = frozenset(field.name for field in attrs.fields(Instrument))
Identity = tuple[str, str, str, str, date | None]


class Catalog(Sequence[Instrument]):
    """Number -> instrument. A number is never taken back and never changes its meaning.

    ``catalog[-1]`` is :data:`UNKNOWN`, other numbers out of range are an ``IndexError``.
    """

    def __init__(self) -> None:
        self._all: list[Instrument] = []
        self._numbers: dict[Identity, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, number: int) -> Instrument: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Instrument]: ...
    def __getitem__(self, number: int | slice) -> Instrument | Sequence[Instrument]:
        if isinstance(number, slice):
            return self._all[number]
        if number == -1:
            return UNKNOWN
        if number >= len(self._all):
            with self._lock:
                self._refresh()
        if not 0 <= number < len(self._all):
            raise IndexError(f"no instrument {number}; there are {len(self._all)}")
        return self._all[number]

    def register(self, instruments: Iterable[Instrument]) -> list[int]:
        """The number of each instrument, in order; new ones are added first.

        An instrument is known by (vendor, exchange, token, symbol, expiry). One that comes back
        with another attribute (a new lot size, say) is a new line with a new number. On disk, the
        lines are safe (fsync) when this returns. Raises ``OSError`` when they cannot be written;
        nothing is registered then.
        """
        wanted = list(instruments)
        with self._lock:
            fresh = dict.fromkeys(one for one in wanted if self._known(one) is None)
            if fresh:
                self._store(list(fresh))
                self._add(fresh)
            return [self._numbers[_identity(one)] for one in wanted]

    def _known(self, one: Instrument) -> int | None:
        number = self._numbers.get(_identity(one))
        return number if number is not None and self._all[number] == one else None

    def _add(self, instruments: Iterable[Instrument]) -> None:
        for one in instruments:
            self._all.append(one)
            self._numbers[_identity(one)] = len(self._all) - 1

    def _store(self, instruments: Sequence[Instrument]) -> None:
        """Make them survive; in memory there is nothing to do."""

    def _refresh(self) -> None:
        """Look for instruments that another process added; in memory there is none."""

    def close(self) -> None:
        """Let the file go. What was read stays readable."""


class FileCatalog(Catalog):
    """A catalog that is the file ``instruments.jsonl``; other processes' readers see it grow."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        super().__init__()
        self._path = path
        self._offset = 0
        self._pid = os.getpid()
        self._fd: int | None = None
        if writable:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            force_folder(path.parent)
        self._refresh()
        if self._fd is not None:
            # A kill in the middle of a line left a piece that no row can refer to.
            os.ftruncate(self._fd, self._offset)

    def __len__(self) -> int:
        # Who asks wants to know whether a number has a name, and the writer may just have given it one.
        if self._fd is None:
            with self._lock:
                self._refresh()
        return len(self._all)

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _store(self, instruments: Sequence[Instrument]) -> None:
        if self._fd is None or self._pid != os.getpid():
            raise JournalError(f"only the process that writes the journal in {self._path.parent} registers instruments")
        data = b"".join(msgspec.json.encode(attrs.asdict(one)) + b"\n" for one in instruments)
        try:
            write_whole(self._fd, data, self._offset)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._offset)
            raise
        self._offset += len(data)

    def _refresh(self) -> None:
        # Only whole lines: the last one may be half written at this moment.
        try:
            if self._path.stat().st_size <= self._offset:
                return
        except FileNotFoundError:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._add([self._parse(line, number) for number, line in enumerate(whole.splitlines(), len(self._all))])

    def _parse(self, line: bytes, number: int) -> Instrument:
        try:
            known = {name: value for name, value in msgspec.json.decode(line).items() if name in _FIELDS}
            return _instrument(known)
        except (msgspec.DecodeError, AttributeError, TypeError, ValueError) as error:
            raise JournalError(f"{self._path}, line {number + 1}: not an instrument ({error})") from error


def _identity(one: Instrument) -> Identity:
    return one.vendor, one.exchange, one.token, one.symbol, one.expiry


def _instrument(values: dict[str, Any]) -> Instrument:
    expiry = values.get("expiry")
    return Instrument(**{**values, "expiry": date.fromisoformat(expiry) if expiry else None})
