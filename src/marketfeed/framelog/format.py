"""The bytes of a capture file (``.mfc``). Pure: nothing here opens a file.

A file is a run of blocks, each whole in itself: a header of 32 bytes with a checksum of its own, then the
stored bytes with theirs. Numbers are little-endian. The first block is of kind ``H`` and explains the file::

    magic "MFC1" | kind | codec | 0 | number in the file | items | raw bytes | stored bytes | crc | crc of the header
    H   JSON: what the file is (:class:`FileHeader`)
    I   JSON: instruments with their tokens and numbers, for the frames that follow
    F   frames: five columns, then the payloads one after the other

A reader that meets damage looks for the next header with a right checksum, so damage costs the block it is in.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final, NamedTuple

import attrs
import msgspec
import numpy as np

from marketfeed.contract import Frame
from marketfeed.instruments import Instrument

__all__ = [
    "FRAMES",
    "HEADER",
    "INSTRUMENTS",
    "MAGIC",
    "PREFIX_BYTES",
    "BlockHead",
    "CapturedFrame",
    "Damaged",
    "FileHeader",
    "Turn",
    "decode_frames",
    "decode_header",
    "decode_instruments",
    "encode_block",
    "encode_frames",
    "encode_header",
    "encode_instruments",
    "read_head",
    "unpack",
]

MAGIC: Final = b"MFC1"
_PREFIX: Final = struct.Struct("<4sccHIIIIII")
PREFIX_BYTES: Final = _PREFIX.size
HEADER: Final = b"H"
INSTRUMENTS: Final = b"I"
FRAMES: Final = b"F"
_RAW: Final = b"-"
_ZLIB: Final = b"z"
_LEVEL: Final = 1
"""Of zlib. Measured on full-mode frames at 18,000 ticks/s: level 1 takes 4 % of a core and leaves 54 %, level 6 takes
17 % and leaves 50 %."""
MOST_BYTES: Final = 64 * 2**20
"""A block that claims more is damaged: no file may ask for any amount of memory."""
_COLUMNS: Final = (("turn", "<u8"), ("received_ns", "<i8"), ("socket", "<u4"), ("size", "<u4"), ("text", "u1"))
_FRAME_BYTES: Final = sum(np.dtype(kind).itemsize for _, kind in _COLUMNS)
_INSTRUMENT_FIELDS: Final = frozenset(field.name for field in attrs.fields(Instrument))


class Damaged(ValueError):
    """These bytes are not what was written; the message says in which way."""


class BlockHead(NamedTuple):
    """What stands before a block's bytes."""

    kind: bytes
    codec: bytes
    number: int
    """Place of the block in its file, from 0."""
    items: int
    raw_bytes: int
    stored_bytes: int
    crc: int


@attrs.frozen(kw_only=True)
class FileHeader:
    """What a capture file is. Holds no secret: no address, credential or outgoing message."""

    id: str
    """Random name of the file, 32 hexadecimal digits."""
    run: str
    """Random name of the feed's run; the files of one run belong together."""
    run_start_ns: int
    part: int
    """Number of the file among those of this run and connection, from 0."""
    connection: int
    feed: str
    vendor: str
    """Name of the vendor plugin."""
    label: str = ""
    """The vendor's name in published ticks: the name of its table in the configuration."""
    mode: str = ""
    created_ns: int = 0
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    """The vendor's settings that a parser may depend on: switches, numbers and choices, never text."""
    validation: Mapping[str, Any] = attrs.field(factory=dict)
    """The feed's validation settings."""
    software: str = ""


class CapturedFrame(NamedTuple):
    """One data message as the broker sent it."""

    connection: int
    socket: int
    """Counts the connection's sockets from 1; a new one has a new parser."""
    turn: int
    """Place among everything that the feed parsed in this run; frames of one turn were parsed together."""
    received_ns: int
    """UTC nanoseconds"""
    text: bool
    """True for a text message, False for a binary one."""
    data: bytes


class Turn(NamedTuple):
    """Frames of one socket that were parsed together."""

    turn: int
    socket: int
    frames: Sequence[Frame]


# --- blocks -----------------------------------------------------------------------------------


def encode_block(kind: bytes, number: int, items: int, raw: bytes) -> bytes:
    """One block, ready to be written."""
    packed = zlib.compress(raw, _LEVEL)
    codec, stored = (_ZLIB, packed) if len(packed) < len(raw) else (_RAW, raw)
    head = _PREFIX.pack(MAGIC, kind, codec, 0, number, items, len(raw), len(stored), zlib.crc32(stored), 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "little") + stored


