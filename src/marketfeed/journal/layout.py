"""Names, offsets and headers of the files of a journal. Pure: nothing here opens a file.

::

    <folder>/control                       one page, mapped by everybody, written by the writer
    <folder>/rows-<first row, 20 digits>.npy
    <folder>/instruments.jsonl             line number = the rows' ``instrument``
    <folder>/epochs.jsonl                  one line for each time that rows were lost to a power cut
    <folder>/cursors/<name>                192 bytes a cursor, mapped by its reader
"""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np

from marketfeed.dtypes import CANDLE, TICK
from marketfeed.errors import JournalError

__all__ = [
    "Geometry",
    "candles_folder",
    "dtype_text",
    "npy_header",
    "parse_dtype",
    "safe_name",
    "segment_first",
    "segment_name",
    "ticks_folder",
]

MAGIC: Final = b"MFJ1"
VERSION: Final = 1
PAGE: Final = 4096
"""Bytes of the control page and of each segment's header."""
ROWS_PER_SEGMENT: Final = 2**16
FEWEST_ROWS_PER_SEGMENT: Final = 16

CONTROL: Final = "control"
CURSORS: Final = "cursors"
EPOCHS: Final = "epochs.jsonl"
INSTRUMENTS: Final = "instruments.jsonl"

_SEGMENT = re.compile(r"rows-(\d{20})\.npy")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class Geometry:
    """Where the rows of one journal stand: the dtype and how many of them a segment holds."""

    __slots__ = ("dtype", "row_size", "rows_per_segment")

    def __init__(self, dtype: np.dtype[np.void], rows_per_segment: int = ROWS_PER_SEGMENT) -> None:
        if rows_per_segment < FEWEST_ROWS_PER_SEGMENT:
            raise JournalError(f"rows_per_segment is {rows_per_segment}; use at least {FEWEST_ROWS_PER_SEGMENT}")
        self.dtype = dtype
        self.row_size: int = dtype.itemsize
        self.rows_per_segment = rows_per_segment

    @property
    def segment_bytes(self) -> int:
        """Size of a segment file."""
        return PAGE + self.rows_per_segment * self.row_size

    def first_of(self, row: int) -> int:
        """First row of the segment that holds ``row``."""
        return row - row % self.rows_per_segment

    def offset(self, row: int) -> int:
        """Byte offset of ``row`` in its segment file."""
        return PAGE + row % self.rows_per_segment * self.row_size


def segment_name(first_row: int) -> str:
    """File name of the segment that begins with ``first_row``."""
    return f"rows-{first_row:020}.npy"


def segment_first(name: str) -> int | None:
    """First row of the segment with that file name; None if it is the name of something else."""
    found = _SEGMENT.fullmatch(name)
    return int(found[1]) if found else None


def segment_firsts(folder: Path) -> list[int]:
    """First rows of the segments in ``folder``, lowest first."""
    firsts = (segment_first(one.name) for one in folder.iterdir())
    return sorted(first for first in firsts if first is not None)


def npy_header(geometry: Geometry) -> bytes:
    """A whole page: the header of an ``.npy`` file (format 2.0), so that ``numpy.load`` opens a segment."""
    described = {
        "descr": np.lib.format.dtype_to_descr(geometry.dtype),
        "fortran_order": False,
        "shape": (geometry.rows_per_segment,),
    }
    text = repr(described).encode()
    start = b"\x93NUMPY\x02\x00" + struct.pack("<I", PAGE - 12)
    if len(start) + len(text) >= PAGE:
        raise JournalError("a row of this layout has too many fields for a segment's header")
    return start + text.ljust(PAGE - 13) + b"\n"


def dtype_text(dtype: np.dtype[np.void]) -> str:
    """A dtype as text that :func:`parse_dtype` reads again."""
    return repr(np.lib.format.dtype_to_descr(dtype))


def parse_dtype(text: str) -> np.dtype[np.void]:
    """The dtype of :func:`dtype_text`; the well-known ones are the very objects of ``marketfeed.dtypes``."""
    described: Any = ast.literal_eval(text)
    dtype: np.dtype[np.void] = np.dtype(described)
    return next((known for known in (TICK, CANDLE) if known == dtype), dtype)


def safe_name(name: str, what: str = "cursor") -> str:
    """``name`` itself when it can be a file name everywhere; ``JournalError`` says what is allowed."""
    if _NAME.fullmatch(name):
        return name
    raise JournalError(
        f"{name!r} cannot name a {what}: use up to 100 letters, digits, '.', '_' and '-', not beginning with '.' or '-'"
    )


def ticks_folder(folder: Path | str, feed: str) -> Path:
    """Where the ticks of ``feed`` lie inside the folder of the configuration."""
    return Path(folder) / safe_name(feed, "feed") / "ticks"


def candles_folder(folder: Path | str, feed: str) -> Path:
    """Where the candles of ``feed`` lie inside the folder of the configuration."""
    return Path(folder) / safe_name(feed, "feed") / "candles"
