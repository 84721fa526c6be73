"""What every codec promises: what is decoded and what is left over make the vector, exactly, and nothing is touched."""

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_topics.codecs import CodecId, check_fits, decode, dense_segments, encode, encode_with_residual
from broker_topics.errors import ConfigError, InvariantError, RejectCode, WireError
from broker_topics.layout import Layout, Tensor, Vector
from tests.unit.codec_vectors import LARGEST, heavy_tailed, vectors

EVERY_CODEC = pytest.mark.parametrize("codec", list(CodecId), ids=lambda codec: codec.name)


@EVERY_CODEC
@settings(deadline=None, max_examples=150)
@given(vector=vectors(), density=st.sampled_from([0.001, 0.01, 0.1, 0.2]))
def test_decoded_plus_residual_is_the_vector_exactly(codec: CodecId, vector: Vector, density: float) -> None:
    """Conformance 5; EF14, Stich et al. 2018, arXiv:1809.07599, algorithm 1."""
    before = vector.tobytes()
    encoded, residual = encode_with_residual(vector, codec, density=density)
    decoded = decode(encoded).to_vector()
    assert np.isfinite(decoded).all()
    assert np.array_equal(decoded + residual, vector)
    assert vector.tobytes() == before


@EVERY_CODEC
@settings(deadline=None, max_examples=50)
@given(vector=vectors())
def test_the_norm_is_that_of_the_decoded_values(codec: CodecId, vector: Vector) -> None:
    decoded = decode(encode(vector, codec, density=0.1))
    assert math.isclose(decoded.norm, float(np.linalg.norm(decoded.to_vector().astype(np.float64))), rel_tol=1e-6)


@EVERY_CODEC
def test_the_same_vector_gives_the_same_bytes(codec: CodecId) -> None:
    vector = heavy_tailed(40_000)
    assert encode(vector, codec) == encode(vector.copy(), codec)


@EVERY_CODEC
def test_adding_with_a_weight_is_float32_arithmetic_element_by_element(codec: CodecId) -> None:
    decoded = decode(encode(heavy_tailed(70_001), codec))
    accumulator = heavy_tailed(70_001, seed=1)
    values, weight = decoded.to_vector(), np.float32(0.3)
    expected = accumulator.copy()
    expected[values != 0] += (weight * values)[values != 0]
    decoded.add_to(accumulator, 0.3)
    assert accumulator.tobytes() == expected.tobytes()


@EVERY_CODEC
def test_an_accumulator_of_another_size_or_type_is_our_own_mistake(codec: CodecId) -> None:
    decoded = decode(encode(heavy_tailed(2000), codec))
    for accumulator in (np.zeros(1999, np.float32), np.zeros((1, 2000), np.float32), np.zeros(2000, np.float64)):
        with pytest.raises(InvariantError):
            decoded.add_to(accumulator)  # type: ignore[arg-type]


@EVERY_CODEC
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("size", [1, 1024, 200_000])
def test_a_vector_that_is_not_finite_is_not_written(codec: CodecId, bad: float, size: int) -> None:
    vector = heavy_tailed(size)
    vector[-1] = bad
    with pytest.raises(WireError) as caught:
        encode(vector, codec)
    assert caught.value.code is RejectCode.NON_FINITE


@EVERY_CODEC
@pytest.mark.parametrize("size", [1, 255, 256, 257, 1024, 66_000])
def test_a_vector_of_zeros_comes_back_as_zeros(codec: CodecId, size: int) -> None:
    decoded = decode(encode(np.zeros(size, np.float32), codec))
    assert not decoded.to_vector().any()
    assert decoded.norm == 0


@EVERY_CODEC
def test_the_largest_numbers_stay_finite(codec: CodecId) -> None:
    vector = np.full(2000, LARGEST, np.float32)
    vector[::3] *= -1
    encoded, residual = encode_with_residual(vector, codec)
    assert np.array_equal(decode(encoded).to_vector() + residual, vector)


@EVERY_CODEC
def test_only_flat_float32_vectors_are_written(codec: CodecId) -> None:
    for vector in (np.zeros(2000), np.zeros((2, 1000), np.float32), np.zeros(0, np.float32)):
        with pytest.raises(ConfigError, match="flat float32"):
            encode(vector, codec)  # type: ignore[arg-type]


