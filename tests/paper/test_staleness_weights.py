"""What an update from an older model counts (conformance 4)."""

import pytest

from aggregator.fold.staleness import power, staleness_weight
from broker_topics.errors import InvariantError
from broker_topics.task import TaskSettings
from tests.folding import Bench, vector

EVERY_WEIGHT = [
    {"staleness": "constant"},
    {"staleness": "hinge", "hinge_start": 0, "hinge_slope": 3.0},
    {"staleness": "hinge", "hinge_start": 10, "hinge_slope": 0.1},
    *({"staleness": "polynomial", "staleness_exponent": step / 1024} for step in (0, 1, 341, 512, 1023, 1024, 4096)),
]


@pytest.mark.parametrize("settings", EVERY_WEIGHT)
def test_a_fresh_update_weighs_exactly_one(settings: dict[str, object]) -> None:
    assert staleness_weight(TaskSettings(**settings))(0) == 1.0


@pytest.mark.parametrize("rule", ["buffered", "fedbuff"])
@pytest.mark.parametrize("settings", EVERY_WEIGHT)
def test_the_first_fresh_update_of_a_fleet_weighs_exactly_one_in_the_fold(
    rule: str, settings: dict[str, object]
) -> None:
    """Neither 0.5 (the version counted up too early) nor 1.41 (divided by the weight of a staleness of 1)."""
    bench = Bench.of(vector(0), rule=rule, **settings)
    assert [bench.send(name, vector(1)).decision.weight for name in "abc"] == [1.0, 1.0, 1.0]


def test_an_update_three_versions_old_counts_half() -> None:
    """(1 + τ)^-a with a = ½: Nguyen et al. 2022, arXiv:2106.06639, section 5.2."""
    bench = Bench.of(vector(0), rule="fedbuff", buffer_size=1)
    for _ in range(3):
        bench.send("a", vector(1))
        bench.step()
    admission = bench.send("b", vector(1), base=0)
    assert (admission.staleness, admission.decision.weight) == (3, 0.5)


def test_the_polynomial_is_the_power_to_rounding() -> None:
    """Xie et al. 2019, arXiv:1903.03934, section 4: s = (1 + τ)^-a."""
    for step in (1, 3, 341, 512, 777, 1024, 1536, 4095):
        weight = staleness_weight(TaskSettings(staleness_exponent=step / 1024))
        for tau in (0, 1, 2, 7, 199, 100_000):
            assert weight(tau) == pytest.approx((1 + tau) ** (-step / 1024), rel=1e-13)


def test_a_power_outside_its_range_is_a_bug() -> None:
    with pytest.raises(InvariantError):
        power(0.5, 512)


def test_the_hinge_takes_nothing_off_up_to_its_start() -> None:
    """Xie et al. 2019, section 4: 1 if τ ≤ b, else 1 / (a (τ − b) + 1)."""
    weight = staleness_weight(TaskSettings(staleness="hinge", hinge_start=4, hinge_slope=0.5))
    assert [weight(tau) for tau in (0, 4, 5, 6, 10)] == [1.0, 1.0, 1 / 1.5, 0.5, 0.25]


def test_a_device_that_is_always_slow_is_not_punished_for_it() -> None:
    """s(τ) is divided by the device's own running mean: a constant staleness weighs 1."""
    bench = Bench.of(vector(0), buffer_size=1, server_learning_rate=0.1)
    for _ in range(3):
        bench.send("fast", vector(0))
        bench.step()
    for _ in range(20):
        late = bench.send("slow", vector(0), base=bench.version - 3)
        bench.step()
    habit = bench.state.ledger.get("slow").habit
    assert habit.freshness == pytest.approx(0.5, rel=1e-12)
    assert late.decision.weight == pytest.approx(habit.gap / bench.state.fairness.objective, rel=1e-6)


def test_an_update_staler_than_is_usual_for_its_device_counts_less() -> None:
    bench = Bench.of(vector(0), buffer_size=1, server_learning_rate=0.1)
    for _ in range(3):
        bench.send("a", vector(0))
        bench.step()
    usual = bench.send("a", vector(0)).decision.weight
    late = bench.send("a", vector(0), base=0).decision.weight
    assert late == pytest.approx(usual * 0.5 / 0.95, rel=1e-3)


def test_staleness_weighs_in_full_where_it_is_not_relative() -> None:
    bench = Bench.of(vector(0), buffer_size=1, staleness_relative=False, server_learning_rate=0.1)
    for _ in range(3):
        bench.send("a", vector(0))
        bench.step()
    assert bench.send("b", vector(0), base=0).decision.weight == 0.5
