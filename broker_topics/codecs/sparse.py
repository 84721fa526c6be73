"""Codec 4: the largest coordinates only, as gap positions and log-scale values; what is left out stays with the sender.

Sections: positions, symbols, scale; with the segment table also the table and its values. A vector may carry small
tensors dense in bfloat16 beside the sparse rest; the table of them is part of the frame.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from broker_topics.codecs import dense, fast, positions, selection, values
from broker_topics.codecs.base import CodecId, Decoded, Encoded, bad_payload, expand, non_finite, shrink
from broker_topics.codecs.positions import Gaps, Positions
from broker_topics.errors import ConfigError, RejectCode, WireError
from broker_topics.frames import Buffer
from broker_topics.layout import Vector

MAX_DENSITY: Final = 0.2
_WIDE_BELOW: Final = 0.003
_ATTEMPTS: Final = 40


WIDE_GAPS: Final = 1
ZSTD_POSITIONS: Final = 2
ZSTD_SYMBOLS: Final = 4
PACKED_SYMBOLS: Final = 8
SEGMENTS: Final = 16
_SYMBOL_FLAGS: Final = ZSTD_SYMBOLS | PACKED_SYMBOLS
_ALL_FLAGS: Final = WIDE_GAPS | ZSTD_POSITIONS | _SYMBOL_FLAGS | SEGMENTS


class SparseDecoded(Decoded):
    """Values at k positions, which are still gaps, and perhaps a few dense segments.

    The value of each symbol stands in `table`, float32[2 L]; nothing of it may be changed.
    """

    __slots__ = ("gaps", "segments", "symbols", "table")

    def __init__(
        self,
        *,
        size: int,
        norm: float,
        gaps: Gaps,
        symbols: values.Symbols,
        table: Vector,
        segments: Sequence[tuple[slice, Vector]],
    ) -> None:
        super().__init__(size, norm)
        self.gaps, self.symbols, self.table, self.segments = gaps, symbols, table, segments

    def _add(self, accumulator: Vector, weight: np.float32) -> None:
        table, kernels = self.table * weight, fast.kernels_for(accumulator)
        if kernels is not None:
            kernels.add_gaps(
                accumulator, self.gaps, np.array([[len(self.gaps), len(self.symbols)]]), table[None, :], self.symbols
            )
        else:
            places = positions.positions_of(self.gaps, len(self.symbols))
            np.add.at(accumulator, places, table.take(self.symbols))
        for where, part in self.segments:
            accumulator[where] += part * weight


def encode(vector: Vector, density: float, segments: Sequence[slice], max_bytes: int | None) -> Encoded:
    """Write the `density` · n largest coordinates, or fewer where that takes more than `max_bytes`.

    Raises:  WireError: non_finite; ConfigError: if not even one value fits.
    """
    sparse = vector
    extra: tuple[bytes, ...] = ()
    if segments:
        sparse = vector.copy()
        for where in segments:
            sparse[where] = 0
        extra = _write_segments(vector, segments)
    k = max(1, min(int(density * len(vector) + 0.5), len(vector) // 5))
    for _ in range(_ATTEMPTS):
        encoded = _encode_largest(sparse, k, segments, extra)
        if max_bytes is None or encoded.payload_bytes <= max_bytes:
            return encoded
        if k == 1:
            break
        k = max(1, min(k - 1, int(min(encoded.k, k) * max_bytes / encoded.payload_bytes * 0.98)))
    raise ConfigError(f"not even one value fits into {max_bytes} bytes: raise the limit of an update")


def _encode_largest(vector: Vector, k: int, segments: Sequence[slice], extra: tuple[bytes, ...]) -> Encoded:
    places = selection.largest(vector, k)
    chosen = vector[places]
    magnitudes = np.abs(chosen)
    if len(places) == 0:
        return _nothing(len(vector), segments, extra)
    threshold = max(magnitudes.min(), np.ldexp(magnitudes.max(), 1 - values.MAX_LEVELS))
    if threshold > magnitudes.min():
        within = magnitudes >= threshold
        places, chosen, magnitudes = places[within], chosen[within], magnitudes[within]
    levels = values.levels_of(magnitudes, threshold)
    symbols = (levels << 1).astype(np.uint8) | np.signbit(chosen)
    scale = values.write_scale(magnitudes, levels, threshold)
    return _assemble(len(vector), places, symbols, scale, extra)


def _nothing(size: int, segments: Sequence[slice], extra: tuple[bytes, ...]) -> Encoded:
    """A vector without a value: one zero, where no segment lies."""
    place = 0
    for where in sorted(segments, key=lambda segment: segment.start):
        if where.start <= place < where.stop:
            place = where.stop
    scale = np.float32(1).tobytes() + np.float16(0).tobytes()
    return _assemble(size, np.array([place]), np.zeros(1, dtype=np.uint8), scale, extra)


def _assemble(size: int, places: Positions, symbols: values.Symbols, scale: bytes, extra: tuple[bytes, ...]) -> Encoded:
    k = len(places)
    gaps, gaps_raw, flags = _store_positions(places, size)
    stored, stored_raw, symbol_flag = _store_symbols(symbols)
    flags |= symbol_flag | (SEGMENTS if extra else 0)
    return Encoded(
        codec=CodecId.SPARSE,
        flags=flags,
        size=size,
        k=k,
        sections=(gaps, stored, scale, *extra),
        raw_lengths=(gaps_raw, stored_raw, len(scale), *map(len, extra)),
    )


def _store_positions(places: Positions, size: int) -> tuple[bytes, int, int]:
    """The smallest of the narrow and the wide form, with and without zstd."""
    forms = []
    for wide in (False, True) if len(places) < _WIDE_BELOW * size else (False,):
        planes = positions.write_gaps(places, wide=wide)
        raw, flag = b"".join(planes), WIDE_GAPS if wide else 0
        packed = shrink(*planes)
        forms.append((raw, len(raw), flag) if packed is None else (packed, len(raw), flag | ZSTD_POSITIONS))
    return min(forms, key=lambda form: len(form[0]))


def _store_symbols(symbols: values.Symbols) -> tuple[bytes, int, int]:
    """The smallest of zstd, as few bits as will do, and plain bytes."""
    raw = symbols.tobytes()
    forms = [(raw, len(raw), 0)]
    packed = shrink(raw)
    if packed is not None:
        forms.append((packed, len(raw), ZSTD_SYMBOLS))
    width = values.packed_width(int(symbols.max()) // 2 + 1)
    if width < 8:
        bits = values.write_packed(symbols, width)
        forms.append((bits, len(bits), PACKED_SYMBOLS))
    return min(forms, key=lambda form: len(form[0]))


def decode(encoded: Encoded) -> SparseDecoded:
    """Check everything, then hand out the values; nothing is allocated beyond the declared, bounded lengths.

    Raises:  WireError: malformed for unknown flags or a wrong count of sections; bad_payload; non_finite.
    """
    flags, size, k = encoded.flags, encoded.size, encoded.k
    _check_declared(encoded)
    gap_section, symbol_section, scale_section, *extra = encoded.sections
    raw: Buffer = gap_section
    if flags & ZSTD_POSITIONS:
        raw = expand(gap_section, encoded.raw_lengths[0])
    kernels = fast.kernels_of_size(size)
    gaps = positions.read_gaps(raw, k, size, kernels, wide=bool(flags & WIDE_GAPS))
    table = values.read_table(scale_section)
    symbols = _load_symbols(symbol_section, flags, k, len(table) // 2, kernels)
    norm = values.norm_of(symbols, table, kernels)
    segments: list[tuple[slice, Vector]] = []
    if extra:
        segments = _read_segments(extra, size, positions.positions_of(gaps, k))
        norm = math.sqrt(norm * norm + sum(dense.square_sum(part) for _, part in segments))
    return SparseDecoded(size=size, norm=norm, gaps=gaps, symbols=symbols, table=table, segments=segments)


def _check_declared(encoded: Encoded) -> None:
    flags, size, k, lengths = encoded.flags, encoded.size, encoded.k, encoded.raw_lengths
    if flags & ~_ALL_FLAGS or flags & _SYMBOL_FLAGS == _SYMBOL_FLAGS:
        raise WireError(RejectCode.MALFORMED, "unknown flags")
    if not len(encoded.sections) == len(lengths) == (5 if flags & SEGMENTS else 3):
        raise WireError(RejectCode.MALFORMED, "a wrong count of sections")
    if not 0 < k <= max(1, size // 5):
        raise bad_payload("the count of values is out of range")
    least, most = positions.raw_bounds(k, size, wide=bool(flags & WIDE_GAPS))
    if not least <= lengths[0] <= most or (flags & WIDE_GAPS and lengths[0] % 2):
        raise bad_payload("the positions have an impossible length")
    width = values.packed_width(values.levels_in(lengths[2])) if flags & PACKED_SYMBOLS else 8
    if lengths[1] != (k * width + 7) // 8:
        raise bad_payload("the symbols have an impossible length")
    if not (flags & ZSTD_POSITIONS or len(encoded.sections[0]) == lengths[0]):
        raise bad_payload("the positions have another length than declared")
    if not (flags & ZSTD_SYMBOLS or len(encoded.sections[1]) == lengths[1]):
        raise bad_payload("the symbols have another length than declared")
    if [*map(len, encoded.sections[2:])] != [*lengths[2:]]:
        raise bad_payload("a section has another length than declared")


def _load_symbols(section: Buffer, flags: int, k: int, levels: int, kernels: fast.Kernels | None) -> values.Symbols:
    if flags & ZSTD_SYMBOLS:
        return np.frombuffer(expand(section, k), dtype=np.uint8)
    if flags & PACKED_SYMBOLS:
        return values.read_packed(section, k, values.packed_width(levels), kernels)
    return np.frombuffer(section, dtype=np.uint8)


def _write_segments(vector: Vector, segments: Sequence[slice]) -> tuple[bytes, bytes]:
    if len(vector) > np.iinfo(np.uint32).max:
        raise ConfigError("the segment table ends at 4,294,967,295 numbers: switch it off for this model")
    ordered = sorted(segments, key=lambda segment: segment.start)
    table = np.array([(where.start, where.stop) for where in ordered], dtype="<u4")
    if not all(np.isfinite(vector[where]).all() for where in ordered):
        raise non_finite("the vector holds an infinity or NaN: lower the learning rate or clip the gradients")
    parts = [dense.to_bfloat16(np.ascontiguousarray(vector[where])) for where in ordered]
    return table.tobytes(), np.concatenate(parts).tobytes()


def _read_segments(extra: Sequence[Buffer], size: int, places: Positions) -> list[tuple[slice, Vector]]:
    table_section, value_section = extra
    if len(table_section) == 0 or len(table_section) % 8:
        raise bad_payload("the segment table has an impossible length")
    edges = np.frombuffer(table_section, dtype="<u4").astype(np.int64)
    starts, stops = edges[0::2], edges[1::2]
    if np.any(stops <= starts) or np.any(starts[1:] < stops[:-1]) or stops[-1] > size:
        raise bad_payload("the segments overlap or lie outside the vector")
    if int((stops - starts).sum()) * 2 != len(value_section):
        raise bad_payload("the segments' values have an impossible length")
    if np.any(np.searchsorted(edges, places, side="right") % 2):
        raise bad_payload("a position lies within a dense segment")
    numbers = dense.from_bfloat16(value_section)
    cuts: npt.NDArray[np.int64] = np.cumsum(stops - starts)[:-1]
    bounds = zip(starts.tolist(), stops.tolist(), strict=True)
    return [(slice(start, stop), part) for (start, stop), part in zip(bounds, np.split(numbers, cuts), strict=True)]
