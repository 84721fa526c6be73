"""What no encoder writes is refused with its code, in bounded memory, before anything is handed out."""

import struct
import tracemalloc

import numpy as np
import pytest
import zstandard

from broker_topics.codecs import CodecId, Encoded, decode, encode
from broker_topics.errors import RejectCode, WireError
from tests.unit.codec_vectors import code_of, heavy_tailed, scrambled, with_section

SIZE = 100_000
SPARSE = encode(heavy_tailed(SIZE), CodecId.SPARSE)
SEGMENTED = encode(heavy_tailed(SIZE), CodecId.SPARSE, dense=(slice(100, 200), slice(300, 400)))
BAD, MALFORMED, NON_FINITE = RejectCode.BAD_PAYLOAD, RejectCode.MALFORMED, RejectCode.NON_FINITE
ZSTD_POSITIONS, ZSTD_SYMBOLS, PACKED = 2, 4, 8


def plain(
    gaps: bytes, symbols: bytes, *means: float, size: int = 2000, k: int | None = None, threshold: float = 1.0
) -> Encoded:
    """A sparse vector stored without any compression."""
    scale = struct.pack(f"<f{len(means)}e", threshold, *means)
    sections = (gaps, symbols, scale)
    count = len(symbols) if k is None else k
    lengths = tuple(map(len, sections))
    return Encoded(codec=CodecId.SPARSE, flags=0, size=size, k=count, sections=sections, raw_lengths=lengths)


def test_a_plain_sparse_vector_is_decoded() -> None:
    decoded = decode(plain(bytes([0, 0, 255, 3]), bytes([0, 1, 2]), 1.0, 1.5))
    vector = decoded.to_vector()
    assert {int(i): float(vector[i]) for i in np.flatnonzero(vector)} == {0: 1.0, 1: -1.0, 260: 3.0}
    assert decoded.norm == pytest.approx(11**0.5)


@pytest.mark.parametrize(
    ("encoded", "code"),
    [
        (plain(bytes([0, 0, 0]), bytes([0, 1]), 1.0), BAD),
        (plain(bytes([0, 255]), bytes([0, 1]), 1.0), BAD),
        (plain(bytes([0, 0, 255]), bytes([0, 1]), 1.0), BAD),
        (plain(bytes([255, 255, 255]), bytes([0]), 1.0), BAD),
        (plain(bytes([0] + [255] * 7 + [250]), bytes([0, 0]), 1.0, size=2000), BAD),
        (plain(bytes([255] * 9), bytes([0, 0]), 1.0), BAD),
        (plain(b"", b"", 1.0), BAD),
        (plain(bytes(401), bytes(401), 1.0), BAD),
        (plain(bytes(2), bytes(2), 1.0, k=3), BAD),
        (plain(bytes(2), bytes(2), 1.0, k=-1), BAD),
        (plain(bytes(2), bytes([0, 2]), 1.0), BAD),
        (plain(bytes(2), bytes([0, 255]), 1.0), BAD),
        (plain(bytes(2), bytes(2)), BAD),
        (plain(bytes(2), bytes(2), *[1.0] * 33), BAD),
        (plain(bytes(2), bytes(2), -1.0), BAD),
        (plain(bytes(2), bytes(2), 1.0, threshold=0.0), BAD),
        (plain(bytes(2), bytes(2), 1.0, threshold=-1.0), BAD),
        (plain(bytes(2), bytes(2), 1.0, threshold=float("nan")), NON_FINITE),
        (plain(bytes(2), bytes(2), 1.0, threshold=float("inf")), NON_FINITE),
        (plain(bytes(2), bytes(2), 1.0, float("nan")), NON_FINITE),
        (plain(bytes(2), bytes(2), float("inf")), NON_FINITE),
        (plain(bytes(2), bytes(2), *[1.0] * 32, threshold=1e30), NON_FINITE),
        (plain(bytes(2), bytes(2), 1.0, size=0), BAD),
    ],
    ids=str,
)
def test_a_sparse_vector_that_cannot_be_is_refused(encoded: Encoded, code: RejectCode) -> None:
    assert code_of(encoded) is code


