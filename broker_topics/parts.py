"""Cuts deltas and keyframes into records that fit the log, and puts them together again; no I/O.

A blob is cut every 640 KiB, each piece compressed if that helps, so that a model of any size is written and read with
one piece in memory. The key of a part begins with the record's height and writer: two aggregators that compute the
same bytes never share a key, hence a tombstone for one never deletes the other's part.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import zstandard

from broker_topics.errors import RejectCode, WireError
from broker_topics.frames import FrameKind, pack, unpack
from broker_topics.layout import Vector
from broker_topics.record import PartRef

PIECE_BYTES = 640 * 1024
_RAW, _ZSTD = 0, 1

TASK, HIDDEN, SERVED, SERVER, DELTA = "task", "hidden", "served", "server", "delta"
"""Names of blobs: what devices need of a keyframe (task, hidden, served), what only the server needs (server, and
its vectors by their own names), and a step's delta."""

DEVICE_BLOBS = (TASK, HIDDEN, SERVED)


class Sliceable(Protocol):
    """Anything whose bytes can be looked at piece by piece."""

    def __len__(self) -> int: ...
    def __getitem__(self, where: slice, /) -> bytes | memoryview: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a blob, ready to be sent; `digest` is the SHA-256 of the record's bytes."""

    name: str
    index: int
    value: bytes
    digest: bytes

    def at(self, offset: int) -> PartRef:
        """What the chain record says of this part once it lies at `offset`."""
        return PartRef(self.name, self.index, offset, len(self.value), self.digest)


def part_key(*, height: int, writer: bytes, digest: bytes, name: str, index: int) -> bytes:
    """The compaction key of a part: height, writer, hash of its bytes, and which piece of what it is."""
    return f"{height:016x}/{writer.hex()}/{digest[:8].hex()}/{name}-{index}".encode()


def height_of(key: bytes) -> int | None:
    """The chain height in a part's key; None for a key that is no part's."""
    head, separator, _ = key.partition(b"/")
    try:
        return int(head, 16) if separator and len(head) == 16 else None
    except ValueError:
        return None


def bytes_of(vector: Vector) -> memoryview:
    """The vector's own little-endian bytes, not copied."""
    return memoryview(np.ascontiguousarray(vector, dtype="<f4").data).cast("B")


def cut(name: str, blob: Sliceable) -> Iterator[Part]:
    """The parts of one blob, made one at a time; an empty blob is one empty part."""
    for index, start in enumerate(range(0, max(1, len(blob)), PIECE_BYTES)):
        piece = blob[start : start + PIECE_BYTES]
        packed = _compressor().compress(piece)
        method, body = (_ZSTD, packed) if len(packed) < len(piece) else (_RAW, piece)
        value = pack(FrameKind.PART, [name, index, len(piece), method], [body])
        yield Part(name, index, value, hashlib.sha256(value).digest())


def open_part(value: bytes, ref: PartRef) -> bytes | memoryview:
    """The piece of the blob in a part's record; WireError (malformed) unless it is exactly what `ref` names."""
    if len(value) != ref.size or hashlib.sha256(value).digest() != ref.digest:
        raise WireError(RejectCode.MALFORMED, f"part {ref.name}-{ref.index} differs from what the chain names")
    frame = unpack(value, expect=FrameKind.PART)
    match frame.header:
        case [str(name), int(index), int(length), int(method)]:
            pass
        case _:
            raise WireError(RejectCode.MALFORMED, "header of a part")
    if (name, index) != (ref.name, ref.index) or not 0 <= length <= PIECE_BYTES or method not in (_RAW, _ZSTD):
        raise WireError(RejectCode.MALFORMED, f"part {ref.name}-{ref.index} says it is another")
    body = frame.body if method == _RAW else _decompress(frame.body, length)
    if len(body) != length:
        raise WireError(RejectCode.MALFORMED, f"part {ref.name}-{ref.index} has another length than it declares")
    return body


def blob_refs(refs: Sequence[PartRef], name: str) -> tuple[PartRef, ...]:
    """The parts of one blob in their order; empty if the record has no such blob."""
    return tuple(sorted((ref for ref in refs if ref.name == name), key=lambda ref: ref.index))


def blob_bytes(refs: Sequence[PartRef], names: Sequence[str]) -> int:
    """Bytes to fetch for some of a record's blobs."""
    return sum(ref.size for ref in refs if ref.name in names)


_local = threading.local()


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=1)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor


def _decompress(body: memoryview, length: int) -> bytes:
    try:
        if zstandard.frame_content_size(body) != length:
            raise WireError(RejectCode.MALFORMED, "a part's compressed size lies")
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=length)
    except zstandard.ZstdError as error:
        raise WireError(RejectCode.MALFORMED, f"a part cannot be decompressed: {error}") from error
