"""SHA-256 over the SHA-256 of 1 MiB pieces: one hash for vectors of any size, in work that threads can share."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

PIECE_BYTES = 1024 * 1024


def tree_hash(*arrays: npt.NDArray[np.generic]) -> bytes:
    """32 bytes that name the content of the arrays, in order; contiguous arrays are not copied.

    >>> import numpy as np
    >>> tree_hash(np.zeros(3, np.float32)) == tree_hash(np.zeros(4, np.float32))
    False
    """
    outer = hashlib.sha256()
    for array in arrays:
        view = memoryview(np.ascontiguousarray(array).data).cast("B") if array.size else memoryview(b"")
        for digest in _pieces(view):
            outer.update(digest)
        outer.update(len(view).to_bytes(8, "big"))
    return outer.digest()


def _pieces(view: memoryview) -> Iterable[bytes]:
    for start in range(0, len(view), PIECE_BYTES):
        yield hashlib.sha256(view[start : start + PIECE_BYTES]).digest()