@pytest.mark.parametrize("flags", [32, 64, 128, 2**31, -1, ZSTD_SYMBOLS | PACKED])
def test_unknown_or_contradicting_flags_are_malformed(flags: int) -> None:
    assert code_of(SPARSE._replace(flags=flags)) is MALFORMED


@pytest.mark.parametrize("codec", [CodecId.FLOAT32, CodecId.BFLOAT16, CodecId.INT8])
def test_a_dense_vector_with_flags_sections_or_lengths_of_its_own_is_refused(codec: CodecId) -> None:
    dense = encode(heavy_tailed(2000), codec)
    assert code_of(dense._replace(flags=1)) is MALFORMED
    assert code_of(dense._replace(sections=(*dense.sections, b""), raw_lengths=(*dense.raw_lengths, 0))) is MALFORMED
    assert code_of(dense._replace(raw_lengths=())) is MALFORMED
    assert code_of(dense._replace(size=1999)) is BAD
    assert code_of(dense._replace(k=1999)) is BAD
    assert code_of(dense._replace(k=1999, size=1999)) is BAD
    assert code_of(with_section(dense, -1, bytes(dense.sections[-1])[:-1])) is BAD
    assert code_of(dense._replace(raw_lengths=tuple(length + 1 for length in dense.raw_lengths))) is BAD


@pytest.mark.parametrize(
    ("codec", "section"),
    [
        (CodecId.FLOAT32, np.array([1, np.nan], "<f4").tobytes()),
        (CodecId.FLOAT32, np.array([np.inf, 1], "<f4").tobytes()),
        (CodecId.BFLOAT16, b"\x80\x7f\x00\x00"),
        (CodecId.BFLOAT16, b"\x00\x00\xc1\xff"),
    ],
)
def test_a_dense_value_that_is_not_finite_is_refused(codec: CodecId, section: bytes) -> None:
    dense = encode(np.ones(2, np.float32), codec)
    assert code_of(with_section(dense, 0, section)) is NON_FINITE


@pytest.mark.parametrize(
    ("base", "relative", "numbers", "code"),
    [
        (1.0, 1.0, b"\x80\x00", BAD),
        (float("nan"), 1.0, b"\x01\x00", NON_FINITE),
        (float("inf"), 1.0, b"\x01\x00", NON_FINITE),
        (1.0, float("nan"), b"\x01\x00", NON_FINITE),
        (1.0, float("inf"), b"\x01\x00", NON_FINITE),
        (float("inf"), 0.0, b"\x01\x00", NON_FINITE),
        (3e38, 1.0, b"\x01\x00", NON_FINITE),
        (-1.0, 1.0, b"\x01\x00", BAD),
        (1.0, -1.0, b"\x01\x00", BAD),
        (1.0, 1.0, b"\x01\x00", None),
    ],
)
def test_an_int8_scale_or_number_out_of_range_is_refused(
    base: float, relative: float, numbers: bytes, code: RejectCode | None
) -> None:
    dense = encode(np.ones(2, np.float32), CodecId.INT8)
    scales = struct.pack("<fe", base, relative)
    assert code_of(with_section(with_section(dense, 0, scales), 1, numbers)) is code


def test_a_wrong_count_of_sections_is_malformed() -> None:
    assert code_of(SPARSE._replace(sections=SPARSE.sections[:2])) is MALFORMED
    assert code_of(SPARSE._replace(raw_lengths=SPARSE.raw_lengths[:2])) is MALFORMED
    assert code_of(SEGMENTED._replace(flags=SEGMENTED.flags & ~16)) is MALFORMED


@pytest.mark.parametrize(
    ("edges", "values"),
    [
        ([], 0),
        ([0], 0),
        ([5, 5], 0),
        ([7, 5], 0),
        ([100, 200, 199, 210], 111),
        ([300, 400, 100, 200], 200),
        ([SIZE - 5, SIZE + 1], 6),
        ([100, 200], 99),
        ([100, 200], 101),
        ([0, SIZE], SIZE),
    ],
    ids=str,
)
def test_a_segment_table_that_does_not_fit_is_refused(edges: list[int], values: int) -> None:
    table = np.array(edges, "<u4").tobytes()
    assert code_of(with_section(with_section(SEGMENTED, 3, table), 4, bytes(2 * values))) is BAD


