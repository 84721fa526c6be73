"""What the order of updates inside a buffer can and cannot change (conformance 9)."""

import numpy as np
import pytest

from tests.folding import Bench, copied, replayed, scrambled, snapshot

K = 16
SIZE = 400
EPSILON = 2.0**-24


def run(order: list[int]) -> tuple[Bench, list[np.ndarray], np.ndarray]:
    first = scrambled(SIZE, seed=1, scale=3)
    bench = Bench.of(first, rule="fedbuff", buffer_size=K, staleness="constant")
    deltas = [scrambled(SIZE, seed=10 + i) for i in range(K)]
    for i in order:
        bench.send(f"w-{i}", deltas[i])
    bench.step()
    return bench, deltas, first


@pytest.mark.parametrize("seed", range(5))
def test_a_permutation_inside_a_buffer_moves_the_model_by_rounding_only(seed: int) -> None:
    """|x_π − x| ≤ 4 K ε max(|x|, Σ |w Δ| / K), for each coordinate, with weights fixed."""
    straight, deltas, first = run(list(range(K)))
    order = np.random.default_rng(seed).permutation(K).tolist()
    shuffled, _, _ = run(order)
    spread = np.sum([np.abs(delta) for delta in deltas], axis=0) / K
    bound = 4 * K * EPSILON * np.maximum(np.abs(first), spread)
    difference = np.abs(straight.state.x.astype(np.float64) - shuffled.state.x)
    assert (difference <= bound).all()
    assert difference.max() > 0


@pytest.mark.parametrize("seed", range(3))
def test_the_recorded_order_replays_bit_for_bit(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(K).tolist()
    fresh = copied(
        Bench.of(scrambled(SIZE, seed=1, scale=3), rule="fedbuff", buffer_size=K, staleness="constant").state
    )
    bench, _, _ = run(order)
    assert snapshot(replayed(fresh, bench.bodies, bench.frames).state) == snapshot(bench.state)
