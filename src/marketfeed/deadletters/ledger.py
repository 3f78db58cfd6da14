"""What was tried again and with what success: the reason why a second replay does nothing.

One JSON document a line in ``replayed.jsonl``. Before anything is appended or delivered a line says what
is about to happen, afterwards one says that it did; after a kill in between the target itself is asked.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

__all__ = ["Intent", "Ledger"]

_LARGE = 16_000_000


@attrs.frozen(kw_only=True)
class Intent:
    """Rows that were about to be appended to a journal."""

    journal: str
    """Its published name."""
    row: int
    """Number that the first row was going to get."""
    letters: Mapping[str, Sequence[int]]
    """Identity of each letter -> digests of its rows, in the order of appending."""


class Ledger:
    """The lines of the file as they were when it was opened, and those added since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.finished: set[str] = set()
        """Identities of letters with nothing left to do."""
        self.taken: dict[str, Counter[int]] = {}
        """Identity -> digests of the rows that were accepted."""
        self.attempts: Counter[str] = Counter()
        """Identity -> how often it was tried to an end."""
        self.open: Intent | None = None
        """The last intent, if nothing says how it ended."""
        for line in self._lines():
            self._read(line)

    def _lines(self) -> Iterator[dict[str, Any]]:
        data = self._path.read_bytes() if self._path.exists() else b""
        for line in data.splitlines():
            try:
                yield msgspec.json.decode(line, type=dict)
            except msgspec.DecodeError:
                continue  # torn by a kill: what it was about is asked of the target

    def _read(self, line: Mapping[str, Any]) -> None:
        match line.get("step"):
            case "begin":
                self.open = Intent(journal=line["journal"], row=line["row"], letters=line["letters"])
            case "void":
                self.open = None
            case "done":
                self.open = None
                for identity, values in line["letters"].items():
                    self.taken.setdefault(identity, Counter()).update(values["rows"])
                    self.attempts[identity] += values.get("attempts", 1)
                    if values["finished"]:
                        self.finished.add(identity)

    def compact(self, known: Collection[str]) -> None:
        """Forget letters that the store no longer holds, once the file is large; in one step."""
        if not self._path.exists() or self._path.stat().st_size < _LARGE or self.open is not None:
            return
        self.finished &= set(known)
        self.taken = {name: rows for name, rows in self.taken.items() if name in known}
        draft = self._path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        new = Ledger(draft)
        letters = {name: list(rows.elements()) for name, rows in self.taken.items()}
        new.done(letters, self.finished, at_ns=0, target="earlier replays", attempts=self.attempts)
        draft.replace(self._path)

    # --- writing ------------------------------------------------------------------------------

    def begin(self, intent: Intent) -> None:
        """These rows are about to be appended. On the disk when this returns."""
        self._add({"step": "begin", **attrs.asdict(intent)})

    def void(self) -> None:
        """What was begun did not happen."""
        self._add({"step": "void"})

    def done(
        self,
        letters: Mapping[str, Sequence[int]],
        finished: Collection[str],
        *,
        at_ns: int,
        target: str,
        attempts: Mapping[str, int] | None = None,
    ) -> None:
        """These rows were accepted by ``target``, in one attempt or so many; ``finished`` letters have none left."""
        took = attempts or {}
        values = {
            name: {"rows": list(rows), "finished": name in finished, "attempts": took.get(name, 1)}
            for name, rows in letters.items()
        }
        self._add({"step": "done", "at_ns": at_ns, "target": target, "letters": values})

    def _add(self, line: dict[str, Any]) -> None:
        data = msgspec.json.encode(line) + b"\n"
        with self._path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    data = b"\n" + data  # behind a line that a kill tore
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._read(msgspec.json.decode(data))