def test_a_segment_value_that_is_not_finite_is_refused() -> None:
    assert code_of(SEGMENTED) is None
    assert code_of(with_section(SEGMENTED, 4, b"\xff" * 400)) is NON_FINITE


RAW = (scrambled(1000) % np.uint64(2)).astype(np.uint8).tobytes()
"""Good as gaps and as symbols."""


def lying_frames(raw: bytes) -> dict[str, bytes]:
    """zstd frames that lie about `raw` or carry more than it."""
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    whole = zstandard.ZstdCompressor(level=1).compress(raw)
    return {
        "does not say its size": silent,
        "is cut short": whole[:-3],
        "has a byte behind it": whole + b"x",
        "has a frame behind it": whole + whole,
        "is damaged": whole[:9] + bytes([whole[9] ^ 0xFF]) + whole[10:],
        "is empty": b"",
        "is skippable": b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd",
        "is a bomb": zstandard.ZstdCompressor().compress(bytes(200_000_000)),
    }


LIES = lying_frames(RAW)


@pytest.mark.parametrize("lie", list(LIES))
@pytest.mark.parametrize(("index", "flag"), [(0, ZSTD_POSITIONS), (1, ZSTD_SYMBOLS)])
def test_a_compressed_section_that_lies_is_refused_in_bounded_memory(lie: str, index: int, flag: int) -> None:
    honest = plain(RAW, RAW, 1.0, size=SIZE)._replace(flags=flag)
    packed = zstandard.ZstdCompressor(level=1).compress(RAW)
    assert code_of(with_section(honest, index, packed, 1000)) is None
    hostile = with_section(honest, index, LIES[lie], 1000)
    tracemalloc.start()
    code = code_of(hostile)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code is BAD
    assert peak < 100_000


def test_a_frame_that_declares_less_than_it_holds_is_refused() -> None:
    whole = zstandard.ZstdCompressor(level=1).compress(b"0123456789" * 30)
    assert whole[5:7] == (300 - 256).to_bytes(2, "little")
    lying = whole[:5] + (299 - 256).to_bytes(2, "little") + whole[7:]
    assert zstandard.frame_content_size(lying) == 299
    hostile = with_section(plain(bytes(299), bytes(299), 1.0, size=SIZE)._replace(flags=ZSTD_POSITIONS), 0, lying, 299)
    assert code_of(hostile) is BAD


def test_declared_sizes_beyond_any_memory_are_refused_without_taking_it() -> None:
    tracemalloc.start()
    for change in (
        {"size": 2**53, "k": 2**50},
        {"size": 2**53, "raw_lengths": (2**45, *SPARSE.raw_lengths[1:])},
        {"size": 2**53, "k": 2**50, "raw_lengths": (2**50, 2**50, 6)},
    ):
        assert code_of(SPARSE._replace(**change)) in {BAD}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(("levels", "padded"), [(1, b"\x08"), (2, b"\x40"), (8, b"\x00\x10"), (8, b"\x00\x80")])
def test_padding_behind_the_last_symbol_must_be_zero(levels: int, padded: bytes) -> None:
    honest = plain(bytes(3), bytes(3), *[1.0] * levels)._replace(flags=PACKED)
    assert code_of(with_section(honest, 1, bytes(len(padded)))) is None
    assert code_of(with_section(honest, 1, padded)) is BAD
    assert code_of(with_section(honest, 1, bytes(len(padded) + 1))) is BAD


def test_a_packed_symbol_beyond_the_codebook_is_refused() -> None:
    honest = plain(bytes(2), bytes(2), 1.0, 1.0, 1.0)._replace(flags=PACKED)
    assert code_of(with_section(honest, 1, b"\x50")) is None
    assert code_of(with_section(honest, 1, b"\x60")) is BAD


def test_a_refused_vector_leaves_the_accumulator_alone() -> None:
    accumulator = np.zeros(SIZE, np.float32)
    with pytest.raises(WireError):
        decode(with_section(SPARSE, 2, struct.pack("<fe", 1.0, float("nan")))).add_to(accumulator)
    assert not accumulator.any()
