"""What the values of a sparse vector are: a power-of-two level above a threshold, and a sign.

level = floor(log2(|x| / threshold)), symbol = 2 · level + sign; every level stands for one magnitude,
threshold · 2^level · mean, the mean in half precision. Levels come from exponents and mantissas, never from a
logarithm, so that every CPU finds the same. A decoded value is within a factor of two of the true one: what is left
over is exact in float32.
"""

import math
import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from broker_topics.codecs.base import bad_payload, non_finite
from broker_topics.codecs.fast import Counts, Groups, Kernels
from broker_topics.frames import Buffer
from broker_topics.layout import Vector

Symbols = npt.NDArray[np.uint8]
"""uint8[k]: 2 · level + sign of each value."""

MAX_LEVELS: Final = 32
_WIDTHS: Final = [next(width for width in (1, 2, 4, 8) if 2 * levels <= 1 << width) for levels in range(MAX_LEVELS + 1)]
_LARGEST: Final = float(np.finfo(np.float32).max)
_FEW: Final = 4096
_BELOW_TWO: Final = 2.0 - 2.0**-10
"""The largest half-precision number below 2."""


def levels_of(magnitudes: Vector, threshold: np.float32) -> npt.NDArray[np.int32]:
    """floor(log2(magnitude / threshold)), exactly; magnitudes ≥ threshold > 0.

    >>> levels_of(np.array([1, 1.5, 2, 7.9], np.float32), np.float32(1)).tolist()
    [0, 0, 1, 2]
    """
    mantissa, exponent = np.frexp(magnitudes)
    least_mantissa, least_exponent = np.frexp(threshold)
    levels: npt.NDArray[np.int32] = exponent - least_exponent - (mantissa < least_mantissa)
    return levels


def write_scale(magnitudes: Vector, levels: npt.NDArray[np.int32], threshold: np.float32) -> bytes:
    """The threshold (float32) and the mean magnitude of each level (float16, relative to the level's least)."""
    counts = np.bincount(levels)
    sums = np.bincount(levels, weights=magnitudes.astype(np.float64))
    means = []
    for level, (count, total) in enumerate(zip(counts.tolist(), sums.tolist(), strict=True)):
        least = math.ldexp(float(threshold), level)
        mean = float(np.float16(min(total / count / least, _BELOW_TWO))) if count else 1.0
        while mean * least > _LARGEST:
            mean -= 2.0**-10
        means.append(max(mean, 1.0))
    return struct.pack(f"<f{len(means)}e", float(threshold), *means)


def levels_in(scale_bytes: int) -> int:
    """How many levels a scale of so many bytes describes; raises WireError (bad_payload) unless 1 to 32."""
    levels = (scale_bytes - 4) // 2
    if not 1 <= levels <= MAX_LEVELS or scale_bytes != 4 + 2 * levels:
        raise bad_payload("the codebook has an impossible length")
    return levels


def read_table(section: Buffer) -> Vector:
    """The value of each symbol from what `write_scale` wrote.

    Returns: float32[2 L], finite.
    Raises:  WireError: bad_payload for a wrong length, a threshold not above 0 or a mean below 0; non_finite.
    """
    count = levels_in(len(section))
    threshold, *means = struct.unpack(f"<f{count}e", section)
    table: list[float] = []
    power = threshold
    for mean in means:
        magnitude = mean * power
        if not magnitude <= _LARGEST:
            raise non_finite("a magnitude of the codebook is not finite")
        if not (mean >= 0 and threshold > 0):
            raise bad_payload("the codebook holds a negative number")
        table += (magnitude, -magnitude)
        power += power
    return np.array(table, dtype=np.float32)


def norm_of(symbols: Symbols, table: Vector, kernels: Kernels | None) -> float:
    """The L2 norm from how often each level occurs: the same bits on every CPU.

    Raises:  WireError: bad_payload if a symbol lies beyond the table.
    """
    counts = np.zeros(len(table) // 2, dtype=np.int64)
    if not (kernels.levels if kernels is not None else _levels)(symbols, counts):
        raise bad_payload("a symbol lies beyond the codebook")
    total = 0.0
    for magnitude, count in zip(table[::2].tolist(), counts.tolist(), strict=True):
        total += count * (magnitude * magnitude)
    return math.sqrt(total)


def _levels(symbols: Symbols, counts: Counts) -> bool:
    """As the compiled loop: how many symbols have each level, and whether none lies beyond."""
    if len(counts) > 8 or (len(counts) > 2 and len(symbols) < _FEW):  # else counting level by level is faster
        found = np.bincount(symbols >> 1, minlength=len(counts))
        counts[:] = found[: len(counts)]
        return len(found) == len(counts)
    reached = len(symbols)
    for level in range(len(counts)):
        above = int(np.count_nonzero(symbols > 2 * level + 1))
        counts[level] = reached - above
        reached = above
    return not reached


def packed_width(levels: int) -> int:
    """Bits that hold any symbol of so many levels: 1, 2, 4, or 8 where packing gains nothing."""
    return _WIDTHS[levels]


def write_packed(symbols: Symbols, width: int) -> bytes:
    """Symbols of `width` bits (1, 2 or 4), the first in the lowest bits of a byte.

    >>> write_packed(np.array([1, 2, 3], np.uint8), 4).hex()
    '2103'
    """
    per_byte = 8 // width
    whole = np.zeros(-(-len(symbols) // per_byte) * per_byte, dtype=np.uint8)
    whole[: len(symbols)] = symbols
    packed = whole[0::per_byte].copy()
    for index in range(1, per_byte):
        packed |= whole[index::per_byte] << index * width
    return packed.tobytes()


def read_packed(raw: Buffer, k: int, width: int, kernels: Kernels | None) -> Symbols:
    """Undo `write_packed`; raises WireError (bad_payload) if what fills the last byte is not zero."""
    if (used := k * width % 8) and raw[-1] >> used:
        raise bad_payload("the padding behind the symbols is not zero")
    packed = np.frombuffer(raw, dtype=np.uint8)
    if width == 8:
        return packed
    table = _UNPACKED[width]
    if kernels is None:
        groups = table.take(packed)
    else:
        groups = np.empty(len(packed), dtype=table.dtype)
        kernels.look_up(table, packed, groups)
    return groups.view(np.uint8)[:k]


def _unpacked(width: int) -> Groups:
    """The symbols of `width` bits that each byte holds, side by side."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    rows = np.arange(256, dtype=np.uint8)[:, None] >> shifts & np.uint8((1 << width) - 1)
    return rows.view(f"u{len(shifts)}").ravel()


_UNPACKED: Final = {width: _unpacked(width) for width in (1, 2, 4)}
