"""What every codec speaks: the encoded form, the decoded form, and how a section is compressed."""

import threading
from abc import ABC, abstractmethod
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import zstandard

from broker_topics.errors import InvariantError, RejectCode, WireError
from broker_topics.frames import Buffer
from broker_topics.layout import Vector

CHUNK: Final = 1 << 16
"""Elements handled at a time where a temporary as large as the vector is to be avoided."""


class CodecId(IntEnum):
    """How a vector is written; numbers are part of the wire format and never change meaning."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    SPARSE = 4


class Encoded(NamedTuple):
    """A float32[size] vector in the bytes of a codec; nothing of it is checked before `decode`.

    `flags` say how the sections are stored; `k` is the count of values carried; `raw_lengths` are the byte counts of
    the sections before zstd.
    """

    codec: CodecId
    flags: int
    size: int
    k: int
    sections: tuple[Buffer, ...]
    raw_lengths: tuple[int, ...]

    @property
    def payload_bytes(self) -> int:
        """Bytes of all sections together."""
        return sum(map(len, self.sections))


class Decoded(ABC):
    """A vector that passed every check of its codec and waits to be added somewhere."""

    __slots__ = ("norm", "size")

    size: int
    norm: float

    def __init__(self, size: int, norm: float) -> None:
        self.size = size
        self.norm = norm

    def add_to(self, accumulator: Vector, weight: float = 1.0) -> None:
        """Do accumulator += float32(weight) · values, each element in float32, the same bits on every CPU.

        Raises:  InvariantError: if the accumulator is not a writable float32[size].
        """
        self.check(accumulator)
        self._add(accumulator, np.float32(weight))

    def check(self, accumulator: Vector) -> None:
        """Raise InvariantError unless this can be added to the accumulator."""
        if accumulator.dtype != np.float32 or accumulator.shape != (self.size,):
            raise InvariantError(f"an accumulator of float32[{self.size}] is needed, not {accumulator.shape}")
        if not accumulator.flags.writeable:  # np.add.at would write all the same
            raise InvariantError("the accumulator is read-only")

    def to_vector(self) -> Vector:
        """The values as a new float32[size]."""
        vector = np.zeros(self.size, dtype=np.float32)
        self._add(vector, np.float32(1.0))
        return vector

    @abstractmethod
    def _add(self, accumulator: Vector, weight: np.float32) -> None: ...


class _Zstd(threading.local):
    """One compressor and one decompressor a thread: the objects are not thread-safe."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=1, write_checksum=False)
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _Zstd()


def shrink(*planes: bytes) -> bytes | None:
    """The planes, joined, as one zstd frame that declares its size, or None where that is not smaller.

    Each plane begins a block of its own: planes of unlike bytes must not share one table of code lengths.
    """
    size = sum(map(len, planes))
    if len(planes) == 1:
        packed = _zstd.compressor.compress(planes[0])
    else:
        stream = _zstd.compressor.compressobj(size=size)
        pieces = []
        for plane in planes:
            pieces += [stream.compress(plane), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
        packed = b"".join([*pieces, stream.flush()])
    return packed if len(packed) < size else None


def expand(section: Buffer, raw_length: int) -> bytes:
    """Undo `shrink`; memory stays below `raw_length` whatever the section claims.

    Raises:  WireError: bad_payload if the frame does not declare exactly `raw_length` (python-zstandard would
             allocate what a frame declares, whatever the limit given), is damaged, or has bytes behind it.
    """
    try:
        if zstandard.frame_content_size(section) != raw_length:
            raise bad_payload("a compressed section does not declare the length of the header")
        raw: bytes = _zstd.decompress(section, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise bad_payload("a compressed section is damaged") from error
    if len(raw) != raw_length:
        raise bad_payload("a compressed section has another length than it declares")
    return raw


def bad_payload(reason: str) -> WireError:
    """The error of a payload that no encoder writes."""
    return WireError(RejectCode.BAD_PAYLOAD, reason)


def non_finite(reason: str) -> WireError:
    """The error of values that are not finite."""
    return WireError(RejectCode.NON_FINITE, reason)
