"""The fold is the published averages where the published assumptions hold (conformance 1, 2, 3 and 10)."""

import numpy as np
import pytest

from tests.folding import Bench, scrambled, vector

COHORT = 8
SIZE = 300


def one_round(bench: Bench, examples: list[int], deltas: list[np.ndarray]) -> None:
    for i, (n, delta) in enumerate(zip(examples, deltas, strict=True)):
        bench.send(f"w-{i}", delta, num_examples=n)
    bench.step()


def test_a_fresh_cohort_without_corrections_is_federated_averaging_bit_for_bit() -> None:
    """McMahan et al. 2017, arXiv:1602.05629, algorithm 1: w ← Σ (n_k / n) w_k, in deltas; K is the cohort, τ = 0."""
    first = scrambled(SIZE, seed=1)
    bench = Bench.of(first, rule="fedbuff", buffer_size=COHORT, counting="examples")
    examples = [3, 11, 7, 40, 5, 23, 9, 2]
    one_round(bench, examples, [scrambled(SIZE, seed=10 + i) for i in range(COHORT)])
    before = bench.state.x.copy()
    deltas = [scrambled(SIZE, seed=20 + i) for i in range(COHORT)]

    one_round(bench, examples, deltas)

    mean = np.zeros(SIZE, dtype=np.float32)
    for n, delta in zip(examples, deltas, strict=True):
        mean += np.float32(n / sum(examples)) * delta
    assert bench.state.x.tobytes() == (before + mean).tobytes()


def test_a_cohort_that_counts_equally_is_averaged_from_its_very_first_buffer() -> None:
    first = scrambled(SIZE, seed=1)
    bench = Bench.of(first, buffer_size=COHORT)
    deltas = [scrambled(SIZE, seed=20 + i) for i in range(COHORT)]

    one_round(bench, [5, 500, 1, 70, 8, 9, 10, 11], deltas)

    mean = np.zeros(SIZE, dtype=np.float32)
    for delta in deltas:
        mean += np.float32(1 / COHORT) * delta
    assert bench.state.x.tobytes() == (first + mean).tobytes()


@pytest.mark.parametrize("rule", ["fedbuff", "fedasync"])
def test_single_updates_without_weights_are_plain_asynchronous_sgd(rule: str) -> None:
    """Nguyen et al. 2022, arXiv:2106.06639, algorithm 1 with K = 1; each update is added whole, however old."""
    first = scrambled(SIZE, seed=1)
    bench = Bench.of(first, rule=rule, buffer_size=1, staleness="constant", fedasync_mixing=1.0)
    expected = first.copy()
    for i in range(30):
        delta = scrambled(SIZE, seed=100 + i)
        bench.send(f"w-{i % 4}", delta, base=max(0, bench.version - i % 5))
        bench.step()
        expected += delta
    assert bench.state.x.tobytes() == expected.tobytes()
    assert bench.version == 30


def test_fedasync_mixes_a_delta_in_by_its_staleness() -> None:
    """Xie et al. 2019, arXiv:1903.03934, section 4: α_t = α s(t − τ), here x ← x + α_t Δ with s = (1 + τ)^-½."""
    bench = Bench.of(vector(0, 0), rule="fedasync", fedasync_mixing=0.5, buffer_size=10)
    assert bench.send("a", vector(8, -8)).decision.weight == 0.5
    bench.step()
    for _ in range(2):
        bench.send("b", vector(0, 0))
        bench.step()
    assert bench.send("a", vector(8, 0), base=0).decision.weight == 0.25
    bench.step()
    assert bench.state.x.tolist() == [6.0, -4.0]


def test_ten_clients_with_a_step_each_are_one_client_with_all_their_data() -> None:
    """One full-batch step on the mean loss is linear in the data: mean of gradients = gradient of the whole."""
    draws = np.random.default_rng(3)
    inputs, weights = draws.standard_normal((10, 40, 20)), draws.standard_normal(20)
    targets = inputs @ weights + 0.1 * draws.standard_normal((10, 40))
    rate, first = 0.05, np.zeros(20, np.float32)

    def gradient(x: np.ndarray, where: np.ndarray, what: np.ndarray) -> np.ndarray:
        return where.T @ (where @ x.astype(np.float64) - what) / len(what)

    bench = Bench.of(first, buffer_size=10)
    alone = first.astype(np.float64)
    for _ in range(20):
        x = bench.state.x.copy()
        for i in range(10):
            local = (x - rate * gradient(x, inputs[i], targets[i])).astype(np.float32)
            bench.send(f"w-{i}", local - x, num_examples=40)
        bench.step()
        alone -= rate * gradient(alone, inputs.reshape(-1, 20), targets.reshape(-1))
    assert np.linalg.norm(bench.state.x - alone) <= 1e-6 * np.linalg.norm(alone)
    assert np.linalg.norm(alone - weights) < 0.5 * np.linalg.norm(weights)


def test_the_divisor_never_falls_below_the_buffer_size() -> None:
    """A deadline in a quiet hour must not make an update heavier: x ← x + η_g / max(K, count) Σ w Δ."""
    bench = Bench.of(vector(0), buffer_size=10)
    bench.send("a", vector(10))
    bench.send("b", vector(20))
    bench.step()
    assert bench.state.x.tolist() == [3.0]


def test_a_backlog_is_averaged_over_all_that_it_held() -> None:
    bench = Bench.of(vector(0), buffer_size=2, backlog_buffer_size=4)
    for name in "abcd":
        bench.send(name, vector(4))
    bench.step()
    assert bench.state.x.tolist() == [4.0]


def test_weights_are_not_divided_by_their_sum() -> None:
    """Dividing by Σ w instead of K would give every lone update the same force and undo every correction."""
    bench = Bench.of(vector(0), rule="fedbuff", buffer_size=1)
    for _ in range(3):
        bench.send("a", vector(0))
        bench.step()
    bench.send("b", vector(8), base=0)
    bench.step()
    assert bench.state.x.tolist() == [4.0]


def test_server_momentum_is_fedavgm() -> None:
    """Hsu et al. 2019, arXiv:1909.06335, section 4.3: v ← β v + Δ; x ← x + v."""
    bench = Bench.of(vector(0), buffer_size=1, server_optimizer="momentum", server_momentum=0.5)
    path = []
    for _ in range(3):
        bench.send("a", vector(1))
        bench.step()
        path.append(bench.state.x[0])
    assert path == [1.0, 2.5, 4.25]


def test_the_server_learning_rate_multiplies_the_mean() -> None:
    bench = Bench.of(vector(0), buffer_size=2, server_learning_rate=0.5)
    bench.send("a", vector(4))
    bench.send("b", vector(8))
    bench.step()
    assert bench.state.x.tolist() == [3.0]
