"""Where the values of a sparse vector lie: gaps between positions, a byte (or two) each.

A byte below 255 is the count of coordinates left out before the next value; 255 leaves out 255 coordinates and carries
no value. The wide form does the same with 16 bits and 65535, its low bytes before its high bytes. Positions rise
strictly by construction, so a duplicate cannot be written.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from broker_topics.codecs.base import CHUNK, bad_payload
from broker_topics.codecs.fast import Kernels
from broker_topics.frames import Buffer

Positions = npt.NDArray[np.int64]
"""int64[k]: strictly rising indices into the vector."""

Gaps = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""One number a value, and one a skip: what lies between the positions."""

_SKIP: Final = {False: 255, True: 65535}
_COUNTING: Positions = np.arange(1 << 17, dtype=np.int64)


def raw_bounds(k: int, size: int, *, wide: bool) -> tuple[int, int]:
    """The least and the most bytes that k gaps within `size` coordinates can take."""
    if wide:
        return 2 * k, 2 * (k + size // 65535)
    return k, k + size // 255


def write_gaps(positions: Positions, *, wide: bool) -> list[bytes]:
    """Write positions as one plane of gap bytes, or as two: the low bytes and the high bytes of wide gaps.

    >>> [list(plane) for plane in write_gaps(np.array([0, 2, 300]), wide=False)]
    [[0, 1, 255, 42]]
    """
    planes: list[list[bytes]] = [[], []]
    last = -1
    for start in range(0, len(positions), CHUNK):
        part = positions[start : start + CHUNK]
        gaps = _gaps_of(part, last, _SKIP[wide])
        last = int(part[-1])
        planes[0].append(gaps.astype(np.uint8).tobytes())
        if wide:
            planes[1].append((gaps >> 8).astype(np.uint8).tobytes())
    return [b"".join(plane) for plane in planes[: 1 + wide]]


def _gaps_of(positions: Positions, last: int, skip: int) -> npt.NDArray[np.int64]:
    """The gaps behind the position `last`, skips among them."""
    left_out = np.diff(positions, prepend=last) - 1
    skips = left_out // skip
    place = np.arange(len(positions)) + np.cumsum(skips)
    gaps = np.full(int(place[-1]) + 1, skip, dtype=np.int64)
    gaps[place] = left_out - skips * skip
    return gaps


def read_gaps(raw: Buffer, k: int, size: int, kernels: Kernels | None, *, wide: bool) -> Gaps:
    """Gaps whose count of bytes is within `raw_bounds`, checked without a look at any single position.

    Returns: uint8[m] or uint16[m], k of which carry a value; their sum says where the last value lies.
    Raises:  WireError: bad_payload unless there are exactly k of them, below `size`, and no skip at the end.
    """
    gaps: Gaps = np.frombuffer(raw, dtype=np.uint8)
    if wide:
        low, high = gaps.reshape(2, -1)
        gaps = high.astype(np.uint16)
        gaps <<= 8
        gaps |= low
    with_value, total = kernels.look(gaps) if kernels is not None else _look(gaps)
    if with_value != k:
        raise bad_payload("the count of positions is not the declared one")
    if gaps[-1] == _SKIP[wide]:
        raise bad_payload("positions end in a skip")
    if total + k > size:
        raise bad_payload("a position lies behind the end of the vector")
    return gaps


def _look(gaps: Gaps) -> tuple[int, int]:
    """How many gaps carry a value, and the sum of all."""
    skips = np.count_nonzero(gaps == skip_of(gaps))
    return len(gaps) - int(skips), int(np.add.reduce(gaps, dtype=np.uint64))


def positions_of(gaps: Gaps, k: int) -> Positions:
    """Where the k values lie, from gaps that `read_gaps` found sound: int64[k], rising."""
    reached = gaps.astype(np.int64)
    np.add.accumulate(reached, out=reached)
    if len(reached) > k:
        holds_value = gaps != skip_of(gaps)
        reached = reached.take(holds_value.nonzero()[0], mode="clip")  # a boolean index mispredicts: a third slower
    reached += _COUNTING[:k] if k <= len(_COUNTING) else np.arange(k)
    return reached


def skip_of(gaps: Gaps) -> int:
    """The gap that carries no value: 255, or 65535 in the wide form."""
    return _SKIP[gaps.itemsize == 2]
