"""The gauges of fairness say whether slow devices count as they should."""

import numpy as np
import pytest

from monitoring.fleet import Heard, export, fairness, gini, silent_shares
from monitoring.metrics import Metrics

SLOW_LAST = np.array([1.0] * 9 + [10.0])


def test_a_slow_tenth_that_is_heard_ten_times_less_shows() -> None:
    facts = fairness(
        Heard(
            updates=np.array([10.0] * 9 + [1.0]),
            weights=np.array([10.0] * 9 + [1.0]),
            shares=np.ones(10),
            gaps=SLOW_LAST,
        )
    )
    assert facts.participation["slowest_tenth"] == pytest.approx(1 / 91)
    assert facts.data["slowest_tenth"] == pytest.approx(0.1)
    assert facts.bias == pytest.approx(0.1 - 1 / 91)


def test_weights_that_make_up_for_rarity_leave_no_bias() -> None:
    facts = fairness(
        Heard(updates=np.array([10.0] * 9 + [1.0]), weights=np.full(10, 10.0), shares=np.ones(10), gaps=SLOW_LAST)
    )
    assert facts.bias == 0.0
    assert facts.weight_gini == 0.0
    assert facts.participation["slowest_tenth"] == pytest.approx(1 / 91)


@pytest.mark.parametrize("devices", [0, 1, 2, 3, 19, 20, 21])
def test_every_device_belongs_to_exactly_one_speed(devices: int) -> None:
    facts = fairness(
        Heard(
            updates=np.ones(devices), weights=np.ones(devices), shares=np.ones(devices), gaps=np.arange(float(devices))
        )
    )
    assert sum(facts.participation.values()) == pytest.approx(1.0 if devices else 0.0)
    assert sum(facts.data.values()) == pytest.approx(1.0 if devices else 0.0)


def test_nothing_heard_yet_is_no_division_by_zero() -> None:
    facts = fairness(Heard(updates=np.zeros(4), weights=np.zeros(4), shares=np.ones(4), gaps=np.ones(4)))
    assert facts.participation == {"fastest_tenth": 0.0, "middle": 0.0, "slowest_tenth": 0.0}
    assert facts.weight_gini == 0.0


def test_gini_grows_with_inequality() -> None:
    assert gini(np.array([1.0, 3.0])) == pytest.approx(0.25)
    assert gini(np.array([3.0, 1.0])) == pytest.approx(0.25)


def test_the_gauges_carry_the_facts() -> None:
    metrics = Metrics()
    export(
        metrics,
        fairness(
            Heard(
                updates=np.array([3.0, 1.0]), weights=np.array([3.0, 1.0]), shares=np.ones(2), gaps=np.array([1.0, 3.0])
            )
        ),
    )
    value = metrics.registry.get_sample_value
    assert value("headwater_participation_share", {"speed": "slowest_tenth"}) == 0.25
    assert value("headwater_data_share", {"speed": "slowest_tenth"}) == 0.5
    assert value("headwater_participation_bias") == 0.25


def test_a_device_is_silent_after_five_times_its_usual_distance() -> None:
    shares = silent_shares(gaps=SLOW_LAST, silence=np.array([5.0] * 9 + [51.0]))
    assert shares == {"fastest_tenth": 0.0, "middle": 0.0, "slowest_tenth": 1.0}
    assert silent_shares(gaps=SLOW_LAST, silence=np.array([5.0] * 9 + [50.0]))["slowest_tenth"] == 0.0
    assert silent_shares(gaps=np.zeros(0), silence=np.zeros(0))["slowest_tenth"] == 0.0


def test_the_weight_of_the_slow_is_told_apart_from_how_often_they_are_heard() -> None:
    facts = fairness(
        Heard(updates=np.array([10.0] * 9 + [1.0]), weights=np.full(10, 10.0), shares=np.ones(10), gaps=SLOW_LAST)
    )
    assert facts.weight["slowest_tenth"] == pytest.approx(0.1)
    assert facts.participation["slowest_tenth"] == pytest.approx(1 / 91)
