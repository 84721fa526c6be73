"""Compression loses nothing for good (conformance 5), and the fold adds what was decoded."""

import numpy as np
import pytest

from broker_topics.codecs import CodecId, decode, encode_with_residual
from tests.folding import Bench, scrambled

SIZE = 5000


@pytest.mark.parametrize("codec", [CodecId.BFLOAT16, CodecId.INT8, CodecId.SPARSE], ids=lambda codec: codec.name)
def test_what_was_sent_and_what_was_kept_are_the_old_residual_and_the_delta(codec: CodecId) -> None:
    """EF14, Stich et al. 2018, arXiv:1809.07599, algorithm 1: acc = Δ + e, m = C(acc), e ← acc − m, exactly."""
    residual = np.zeros(SIZE, np.float32)
    for step in range(20):
        whole = scrambled(SIZE, seed=step, scale=0.01) + residual
        encoded, residual = encode_with_residual(whole, codec, density=0.01)
        assert (decode(encoded).to_vector() + residual).tobytes() == whole.tobytes()


@pytest.mark.parametrize("codec", list(CodecId), ids=lambda codec: codec.name)
def test_the_fold_adds_exactly_what_is_decoded(codec: CodecId) -> None:
    encoded, _ = encode_with_residual(scrambled(SIZE, seed=5), codec, density=0.01)
    bench = Bench.of(np.zeros(SIZE, np.float32), buffer_size=1, staleness="constant")
    bench.send("a", encoded)
    bench.step()
    assert np.array_equal(bench.state.x, decode(encoded).to_vector())


def test_sparse_updates_with_error_feedback_arrive_in_full_in_the_end() -> None:
    """Σ sent = Σ Δ − last residual: 1 % a time, yet after many updates nothing but the residual is missing."""
    bench = Bench.of(np.zeros(SIZE, np.float32), rule="fedbuff", buffer_size=1, staleness="constant")
    delta, residual, trained = scrambled(SIZE, seed=9), np.zeros(SIZE, np.float32), np.zeros(SIZE)
    for _ in range(200):
        encoded, residual = encode_with_residual(delta + residual, CodecId.SPARSE, density=0.01)
        bench.send("a", encoded)
        bench.step()
        trained += delta
    assert np.abs(bench.state.x + residual - trained).max() < 1e-3
    assert np.linalg.norm(residual) < 0.5 * np.linalg.norm(trained)
