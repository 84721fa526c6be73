"""One record on the wire: a small checked header, payload sections, and a CRC over all of it.

    magic "HW" · format u8 · header length u16 · header · payload sections · CRC-32 u32

The header is one MessagePack array of at most 4096 bytes whose first element is the kind; the CRC covers every
byte before it. Integers of the envelope are little-endian. Sections are sliced, never copied.
"""

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, TypeAlias

import msgpack

from broker_topics.errors import ConfigError, RejectCode, WireError

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes of a record or of a part of it; a memoryview is one-dimensional and of format "B"."""

MAGIC = b"HW"
FORMAT = 1
MAX_HEADER_BYTES = 4096
_PREFIX = struct.Struct("<2sBH")
_TRAILER = struct.Struct("<I")
_SMALLEST = _PREFIX.size + _TRAILER.size


class FrameKind(IntEnum):
    """What a frame holds; numbers are part of the wire format and never change meaning."""

    UPDATE = 1
    DELTA = 2
    PART = 3
    REJECT = 4
    TELEMETRY = 5
    CONTROL = 6
    HEAD = 7


_KINDS = {kind.value: kind for kind in FrameKind}


class Frame(NamedTuple):
    """A frame whose envelope is sound; `header` comes without the kind, its elements are not checked yet."""

    kind: FrameKind
    header: list[object]
    body: memoryview
    crc: int


def pack(kind: FrameKind, header: Sequence[object], sections: Sequence[Buffer] = ()) -> bytes:
    """Write one frame.

    Args:    header: MessagePack scalars and lists of them; sections: joined in order behind the header.
    Returns: the record; `frame_crc` of it is the CRC at its end.
    Raises:  ConfigError: if the header takes more than 4096 bytes or holds what MessagePack cannot.

    >>> unpack(pack(FrameKind.HEAD, [7], [b"abc"])).body.tobytes()
    b'abc'
    """
    try:
        packed: bytes = msgpack.packb([int(kind), *header])
    except (OverflowError, TypeError, ValueError) as error:
        raise ConfigError(f"a header cannot be written: {error}") from error
    if len(packed) > MAX_HEADER_BYTES:
        raise ConfigError(f"a header takes {len(packed)} bytes, at most {MAX_HEADER_BYTES}: shorten names or values")
    pieces = [_PREFIX.pack(MAGIC, FORMAT, len(packed)), packed, *sections]
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    pieces.append(_TRAILER.pack(crc))
    return b"".join(pieces)


def unpack(
    data: Buffer, *, expect: FrameKind | None = None, max_bytes: int | None = None, crc: int | None = None
) -> Frame:
    """Check and open one frame; nothing of the payload is copied or decoded.

    Args:    expect: the only kind that is accepted, if given; max_bytes: the largest record accepted, if given.
             crc: what `frame_crc` said of the data, where the caller has asked already.
    Raises:  WireError: too_large above `max_bytes`; malformed for anything that `pack` could not have written.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise WireError(RejectCode.TOO_LARGE, f"the record has {len(data)} bytes, at most {max_bytes} are accepted")
    if len(data) < _SMALLEST:
        raise _malformed(f"{len(data)} bytes are too few for a frame")
    magic, version, header_bytes = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise _malformed("the magic is missing")
    if version != FORMAT:
        raise _malformed(f"format {version} is unknown")
    body_start, end = _PREFIX.size + header_bytes, len(data) - _TRAILER.size
    if header_bytes > MAX_HEADER_BYTES or body_start > end:
        raise _malformed("the header does not fit")
    view = memoryview(data).toreadonly()
    crc = zlib.crc32(view[:end]) if crc is None else crc
    if crc != _TRAILER.unpack_from(data, end)[0]:
        raise _malformed("the CRC differs")
    header = _read_header(view[_PREFIX.size : body_start])
    code = header.pop(0)
    kind = _KINDS.get(code) if type(code) is int else None
    if kind is None or (expect is not None and kind is not expect):
        raise _malformed("the kind of frame is not the expected one")
    return Frame(kind, header, view[body_start:end], crc)


def frame_crc(data: Buffer) -> int:
    """The 32 bits by which the chain names a record: the CRC that a sound frame carries at its end.

    A record that is no sound frame gets the CRC-32 of all its bytes. Over a sound frame that plain CRC would be one
    and the same number for every frame: a CRC taken over data followed by its own CRC always is.
    """
    view = memoryview(data)
    end = max(0, len(view) - _TRAILER.size)
    crc = zlib.crc32(view[:end])
    if len(view) >= _TRAILER.size and crc == _TRAILER.unpack_from(view, end)[0]:
        return crc
    return zlib.crc32(view[end:], crc)


def split(body: memoryview, lengths: Sequence[int]) -> tuple[memoryview, ...]:
    """Cut a body into sections of the given byte counts (each ≥ 0); raises WireError unless they fill it exactly."""
    if sum(lengths) != len(body):
        raise _malformed("the sections do not fill the frame")
    sections, start = [], 0
    for length in lengths:
        sections.append(body[start : start + length])
        start += length
    return tuple(sections)


def _read_header(packed: memoryview) -> list[object]:
    try:
        header = msgpack.unpackb(packed, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _malformed("the header is not MessagePack") from error
    if type(header) is not list or not header:
        raise _malformed("the header is not an array")
    return header


def _malformed(reason: str) -> WireError:
    return WireError(RejectCode.MALFORMED, reason)
