"""SHA-256 over the SHA-256 of 1 MiB pieces: one hash for vectors of any size, in work that threads share."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from broker_topics.together import together

PIECE_BYTES = 1024 * 1024
_SHARED_FROM = 4
"""Pieces from which a second thread is worth its start."""


def tree_hash(*arrays: npt.NDArray[np.generic]) -> bytes:
    """32 bytes that name the content of the arrays, in order; contiguous arrays are not copied.

    Large ones are hashed by two threads at a time: hashing leaves the interpreter to others.

    >>> import numpy as np
    >>> tree_hash(np.zeros(3, np.float32)) == tree_hash(np.zeros(4, np.float32))
    False
    """
    outer = hashlib.sha256()
    for array in arrays:
        view = memoryview(np.ascontiguousarray(array).data).cast("B") if array.size else memoryview(b"")
        for digest in _digests(list(_pieces(view))):
            outer.update(digest)
        outer.update(len(view).to_bytes(8, "big"))
    return outer.digest()


def _pieces(view: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(view), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def _digests(pieces: Sequence[memoryview]) -> list[bytes]:
    """The digest of each piece, in order."""
    half, worth_it = len(pieces) // 2, len(pieces) >= _SHARED_FROM
    first, second = together(lambda: _hashed(pieces[:half]), lambda: _hashed(pieces[half:]), worth_it=worth_it)
    return first + second


def _hashed(pieces: Sequence[memoryview]) -> list[bytes]:
    return [hashlib.sha256(piece).digest() for piece in pieces]
