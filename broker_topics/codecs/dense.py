"""Codecs 0, 1 and 2: every coordinate, as float32, bfloat16, or int8 with a scale for each 256.

int8 sections: scales, numbers. Scales are one float32 and, for each block, a float16 relative to it: half precision
alone would lose small models altogether. What rounding leaves over is exact in float32 for both lossy codecs.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from broker_topics.codecs import fast
from broker_topics.codecs.base import CHUNK, CodecId, Decoded, Encoded, bad_payload, non_finite
from broker_topics.errors import RejectCode, WireError
from broker_topics.frames import Buffer
from broker_topics.layout import Vector

BLOCK: Final = fast.BLOCK
_ROWS: Final = CHUNK // BLOCK
_LARGEST: Final = float(np.finfo(np.float32).max)
_SECTIONS: Final = {CodecId.FLOAT32: 1, CodecId.BFLOAT16: 1, CodecId.INT8: 2}

Bits16 = npt.NDArray[np.uint16]


class DenseDecoded(Decoded):
    """A value for every coordinate, still in the form of its codec."""

    __slots__ = ("_encoded",)

    def __init__(self, encoded: Encoded, norm: float) -> None:
        super().__init__(encoded.size, norm)
        self._encoded = encoded

    def _add(self, accumulator: Vector, weight: np.float32) -> None:
        kernels = fast.kernels_for(accumulator) if self._encoded.codec is CodecId.INT8 else None
        if kernels is not None:
            scales = _read_scales(self._encoded.sections[0], 0, -(-self.size // BLOCK))
            numbers = np.frombuffer(self._encoded.sections[1], dtype=np.int8)
            kernels.add_int8(accumulator, numbers, scales, weight)
            return
        for start in range(0, self.size, CHUNK):
            part = read_part(self._encoded, start, min(start + CHUNK, self.size))
            accumulator[start : start + CHUNK] += part if weight == 1 else part * weight


def encode(vector: Vector, codec: CodecId) -> Encoded:
    """Write every coordinate of a float32[n]; raises WireError (non_finite)."""
    for start in range(0, len(vector), CHUNK):
        if not np.isfinite(vector[start : start + CHUNK]).all():
            raise non_finite("the vector holds an infinity or NaN: lower the learning rate or clip the gradients")
    sections: tuple[bytes, ...]
    if codec is CodecId.FLOAT32:
        sections = (vector.astype("<f4", copy=False).tobytes(),)
    elif codec is CodecId.BFLOAT16:
        sections = (to_bfloat16(vector).tobytes(),)
    else:
        sections = _to_int8(vector)
    lengths = tuple(map(len, sections))
    return Encoded(codec=codec, flags=0, size=len(vector), k=len(vector), sections=sections, raw_lengths=lengths)


def payload_bytes(codec: CodecId, size: int) -> int:
    """Bytes of the sections of `size` numbers."""
    if codec is CodecId.INT8:
        return 4 + 2 * -(-size // BLOCK) + size
    return (4 if codec is CodecId.FLOAT32 else 2) * size


def decode(encoded: Encoded) -> DenseDecoded:
    """Check lengths and that every number is finite.

    Raises:  WireError: malformed for flags or a wrong count of sections; bad_payload; non_finite.
    """
    codec, size = encoded.codec, encoded.size
    count = _SECTIONS[codec]
    if encoded.flags or len(encoded.sections) != count or len(encoded.raw_lengths) != count:
        raise WireError(RejectCode.MALFORMED, "unknown flags or a wrong count of sections")
    if size < 1 or encoded.k != size:
        raise bad_payload("a dense vector carries every coordinate")
    expected = (payload_bytes(codec, size),) if count == 1 else (4 + 2 * -(-size // BLOCK), size)
    for section, raw_length, length in zip(encoded.sections, encoded.raw_lengths, expected, strict=True):
        if not len(section) == raw_length == length:
            raise bad_payload("a section has another length than its codec gives it")
    if codec is CodecId.INT8:
        return DenseDecoded(encoded, _checked_int8_norm(encoded))
    total = 0.0
    for start in range(0, size, CHUNK):
        part = read_part(encoded, start, min(start + CHUNK, size))
        if not np.isfinite(part).all():
            raise non_finite("a value is not finite")
        total += square_sum(part)
    return DenseDecoded(encoded, math.sqrt(total))


def read_part(encoded: Encoded, start: int, stop: int) -> Vector:
    """Values `start` to `stop` of a checked dense vector; `start` is a multiple of CHUNK."""
    section = memoryview(encoded.sections[-1])
    if encoded.codec is CodecId.FLOAT32:
        return np.frombuffer(section[4 * start : 4 * stop], dtype="<f4").astype(np.float32, copy=False)
    if encoded.codec is CodecId.BFLOAT16:
        return from_bfloat16(section[2 * start : 2 * stop])
    numbers = np.frombuffer(section[start:stop], dtype=np.int8).astype(np.float32)
    scales = _read_scales(encoded.sections[0], start // BLOCK, -(-stop // BLOCK))
    whole = len(numbers) // BLOCK * BLOCK
    numbers[:whole].reshape(-1, BLOCK)[...] *= scales[: whole // BLOCK, None]
    numbers[whole:] *= scales[-1]
    return numbers


def square_sum(part: Vector) -> float:
    """Σ x² in float64, added pairwise in a fixed order: the same bits on every CPU."""
    return _ordered_sum(np.square(part, dtype=np.float64))


def _ordered_sum(terms: npt.NDArray[np.float64]) -> float:
    while len(terms) > 1:
        half = len(terms) // 2
        folded = terms[:half] + terms[half : 2 * half]
        if len(terms) % 2:
            folded[0] += terms[-1]
        terms = folded
    return float(terms[0]) if len(terms) else 0.0


def to_bfloat16(vector: Vector) -> Bits16:
    """The upper 16 bits of each float32, rounded to nearest even, never to infinity."""
    out = np.empty(len(vector), dtype="<u2")
    for start in range(0, len(vector), CHUNK):
        bits = vector[start : start + CHUNK].view(np.uint32)
        rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
        rounded -= (rounded & np.uint32(0x7FFF)) == np.uint32(0x7F80)
        out[start : start + CHUNK] = rounded
    return out


def from_bfloat16(section: Buffer) -> Vector:
    """float32 values from bfloat16 bytes; raises WireError (non_finite)."""
    bits = np.frombuffer(section, dtype="<u2")
    if np.any(bits & np.uint16(0x7F80) == np.uint16(0x7F80)):
        raise non_finite("a value is not finite")
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _to_int8(vector: Vector) -> tuple[bytes, bytes]:
    size = len(vector)
    blocks = -(-size // BLOCK)
    peaks = np.maximum.reduceat(np.abs(vector), np.arange(0, size, BLOCK))
    base = max(peaks.max() / np.float32(127), np.float32(np.finfo(np.float32).tiny))
    if float(base) * 127 > _LARGEST:
        base = np.nextafter(base, np.float32(0))
    relative = (peaks.astype(np.float64) / 127 / float(base)).astype("<f2")
    scales = base.astype("<f4").tobytes() + relative.tobytes()
    numbers = np.empty(size, dtype=np.int8)
    for row in range(0, blocks, _ROWS):
        where = slice(row * BLOCK, min((row + _ROWS) * BLOCK, size))
        scale = np.repeat(_read_scales(scales, row, min(row + _ROWS, blocks)), BLOCK)[: where.stop - where.start]
        numbers[where] = _quantise(vector[where], scale)
    return scales, numbers.tobytes()


def _quantise(part: Vector, scale: Vector) -> npt.NDArray[np.float32]:
    """Multiples of `scale`, 0 wherever the remainder would not be exact."""
    steps = np.zeros_like(part)
    np.divide(part, scale, out=steps, where=scale > 0)
    np.clip(np.rint(steps, out=steps), -127, 127, out=steps)
    sent = steps * scale
    steps[(part - sent) + sent != part] = 0
    return steps


def _read_scales(section: Buffer, first: int, last: int) -> Vector:
    """The scales of blocks `first` to `last`."""
    base = float(np.frombuffer(section[:4], dtype="<f4")[0])
    relative = np.frombuffer(section[4 + 2 * first : 4 + 2 * last], dtype="<f2").astype(np.float64)
    return (relative * base).astype(np.float32)


def _checked_int8_norm(encoded: Encoded) -> float:
    """The L2 norm from exact sums of squared integers, once every scale and number has been checked."""
    total = 0.0
    blocks = -(-encoded.size // BLOCK)
    for row in range(0, blocks, _ROWS):
        last = min(row + _ROWS, blocks)
        with np.errstate(over="ignore", invalid="ignore"):
            scales = _read_scales(encoded.sections[0], row, last).astype(np.float64)
        if not scales.max() * 127 <= _LARGEST:
            raise non_finite("a scale is not finite")
        if np.signbit(scales).any():
            raise bad_payload("a scale is negative")
        numbers = np.frombuffer(encoded.sections[1][row * BLOCK : last * BLOCK], dtype=np.int8)
        if numbers.min() < -127:
            raise bad_payload("a number is below -127")
        sums = np.add.reduceat(np.square(numbers, dtype=np.int32), np.arange(0, len(numbers), BLOCK))
        total += _ordered_sum(sums.astype(np.float64) * scales * scales)
    return math.sqrt(total)
