"""The sparse codec: which values it sends, how well, in how many bytes, and with how much memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_topics.codecs import CodecId, decode, encode, encode_with_residual
from broker_topics.codecs.fast import kernels_of_size
from broker_topics.codecs.positions import positions_of, raw_bounds, read_gaps, write_gaps
from broker_topics.codecs.selection import largest
from broker_topics.codecs.values import levels_of
from broker_topics.errors import ConfigError, WireError
from broker_topics.layout import Vector
from tests.unit.codec_vectors import heavy_tailed, scrambled, vectors


def brute_force(vector: Vector, k: int) -> list[int]:
    order = np.argsort(-np.abs(vector), kind="stable")[:k]
    return sorted(int(index) for index in order if vector[index] != 0)


@settings(deadline=None, max_examples=150)
@given(vector=vectors(), k=st.integers(1, 600))
def test_the_largest_magnitudes_are_chosen_and_ties_go_to_the_lowest_index(vector: Vector, k: int) -> None:
    assert largest(vector, k).tolist() == brute_force(vector, k)


@pytest.mark.parametrize("k", [1, 100, 3000, 40_000])
@pytest.mark.parametrize("kind", ["spread", "rising", "ties", "mostly zero", "clustered"])
def test_the_choice_is_exact_for_vectors_that_are_sampled(kind: str, k: int) -> None:
    vector = heavy_tailed(300_001)
    if kind == "rising":
        vector = np.sort(vector)
    elif kind == "ties":
        vector = np.sign(vector)
    elif kind == "mostly zero":
        vector[scrambled(300_001) % np.uint64(50) != 0] = 0
    elif kind == "clustered":
        vector[5_000:300_000] *= np.float32(1e-6)
    assert largest(vector, k).tolist() == brute_force(vector, k)


@settings(deadline=None, max_examples=150)
@given(gaps=st.lists(st.sampled_from([1, 2, 254, 255, 256, 257, 510, 511, 65535, 65536, 65537, 131072]), min_size=1))
def test_positions_come_back_from_either_form_of_gaps(gaps: list[int]) -> None:
    places = np.cumsum(np.array(gaps)) - 1
    size = int(places[-1]) + 1
    for wide in (False, True):
        raw = b"".join(write_gaps(places, wide=wide))
        least, most = raw_bounds(len(gaps), size, wide=wide)
        assert least <= len(raw) <= most
        assert (
            positions_of(read_gaps(raw, len(gaps), size, kernels_of_size(size), wide=wide), len(gaps)).tolist()
            == places.tolist()
        )


def test_a_gap_of_255_takes_a_skip_and_a_zero() -> None:
    assert write_gaps(np.array([254, 510]), wide=False) == [bytes([254, 255, 0])]


def test_levels_are_exact_where_a_logarithm_would_round() -> None:
    threshold = np.float32(3e-41)
    magnitudes = np.array([threshold * 2**level for level in range(32)], np.float32)
    below = np.nextafter(magnitudes[1:], np.float32(0))
    assert levels_of(magnitudes, threshold).tolist() == list(range(32))
    assert levels_of(below, threshold).tolist() == list(range(31))


def test_values_are_within_a_factor_of_two_and_right_on_average() -> None:
    vector = heavy_tailed(200_000)
    decoded = decode(encode(vector, CodecId.SPARSE)).to_vector()
    sent = decoded != 0
    ratio = decoded[sent] / vector[sent]
    assert 0.5 < ratio.min() <= ratio.max() < 2
    assert np.abs(decoded).sum(dtype=np.float64) == pytest.approx(np.abs(vector[sent]).sum(dtype=np.float64), rel=1e-3)


def test_values_more_than_32_powers_of_two_below_the_largest_wait() -> None:
    vector = np.full(2000, 1e-10, np.float32)
    vector[7] = 1e10
    encoded, residual = encode_with_residual(vector, CodecId.SPARSE)
    assert encoded.k == 1
    assert residual[8] == np.float32(1e-10)
    assert abs(residual[7]) < 1e10 * 2**-10


def test_error_feedback_sends_everything_in_the_end() -> None:
    total, residual = heavy_tailed(5000), np.zeros(5000, np.float32)
    received = np.zeros(5000, np.float64)
    for step in range(400):
        encoded, residual = encode_with_residual(residual + (total if step == 0 else 0), CodecId.SPARSE)
        received += decode(encoded).to_vector()
    assert np.linalg.norm(residual) < 1e-3 * np.linalg.norm(total)
    assert received == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("limit", [60_000, 5000, 1000, 100, 20])
def test_the_density_is_lowered_to_fit(limit: int) -> None:
    encoded = encode(heavy_tailed(500_000), CodecId.SPARSE, density=0.2, max_bytes=limit)
    assert 0.85 * limit - 12 <= encoded.payload_bytes <= limit


def test_a_limit_that_not_even_one_value_meets_is_refused() -> None:
    with pytest.raises(ConfigError, match="raise the limit"):
        encode(heavy_tailed(5000), CodecId.SPARSE, max_bytes=5)


def test_one_percent_of_a_million_numbers_is_290_times_smaller_than_float32() -> None:
    encoded = encode(heavy_tailed(10**6), CodecId.SPARSE)
    assert encoded.k == 10_000
    assert 4_000_000 / encoded.payload_bytes >= 290


def test_every_symbol_form_is_used_and_comes_back() -> None:
    spread = np.ones(4000, np.float32)
    spread[::7] = 3.0
    spread[::11] = np.float32(2.0) ** (np.arange(364) % 30).astype(np.float32)
    for vector, density in (
        (np.ones(4000, np.float32), 0.01),
        (spread, 0.01),
        (spread, 0.2),
        (heavy_tailed(4000), 0.01),
    ):
        encoded, residual = encode_with_residual(vector, CodecId.SPARSE, density=density)
        assert np.array_equal(decode(encoded).to_vector() + residual, vector)


@pytest.mark.parametrize(("density", "most"), [(0.1, 1.03), (0.01, 1.03), (0.003, 1.08), (0.002, 1.08), (0.001, 1.08)])
def test_random_positions_cost_little_more_than_their_entropy(density: float, most: float) -> None:
    size = 4_000_000 if density < 0.01 else 400_000
    encoded = encode(heavy_tailed(size), CodecId.SPARSE, density=density)
    entropy_bits = -size * (density * np.log2(density) + (1 - density) * np.log2(1 - density))
    assert 8 * len(encoded.sections[0]) <= most * entropy_bits


def test_wide_gaps_are_taken_where_they_are_smaller() -> None:
    encoded = encode(heavy_tailed(3_000_000), CodecId.SPARSE, density=0.0005)
    assert encoded.flags & 1
    assert decode(encoded).to_vector()[largest(heavy_tailed(3_000_000), 1500)].all()


SEGMENTS = (slice(100, 200), slice(4000, 4010), slice(4990, 5000))


@settings(deadline=None, max_examples=50)
@given(vector=vectors(5000, 5000), density=st.sampled_from([0.001, 0.05]))
def test_segments_travel_whole_beside_the_sparse_rest(vector: Vector, density: float) -> None:
    encoded, residual = encode_with_residual(vector, CodecId.SPARSE, density=density, dense=SEGMENTS[::-1])
    decoded = decode(encoded)
    assert np.array_equal(decoded.to_vector() + residual, vector)
    for where in SEGMENTS:
        least = np.maximum(np.abs(vector[where]) * 2.0**-7, 1e-38)
        assert (np.abs(residual[where]) <= least).all()
    assert decoded.norm == pytest.approx(float(np.linalg.norm(decoded.to_vector().astype(np.float64))), rel=1e-6)


def test_segments_alone_need_no_sparse_value() -> None:
    vector = np.zeros(5000, np.float32)
    vector[:200] = 1.5
    encoded = encode(vector, CodecId.SPARSE, dense=(slice(0, 150), slice(150, 200)))
    assert np.array_equal(decode(encoded).to_vector(), vector)


def test_segments_that_are_the_whole_vector_are_sent_as_bfloat16() -> None:
    assert encode(heavy_tailed(5000), CodecId.SPARSE, dense=(slice(0, 5000),)).codec is CodecId.BFLOAT16


@pytest.mark.parametrize(("density", "vectors_of_memory"), [(0.01, 0.25), (0.05, 0.6), (0.2, 2.2)])
def test_encoding_a_large_vector_takes_memory_for_what_is_sent_only(density: float, vectors_of_memory: float) -> None:
    vector = heavy_tailed(4_000_000)
    tracemalloc.start()
    encode(vector, CodecId.SPARSE, density=density)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= vectors_of_memory * vector.nbytes


@pytest.mark.parametrize("wide", [False, True])
def test_the_last_position_may_be_the_vectors_last_and_not_one_further(wide: bool) -> None:
    raw = b"".join(write_gaps(np.array([3, 70_998, 70_999]), wide=wide))
    assert positions_of(read_gaps(raw, 3, 71_000, kernels_of_size(71_000), wide=wide), 3).tolist() == [
        3,
        70_998,
        70_999,
    ]
    with pytest.raises(WireError, match="behind the end"):
        read_gaps(raw, 3, 70_999, kernels_of_size(70_999), wide=wide)
