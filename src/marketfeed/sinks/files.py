"""What the file sinks share: one growing file after another, each row in it exactly once.

Rows are handed to the operating system by every ``write``, so they survive ``kill -9`` of this process;
``flush`` then stores how far the file counts (:mod:`marketfeed.sinks.positions`). With ``durable`` they
survive a power cut, too, at the price of two fsyncs a flush.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs

from marketfeed.batches import CandleBatch, TickBatch
from marketfeed.contract import Sink
from marketfeed.errors import SinkError
from marketfeed.sinks.columns import BLOCK_ROWS
from marketfeed.sinks.output import Output, sink_errors
from marketfeed.sinks.positions import Position, PositionFile
from marketfeed.sinks.rotation import Rotation, by_day, check_rotation, rotation

__all__ = ["FileSink"]

Batch = TickBatch | CandleBatch


def _path(value: str | Path) -> Path:
    return Path(value).expanduser()


@attrs.define(slots=False)
class FileSink(Sink):
    """Base of ``jsonl`` and ``csv``: a subclass says how rows become bytes."""

    accepts: ClassVar[frozenset[str]] = frozenset({"ticks", "candles"})
    exclusive: ClassVar[tuple[str, ...]] = ("path",)
    """Options that two users must not share."""

    path: Path = attrs.field(converter=_path)
    """File to append to, made with its folders if missing; {feed} and {kind} stand for their names"""
    rotate: str = attrs.field(default="never", validator=check_rotation)
    """``never``, ``day`` (India date, put before the suffix) or a size such as ``100MB`` (numbered files)"""
    durable: bool = False
    """Also survive a power cut: fsync at every flush. A kill of the process alone never needs it"""

    _rotation: Rotation = attrs.field(init=False, repr=False, eq=False)
    _positions: PositionFile | None = attrs.field(init=False, default=None, repr=False, eq=False)
    _output: Output | None = attrs.field(init=False, default=None, repr=False, eq=False)
    _journal: str = attrs.field(init=False, default="", repr=False, eq=False)
    _next_row: int = attrs.field(init=False, default=0, repr=False, eq=False)
    _resumed: bool = attrs.field(init=False, default=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self._rotation = rotation(self.rotate)

    # --- what a format provides ---------------------------------------------------------------

    def encode(self, batch: Batch) -> bytes:
        """The rows as bytes, in order, each complete with its line end."""
        raise NotImplementedError

    def header(self, batch: Batch) -> bytes:
        """What stands at the beginning of each file."""
        return b""

    # --- the life of a sink -------------------------------------------------------------------

    def open(self) -> None:
        """Lock the output. ``SinkError`` if another writer has it, or if it is not what was left here."""
        self.close()
        with sink_errors(f"cannot write {self.path}", retryable=False):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._positions = PositionFile(self.path.with_name(self.path.name + ".position"))
            self._check_output()

    def position(self, journal: str) -> int | None:
        """The next row wanted, stored with the rows; None if that is not the journal that was written last.

        An older epoch of the same journal is another name, and the core asks for it, too, because only the
        core knows how many rows a power cut took.
        """
        self._resume(journal)
        stored = self._opened.current
        return stored.next_row if stored and stored.journal == journal else None

    def write(self, batch: Batch) -> None:
        """Append the rows. On ``SinkError`` the file ends with a whole row, and the same batch can come again."""
        self._resume(batch.journal)
        batch = self._new_rows(batch)
        if not len(batch):
            return
        self._follow(batch)
        for start in range(0, len(batch), BLOCK_ROWS):
            self._put(batch[start : start + BLOCK_ROWS])

    def flush(self) -> None:
        """Commit what was written: after this it counts, whatever happens to the process."""
        if self._output is None:
            return
        position = self._position_in(self._output)
        if position != self._opened.current:
            if self.durable:
                with sink_errors(f"cannot sync {self._output.path}"):
                    self._output.sync()
            self._store(position)

    def close(self) -> None:
        """Close the file and give the lock back."""
        output, positions = self._output, self._positions
        self._output = self._positions = None
        self._resumed = False
        if output is not None:
            output.close()
        if positions is not None:
            positions.close()

    # --- inside: where to write -----------------------------------------------------------------

    @property
    def _opened(self) -> PositionFile:
        if self._positions is None:
            raise SinkError(f"the sink of {self.path} is not open", retryable=False)
        return self._positions

    def _check_output(self) -> None:
        """Refuse to go on if committed bytes are gone: going on would hide the hole."""
        stored = self._opened.current
        if stored is None:
            return
        file = self.path.with_name(stored.file)
        length = file.stat().st_size if file.exists() else None
        if length is None or length < stored.length:
            found = "is missing" if length is None else f"has only {length} bytes"
            raise SinkError(
                f"{file} {found}, but {stored.length} bytes of it were committed. Put it back, or, to go on "
                f"without those rows, delete {self._opened.path.name} beside it",
                retryable=False,
            )

    def _resume(self, journal: str) -> None:
        """Go on in the file that was written last, cut to what counts."""
        if self._resumed:
            return
        stored = self._opened.current
        if stored is not None:
            file = self.path.with_name(stored.file)
            with sink_errors(f"cannot write {file}"):
                self._output = Output(file)
                # Rows of this journal behind the committed length come again; of another one they never
                # do, so there all whole lines stay.
                keep = stored.length if stored.same_journal(journal) else self._output.whole_lines(stored.length)
                self._output.cut(keep)
            self._journal, self._next_row = stored.journal, stored.next_row
        self._resumed = True

    def _follow(self, batch: Batch) -> None:
        """A batch of another journal (or epoch): commit that from here on its numbers count."""
        if batch.journal != self._journal or self._opened.current is None:
            self._journal, self._next_row = batch.journal, batch.first_row
            if self._output is not None:
                self._store(self._position_in(self._output))

    def _enter(self, file: Path) -> None:
        """Make ``file`` the one being written. The old one is committed first and the new one recorded before
        its first row, so there is never more than one file with uncommitted bytes."""
        if self._output is not None and self._output.path == file:
            return
        self.flush()
        with sink_errors(f"cannot write {file}"):
            output = Output(file)
            try:
                output.end_line()
                if self.durable:
                    output.sync_folder()
                self._store(self._position_in(output))
            except BaseException:
                output.close()
                raise
        if self._output is not None:
            self._output.close()
        self._output = output

    def _position_in(self, output: Output) -> Position:
        return Position(self._journal, self._next_row, output.path.name, output.length)

    def _store(self, position: Position) -> None:
        with sink_errors(f"cannot store the position of {self.path}"):
            self._opened.store(position, durable=self.durable)

    # --- inside: what to write ------------------------------------------------------------------

    def _new_rows(self, batch: Batch) -> Batch:
        """Without the rows that a call which failed later had already written (before a rotation)."""
        if not batch.journal or batch.journal != self._journal or batch.first_row >= self._next_row:
            return batch
        return batch[batch.seq >= self._next_row]

    def _put(self, batch: Batch) -> None:
        if self._rotation.daily:
            for day, rows in by_day(batch):
                self._enter(self._rotation.day_file(self.path, day))
                self._append(rows, self._block(rows))
        elif self._rotation.max_bytes is not None:
            self._append_sized(batch, self._rotation.max_bytes)
        else:
            self._enter(self.path)
            self._append(batch, self._block(batch))

    def _block(self, batch: Batch) -> bytes:
        block = self.encode(batch)
        return block if self._output is not None and self._output.length else self.header(batch) + block

    def _append(self, batch: Batch, block: bytes) -> None:
        assert self._output is not None
        with sink_errors(f"cannot write {self._output.path}"):
            self._output.append(block)
        self._next_row = int(batch.seq[-1]) + 1

    def _append_sized(self, batch: Batch, limit: int) -> None:
        if self._output is None or not self._rotation.number_of(self.path, self._output.path.name):
            self._enter(self._rotation.first_file(self.path))
        while len(batch):
            assert self._output is not None
            block, count = self._block(batch), len(batch)
            if len(block) > limit - self._output.length:
                count = self._fitting(batch, limit - self._output.length)
                if count == 0 and self._output.length:
                    number = self._rotation.number_of(self.path, self._output.path.name)
                    self._enter(self._rotation.numbered_file(self.path, number + 1))
                    continue
                count = max(count, 1)  # a row longer than the limit gets a file of its own
                block = self._block(batch[:count])
            self._append(batch[:count], block)
            batch = batch[count:]

    def _fitting(self, batch: Batch, room: int) -> int:
        """How many rows fit into ``room`` bytes, by bisection; once a file, so its cost does not matter."""
        low, high = 0, len(batch)
        while low < high:
            middle = (low + high + 1) // 2
            if len(self._block(batch[:middle])) <= room:
                low = middle
            else:
                high = middle - 1
        return low
