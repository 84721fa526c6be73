"""Vectors to bytes and back; every decoder checks all there is to check before it hands anything out.

>>> import numpy as np
>>> update = np.zeros(100_000, np.float32)
>>> update[70_000:71_000] = 0.5
>>> encoded = encode(update, CodecId.SPARSE, density=0.01)
>>> encoded.payload_bytes < 200, bool(np.array_equal(decode(encoded).to_vector(), update))
(True, True)
"""

from collections.abc import Sequence

import numpy as np

from broker_topics.codecs import dense as _dense
from broker_topics.codecs import sparse as _sparse
from broker_topics.codecs.base import CodecId, Decoded, Encoded
from broker_topics.codecs.fast import defer_kernels, kernels_for, load_deferred, load_kernels
from broker_topics.codecs.gathered import Gathered
from broker_topics.errors import ConfigError, RejectCode, WireError
from broker_topics.layout import Layout, Vector

__all__ = [
    "SMALLEST_SPARSE",
    "CodecId",
    "Decoded",
    "Encoded",
    "Gathered",
    "check_fits",
    "codec_of",
    "decode",
    "defer_kernels",
    "dense_segments",
    "encode",
    "encode_with_residual",
    "load_deferred",
    "load_kernels",
    "prepare",
]

SMALLEST_SPARSE = 1024
"""Vectors below this size are sent dense: leaving values out gains nothing there."""

_CODECS = {codec.value: codec for codec in CodecId}


def prepare(accumulator: Vector) -> None:
    """Load the compiled loops for this vector, if there are any, before the first update waits for them."""
    kernels_for(accumulator)


def encode(
    vector: Vector,
    codec: CodecId,
    *,
    density: float = 0.01,
    dense: Sequence[slice] = (),
    max_bytes: int | None = None,
) -> Encoded:
    """Write a vector; the same vector and settings give the same bytes.

    Args:    vector: float32[n], n ≥ 1, not modified. density: share of coordinates that the sparse codec sends,
             0 < density ≤ 0.2. dense: disjoint segments (of `dense_segments`) that the sparse codec sends whole.
             max_bytes: the most that all sections may take; the sparse codec lowers its density to fit.
    Returns: sparse vectors below 1,024 numbers come as float32, or bfloat16 where float32 does not fit.
    Raises:  ConfigError: where the codec cannot fit, or density is out of range; WireError: non_finite.
    """
    if vector.dtype != np.float32 or vector.ndim != 1 or len(vector) == 0:
        raise ConfigError(f"a flat float32 vector is needed, not {vector.dtype}{list(vector.shape)}")
    vector = np.ascontiguousarray(vector)
    if codec is CodecId.SPARSE:
        if not 0 < density <= _sparse.MAX_DENSITY:
            raise ConfigError(f"density is {density}; give more than 0 and at most {_sparse.MAX_DENSITY}")
        if len(vector) >= SMALLEST_SPARSE and sum(part.stop - part.start for part in dense) < len(vector):
            return _sparse.encode(vector, density, dense, max_bytes)
        fits = max_bytes is None or _dense.payload_bytes(CodecId.FLOAT32, len(vector)) <= max_bytes
        codec = CodecId.FLOAT32 if fits and len(vector) < SMALLEST_SPARSE else CodecId.BFLOAT16
    check_fits(codec, len(vector), max_bytes)
    return _dense.encode(vector, codec)


def encode_with_residual(
    vector: Vector,
    codec: CodecId,
    *,
    density: float = 0.01,
    dense: Sequence[slice] = (),
    max_bytes: int | None = None,
) -> tuple[Encoded, Vector]:
    """As `encode`, and what it left out: decoded + residual == vector, exactly, in float32.

    Returns: the encoded vector and a new float32[n] (the error-feedback memory e of EF14).
    Source:  Stich et al. 2018, arXiv:1809.07599.
    """
    encoded = encode(vector, codec, density=density, dense=dense, max_bytes=max_bytes)
    residual = vector.copy()
    decode(encoded).add_to(residual, -1.0)
    return encoded, residual


def decode(encoded: Encoded) -> Decoded:
    """Check a vector's bytes completely.

    Returns: values to be added; it keeps views into the sections, which must not change meanwhile.
    Raises:  WireError: malformed (flags, count of sections), bad_payload (anything no encoder writes), non_finite.
    """
    if encoded.codec is CodecId.SPARSE:
        return _sparse.decode(encoded)
    return _dense.decode(encoded)


def check_fits(codec: CodecId, size: int, max_bytes: int | None) -> None:
    """Refuse a dense codec whose vectors of `size` numbers never fit; the sparse one always adapts.

    Raises:  ConfigError: says what it takes and what is allowed.
    """
    if codec is CodecId.SPARSE or max_bytes is None:
        return
    needed = _dense.payload_bytes(codec, size)
    if needed > max_bytes:
        raise ConfigError(
            f"{codec.name.lower()} takes {needed} bytes for {size} numbers, at most {max_bytes} fit into an update: "
            "choose codec=sparse, or raise max_update_bytes"
        )


def dense_segments(layout: Layout, up_to: int) -> tuple[slice, ...]:
    """The segment table: tensors of at most `up_to` numbers, which travel dense beside the sparse rest.

    Neighbours are joined, as every segment costs eight bytes.
    """
    joined: list[slice] = []
    for tensor, where in layout.slices():
        if not 0 < tensor.size <= up_to:
            continue
        if joined and joined[-1].stop == where.start:
            joined[-1] = slice(joined[-1].start, where.stop)
        else:
            joined.append(where)
    return tuple(joined)


def codec_of(number: object) -> CodecId:
    """The codec with this number; raises WireError (malformed) if there is none."""
    codec = _CODECS.get(number) if type(number) is int else None
    if codec is None:
        raise WireError(RejectCode.MALFORMED, "the codec is unknown")
    return codec
