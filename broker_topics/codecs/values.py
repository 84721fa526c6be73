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
from broker_topics.frames import Buffer
from broker_topics.layout import Vector

Symbols = npt.NDArray[np.uint8]
"""uint8[k]: 2 · level + sign of each value."""

MAX_LEVELS: Final = 32
_LARGEST: Final = float(np.finfo(np.float32).max)
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


def read_table(section: Buffer) -> Vector:
    """The value of each symbol from what `write_scale` wrote.

    Returns: float32[2 L], finite.
    Raises:  WireError: bad_payload for a wrong length, a threshold not above 0 or a mean below 0; non_finite.
    """
    count = (len(section) - 4) // 2
    if not 1 <= count <= MAX_LEVELS or len(section) != 4 + 2 * count:
        raise bad_payload("the codebook has an impossible length")
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


def norm_of(symbols: Symbols, table: Vector) -> float:
    """The L2 norm from how often each level occurs: the same bits on every CPU.

    Raises:  WireError: bad_payload if a symbol lies beyond the table.
    """
    if np.maximum.reduce(symbols) >= len(table):
        raise bad_payload("a symbol lies beyond the codebook")
    magnitudes = table[::2].tolist()
    total = 0.0
    for magnitude, count in zip(magnitudes, _histogram(symbols, len(magnitudes)), strict=True):
        total += count * (magnitude * magnitude)
    return math.sqrt(total)


def _histogram(symbols: Symbols, levels: int) -> list[int]:
    """How many symbols each level has."""
    if levels > 8:  # counting level by level is faster for the few levels that real updates have
        counts: list[int] = np.bincount(symbols >> 1, minlength=levels).tolist()
        return counts
    counts, at_least = [], len(symbols)
    for level in range(1, levels):
        above = int(np.count_nonzero(symbols >= 2 * level))
        counts.append(at_least - above)
        at_least = above
    return [*counts, at_least]


def write_nibbles(symbols: Symbols) -> bytes:
    """Two symbols below 16 a byte, the first in the low half."""
    even = np.zeros((len(symbols) + 1) // 2 * 2, dtype=np.uint8)
    even[: len(symbols)] = symbols
    return (even[0::2] | even[1::2] << 4).tobytes()


def read_nibbles(raw: Buffer, k: int) -> Symbols:
    """Undo `write_nibbles`; raises WireError (bad_payload) if what fills the last byte is not zero."""
    packed = np.frombuffer(raw, dtype=np.uint8)
    symbols = np.empty(2 * len(packed), dtype=np.uint8)
    np.bitwise_and(packed, 15, out=symbols[0::2])
    np.right_shift(packed, 4, out=symbols[1::2])
    return _unpadded(symbols, k)


def write_bits(symbols: Symbols) -> bytes:
    """Eight symbols below 2 a byte, the first in the lowest bit."""
    return np.packbits(symbols, bitorder="little").tobytes()


def read_bits(raw: Buffer, k: int) -> Symbols:
    """Undo `write_bits`; raises WireError (bad_payload) if what fills the last byte is not zero."""
    return _unpadded(np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little"), k)


def _unpadded(symbols: Symbols, k: int) -> Symbols:
    if len(symbols) == k:
        return symbols
    if symbols[k:].any():
        raise bad_payload("the padding behind the symbols is not zero")
    return symbols[:k]
