"""Vectors and damaged encodings that the codec tests share; made of integers, so the same on every machine."""

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from broker_topics.codecs import Encoded, decode
from broker_topics.errors import RejectCode, WireError
from broker_topics.frames import Buffer
from broker_topics.layout import Vector

LARGEST = float(np.finfo(np.float32).max)
SUBNORMAL = 1e-45


def scrambled(size: int, seed: int = 0) -> npt.NDArray[np.uint64]:
    """uint64[size] without a pattern (splitmix64)."""
    with np.errstate(over="ignore"):
        state = np.arange(1 + seed * size, 1 + (seed + 1) * size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return state ^ state >> np.uint64(31)


def heavy_tailed(size: int, seed: int = 0, scale: float = 1e-3) -> Vector:
    """float32[size] with tails like a model's delta: a product of four uniform numbers in (-1, 1)."""
    bits = scrambled(size, seed)
    product = np.full(size, scale, dtype=np.float64)
    for shift in (0, 16, 32, 48):
        product *= (((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64) - 32767.5) / 32768
    return product.astype(np.float32)


@st.composite
def vectors(draw: st.DrawFn, least: int = 1, most: int = 3000) -> Vector:
    """Vectors of any size, scale and spread: zeros, ties, subnormal and enormous numbers among them."""
    size = draw(st.integers(least, most))
    vector = heavy_tailed(size, draw(st.integers(0, 999)), draw(st.sampled_from([1e-42, 1e-12, 1e-3, 1.0, 1e37])))
    if draw(st.booleans()):
        levels = draw(st.sampled_from([0.5, 0.01, 1e-9]))
        with np.errstate(all="ignore"):
            vector = (np.round(vector / vector.max() / levels) * levels).astype(np.float32) if vector.any() else vector
        vector[~np.isfinite(vector)] = 0
    special = st.sampled_from([0.0, -0.0, 1.0, -1.0, SUBNORMAL, -1e-38, LARGEST, -LARGEST, 65504.0, 2.0**-24])
    for _ in range(draw(st.integers(0, 6))):
        vector[draw(st.integers(0, size - 1))] = draw(special)
    return vector


def code_of(encoded: Encoded) -> RejectCode | None:
    """Why a decoder refuses this, or None if it does not."""
    try:
        decode(encoded)
    except WireError as error:
        return error.code
    return None


def with_section(encoded: Encoded, index: int, section: Buffer, raw_length: int | None = None) -> Encoded:
    """The same with another section, declared as long as it is unless told otherwise."""
    sections, lengths = list(encoded.sections), list(encoded.raw_lengths)
    sections[index] = section
    lengths[index] = len(section) if raw_length is None else raw_length
    return encoded._replace(sections=tuple(sections), raw_lengths=tuple(lengths))