@EVERY_CODEC
def test_a_vector_with_gaps_in_memory_is_written_as_its_copy(codec: CodecId) -> None:
    vector = heavy_tailed(6000)[::2]
    assert encode(vector, codec) == encode(vector.copy(), codec)


def test_float32_loses_nothing() -> None:
    vector = heavy_tailed(70_000)
    assert decode(encode(vector, CodecId.FLOAT32)).to_vector().tobytes() == vector.tobytes()


def test_bfloat16_rounds_to_nearest_even_and_never_to_infinity() -> None:
    vector = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, LARGEST, -LARGEST], np.float32)
    expected = [1.0, 1.015625, 1.0078125, 3.3895313892515355e38, -3.3895313892515355e38]
    assert decode(encode(vector, CodecId.BFLOAT16)).to_vector().tolist() == expected


def test_int8_keeps_a_model_whose_numbers_are_too_small_for_half_precision() -> None:
    vector = heavy_tailed(5000, scale=1e-12)
    encoded, residual = encode_with_residual(vector, CodecId.INT8)
    assert np.linalg.norm(residual / 1e-12) < 0.02 * np.linalg.norm(vector / 1e-12)
    assert encoded.payload_bytes == 5000 + 2 * 20 + 4


def test_int8_scales_every_block_of_256_by_itself() -> None:
    vector = np.concatenate([np.full(256, 1000.0), np.full(256, 1.0)]).astype(np.float32)
    assert decode(encode(vector, CodecId.INT8)).to_vector()[256:] == pytest.approx(1.0, rel=1e-3)


def test_a_dense_codec_that_cannot_fit_is_refused_with_what_mends_it() -> None:
    vector = heavy_tailed(10_000)
    assert encode(vector, CodecId.BFLOAT16, max_bytes=20_000).payload_bytes == 20_000
    with pytest.raises(ConfigError, match="choose codec=sparse"):
        encode(vector, CodecId.BFLOAT16, max_bytes=19_999)
    with pytest.raises(ConfigError, match="40000 bytes for 10000 numbers"):
        check_fits(CodecId.FLOAT32, 10_000, 39_999)
    check_fits(CodecId.SPARSE, 10**9, 1000)


def test_a_sparse_vector_below_1024_numbers_is_sent_dense() -> None:
    assert encode(heavy_tailed(1023), CodecId.SPARSE).codec is CodecId.FLOAT32
    assert encode(heavy_tailed(1023), CodecId.SPARSE, max_bytes=2046).codec is CodecId.BFLOAT16
    assert encode(heavy_tailed(1024), CodecId.SPARSE).codec is CodecId.SPARSE
    with pytest.raises(ConfigError):
        encode(heavy_tailed(1023), CodecId.SPARSE, max_bytes=2045)


@pytest.mark.parametrize("density", [0.0, -0.1, 0.21, float("nan")])
def test_a_density_out_of_range_is_refused(density: float) -> None:
    with pytest.raises(ConfigError, match="density"):
        encode(heavy_tailed(2000), CodecId.SPARSE, density=density)


def test_small_tensors_become_segments_and_neighbours_are_joined() -> None:
    shapes = {"a": (100, 100), "b": (100,), "c": (8,), "d": (100, 10), "e": (3,)}
    layout = Layout(tensors=tuple(Tensor(name=name, shape=shape) for name, shape in shapes.items()))
    assert dense_segments(layout, 100) == (slice(10_000, 10_108), slice(11_108, 11_111))
    assert dense_segments(layout, 0) == ()
    assert dense_segments(layout, 10**6) == (slice(0, 11_111),)


def test_threads_encode_and_decode_at_the_same_time() -> None:
    vector = heavy_tailed(100_000)
    expected = encode(vector, CodecId.SPARSE)
    outcomes: list[bool] = []

    def work() -> None:
        for _ in range(20):
            encoded = encode(vector, CodecId.SPARSE)
            outcomes.append(encoded == expected and decode(encoded).norm == decode(expected).norm)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 80
