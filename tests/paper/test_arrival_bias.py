"""Slow devices count as much as fast ones (conformance 11): the gap form of the arrival correction."""

from collections import defaultdict

import numpy as np
import pytest

from tests.folding import Bench, vector

ZERO = vector(0)


def total_weights(bench: Bench, since: int) -> dict[str, float]:
    totals: dict[str, float] = defaultdict(float)
    for admission in bench.admissions[since:]:
        totals[admission.client_id] += admission.decision.weight
    return totals


def test_two_devices_at_rates_ten_to_one_have_equal_weight_per_unit_of_time() -> None:
    """w = p ḡ / m, ḡ the mean gap between a device's accepted updates in updates of the fleet; ± 5 % once settled."""
    bench = Bench.of(ZERO, buffer_size=10)
    for turn in range(300):
        for _ in range(10):
            bench.send("fast", ZERO)
            bench.when_full()
        bench.send("slow", ZERO)
        bench.when_full()
        if turn == 149:
            settled = len(bench.admissions)
    totals = total_weights(bench, settled)
    assert totals["slow"] == pytest.approx(totals["fast"], rel=0.05)


def test_devices_of_random_speeds_have_equal_weight_per_unit_of_time() -> None:
    draws = np.random.default_rng(7)
    rates = np.array([1.0] * 15 + [0.25] * 5)
    bench = Bench.of(ZERO, buffer_size=20)
    for arrival, client in enumerate(draws.choice(20, size=12_000, p=rates / rates.sum()).tolist()):
        bench.send(f"w-{client}", ZERO)
        bench.when_full()
        if arrival == 3_999:
            settled = len(bench.admissions)
    totals = total_weights(bench, settled)
    fast = np.mean([totals[f"w-{i}"] for i in range(15)])
    slow = np.mean([totals[f"w-{i}"] for i in range(15, 20)])
    assert slow == pytest.approx(fast, rel=0.1)


def test_shares_by_examples_divide_the_total_weight() -> None:
    """p = min(num_examples, cap): a device with three times the examples has three times the weight."""
    bench = Bench.of(ZERO, buffer_size=10, counting="examples", max_examples=300)
    for turn in range(400):
        bench.send("small", ZERO, num_examples=100)
        bench.when_full()
        bench.send("large", ZERO, num_examples=5000)
        bench.when_full()
        if turn == 299:
            settled = len(bench.admissions)
    totals = total_weights(bench, settled)
    assert totals["large"] == pytest.approx(3 * totals["small"], rel=0.01)
    assert sum(totals.values()) == pytest.approx(200, rel=0.05)


def settled_fleet(devices: int) -> Bench:
    bench = Bench.of(ZERO, buffer_size=10)
    for _ in range(100):
        for i in range(devices):
            bench.send(f"w-{i}", ZERO)
            bench.when_full()
    return bench


def test_a_settled_fleet_of_equals_weighs_one_each() -> None:
    bench = settled_fleet(10)
    assert [a.decision.weight for a in bench.admissions[-10:]] == pytest.approx([1.0] * 10, abs=0.02)


def test_a_device_that_joins_disturbs_the_others_by_no_more_than_its_share() -> None:
    bench = settled_fleet(10)
    since = len(bench.admissions)
    for _ in range(100):
        for i in range(11):
            bench.send(f"w-{i}", ZERO)
            bench.when_full()
    weights = [a.decision.weight for a in bench.admissions[since:]]
    assert min(weights) > 1 - 1 / 11 - 0.02
    assert max(weights) < 1 + 1 / 11 + 0.02
    assert weights[-11:] == pytest.approx([1.0] * 11, abs=0.02)


def test_a_device_that_leaves_disturbs_the_others_by_no_more_than_its_share() -> None:
    bench = settled_fleet(10)
    since = len(bench.admissions)
    for _ in range(300):
        for i in range(9):
            bench.send(f"w-{i}", ZERO)
            bench.when_full()
    weights = [a.decision.weight for a in bench.admissions[since:]]
    assert min(weights) > 1 - 1 / 10 - 0.02
    assert max(weights) < 1 + 1 / 10 + 0.02
    assert weights[-9:] == pytest.approx([1.0] * 9, abs=0.02)


def test_no_update_moves_the_model_by_more_than_its_own_step() -> None:
    """w_max = K / η_g, whatever the device's rarity; the final product is clipped too."""
    bench = Bench.of(ZERO, buffer_size=3, server_learning_rate=2.0)
    bench.send("rare", ZERO)
    for _ in range(200):
        bench.send("often", ZERO)
        bench.when_full()
    bench.step()
    assert bench.state.fairness.population * 10 < 200
    assert bench.send("rare", vector(1)).decision.weight == 1.5


def test_an_update_that_contains_more_trainings_is_not_paid_twice() -> None:
    """A rarely heard device has a long gap already: its weight is divided by the work in the update."""
    bench = Bench.of(ZERO, buffer_size=10)
    bench.send("a", ZERO)
    bench.send("b", ZERO)
    assert bench.send("c", ZERO, work=4.0).decision.weight == 0.25


def test_without_the_correction_every_update_weighs_the_same() -> None:
    bench = Bench.of(ZERO, buffer_size=10, arrival_correction=False)
    weights = {bench.send("fast" if i % 5 else "slow", ZERO).decision.weight for i in range(9)}
    assert weights == {1.0}


def test_a_long_absence_counts_as_ten_fleets_at_most() -> None:
    """g = min(u − last, 10 m)."""
    bench = Bench.of(ZERO, buffer_size=10)
    bench.send("rare", ZERO)
    for _ in range(500):
        bench.send("often", ZERO)
        bench.when_full()
    before = bench.state.fairness.population
    bench.send("rare", ZERO)
    assert bench.state.ledger.get("rare").habit.gap == pytest.approx(0.7 * before + 0.3 * 10 * before)