def read_head(data: bytes) -> BlockHead:
    """The header in the first 32 bytes. Raises :class:`Damaged`."""
    if len(data) < PREFIX_BYTES:
        raise Damaged("the file ends within a block")
    magic, kind, codec, _, number, items, raw, stored, crc, own = _PREFIX.unpack_from(data)
    if magic != MAGIC or zlib.crc32(data[: PREFIX_BYTES - 4]) != own:
        raise Damaged("a block's header is not what was written")
    if max(raw, stored) > MOST_BYTES:
        raise Damaged(f"a block claims more than {MOST_BYTES:,} bytes")
    return BlockHead(kind, codec, number, items, raw, stored, crc)


def unpack(head: BlockHead, stored: bytes) -> bytes:
    """The raw bytes of a block. Raises :class:`Damaged`."""
    if len(stored) < head.stored_bytes:
        raise Damaged("the file ends within a block")
    if zlib.crc32(stored) != head.crc:
        raise Damaged("a block's bytes are not what was written")
    raw = stored
    if head.codec == _ZLIB:
        try:
            raw = zlib.decompressobj().decompress(stored, head.raw_bytes + 1)
        except zlib.error as error:
            raise Damaged(f"a block cannot be unpacked: {error}") from error
    if len(raw) != head.raw_bytes:
        raise Damaged("a block has another size than it says")
    return raw


# --- frames -----------------------------------------------------------------------------------


def encode_frames(turns: Sequence[Turn]) -> bytes:
    """The raw bytes of a frame block."""
    flat = [frame for turn in turns for frame in turn.frames]
    counts = [len(turn.frames) for turn in turns]
    columns = {
        "turn": np.repeat(np.array([turn.turn for turn in turns], np.uint64), counts),
        "received_ns": [frame.received_ns for frame in flat],
        "socket": np.repeat(np.array([turn.socket for turn in turns], np.uint32), counts),
        "size": [len(frame.data) for frame in flat],
        "text": [frame.text for frame in flat],
    }
    packed = [np.asarray(columns[name], np.dtype(kind)).tobytes() for name, kind in _COLUMNS]
    return b"".join([*packed, *(frame.data for frame in flat)])


def decode_frames(raw: bytes, items: int, connection: int) -> list[CapturedFrame]:
    """The frames of a block, in order. Raises :class:`Damaged`."""
    if items * _FRAME_BYTES > len(raw):
        raise Damaged("a block holds fewer frames than it says")
    columns: dict[str, list[int]] = {}
    place = 0
    for name, kind in _COLUMNS:
        column = np.frombuffer(raw, kind, items, place)
        columns[name] = column.tolist()
        place += column.nbytes
    frames = []
    for turn, received_ns, socket, size, text in zip(*columns.values(), strict=True):
        frames.append(CapturedFrame(connection, socket, turn, received_ns, bool(text), raw[place : place + size]))
        place += size
    if place != len(raw):
        raise Damaged("a block holds fewer bytes than its frames")
    return frames


# --- JSON -------------------------------------------------------------------------------------


def encode_header(header: FileHeader) -> bytes:
    return msgspec.json.encode(attrs.asdict(header))


def decode_header(raw: bytes) -> FileHeader:
    """What a file is; keys that this version does not know are passed over. Raises :class:`Damaged`."""
    try:
        return msgspec.json.decode(raw, type=FileHeader)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Damaged(f"the header is not one of a capture: {error}") from error


def encode_instruments(numbered: Mapping[int, Instrument]) -> bytes:
    """Instruments by their number in the journal, in ascending order."""
    return msgspec.json.encode([{"number": number, **attrs.asdict(numbered[number])} for number in sorted(numbered)])


def decode_instruments(raw: bytes) -> dict[int, Instrument]:
    """Raises :class:`Damaged`."""
    try:
        return dict(_instruments(msgspec.json.decode(raw, type=list[dict[str, Any]])))
    except (msgspec.MsgspecError, RecursionError, TypeError, ValueError, KeyError) as error:
        raise Damaged(f"the instruments cannot be read: {error}") from error


def _instruments(lines: Sequence[dict[str, Any]]) -> Iterable[tuple[int, Instrument]]:
    for line in lines:
        known = {name: value for name, value in line.items() if name in _INSTRUMENT_FIELDS}
        expiry = known.get("expiry")
        known["expiry"] = date.fromisoformat(expiry) if expiry else None
        yield int(line["number"]), Instrument(**known)
